from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

import deepsentinel as ds
from deepsentinel.corpus.matched import Wanted, _by_pairs, _twins
from deepsentinel.corpus.places import Places
from deepsentinel.corpus.tiling import around_points
from deepsentinel.grids import transformer


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


def at_a_border(src: Any) -> tuple[Places, gpd.GeoDataFrame, Wanted]:
    """A point just west of zone 32, and granules of both zones: the clearer one, in the next zone, ends just beyond the
    window as it lies in the zone of the point."""
    lon, lat = np.array([5.95]), np.array([60.0])
    own = around_points(lon, lat, ["EPSG:32631"], size_px=256, resolution=10, step=10)
    tight = own.to_crs("EPSG:32632").geometry.iloc[0].convex_hull.buffer(12, join_style="mitre")
    found = src.search(src.area, "2018-05-01", "2018-05-31")
    s1, s2 = (found[found["sensor"] == sensor].iloc[[0, 0]].copy() for sensor in ("S1", "S2"))
    s1 = s1.iloc[[0]].set_geometry([shapely.box(0, 55, 12, 65)], crs=4326).assign(time=s2["time"].iloc[0])
    s2["id"], s2["tile"], s2["crs"], s2["cloud_cover"] = (
        ["S2A_tight", "S2A_wide"],
        ["32VLM", "31VFG"],
        ["EPSG:32632", "EPSG:32631"],
        [0.0, 40.0],
    )
    shapes = [*gpd.GeoSeries([tight], crs="EPSG:32632").to_crs(4326), shapely.box(4, 58, 7, 62)]
    scenes = gpd.GeoDataFrame(pd.concat([s1, s2.set_geometry(shapes, crs=4326)], ignore_index=True), crs=4326)
    wanted = Wanted("2018-05-01", "2018-05-31", ("S1", "S2"), 3.0, None, 1, "best", 0, False, 10.0)
    return Places(np.array([0]), lon, lat, None, 256, 10.0), scenes, wanted


def test_at_a_border_of_zones_both_scenes_hold_the_window_that_is_cut(src: Any) -> None:
    places, scenes, wanted = at_a_border(src)
    askew = places.grids(np.array([0]), ["EPSG:32632"], 10.0)
    assert not scenes.geometry.iloc[1].covers(askew.geometry.iloc[0])
    rows, _ = _by_pairs(places, scenes, wanted)
    assert rows[["s2_id", "crs"]].to_numpy().tolist() == [["S2A_wide", "EPSG:32631"]]
    # Where no granule holds all of it there is no sample.
    rows, reasons = _by_pairs(places, scenes.iloc[:2], wanted)
    assert (len(rows), reasons["position"].tolist()) == (0, [0])
    # One that holds it in either projection is as good as any.
    large = scenes.copy()
    large.loc[1, "geometry"] = shapely.box(5.5, 59.5, 6.5, 60.5)
    rows, _ = _by_pairs(places, large, wanted)
    assert rows["s2_id"].tolist() == ["S2A_tight"]


def test_a_window_that_moves_to_the_lattice_stays_within_its_scenes(src: Any) -> None:
    _, scenes, wanted = at_a_border(src)
    x, y = 660_004.0, 6_600_004.0
    lon, lat = transformer("EPSG:32631", "EPSG:4326").transform(np.array([x]), np.array([y]))
    places = Places(np.array([0]), lon, lat, None, 256, 10.0)
    for wider, count in ((2, 0), (12, 1)):
        around = shapely.box(x - 1280 - wider, y - 1280 - wider, x + 1280 + wider, y + 1280 + wider)
        near = scenes.iloc[[0, 2]].copy()
        near.loc[2, "geometry"] = gpd.GeoSeries([around], crs="EPSG:32631").to_crs(4326).iloc[0]
        assert len(_by_pairs(places, near, wanted)[0]) == count
    moved = places.grids(np.array([0]), ["EPSG:32631"], 10.0)
    assert moved["x0"].tolist() == [x - 1280 - 4]


def test_a_twin_is_the_newest_product_that_holds_the_window(src: Any) -> None:
    places, scenes, wanted = at_a_border(src)
    first, _ = _by_pairs(places, scenes, wanted)
    old, new = (
        f"S2A_MSIL2A_20180501T105031_N{n}_R051_T31VFG_{day}T140000"
        for n, day in (("0208", "20180501"), ("0500", "20230801"))
    )
    there = scenes.iloc[[0, 2, 2]].reset_index(drop=True)
    there["id"] = ["S1_x", old, new]
    there["baseline"] = [None, "02.08", "05.00"]
    there["level"] = [None, "L2A", "L2A"]
    twins, _ = _twins(first, there, "other", 2560)
    assert twins["s2_id"].tolist() == [new]
    # The very same product is the better twin.
    twins, _ = _twins(first.assign(s2_id=old), there, "other", 2560)
    assert twins["s2_id"].tolist() == [old]
    # One that holds its corner alone is none.
    corner = there.copy()
    x, y = transformer("EPSG:32631", "EPSG:4326").transform(first["x0"].iloc[0], first["y0"].iloc[0])
    corner.loc[[1, 2], "geometry"] = shapely.box(x - 0.01, y - 0.01, x + 0.01, y + 0.01)
    twins, lost = _twins(first, corner, "other", 2560)
    assert (len(twins), len(lost)) == (0, 1)
