"""Real data in the integers that three archives keep them in: each reads to what its documentation says they mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from stac_builders import grid_of, item, write_band

import deepsentinel as ds
from deepsentinel.sources.stac import StacSource

WORLD = (-179, -85, 179, 85)
SSL4EO_S1 = "S1A_IW_GRDH_1SDV_20200607T010800_20200607T010825_032904_03CFBA_D457"
SSL4EO_S2 = "20200604T054639_20200604T054831_T43RCP"


def opened(items: list[dict[str, Any]], **options: Any) -> StacSource:
    return ds.open_source({"type": "FeatureCollection", "features": items}, name="real", **options)


def stored(path: Path, variable: str) -> np.ndarray:
    """A variable of a netCDF file as it is stored, `(time, y, x)`, north at the top."""
    with rasterio.open(f'netcdf:"{path}":{variable}') as file:
        return file.read()


def band_of(path: Path, data: np.ndarray, left: float, top: float, size_m: int, nodata: float) -> Path:
    return write_band(path, data, left=left, top=top, resolution_m=size_m, epsg=32631, nodata=nodata)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_openeo_back_end_keeps_decibels_in_unsigned_integers(real: Path, tmp_path: Path) -> None:
    """dB = 20 log10(DN) - 83: so DN is an amplitude, times 10 ** (83 / 20)."""
    made, wanted = {}, {}
    for name in ("VV", "VH"):
        number = stored(real / "cdse/cdse_sentinel1_grd.nc", f"S1-SIGMA0-{name}")[0]
        path = band_of(tmp_path / f"{name}.tif", number.astype("uint16"), 643_260, 5_676_480, 10, 32_769)
        made[name.lower()] = {"href": str(path), "raster:bands": [{"scale": 10 ** (-83 / 20), "nodata": 32_769}]}
        wanted[name] = 20 * np.log10(number.astype("float64")) - 83
    when = (datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=12_145)).isoformat()
    scene = item("S1A_IW_GRDH_1SDV_20230403", tmp_path / "VV.tif", when, made)
    source = opened([scene], s1_units="amplitude", s1_backscatter="sigma0")
    row = source.search(WORLD).iloc[0]
    assert row.time.strftime("%Y-%m") == "2023-04"
    patch = ds.check_patch(source.read(row, grid_of(tmp_path / "VV.tif")))
    assert patch.attrs["backscatter"] == "sigma0"
    for name, expected in wanted.items():
        np.testing.assert_allclose(patch[name].values, expected, atol=1e-4)
    # What radar sees of land in Europe, less of it in the crossed polarisation.
    assert -16 < float(patch["VV"].median()) < -5
    assert 4 < float(patch["VV"].median() - patch["VH"].median()) < 12


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("date", [0, 40, 71])
def test_worldcereal_keeps_decibels_times_ten_thousand(real: Path, tmp_path: Path, date: int) -> None:
    folder = next((real / "series").glob("worldcereal_*"))
    radar, optical, scaled = {}, {}, {"scale": 1e-4, "nodata": 0}
    for name in ("VV", "VH"):
        number = stored(next(folder.glob("S1_*")), name)[date]
        path = band_of(tmp_path / f"{name}.tif", number, 574_680, 5_622_440, 20, 0)
        radar[name.lower()] = {"href": str(path), "raster:bands": [{**scaled, "unit": "dB"}]}
    for name, size_m in (("B04", 10), ("B08", 10), ("B11", 20)):
        number = stored(next(folder.glob(f"S2_L2A_{size_m}m*")), name)[date]
        path = band_of(tmp_path / f"{name}.tif", number, 574_680, 5_622_440, size_m, 0)
        optical[name] = {"href": str(path), "raster:bands": [dict(scaled)]}
    scenes = [
        item("S1A_IW_GRDH_1SDV_2018", tmp_path / "VV.tif", "2018-08-02T17:31:51Z", radar),
        item("S2A_MSIL2A_2018_31UES", tmp_path / "B04.tif", "2018-08-04T10:50:22Z", optical),
    ]
    scenes[1]["properties"]["s2:processing_baseline"] = "02.08"
    source = opened(scenes, s1_backscatter="sigma0", s2_level="L2A")
    found = source.search(WORLD).set_index("sensor", drop=False)
    s1 = source.read(found.loc["S1"], grid_of(tmp_path / "VV.tif"))
    for name in ("VV", "VH"):
        number = stored(next(folder.glob("S1_*")), name)[date]
        expected = np.where(number == 0, np.nan, number / 10_000)
        np.testing.assert_allclose(s1[name].values, expected, atol=1e-5)
    s2 = source.read(found.loc["S2"], grid_of(tmp_path / "B04.tif"))
    for name in ("B04", "B08"):
        np.testing.assert_array_equal(s2[name].values, stored(next(folder.glob("S2_L2A_10m*")), name)[date])
    # On their own lattice pixels of 20 m are what is stored, too.
    coarse = source.read(found.loc["S2"], grid_of(tmp_path / "B11.tif"), bands=["B11"])
    np.testing.assert_array_equal(coarse["B11"].values, stored(next(folder.glob("S2_L2A_20m*")), "B11")[date])


def ssl4eo_item(real: Path, kind: str, name: str) -> dict[str, Any]:
    """An item of one date of SSL4EO-S12, in the words of its own metadata."""
    folder = real / "ssl4eo" / kind / "0000200" / name
    about = json.loads((folder / "metadata.json").read_text())
    assets = {}
    for path in sorted(folder.glob("*.tif")):
        band = path.stem if path.stem.startswith("V") else f"B{path.stem[1:]:0>2}"
        stated = {"unit": "dB"} if path.stem.startswith("V") else {"scale": 1e-4, "nodata": 0}
        assets[band] = {"href": str(path), "raster:bands": [stated]}
    about = about.get("properties", about)
    when = datetime.fromtimestamp(about["system:time_start"] / 1000, UTC).isoformat()
    first = next(iter(assets.values()))["href"]
    made = item(f"{about.get('PRODUCT_ID', name)}", Path(first), when, assets)
    if "PROCESSING_BASELINE" in about:
        made["properties"]["s2:processing_baseline"] = about["PROCESSING_BASELINE"]
    return made


def own_lattice(path: Path) -> tuple[Any, np.ndarray]:
    with rasterio.open(path) as file:
        return grid_of(path), file.read(1)


def test_ssl4eo_reads_as_it_is_stored(real: Path) -> None:
    folder = real / "ssl4eo"
    source = opened([ssl4eo_item(real, "s1", SSL4EO_S1)], s1_backscatter="sigma0")
    row = source.search(WORLD).iloc[0]
    for name in ("VV", "VH"):
        grid, values = own_lattice(folder / "s1/0000200" / SSL4EO_S1 / f"{name}.tif")
        patch = source.read(row, grid, bands=[name])
        np.testing.assert_allclose(patch[name].values, values, atol=1e-5)
    for kind, level in (("s2a", "L2A"), ("s2c", "L1C")):
        source = opened([ssl4eo_item(real, kind, SSL4EO_S2)], s2_level=level)
        row = source.search(WORLD).iloc[0]
        # Bounds differ a little from band to band, so each is looked at on its own lattice.
        for stem in ("B1", "B4", "B8A", "B12"):
            grid, values = own_lattice(folder / kind / "0000200" / SSL4EO_S2 / f"{stem}.tif")
            name = f"B{stem[1:]:0>2}"
            patch = source.read(row, grid, bands=[name])
            np.testing.assert_array_equal(patch[name].values, values)
            assert patch.attrs["level"] == level
            assert patch.attrs["offset_removed"] == 0


def test_ssl4eo_on_one_grid_leaves_nothing_out_but_its_rim(real: Path) -> None:
    """On 10 m in UTM, where people would want it, all bands of one date cover the ground that they share."""
    source = opened([ssl4eo_item(real, "s2a", SSL4EO_S2)], s2_level="L2A")
    row = source.search(WORLD).iloc[0]
    grid = ds.geobox(row.geometry.buffer(-0.002), resolution=10)
    patch = ds.check_patch(source.read(row, grid))
    assert len(patch.data_vars) >= 12
    for name in ("B01", "B02", "B8A", "B11"):
        assert int((patch[name] == 0).sum()) == 0
    # Dry fields of Punjab in June: bright in the infrared, and no water.
    assert 0.05 < float(patch["B04"].mean()) / 10_000 < float(patch["B08"].mean()) / 10_000 < 0.4
