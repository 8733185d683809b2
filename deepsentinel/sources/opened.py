"""The line of Python that opens a source again, so that whoever was handed one can say how it came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .addresses import shown

Given = ParamSpec("Given")
Found = TypeVar("Found")

# Options that hold secrets by these words in their names: whoever runs the line has them from where they are kept.
SECRET = ("credential", "key", "password", "secret", "token")
PLAIN = (str, int, float, bool, type(None))


def remembered(opening: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same function, whose sources have the line that opens them in `opened`; "" where none can be written."""

    @wraps(opening)
    def opened(*args: Given.args, **options: Given.kwargs) -> Found:
        source = opening(*args, **options)
        # A source is opened through another name now and then: what somebody wrote comes last, and stays.
        vars(source)["opened"] = line_of(args[0] if args else None, options)
        return source

    return opened


def line_of(name: Any, options: Mapping[str, Any]) -> str:
    """The line, without what is secret in it; "" for what is only in memory, or an address that is itself a secret.

    >>> line_of("demo", {"size_px": 256}), line_of(Path("catalog.json"), {"assets": {"B02": "blue"}})
    ("ds.open_source('demo', size_px=256)", "ds.open_source('catalog.json', assets={'B02': 'blue'})")
    >>> line_of("https://example.org/stac", {"token": "abc"}), line_of("https://example.org/stac?key=abc", {})
    ("ds.open_source('https://example.org/stac')", '')
    """
    open_options = {key: value for key, value in options.items() if not any(word in key.lower() for word in SECRET)}
    if not isinstance(name, str | Path) or not all(map(_shown, [str(name), *open_options.values()])):
        return ""
    words = [repr(str(name)), *(f"{key}={_plain(value)!r}" for key, value in open_options.items())]
    return f"ds.open_source({', '.join(words)})"


def _shown(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_shown(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return all(map(_shown, value))
    if isinstance(value, str) and "://" in value:
        # Signatures stand behind a question mark, passwords before the host.
        return shown(value) == value
    return isinstance(value, (*PLAIN, Path))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
