"""Earth Engine on this machine, asked by its real client: the demo world's scenes under Earth Engine's names.

The numbers are the demo world's; only what they are called differs (sigma0), as it does in the real service.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ee
from ee_server import PROJECT, EarthEngine, initialise, served
from source_kinds import S2, Kind, World

import deepsentinel as ds


def _open(world: World, folder: Path, stack: ExitStack) -> Any:
    service = stack.enter_context(served(EarthEngine(world)))
    initialise(service.url)
    stack.callback(ee.Reset)
    return ds.open_source("earth-engine", project=PROJECT)


KIND = Kind(
    "earth-engine",
    _open,
    same_numbers=(*S2, "VV", "VH"),
    keeps_ids=False,
    backscatter="sigma0",
    native_only=True,
)
