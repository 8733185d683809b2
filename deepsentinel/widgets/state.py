"""What a map and its panels share: named things, and for each the line of Python that made it.

A panel never computes. It asks the state to run a line, such as `ds.pair(scenes, aoi=aoi, max_days=3)`, in which other
things of the state go by their names. The line that runs is the line that is shown: `State.code` puts them together as
a cell that does the same without any widget.
"""

from __future__ import annotations

import ast
import builtins
import string
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import deepsentinel as ds
from deepsentinel.errors import InputError

FIRST_LINE = "import deepsentinel as ds"
# In place of a name: whoever watches this hears of everything.
ANY = "*"


@dataclass(frozen=True)
class Made:
    """One thing of the state."""

    value: Any
    """The thing itself."""
    code: str
    """The expression that makes it."""
    of: Mapping[str, Made]
    """What it was made of, as that was then."""


class State:
    """Things by name, made of one another. What a thing was made of has changed: the thing is gone.

    >>> state = State()
    >>> state.put("aoi", (2.0, 48.0, 2.1, 48.1))
    >>> grid = state.do("grid", "ds.geobox(aoi, resolution={metres})", metres=20)
    >>> print(state.code("grid"))
    import deepsentinel as ds
    <BLANKLINE>
    aoi = (2.0, 48.0, 2.1, 48.1)
    grid = ds.geobox(aoi, resolution=20)
    >>> state.put("aoi", (3.0, 48.0, 3.1, 48.1))
    >>> state["grid"] is None
    True
    """

    def __init__(self) -> None:
        self._made: dict[str, Made] = {}
        self._watching: dict[str, list[Callable[[Any], object]]] = {}
        # Jobs put their results in from other threads.
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> Any:
        """A thing, or None while there is none."""
        made = self._made.get(name)
        return None if made is None else made.value

    def __contains__(self, name: str) -> bool:
        return name in self._made

    def latest(self, *names: str) -> Any:
        """Of these things the one that was made last, or None while there is none of them."""
        with self._lock:
            return next((made.value for name, made in reversed(self._made.items()) if name in names), None)

    def put(self, name: str, value: Any, code: str | None = None) -> None:
        """A thing from outside: what a person drew, or a script handed in; `code` is what it is called there."""
        self._set(name, Made(value, repr(value) if code is None else code, {}))

    def do(self, name: str, line: str, hidden: Mapping[str, Any] | None = None, /, **values: Any) -> Any:
        """Run a line, name what it gives, and tell everybody who watches that name.

        `{word}` in the line stands for one of the values; `hidden` are keyword arguments that the shown line leaves
        out, such as what a panel is told at each step.
        """
        result, made = self.compute(line, hidden, **values)
        self._set(name, Made(result, made.code, made.of))
        return result

    def compute(self, line: str, hidden: Mapping[str, Any] | None = None, /, **values: Any) -> tuple[Any, Made]:
        """Run a line without keeping what it gives: what it is, and how it came about (for `keep`)."""
        wanted = [word for _, word, _, _ in string.Formatter().parse(line) if word is not None]
        if set(wanted) != set(values):
            raise InputError(f"The line {line!r} has the places {wanted}, and these values: {sorted(values)}.")
        # In what runs, values go by names of their own, so that nothing a person typed is ever read as Python.
        runs = line.format(**{word: f"_{word}" for word in wanted})
        tree = ast.parse(runs, mode="eval")
        if hidden:
            assert isinstance(tree.body, ast.Call)
            tree.body.keywords += [ast.keyword(word, ast.Name(f"_{word}", ast.Load())) for word in hidden]
            ast.fix_missing_locations(tree)
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        words = {node.id for node in found if isinstance(node.ctx, ast.Load)}
        with self._lock:
            of = {name: self._made[name] for name in words if name in self._made}
        given = {"ds", *dir(builtins), *(f"_{word}" for word in [*values, *(hidden or {})])}
        given |= {node.id for node in found if isinstance(node.ctx, ast.Store)}
        if lost := sorted(words - set(of) - given):
            raise InputError(f"There is no {lost[0]} yet.")
        names = {name: each.value for name, each in of.items()}
        names |= {f"_{word}": value for word, value in {**values, **(hidden or {})}.items()}
        result = eval(compile(tree, f"<{line}>", "eval"), {"ds": ds, **names})  # our own lines alone
        code = line.format(**{word: repr(values[word]) for word in wanted})
        return result, Made(result, code, of)

    def keep(self, name: str, made: Made) -> bool:
        """Name what was computed, unless what it was made of has changed meanwhile; whether it was kept."""
        with self._lock:
            # Another thing of the same name is a change, too.
            if any(self._made.get(each) is not then for each, then in made.of.items()):
                return False
            gone = self._put(name, made)
        self._tell_all(gone, name)
        return True

    def drop(self, name: str) -> None:
        """Forget a thing and all that was made of it."""
        with self._lock:
            gone = self._forget(name)
        for each in gone:
            self._tell(each)

    def watch(self, name: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Have a function called with the thing whenever it is new or gone (None); returns what ends that."""
        self._watching.setdefault(name, []).append(callback)

        def end() -> None:
            if callback in self._watching[name]:
                self._watching[name].remove(callback)

        return end

    def code(self, *names: str) -> str:
        """A cell that makes these things, or all there are, and nothing that they do not need."""
        with self._lock:
            wanted = set(names or self._made)
            if lost := sorted(wanted - set(self._made)):
                raise InputError(f"There is no {lost[0]} yet.")
            for name in reversed(list(self._made)):
                if name in wanted:
                    wanted |= set(self._made[name].of)
            # Things stand in the order in which they were made, so that each comes after what it needs.
            lines = [f"{name} = {made.code}" for name, made in self._made.items() if name in wanted]
        return "\n".join([FIRST_LINE, "", *lines])

    def line(self, name: str) -> str:
        """The expression that made a thing, or "" while there is none.

        >>> state = State()
        >>> state.put("aoi", (2.0, 48.0, 2.1, 48.1))
        >>> state.line("aoi"), state.line("grid")
        ('(2.0, 48.0, 2.1, 48.1)', '')
        """
        made = self._made.get(name)
        return "" if made is None else made.code

    def close(self) -> None:
        """Let go of everything and everybody."""
        with self._lock:
            self._watching.clear()
            self._made.clear()

    def _set(self, name: str, made: Made) -> None:
        with self._lock:
            gone = self._put(name, made)
        self._tell_all(gone, name)

    def _put(self, name: str, made: Made) -> list[str]:
        gone = self._forget(name)
        self._made[name] = made
        return gone

    def _tell_all(self, gone: list[str], name: str) -> None:
        """Of what is gone, and then of what is new; the lock is not held, for who is told may wait for others."""
        for each in (*(each for each in gone if each != name), name):
            self._tell(each)

    def _forget(self, name: str) -> list[str]:
        """Take a thing and what was made of it away; the names of all that is gone."""
        gone = [name] if self._made.pop(name, None) is not None else []
        for other in [each for each, made in self._made.items() if name in made.of]:
            gone += self._forget(other)
        return gone

    def _tell(self, name: str) -> None:
        for callback in [*self._watching.get(name, ()), *self._watching.get(ANY, ())]:
            callback(self[name])
