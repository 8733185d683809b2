"""What every tab has: a line that says how things are, controls with labels, work beside the kernel, and an end.

    class Pairs(Panel):
        title = "Pair"

        def __init__(self, state, canvas, jobs):
            super().__init__(state, canvas, jobs)
            self.body.children = (self.row(self.button("Read", self.read)),)
            self.watch("patch", self.paint)

        def read(self):
            self.run("patch", "src.read(pairs.iloc[{row}], grid)", row=3, text="Reading")

Callbacks given to these helpers never raise into the void: what they raise is told in the panel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import ipywidgets
import traitlets

from deepsentinel.errors import DeepSentinelError, StoppedError

from .canvas import Canvas
from .closing import close_all
from .jobs import Jobs
from .state import Made, State

HERE = Path(__file__).parent


class Line(anywidget.AnyWidget):
    """One line of text: news, work under way, or what went wrong (an alert to those who listen to the page)."""

    _esm = HERE / "js" / "line.js"
    _css = HERE / "css" / "panel.css"
    text = traitlets.Unicode().tag(sync=True)
    kind = traitlets.Enum(["news", "busy", "error"], default_value="news").tag(sync=True)


class Panel:
    """One tab of the map. It computes nothing: it asks the state to run a line, and shows what that gives."""

    title: ClassVar[str] = ""
    """Of its tab."""
    front: bool = True
    """Whether its tab is the one in front: clicks on the map are meant for that one."""

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        self.state, self.canvas, self.jobs = state, canvas, jobs
        self.line = Line()
        self.body = ipywidgets.VBox()
        """Where a panel puts its rows."""
        self.widget: ipywidgets.Widget = ipywidgets.VBox([self.body, self.line])
        self.widget.add_class("ds-panel")
        self.closed = False
        self._ends: list[Callable[[], object]] = []
        self._busy: list[str] = []
        self._runs: dict[ipywidgets.Button, int] = {}
        self._lock = threading.Lock()

    # -- saying --------------------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """Show a line of news; nothing clears it."""
        self._show(text, "news")

    def complain(self, error: BaseException | str) -> None:
        """Show what went wrong, in the error's own words; what was stopped went as somebody wished."""
        text = str(error)
        if isinstance(error, StoppedError):
            self.say(text)
            return
        if isinstance(error, BaseException) and (not isinstance(error, DeepSentinelError) or not text):
            text = f"{type(error).__name__}: {text}".rstrip(": ")
        self._show(text, "error")

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something is under way, until it is over; what it raises goes on to whoever called."""
        with self._lock:
            self._busy.append(text)
        self._show(text, "busy")
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(text)
                rest = self._busy[-1] if self._busy else ""
            if self.line.kind == "busy":
                self._show(rest, "busy" if rest else "news")

    def progress(self, text: str, now: str) -> None:
        """Say how far a thing is that is `busy` under this text, unless other news stand there."""
        with self._lock:
            mine = bool(self._busy) and self._busy[-1] == text
        if mine and self.line.kind == "busy":
            self._show(now, "busy")

    # -- building ------------------------------------------------------------------------------------------------------

    def button(
        self, text: str, on_click: Callable[[], object], *, tip: str = "", main: bool = False, **traits: Any
    ) -> ipywidgets.Button:
        """A button; `main` for the one that most will want next."""
        made = ipywidgets.Button(
            description=text, tooltip=tip or text, button_style="primary" if main else "", layout={"width": "auto"}
        )
        for name, value in traits.items():
            setattr(made, name, value)
        guarded = self.guard(on_click)
        made.on_click(lambda _: guarded())
        return made

    def control(
        self, kind: type[ipywidgets.Widget], label: str, on_change: Callable[[Any], object] | None = None, **traits: Any
    ) -> ipywidgets.Widget:
        """A control with its label; `on_change` gets each new value, a person's or a script's."""
        made = kind(description=label, **traits)
        if "style" in made.traits() and hasattr(made.style, "description_width"):
            made.style.description_width = "initial"
        if on_change is not None:
            self.listen(made, on_change)
        return made

    def row(self, *children: ipywidgets.Widget) -> ipywidgets.HBox:
        """Controls beside each other, and below where there is no room."""
        made = ipywidgets.HBox(list(children))
        made.add_class("ds-row")
        return made

    def note(self, text: str = "") -> ipywidgets.Label:
        """Small text that goes with something, as it is: no HTML."""
        made = ipywidgets.Label(text)
        made.add_class("ds-note")
        return made

    # -- listening -----------------------------------------------------------------------------------------------------

    def guard(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which tells in the panel what it raises, and does nothing once the panel is closed."""

        @wraps(callback)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.closed:
                return None
            try:
                return callback(*args, **kwargs)
            except Exception as error:  # whatever it was, a person has to see it
                self.complain(error)
                return None

        return guarded

    def listen(self, widget: ipywidgets.Widget, callback: Callable[[Any], object], trait: str = "value") -> None:
        """Call a function with each new value of a trait."""
        guarded = self.guard(callback)
        widget.observe(lambda change: guarded(change["new"]), trait)

    def watch(self, name: str, callback: Callable[[Any], object], *, now: bool = True) -> None:
        """Call a function with a thing of the state whenever it is new or gone (None), and now if it is there."""
        guarded = self.guard(callback)
        self.at_end(self.state.watch(name, guarded))
        if now and name in self.state:
            guarded(self.state[name])

    def at_end(self, end: Callable[[], object]) -> None:
        """Have something called when the panel is closed: `self.at_end(self.canvas.on_click(self.clicked))`."""
        self._ends.append(end)

    # -- doing ---------------------------------------------------------------------------------------------------------

    def run(
        self,
        name: str,
        line: str,
        hidden: Mapping[str, Any] | None = None,
        /,
        *,
        text: str,
        then: Callable[[Any], object] | None = None,
        keep: Callable[[str, Made], bool] | None = None,
        failed: Callable[[BaseException], object] | None = None,
        lost: Callable[[Any], object] | None = None,
        stop: ipywidgets.Button | None = None,
        **values: Any,
    ) -> None:
        """Compute a line of the state beside the kernel, say so, and keep what it gives by this name.

        `then` is called with it once it is kept. What was computed of things that have changed meanwhile is not kept:
        `lost` is called with it in place of `then`, where somebody has to hear of that. Another run of this name takes
        the place of this one. `stop` is a button (of `stopper`) for a line whose function takes `stop=`. `keep` and
        `failed` stand in for the state's `keep` and for `complain`, where not everything that comes is wanted.
        """
        keep = self.state.keep if keep is None else keep
        failed = self.complain if failed is None else failed

        def work(wanted: Callable[[], bool]) -> Any:
            with self.busy(text), self._pressable(stop):
                told = hidden if stop is None else {**(hidden or {}), "stop": wanted}
                return self.state.compute(line, told, **values)

        def done(found: Any) -> None:
            value, made = found
            heard = then if keep(name, made) else lost
            if heard is not None:
                heard(value)

        if self.line.kind == "error":
            self.say()
        self.jobs.start(name, work, done=self.guard(done), failed=self.guard(failed))

    def stopper(self, name: str, text: str, *, tip: str) -> ipywidgets.Button:
        """A button that ends a run of this name on its way; nobody can press it while there is none."""
        return self.button(text, lambda: self.jobs.stop(name), tip=tip, disabled=True)

    @contextmanager
    def _pressable(self, button: ipywidgets.Button | None) -> Iterator[None]:
        if button is None:
            yield
            return
        with self._lock:
            self._runs[button] = self._runs.get(button, 0) + 1
            button.disabled = False
        try:
            yield
        finally:
            with self._lock:
                self._runs[button] -= 1
                # One that took the place of another may still be under way.
                if not self.closed:
                    button.disabled = not self._runs[button]

    def close(self) -> None:
        """Let go of everything: what was listened to, and every widget."""
        if self.closed:
            return
        self.closed = True
        for end in self._ends:
            end()
        self._ends.clear()
        close_all(self.widget)

    def _show(self, text: str, kind: str) -> None:
        if not self.closed:
            # Both at once, so that a page never shows old text in new colours.
            with self.line.hold_sync():
                self.line.kind, self.line.text = kind, text
