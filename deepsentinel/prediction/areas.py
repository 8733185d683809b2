"""The ground of a source as pixels that are read a few rows at a time: an area may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from deepsentinel.bands import DTYPES, sensor_of
from deepsentinel.embedding.inputs import Scene
from deepsentinel.embedding.reading import Slabs
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.errors import InputError, NothingFoundError, ReadError, warn
from deepsentinel.grids import grid_coords

# What of an area the best pair may miss without a word.
UNSEEN_SHARE = 0.05
# A look at so many pixels tells which bands there are.
LOOK_PX = 8
# A map that is written as it is made may be of any size.
NO_LIMIT_GB = 1e9


class AreaScene(Scene):
    """A pair or a scene of a source on a grid, of which nothing is held but the rows at work."""

    def __init__(
        self,
        source: Any,
        row: Any,
        grid: GeoBox,
        spec: EncoderSpec,
        *,
        sensors: str = "both",
        mask_clouds: bool = False,
    ) -> None:
        look = _look(source, row, grid)
        held = [str(name) for name in look.data_vars if name in (*spec.s1_bands, *spec.s2_bands, "SCL")]
        # Arrays of one number each, as large as the ground: they take no memory, and are never looked at.
        empty = {
            name: (("y", "x"), np.broadcast_to(np.zeros((), look[name].dtype), tuple(grid.shape))) for name in held
        }
        times = {name: look.coords[name].variable for name in ("s1_time", "s2_time") if name in look.coords}
        template = xr.Dataset(empty, {**grid_coords(grid), **times}, look.attrs)
        masked = mask_clouds and "SCL" in held
        super().__init__(template, spec, sensors=sensors, mask_clouds=masked)
        self._slabs = _Blocks(template[list(self._names())], source, row, grid)


class _Blocks(Slabs):
    """Rows of a source, read ahead."""

    def __init__(self, data: xr.Dataset, source: Any, row: Any, grid: GeoBox) -> None:
        super().__init__(data)
        self.eager = False
        self.source, self.row, self.grid = source, row, grid

    def _load(self, rows: range, columns: range) -> dict[str, np.ndarray]:
        box = self.grid[rows.start : rows.stop, columns.start : columns.stop]
        names = [str(name) for name in self.data.data_vars]
        found = self._read(box, names)
        return {name: found[name] for name in names}

    def _read(self, box: GeoBox, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            patch = self.source.read(self.row, box, bands=list(names))
        except ReadError as error:
            # An area may reach beyond a scene, where that has nothing; any other trouble is trouble.
            if "do not touch" not in str(error):
                raise
            sensors = {sensor: [name for name in names if sensor_of(name) == sensor] for sensor in ("S1", "S2")}
            if all(sensors.values()):
                return self._read(box, sensors["S1"]) | self._read(box, sensors["S2"])
            return {name: np.full(tuple(box.shape), _nodata(name), DTYPES.get(name, "float32")) for name in names}
        return {name: patch[name].to_numpy() for name in names}


def _nodata(name: str) -> float:
    return np.nan if DTYPES.get(name, "float32") == "float32" else 0


def _look(source: Any, row: Any, grid: GeoBox) -> xr.Dataset:
    """A few pixels, which tell bands, times and provenance."""
    rows, columns = (int(size) for size in grid.shape)
    down, across = max(0, rows // 2 - LOOK_PX // 2), max(0, columns // 2 - LOOK_PX // 2)
    found = source.read(row, grid[down : min(rows, down + LOOK_PX), across : min(columns, across + LOOK_PX)])
    assert isinstance(found, xr.Dataset)
    return found


def grid_for(aoi: Any, resolution: float, *, streamed: bool) -> GeoBox:
    """The grid of the map of an area."""
    from deepsentinel.aoi import geobox

    if aoi is None:
        raise InputError("A source needs an area: ds.predict(model, source, aoi, start=..., end=...).")
    return geobox(aoi, resolution, max_gb=NO_LIMIT_GB) if streamed else geobox(aoi, resolution)


def best_row(source: Any, aoi: Any, start: Any, end: Any, sensors: Sequence[str]) -> Any:
    """The pair, or the scene of one sensor, that shows an area best; what is tried first comes first in `sensors`.

    sensors: "both", "s1" and "s2", of which the first that can be had is taken.
    """
    from deepsentinel.pairing import pair, select

    wanted = ("S1", "S2") if "both" in sensors else tuple(mode.upper() for mode in sensors)
    scenes = source.search(aoi, start, end, sensors=wanted)
    problem: NothingFoundError | None = None
    for mode in sensors:
        try:
            found = (
                _best_pair(pair, scenes, aoi)
                if mode == "both"
                else select(scenes, aoi=aoi, n=1, sensor=mode.upper()).iloc[0]
            )
        except NothingFoundError as error:
            problem = problem or error
            continue
        if float(found["overlap"]) < 1 - UNSEEN_SHARE:
            warn(
                f"The best of what was found covers {100 * float(found['overlap']):.0f} % of the area; the rest will "
                "be 0. Predict parts of the area by themselves, or choose other dates."
            )
        return found
    raise problem or NothingFoundError("Nothing was found over the area; search a longer period.")


def _best_pair(pair: Any, scenes: Any, aoi: Any) -> Any:
    pairs = pair(scenes, aoi=aoi, best="place") if len(scenes) and scenes["sensor"].nunique() == 2 else scenes[:0]
    if not len(pairs):
        raise NothingFoundError(
            f"No Sentinel-1 and Sentinel-2 scene over the area are within 3 days of each other, among {len(scenes)} "
            "scenes. Search a longer period, or pass row= with a pair of your own."
        )
    return pairs.iloc[0]
