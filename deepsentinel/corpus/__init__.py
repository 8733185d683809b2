"""Patches on disk: planned before they are read, built shard by shard, opened as one Dataset, split and published.

Who is who in this room:

- **planning**: `plan` (what there will be, and in which order) on `places` (points or windows), `tiling` (where windows
  lie), `asked` (what was asked for), `searching` (few searches for many places), `matched` (scenes for places, and
  twins in other sources) with `matching`, `footing` (pairs for a million points) and `series` (all dates of a season),
  `ordering` and `cost`
- **building**: `build` (what is left to do, resumed and finished) with `executors` (threads, processes, dask) and
  `stopping` (Ctrl-C), `worker` (one shard), `reader` (rows to pixels), `masking` (labels to masks) and `reach` (which
  samples they touch), `arrays` (which arrays there are), `samples` (the table and its file); `recipes` builds the two
  sets of the DeepSentinel paper
- **the store**: `layout` (metadata), `shards` (files), `chunks` and `table` (reading them), `remote` (in buckets),
  `store` (one lazy Dataset), `patches` (a sample back as a Patch), `publish`
- **splits**: `splits` with `space`, `blocks`, `times`, `classes`, `ground`, and `audit`
"""

from __future__ import annotations

from typing import Any

# name -> the module it lives in; loaded on first use, as the verbs of the package are.
_NAMES = {
    "Plan": "plan",
    "build_corpus": "build",
    "check_corpus": "checking",
    "labelled": "recipes",
    "load_plan": "plan",
    "open_corpus": "store",
    "parcel_windows": "tiling",
    "patch_of": "patches",
    "plan_corpus": "plan",
    "samples_of": "store",
    "unlabelled": "recipes",
    "windows": "tiling",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
