"""A cell that is run again closes the maps it made before, so that nothing piles up behind a notebook."""

from __future__ import annotations

import weakref
from typing import Any, Protocol


class Closable(Protocol):
    """What a cell made."""

    def close(self) -> None:
        """Let go of everything."""
        ...


# cell -> (which run of it, what that run made)
_MADE: dict[str, tuple[str, list[weakref.ref[Any]]]] = {}


def end_former(made: Closable) -> None:
    """Close what earlier runs of this cell made, and note that this run made this; outside notebooks do nothing."""
    cell, run = here()
    if cell is None:
        return
    before, held = _MADE.get(cell, ("", []))
    if before != run:
        for each in held:
            old = each()
            if old is not None:
                old.close()
        held = []
    _MADE[cell] = run, [*held, weakref.ref(made)]


def here() -> tuple[str | None, str]:
    """The cell that runs now, and this run of it, if whoever runs it says so: JupyterLab and Notebook do."""
    try:
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        message = shell.kernel.get_parent("shell")
        return message["metadata"]["cellId"], message["header"]["msg_id"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None, ""
