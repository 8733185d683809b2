"""Every kind of source that there is, each made to serve the same scenes: the demo world's.

The conformance suite (test_conformance.py) opens each of them and asks for the same: the same rows, the same pairs, and
the same pixels. A new kind of source joins by a file `kind_<name>.py` beside this one, with one object in it:

    KIND = Kind("earth-engine", open_on_a_server, same_numbers=S2_BANDS, backscatter="sigma0", native_only=True)

where `open_on_a_server(world, folder, stack)` builds whatever it needs in `folder` (empty, its own), enters servers on
`stack` (they are stopped afterwards), and returns the opened source. What `world` has to give is said there.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
from fake_services import FakeService, served
from odc.geo.geobox import GeoBox

import deepsentinel as ds
from deepsentinel.bands import S2_L2A_BANDS
from deepsentinel.sources.demo import DemoSource

SIZE_PX = 256
START, END = "2018-06-01", "2018-06-12"
COLLECTIONS = ("sentinel-2-l2a", "sentinel-1-rtc")
S2 = (*S2_L2A_BANDS, "SCL")
S1 = ("VV", "VH", "angle")


@dataclass(frozen=True)
class World:
    """What all of them hold: some days of the demo world, with offsets in half of its optical pixels."""

    demo: DemoSource

    @property
    def area(self) -> Any:
        """In the overlap of both tiles, which lie in two UTM zones."""
        return self.demo.area

    @cached_property
    def scenes(self) -> gpd.GeoDataFrame:
        """The scenes that count: 6 of Sentinel-2 (two processed before the offset came), 8 of Sentinel-1."""
        return self.demo.search(self.area, START, END)

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """Their STAC items, as the catalog has them: hrefs such as ./scenes/<id>/B04.tif."""
        return [item for item in self.all_items if item["id"] in set(self.scenes.id)]

    @cached_property
    def all_items(self) -> list[dict[str, Any]]:
        """Two years of them, for kinds whose server has to filter."""
        files = [self.demo.folder / f"{name}-items.json" for name in COLLECTIONS]
        return [item for file in files for item in json.loads(file.read_text())["features"]]

    def file(self, path: str) -> Path:
        """A file of the catalog by its path in it (scenes/<id>/B04.tif), rendered if need be."""
        parts = path.removeprefix("./").split("/")
        target = self.demo.folder.joinpath(*parts)
        if parts[0] == "scenes" and len(parts) == 3:
            self.demo.resolve(str(target), {"id": parts[1]}, Path(parts[2]).stem)
        return target

    def grid(self, crs: str = "EPSG:32631") -> GeoBox:
        """10 m pixels on the lattice of the products of a zone, over the area."""
        return ds.geobox(self.area, resolution=10, crs=crs)


Opener = Callable[[World, Path, ExitStack], Any]


@dataclass(frozen=True)
class Kind:
    """One kind of source."""

    name: str
    open: Opener
    same_numbers: tuple[str, ...] = (*S2, *S1)
    """Bands that hold what the demo world's do, to the bit."""
    close_numbers: Mapping[str, float] = field(default_factory=dict)
    """Bands whose pixels agree within so much only (say why), and are missing in the same places."""
    sensors: tuple[str, ...] = ("S1", "S2")
    keeps_ids: bool = True
    """Whether scenes go by the demo's ids. Else they are known by sensor, time, tile and CRS."""
    backscatter: str = "gamma0_rtc"
    other_columns: frozenset[str] = frozenset()
    """Columns of the scenes table in which this kind may differ (say why where it is made)."""
    native_only: bool = False
    """Whether pixels must agree on the products' own lattice only: somebody else resamples them elsewhere."""

    def __str__(self) -> str:
        return self.name


# -- the kinds that are here from the start ----------------------------------------------------------------------------


def _demo(world: World, folder: Path, stack: ExitStack) -> Any:
    return DemoSource(size_px=SIZE_PX)


def _files(world: World, folder: Path, stack: ExitStack) -> Any:
    """A catalog of files on disk, which knows of no demo world: all is rendered beforehand."""
    for item in world.items:
        for asset in item["assets"].values():
            world.file(asset["href"])
    return ds.open_source(world.demo.folder / "catalog.json", name="files")


class WorldService(FakeService):
    """The fake service with the demo world behind it: scenes are rendered when their files are asked for."""

    def __init__(self, world: World) -> None:
        super().__init__([], world.demo.folder)
        self.world = world

    def serve(self, stack: ExitStack) -> WorldService:
        stack.enter_context(served(self))
        self.items = [
            {
                **item,
                "assets": {
                    key: {**asset, "href": f"{self.url}/files/{asset['href'].removeprefix('./')}"}
                    for key, asset in item["assets"].items()
                },
            }
            for item in self.world.all_items
        ]
        return self

    def locate(self, path: str) -> Path:
        return self.world.file(path)


def _static_web(world: World, folder: Path, stack: ExitStack) -> Any:
    service = WorldService(world).serve(stack)
    return ds.open_source(f"{service.url}/files/catalog.json", name="static")


def _api(world: World, folder: Path, stack: ExitStack) -> Any:
    return ds.open_source(WorldService(world).serve(stack).url, name="api")


def _signed(world: World, folder: Path, stack: ExitStack) -> Any:
    """Planetary Computer's ways: small pages, and files that open with a token only."""
    import dataclasses
    import re

    from deepsentinel.sources.presets import PLANETARY_COMPUTER
    from deepsentinel.sources.services import SignedSource, TokenSigner

    service = WorldService(world).serve(stack)
    service.files_need_token, service.now = True, time.time()
    signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"))
    preset = dataclasses.replace(PLANETARY_COMPUTER, page_items=5)
    return SignedSource(service.url, preset=preset, signer=signer)


HERE = (
    Kind("demo", _demo),
    Kind("files", _files),
    Kind("static over http", _static_web),
    Kind("api over http", _api),
    Kind("planetary-computer", _signed),
)


def kinds() -> list[Kind]:
    """All of them: those above, and those of the files beside this one."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("kind_*.py"))
    return [*HERE, *(importlib.import_module(name).KIND for name in names)]
