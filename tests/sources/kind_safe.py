"""Downloaded products: the demo world's scenes as .SAFE folders of JPEG 2000 (some zipped), and radar GeoTIFFs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safe_builders import demo_products, zipped
from source_kinds import S2, Kind, World

import deepsentinel as ds


def _open(world: World, folder: Path, stack: ExitStack) -> Any:
    demo_products(world.demo, world.scenes, folder)
    zipped(next(folder.glob("*_T31UCQ_*.SAFE")))
    return ds.open_source(folder, name="downloads")


KIND = Kind(
    "downloads",
    _open,
    same_numbers=(*S2, "VV", "VH"),
    # A GeoTIFF does not say where in its rectangle there are pixels; optical footprints are compared in test_safe.py.
    other_columns=frozenset({"geometry"}),
)
