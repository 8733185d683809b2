"""Objects of a patch, of a corpus or of an area as one table, in memory and in a file that a GIS opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from deepsentinel.embedding.inputs import Scene
from deepsentinel.errors import InputError, NothingFoundError, warn
from deepsentinel.labels.making import DRIVERS, LONLAT, write_table
from deepsentinel.learn.locating import Locator
from deepsentinel.learn.model import Model
from deepsentinel.progress import progress as shown

from .corpora import OfSample, patch_at
from .results import legend_of, model_told
from .stories import provenance, times_of

if TYPE_CHECKING:
    from .border import Border

COLUMNS = ("ground_truth", "name", "score")
LAYER = "objects"


class Tables:
    """How tables of the objects that a model finds are made."""

    streams = True
    """Whether ground of any size fits in memory."""

    def __init__(self, model: Model, how: dict[str, Any], least_score: float, progress: bool) -> None:
        self.model, self.progress = model, progress
        self.locator = Locator(model, least_score=least_score, **how)

    def of_scene(
        self, scene: Scene, mode: str, out: str | os.PathLike[str] | None, border: Border | None = None
    ) -> gpd.GeoDataFrame:
        """The objects of one piece of ground, in its CRS; of an area with a border those whose middle lies within."""
        target = None if out is None else check_file(out)
        with self.locator as locate:
            found = locate(scene, mode, progress=self.progress)
        if border is not None:
            found = found[border.holds(found.geometry)].reset_index(drop=True)
        times = {name: str(np.datetime64(time, "s")) for name, time in times_of(scene).items()}
        seen = {"sensors": mode, "seen": scene.seen_mode(), "mask_clouds": int(scene.mask_clouds)}
        return self._kept(found, {**provenance(scene), **times, **self._told(), **seen}, target)

    def of_corpus(
        self, corpus: xr.Dataset, of_sample: OfSample, out: str | os.PathLike[str] | None
    ) -> gpd.GeoDataFrame:
        """The objects of all samples, with their number: in the CRS that all share, else in degrees."""
        target = None if out is None else check_file(out)
        count = corpus.sizes["sample"]
        numbers = corpus["sample"].to_numpy() if "sample" in corpus.coords else np.arange(count)
        tables: list[gpd.GeoDataFrame] = []
        modes: set[str] = set()
        todo: Any = range(count)
        with self.locator as locate:
            for at in shown(todo, total=count, what="finding", unit="sample") if self.progress else todo:
                try:
                    scene, mode = of_sample(patch_at(corpus, at))
                except NothingFoundError:
                    continue
                table = locate(scene, mode)
                table.insert(0, "sample", np.full(len(table), numbers[at]))
                tables.append(table)
                modes.add(mode)
        lost = "samples hold no pixels, as building them failed or is still to come"
        if not tables:
            raise NothingFoundError(f"All {count} {lost}.")
        if len(tables) < count:
            warn(f"{count - len(tables)} of {count} {lost}; nothing is found there.")
        crs = tables[0].crs if all(table.crs == tables[0].crs for table in tables) else LONLAT
        filled = [table.to_crs(crs) for table in tables if len(table)] or [tables[0].to_crs(crs)]
        found = gpd.GeoDataFrame(pd.concat(filled, ignore_index=True), geometry="geometry", crs=crs)
        return self._kept(found, {**self._told(), "sensors": modes.pop() if len(modes) == 1 else "mixed"}, target)

    def _told(self) -> dict[str, Any]:
        how = {name: getattr(self.locator, name) for name in ("least_score", "window_px", "overlap")}
        return {**model_told(self.model), "legend": legend_of(self.model).to_json(), **how}

    def _kept(self, found: gpd.GeoDataFrame, told: dict[str, Any], target: Path | None) -> gpd.GeoDataFrame:
        found.attrs = told
        if target is not None:
            write_table(found, target, layer=LAYER, promote_to_multi=True)
        return found


# -- files -------------------------------------------------------------------------------------------------------------


def check_file(out: str | os.PathLike[str]) -> Path:
    """Where a table of objects may be written; an older one is replaced, and nothing else.

    >>> check_file("map.tif")
    Traceback (most recent call last):
    deepsentinel.errors.InputError: Objects are outlines, and map.tif is for none: out= ends in .gpkg, .geojson or ...
    """
    target = Path(out).expanduser()
    if target.suffix.lower() not in DRIVERS:
        raise InputError(
            f"Objects are outlines, and {target.name} is for none: out= ends in .gpkg, .geojson or .parquet."
        )
    if target.is_dir() or (target.exists() and not _is_table(target)):
        raise InputError(f"{target} is no table of objects that predict wrote; choose another name or move it away.")
    return target


def _is_table(file: Path) -> bool:
    """Whether a file holds the columns that ours have, and no other layer."""
    try:
        if file.suffix.lower() == ".parquet":
            import pyarrow.parquet

            names = set(pyarrow.parquet.read_schema(file).names) - {"geometry"}
        else:
            import pyogrio

            if len(pyogrio.list_layers(file)) != 1:
                return False
            names = set(pyogrio.read_info(file)["fields"])
    except (OSError, ValueError, RuntimeError):
        return False
    return names - {"sample"} == set(COLUMNS)
