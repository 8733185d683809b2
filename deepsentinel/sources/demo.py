"""The demo world as a source: a STAC catalog of files, whose scenes are rendered when their pixels are first wanted."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deepsentinel.errors import DeepSentinelError, InputError, ReadError, SourceError
from deepsentinel.files import atomic_folder, cache_dir, folder_bytes, trim_cache
from deepsentinel.progress import progress

from .stac import StacSource

if TYPE_CHECKING:
    from deepsentinel.aoi import Area
    from deepsentinel.world.landscape import Landscape

    from .assets import Item

__all__ = ["WORLD_VERSION", "DemoSource"]

WORLD_VERSION = 1
"""Raised whenever any pixel or item of any seed changes, so that old caches are not mistaken for new ones."""
CACHE_BYTES = 2_000_000_000
IN_USE_S = 180.0
"""A scene that was asked for so recently may still be being read, by this process or another."""
TRIM_EVERY_S = 10.0
"""Looking through the cache takes longer than rendering a scene once it is full, so it is not done after each."""
MIN_SIZE_PX, MAX_SIZE_PX = 256, 8192
_SCENES = "scenes"


class DemoSource(StacSource):
    """An imaginary coast of 16 by 10 km, two years long: offline, without an account, the same on every machine.

    `seed` picks another Earth, `size_px` the width of its two tiles in 10 m pixels. Everything lies in the cache folder
    (`DEEPSENTINEL_CACHE` moves it) and never takes more than 2 GB there.

    >>> source = DemoSource(size_px=256)
    >>> len(source.search(source.area, "2018-06-01", "2018-06-30")) > 10
    True
    """

    def __init__(self, seed: int = 0, size_px: int = 1024) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed={seed!r}: a demo world is numbered from 0 up.")
        if isinstance(size_px, bool) or not isinstance(size_px, int) or not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
            raise InputError(f"size_px={size_px!r}: tiles are {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels wide.")
        if size_px % 4:
            raise InputError(f"size_px={size_px}: it must be a multiple of 4, so that 10 and 20 m pixels nest.")
        self.seed, self.size_px = seed, size_px
        self.folder = cache_dir("demo") / f"seed{seed}-{size_px}-v{WORLD_VERSION}"
        self._land: Landscape | None = None
        self._building = Lock()
        self._rendering: dict[str, Lock] = {}
        self._fresh: dict[str, float] = {}
        self._trimmed = 0.0
        self._ensure_catalog()
        super().__init__(self.folder, name="demo")

    def __reduce__(self) -> tuple[type[DemoSource], tuple[int, int]]:
        """A worker process makes its own: the same world, in its own cache if it has another."""
        return type(self), (self.seed, self.size_px)

    @property
    def area(self) -> Area:
        """A good place to start: the square of 2.56 km with most to see in it, in the overlap of both tiles."""
        from deepsentinel.aoi import square

        from .demo_catalog import AREA_KEY

        self._ensure_catalog()
        lon, lat, size_m = json.loads((self.folder / "catalog.json").read_text())[AREA_KEY]
        return square(lon, lat, size_m)

    @property
    def extent(self) -> Area:
        """The ground of the whole world, both tiles: what to draw points from when `area` is too small to be split.

        >>> source = DemoSource(size_px=256)
        >>> round(source.extent.width_km), round(source.area.width_km)
        (4, 1)
        """
        import shapely

        from deepsentinel.aoi import area

        scenes = self.search(self.area, sensors=("S2",))
        return area(shapely.union_all(scenes.drop_duplicates("tile").geometry.to_numpy()))

    @property
    def labels(self) -> Mapping[str, Path]:
        """Files of labels: corine, osm, parcels_2018, parcels_2019, and class and land cover maps by year and tile."""
        from .demo_catalog import catalog_paths

        return MappingProxyType(catalog_paths(self.folder))

    def info(self) -> str:
        """What it is, in a line."""
        return (
            f"seed={self.seed}, size_px={self.size_px}: an imaginary coast, Sentinel-1 and Sentinel-2 of 2018 and 2019"
        )

    def patch_attrs(self) -> dict[str, Any]:
        """Patches of the demo world say which world they are of."""
        return {"seed": self.seed}

    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """The path of an asset, its scene rendered if nobody has asked for it yet."""
        folder = self.folder / _SCENES / str(item["id"])
        path = Path(href)
        if path.parent != folder:
            return href
        self._ensure_scene(folder)
        if not path.is_file():
            raise ReadError(
                f"{path.name} is not among the files of {item['id']} in the demo world. Ask for another band."
            )
        return href

    def _ensure_catalog(self) -> None:
        if (self.folder / "catalog.json").is_file():
            return
        from .demo_catalog import BUILD_STEPS, write_catalog

        # A folder without a catalog is what a deleted cache leaves behind while somebody still reads.
        shutil.rmtree(self.folder, ignore_errors=True)
        # Two processes may build at once: both write the same, the first to finish wins.
        with self._writing(), atomic_folder(self.folder, sync=False) as folder:
            steps = write_catalog(folder, self.seed, self.size_px)
            for _ in progress(steps, total=BUILD_STEPS, what="building this Earth, once", unit="step"):
                pass

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A cache that cannot be written is the user's to move: say how."""
        try:
            yield
        except DeepSentinelError:
            raise
        except (OSError, RuntimeError) as error:  # pyogrio's are RuntimeErrors
            raise SourceError(
                f"The demo world cannot be written to {self.folder}: {error}. Make room there, or set the environment "
                "variable DEEPSENTINEL_CACHE to a folder that can be written."
            ) from error

    def _landscape(self) -> Landscape:
        with self._building:
            if self._land is None:
                from deepsentinel.world.landscape import Landscape

                from .demo_catalog import LANDSCAPE_FILE

                self._land = Landscape.load(self.folder / LANDSCAPE_FILE)
            return self._land

    def _ensure_scene(self, folder: Path) -> None:
        """Render a scene unless it is there: once among threads, harmlessly twice among processes, never half."""
        name = folder.name
        with self._building:
            lock = self._rendering.setdefault(name, Lock())
        with lock:
            now = time.time()
            if folder.is_dir():
                # Marks it as used for whoever trims; not on each of its thirteen assets.
                if now - self._fresh.get(name, 0.0) > 5.0:
                    with suppress(OSError):
                        os.utime(folder)
                        os.utime(self.folder)
                    self._fresh[name] = now
                if folder.is_dir():
                    return
            from deepsentinel.world.scenes import scene_by_id

            from .demo_files import write_scene

            self._ensure_catalog()
            land = self._landscape()
            scene = scene_by_id(self.seed, self.size_px, name)
            with self._writing(), atomic_folder(folder, sync=False) as temporary:
                write_scene(temporary, land, scene)
            self._fresh[name] = now
        if time.time() - self._trimmed > TRIM_EVERY_S:
            self._trimmed = time.time()
            self._trim()

    def _trim(self) -> None:
        """Keep all demo worlds together within bounds; this one and scenes lately asked for stay, whatever they take.

        Scenes of all worlds go first, least recently used before others. Whole worlds go where those do not suffice, or
        where there are so many worlds that hardly a scene would find room.
        """
        worlds = self.folder.parent
        limit = time.time() - IN_USE_S
        os.utime(self.folder)
        scenes = list(worlds.glob(f"*/{_SCENES}"))
        rest = folder_bytes(worlds) - sum(map(folder_bytes, scenes))
        if rest > CACHE_BYTES / 2 and trim_cache(worlds, CACHE_BYTES, in_use_since=limit):
            scenes = list(worlds.glob(f"*/{_SCENES}"))
            rest = folder_bytes(worlds) - sum(map(folder_bytes, scenes))
        trim_cache(scenes, max(0, CACHE_BYTES - rest), in_use_since=limit)
        trim_cache(worlds, CACHE_BYTES, in_use_since=limit)
