"""Figures as files: whole or not at all, and of a size that a slide or a paper takes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from deepsentinel.errors import InputError
from deepsentinel.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "svg", "pdf")
DPI = 200


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> Path:
    """Write a figure of `show` as PNG, SVG or PDF, by the ending of the path; returns where it is.

    >>> import tempfile
    >>> import deepsentinel as ds
    >>> save_figure(ds.show((2.0, 48.0, 2.1, 48.1)), tempfile.mkdtemp() + "/area.svg").name
    'area.svg'
    """
    target = Path(path).expanduser()
    kind = target.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise InputError(f"{target.name!r} has none of the endings {', '.join('.' + each for each in KINDS)}; add one.")
    if not hasattr(figure, "savefig"):
        raise InputError(f"A {type(figure).__name__} is no figure; make one with ds.show(...).")
    held = io.BytesIO()
    figure.savefig(held, format=kind, dpi=dpi)
    write_bytes(target, held.getvalue())
    return target.absolute()
