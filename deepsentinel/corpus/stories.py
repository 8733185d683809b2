"""What a corpus tells of its masks, and by what labels that are not the same are known.

A build that goes on with other labels would leave one corpus with two ground truths; so its story holds a fingerprint
of what is burnt.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import shapely

from deepsentinel import __version__
from deepsentinel.errors import InputError

from .layout import Layout
from .masking import Ready

# What a function may name that tells the same in every process.
_PLAIN = (str, int, float, bool, bytes, type(None))


def story_of(ready: Ready) -> dict[str, Any]:
    """One set of masks, for the attributes of the corpus."""
    mask = ready.mask
    told: dict[str, Any] = {"kind": mask.kind, "layers": list(mask.layers), **mask.burn}
    if mask.kind == "raster":
        told["file"] = Path(str(mask.path)).name
    if ready.table is not None:
        told["labels"] = len(ready.table)
    if mask.resolution is not None:
        told["resolution"] = mask.resolution
    if mask.alone:
        told["alone"] = True
    told["fingerprint"] = _fingerprint(ready)
    return {
        key: str(value) if not isinstance(value, str | int | float | list) else value for key, value in told.items()
    }


def check_stories(store: Path, layout: Layout) -> None:
    """Refuse labels that are not those with which the corpus was begun."""
    there = _attrs(store).get("masks")
    if not isinstance(there, dict):
        return
    for name, wanted in layout.attrs["masks"].items():
        # As JSON has them: there are no tuples in a file.
        if name in there and json.loads(json.dumps(wanted)) != there[name]:
            raise InputError(
                f"{store} holds another corpus: it was begun with other labels {name!r} (they, or how they are burnt,"
                " differ). Give the same ones to go on, or name a new folder."
            )


def version_of(store: Path) -> str:
    """The version of the package that began the corpus: a later one goes on with it."""
    return str(_attrs(store).get("version", __version__))


def _attrs(store: Path) -> dict[str, Any]:
    try:
        found = json.loads((store / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # there is none yet, or `create_store` says what is wrong with it
    return found if isinstance(found, dict) else {}


def _fingerprint(ready: Ready) -> str:
    mask, digest = ready.mask, hashlib.sha256()
    if mask.kind == "call":
        digest.update("\n".join(_of_function(mask.make)).encode())
    elif ready.table is not None:
        digest.update(str(ready.table.crs).encode())
        for name in ready.table.columns.drop("geometry"):
            digest.update(name.encode() + np.ascontiguousarray(ready.table[name].to_numpy()).tobytes())
        for shape in shapely.to_wkb(np.asarray(ready.table.geometry.array, dtype=object)):
            digest.update(shape)
    elif Path(str(mask.path)).is_file():
        with Path(str(mask.path)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    else:
        digest.update(str(mask.path).encode())
    return digest.hexdigest()[:16]


def _of_function(make: Any) -> list[str]:
    """The code of a function and the plain values it uses; what else it calls cannot be told."""
    if isinstance(make, partial):
        return [*_of_function(make.func), *map(_plain, make.args), *map(_plain, sorted(make.keywords.items()))]
    code = getattr(make, "__code__", None) or getattr(type(make).__call__, "__code__", None)
    if not isinstance(code, CodeType):
        return [type(make).__qualname__]
    cells = [cell.cell_contents for cell in getattr(make, "__closure__", None) or ()]
    known = getattr(make, "__globals__", {})
    used = [(name, known[name]) for name in code.co_names if name in known]
    return [*_of_code(code), *map(_plain, (*cells, *used, *(getattr(make, "__defaults__", None) or ())))]


def _of_code(code: CodeType) -> list[str]:
    inner = [_of_code(one) if isinstance(one, CodeType) else [_plain(one)] for one in code.co_consts]
    return [code.co_code.hex(), *code.co_names, *(text for texts in inner for text in texts)]


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({','.join(map(_plain, value))})"
    if isinstance(value, set | frozenset):
        return f"{{{','.join(sorted(map(_plain, value)))}}}"
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__
