"""Catalogs of files in every shape, and reading from them: tables from disk, failures, series, many grids."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from fake_services import FakeService
from stac_builders import MADE_AOI, S1_DATES, S2_DATES, item, made_dn, made_grid, write_band, write_catalog

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, NothingFoundError, ReadError, SourceError
from deepsentinel.sources import Failure
from deepsentinel.sources.stac import StacSource

N_SCENES = len(S1_DATES) + len(S2_DATES)
Items = list[dict[str, Any]]


# -- files ------------------------------------------------------------------------------------------------------------


def test_relative_hrefs_nested_catalogs_and_a_moved_folder(coast_items: Items, tmp_path: Path) -> None:
    """catalog -> catalog -> collection -> item, everything relative: the folder can be moved as a whole."""
    before = tmp_path / "before"
    deep = before / "year" / "month"
    deep.mkdir(parents=True)
    items = copy.deepcopy(coast_items)
    for one in items:
        for asset in one["assets"].values():
            shutil.copy(asset["href"], before)
            asset["href"] = f"../../../{Path(asset['href']).name}"
    write_catalog(deep, items)
    root: dict[str, Any] = {"type": "Catalog", "stac_version": "1.0.0", "id": "top", "description": ""}
    root["links"] = [{"rel": "child", "href": "year/month/catalog.json"}]
    (before / "catalog.json").write_text(json.dumps(root))
    after = tmp_path / "after"
    before.rename(after)
    source = ds.open_source(after)
    assert source.name == "top"
    scenes = source.search(MADE_AOI)
    assert len(scenes) == N_SCENES
    assert source.read(scenes[scenes.sensor == "S2"].iloc[0], made_grid(), bands=["B02"])["B02"].max() > 0


def test_collections_that_cannot_match_are_not_opened(coast_items: Items, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, coast_items)
    for path in (tmp_path / "sentinel-1-rtc").glob("S1*.json"):
        path.unlink()  # opening any of these would fail
    source = ds.open_source(catalog)
    assert len(source.search(MADE_AOI, sensors="S2")) == len(S2_DATES)
    assert len(source.search(MADE_AOI, "2020-06-20", "2020-06-30")) == 1, "the radar ends before"
    with pytest.raises(SourceError, match="A catalog links to it"):
        source.search(MADE_AOI)


def test_collections_elsewhere_are_not_opened(coast_items: Items, tmp_path: Path) -> None:
    far = copy.deepcopy(coast_items[0])
    far |= {"collection": "sentinel-2-l2a-far", "bbox": [50, 10, 51, 11]}
    far |= {"id": "S2A_39PTK_20200601_0_L2A", "geometry": shapely.box(50, 10, 51, 11).__geo_interface__}
    catalog = write_catalog(tmp_path, [*coast_items, far])
    (tmp_path / "sentinel-2-l2a-far" / f"{far['id']}.json").unlink()
    assert len(ds.open_source(catalog).search(MADE_AOI)) == N_SCENES


def test_items_read_once(coast_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.sources import catalog

    seen: list[str] = []
    read = catalog.read
    monkeypatch.setattr(catalog, "read", lambda location: seen.append(location) or read(location))
    source = StacSource(coast_catalog)
    for _ in range(2):
        source.search(MADE_AOI)
    assert len(seen) == len(set(seen)) == 3 + N_SCENES


def test_a_static_catalog_on_the_web(service: FakeService, coast_catalog: Path) -> None:
    service.files = coast_catalog.parent
    source = ds.open_source(f"{service.url}/files/catalog.json")
    assert len(source.search(MADE_AOI)) == N_SCENES


def test_names_are_found_in_any_catalog(coast_items: Items) -> None:
    """Keys that say nothing: bands by common name or wavelength, by order in a file, and by the user's word."""
    one = copy.deepcopy(next(i for i in coast_items if i["id"].startswith("S2")))
    href = one["assets"]["B8A"]["href"]
    edge = {"common_name": "rededge", "center_wavelength": 0.704}
    one["assets"] = {
        "img-1": {"href": href, "type": "image/tiff", "eo:bands": [{"name": "x", "common_name": "nir08"}]},
        "img-2": {"href": href, "type": "image/tiff", "bands": [{"name": "y", "eo:common_name": "swir16"}]},
        "img-3": {
            "href": href,
            "type": "image/tiff",
            "eo:bands": [edge],
        },
        "stack": {"href": href, "type": "image/tiff", "eo:bands": [{"name": "B2"}, {"name": "qa"}, {"name": "B4"}]},
        "visual": {"href": href, "type": "image/tiff", "eo:bands": [{"name": "B03"}]},
        "odd": {"href": href, "type": "image/tiff"},
    }
    source = ds.open_source({"type": "FeatureCollection", "features": [one]}, assets={"B12": "odd", "B01": "stack:2"})
    held = {name: (ref.key, ref.band) for name, ref in source.assets_of(one).items()}
    assert held == {
        "B8A": ("img-1", 1), "B11": ("img-2", 1), "B05": ("img-3", 1), "B02": ("stack", 1), "B04": ("stack", 3),
        "B12": ("odd", 1), "B01": ("stack", 2),
    }  # fmt: skip


def test_collections_option_chooses(coast_items: Items) -> None:
    twins = copy.deepcopy(coast_items)
    for one in twins:
        if one["id"].startswith("S2"):
            one["collection"], one["id"] = "sentinel-2-c1-l2a", one["id"] + "_c1"
    both = {"type": "FeatureCollection", "features": coast_items + twins}
    assert len(ds.open_source(both).search(MADE_AOI, sensors="S2")) == 2 * len(S2_DATES)
    for chosen in ({"S2": "sentinel-2-c1-l2a"}, "sentinel-2-c1-l2a", ["sentinel-2-c1-l2a"]):
        found = ds.open_source(both, collections=chosen).search(MADE_AOI)
        assert set(found[found.sensor == "S2"].collection) == {"sentinel-2-c1-l2a"}
        assert (found.sensor == "S1").any()


def test_dates_include_their_whole_end(coast_catalog: Path) -> None:
    source = ds.open_source(coast_catalog)
    day = source.search(MADE_AOI, "2020-06-11", "2020-06-11")
    assert day.id.tolist() == ["S2A_31UDQ_20200611_0_L2A"]
    assert len(source.search(MADE_AOI, "2020-06", "2020-06")) == N_SCENES
    assert len(source.search(MADE_AOI, "2020", None)) == N_SCENES
    east = pd.Timestamp("2020-06-11T12:30:00+02:00").to_pydatetime()
    assert "S2A_31UDQ_20200611_0_L2A" in set(source.search(MADE_AOI, east).id)
    with pytest.raises(NothingFoundError):
        source.search(MADE_AOI, "2020-06-11T11:00:00Z", "2020-06-11T12:00:00Z")


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_table_from_disk_is_enough(coast_catalog: Path, tmp_path: Path) -> None:
    pairs = ds.pair(ds.open_source(coast_catalog).search(MADE_AOI), aoi=MADE_AOI, max_days=3)
    pairs.to_file(tmp_path / "pairs.geojson")
    again = gpd.read_file(tmp_path / "pairs.geojson")
    patch = ds.open_source(coast_catalog).read(again.iloc[0], made_grid(), bands=["B04", "VV"])
    assert patch.attrs["s2_id"] == pairs.s2_id.iloc[0]


def test_lost_scenes_are_named(coast_catalog: Path) -> None:
    source = ds.open_source(coast_catalog)
    with pytest.raises(NothingFoundError, match="holds no S2 scene S2A_nowhere"):
        source.read({"sensor": "S2", "id": "S2A_nowhere"}, made_grid())


def test_read_many_isolates_what_fails(coast_items: Items, tmp_path: Path) -> None:
    """A missing file, a truncated one and a lost scene: three failures that name themselves, and five whole patches."""
    items = copy.deepcopy(coast_items)
    broken = next(i for i in items if i["id"].startswith("S2A_31UDQ_20200611"))
    short = tmp_path / "B04.tif"
    whole = Path(broken["assets"]["B04"]["href"]).read_bytes()
    short.write_bytes(whole[: len(whole) // 2])
    broken["assets"]["B04"]["href"] = str(short)
    missing = next(i for i in items if i["id"].startswith("S2A_31UDQ_20200621"))
    missing["assets"]["B04"]["href"] = str(tmp_path / "not-there.tif")
    source = ds.open_source({"type": "FeatureCollection", "features": items})
    scenes = source.search(MADE_AOI)
    lost = pd.DataFrame([{"id": "S2A_lost", "sensor": "S2"}])
    table = pd.concat([scenes, lost, scenes[scenes.sensor == "S1"]], ignore_index=True)
    got = list(source.read_many(table, made_grid()))
    assert len(got) == len(table)
    failed = {one.s2_id: one for one in got if isinstance(one, Failure)}
    assert set(failed) == {broken["id"], missing["id"], "S2A_lost"}
    assert sum(bool(one) for one in got) == len(table) - 3
    assert "B04" in str(failed[broken["id"]].error)
    assert broken["id"] in str(failed[broken["id"]].error)
    assert "not-there.tif" in str(failed[missing["id"]].error)
    for one in failed.values():
        assert list(table.id)[one.position] == one.s2_id
        with pytest.raises((ReadError, NothingFoundError)):
            one["B04"]
        with pytest.raises((ReadError, NothingFoundError)):
            one.attrs  # noqa: B018
    with pytest.warns(DeepSentinelWarning, match="was left out"):
        assert len(list(source.read_many(table, made_grid(), on_error="skip"))) == len(table) - 3
    with pytest.raises(ReadError, match="20200611"):
        list(source.read_many(table, made_grid(), on_error="raise"))
    # other bands of the broken scenes are as good as ever
    assert all(source.read_many(scenes[scenes.sensor == "S2"], made_grid(), bands=["B03"]))


def test_a_series_leaves_out_what_fails_and_says_so(coast_items: Items, tmp_path: Path) -> None:
    items = copy.deepcopy(coast_items)
    items[1]["assets"]["B04"]["href"] = str(tmp_path / "not-there.tif")
    source = ds.open_source({"type": "FeatureCollection", "features": items})
    scenes = source.search(MADE_AOI)
    with pytest.warns(DeepSentinelWarning, match=f"left out of the series: Scene {items[1]['id']}: B04"):
        series = source.read(scenes, made_grid(), bands=["B04", "VV"])
    assert series.sizes["s2_time"] == len(S2_DATES) - 1
    assert series.sizes["s1_time"] == len(S1_DATES)
    np.testing.assert_array_equal(series["offset_removed"], [0, 1000])
    with pytest.raises(ReadError, match=r"not-there\.tif"):
        source.read(scenes[scenes.id == items[1]["id"]], made_grid(), bands=["B04"])


def test_granules_of_one_pass_are_one_date(tmp_path: Path) -> None:
    """Two tiles of one datatake, half the grid each: a series has one date, its halves put together."""
    items = []
    for n, column in enumerate((0, 48)):
        data = np.full((96, 48), 100 + n, "uint16")
        left = 500_000 + 10 * column
        path = write_band(tmp_path / f"{n}.tif", data, left=left, top=5_450_000, resolution_m=10, nodata=0)
        assets = {"B04": {"href": str(path), "type": "image/tiff"}}
        about = {"s2:processing_baseline": "02.10", "platform": "sentinel-2b", "collection": "sentinel-2-l2a"}
        items.append(item(f"S2B_31UD{'QR'[n]}_20200601_0_L2A", path, f"2020-06-01T10:57:{10 * n:02}Z", assets, **about))
    source = ds.open_source({"type": "FeatureCollection", "features": items})
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    grid = GeoBox((96, 96), from_origin(500_000, 5_450_000, 10, 10), "EPSG:32631")
    series = ds.check_patch(source.read(source.search((2.99, 49.0, 3.2, 49.3)), grid))
    assert series.sizes["s2_time"] == 1
    np.testing.assert_array_equal(series["B04"][0, 0, [0, 47, 48, 95]], [100, 100, 101, 101])
    assert "+" in str(series["s2_id"][0].item())


def test_bands_on_coarser_pixels_come_by_nearest_unless_asked(coast_catalog: Path) -> None:
    source = ds.open_source(coast_catalog)
    row = source.search(MADE_AOI, sensors="S2").iloc[0]
    nearest = source.read(row, made_grid(), bands=["B05", "SCL"])
    smooth = source.read(row, made_grid(), bands=["B05", "SCL"], resampling={"B05": "bilinear"})
    assert set(np.unique(nearest["B05"])) == set(np.unique(made_dn("B05", 0)))
    assert len(np.unique(smooth["B05"])) > len(np.unique(nearest["B05"]))
    np.testing.assert_array_equal(nearest["SCL"], smooth["SCL"])
    everywhere = source.read(row, made_grid(), bands=["B05", "SCL"], resampling="bilinear")
    assert everywhere["B05"].identical(smooth["B05"])
    assert everywhere["SCL"].identical(nearest["SCL"]), "codes have no values in between"


def test_one_row_and_many_grids(coast_catalog: Path) -> None:
    source = ds.open_source(coast_catalog)
    row = source.search(MADE_AOI, sensors="S2").iloc[0]
    grids = [made_grid()[r : r + 32, c : c + 32] for r in (0, 32, 64) for c in (0, 64)]
    whole = source.read(row, made_grid(), bands=["B03", "B11"])
    for grid, patch in zip(grids, source.read_many(row, grids, bands=["B03", "B11"]), strict=True):
        part = whole.sel(y=patch.y, x=patch.x)
        np.testing.assert_array_equal(part["B03"], patch["B03"])
        np.testing.assert_array_equal(part["B11"], patch["B11"])
        assert grid.shape == (32, 32)


def test_the_earth_search_pixels_decide_where_its_flag_cannot(coast_items: Items) -> None:
    """A flag of false on a baseline with the offset: believed only if no pixel contradicts it."""
    for name, removed in (("S2A_31UDQ_20200601_0_L2A", 0), ("S2A_31UDQ_20200611_0_L2A", 1000)):
        one = copy.deepcopy(next(i for i in coast_items if i["id"] == name))
        one["properties"] |= {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
        source = ds.open_source({"type": "FeatureCollection", "features": [one]})
        patch = source.read(source.search(MADE_AOI).iloc[0], made_grid()[60:64, 60:64], bands=["B02"])
        assert patch.attrs["offset_removed"] == removed
        assert "flag" not in patch.attrs["offset_reason"]
        assert "boa_offset_applied is false" in patch.attrs["offset_reason"]
        given = ds.open_source({"type": "FeatureCollection", "features": [one]}, s2_offset=-1000)
        assert given.read({"sensor": "S2", "id": name}, made_grid(), bands=["B02"]).attrs["offset_removed"] == 1000


def test_hh_and_hv_come_where_there_is_no_vv(coast_items: Items) -> None:
    one = copy.deepcopy(next(i for i in coast_items if i["id"].startswith("S1")))
    one["assets"] = {"hh": one["assets"]["vv"], "hv": one["assets"]["vh"]}
    source = ds.open_source({"type": "FeatureCollection", "features": [one]})
    row = source.search(MADE_AOI).iloc[0]
    assert row.polarisations == "HH+HV"
    assert set(ds.check_patch(source.read(row, made_grid())).data_vars) == {"HH", "HV"}


# -- costs ------------------------------------------------------------------------------------------------------------


def test_a_catalog_of_files_needs_no_heavy_import(coast_catalog: Path) -> None:
    code = (
        "import sys, deepsentinel as ds\n"
        f"source, aoi = ds.open_source({str(coast_catalog)!r}), {MADE_AOI!r}\n"
        "pairs = ds.pair(source.search(aoi), aoi=aoi)\n"
        "source.read(pairs.iloc[0], ds.geobox(aoi))\n"
        "source.read(pairs, ds.geobox(aoi))\n"
        # dask itself is missing here: odc.geo imports it wherever it is installed
        "heavy = {'pystac', 'pystac_client', 'requests', 'torch', 'scipy', 'matplotlib', 'odc.geo.xr', 'rioxarray'}\n"
        "print(sorted((heavy | {'dask.array'}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
