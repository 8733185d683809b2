"""Terrain-corrected radar GeoTIFFs in a folder: known by their makers' names, asked for where there is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, NothingFoundError

LEFT, TOP, EPSG, SIZE = 600_000.0, 5_500_020.0, 32631, 40
GRID = GeoBox((SIZE, SIZE), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
AREA = (4.385, 49.641, 4.389, 49.644)
HYP3 = "S1A_IW_20180704T055004_DVP_RTC10_G_{}_D3BD"
OPERA = "OPERA_L2_RTC-S1_T059-125404-IW2_20230104T055004Z_20230105T010101Z_S1A_30_v1.0"
PC = "S1B_IW_GRDH_1SDV_20200704T055004_20200704T055029_022304_02A54F_rtc"


def power(band: str) -> np.ndarray:
    return np.random.default_rng(len(band) + ord(band[1])).gamma(4.4, 0.02, (SIZE, SIZE)).astype("float32")


def write(path: Path, data: np.ndarray, *, nodata: float | None = None, crs: str | None = f"EPSG:{EPSG}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {} if crs is None else {"crs": crs, "transform": GRID.affine}
    with rasterio.open(
        path, "w", driver="GTiff", width=SIZE, height=SIZE, count=1, dtype="float32", nodata=nodata, **place
    ) as file:
        file.write(data.astype("float32"), 1)


def read(folder: Path, **options: object) -> tuple[object, object]:
    source = ds.open_source(folder, **options)
    scenes = source.search(AREA)
    assert len(scenes) == 1
    return scenes.iloc[0], ds.check_patch(source.read(scenes.iloc[0], GRID))


def same(patch: object, band: str) -> None:
    np.testing.assert_allclose(patch[band], 10 * np.log10(power(band)), atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "made", "backscatter"),
    [
        ("gpuned", lambda p: p, "gamma0_rtc"),
        ("sauned", np.sqrt, "sigma0"),
        ("gdufem", lambda p: 10 * np.log10(p), "gamma0_rtc"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_hyp3_names_say_quantity_and_unit(
    tmp_path: Path, kind: str, made: object, backscatter: str, packed: bool
) -> None:
    name = HYP3.format(kind)
    for band in ("VV", "VH"):
        write(tmp_path / name / f"{name}_{band}.tif", made(power(band)), nodata=0)  # type: ignore[operator]
    write(tmp_path / name / f"{name}_inc_map_ell.tif", np.full((SIZE, SIZE), np.deg2rad(38.5)))
    write(tmp_path / name / f"{name}_dem.tif", np.full((SIZE, SIZE), 100.0))
    if packed:
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / name).iterdir()):
                archive.write(path, f"{name}/{path.name}")
                path.unlink()
        (tmp_path / name).rmdir()
    scene, patch = read(tmp_path)
    assert (scene.id, scene.backscatter, scene.polarisations) == (name, backscatter, "VV+VH")
    assert scene.time.isoformat() == "2018-07-04T05:50:04+00:00"
    for band in ("VV", "VH"):
        same(patch, band)
    np.testing.assert_allclose(patch["angle"], 38.5, atol=1e-4)


@pytest.mark.parametrize("ellipsoidal", [False, True])
def test_angles_against_the_slope_are_no_angle_of_ours(tmp_path: Path, ellipsoidal: bool) -> None:
    name = HYP3.format("gpuned")
    for folder, scene, local, other, factor in (
        ("hyp3", name, "inc_map", "inc_map_ell", np.deg2rad(1)),
        ("opera", OPERA, "local_incidence_angle", "incidence_angle", 1.0),
    ):
        write(tmp_path / folder / f"{scene}_VV.tif", power("VV"))
        write(tmp_path / folder / f"{scene}_{local}.tif", np.full((SIZE, SIZE), 21.0 * factor))
        if ellipsoidal:
            write(tmp_path / folder / f"{scene}_{other}.tif", np.full((SIZE, SIZE), 38.5 * factor))
        _, patch = read(tmp_path / folder)
        same(patch, "VV")
        assert ("angle" in patch) == ellipsoidal
        if ellipsoidal:
            np.testing.assert_allclose(patch["angle"], 38.5, atol=1e-4)


def test_opera_and_planetary_computer_are_gamma0_in_power(tmp_path: Path) -> None:
    write(tmp_path / "opera" / f"{OPERA}_VV.tif", power("VV"), nodata=float("nan"))
    scene, patch = read(tmp_path / "opera")
    assert (scene.id, scene.backscatter, scene.relative_orbit, scene.polarisations) == (OPERA, "gamma0_rtc", 59, "VV")
    same(patch, "VV")
    for name in ("vv", "vh"):
        write(tmp_path / "pc" / PC / f"iw-{name}.rtc.tiff", power(name.upper()), nodata=-32768)
    scene, patch = read(tmp_path / "pc")
    assert (scene.id, scene.platform, scene.backscatter) == (PC, "sentinel-1b", "gamma0_rtc")
    assert scene.relative_orbit == (22304 - 27) % 175 + 1
    assert scene.time.isoformat() == "2020-07-04T05:50:16+00:00"
    same(patch, "VH")


def test_what_no_name_tells_is_asked(tmp_path: Path) -> None:
    name = "S1A_IW_GRDH_1SDV_20180704T055004_20180704T055029_022642_0273F8_Orb_Cal_TC"
    write(tmp_path / f"{name}_VV.tif", 10 * np.log10(power("VV")))
    with pytest.warns(DeepSentinelWarning, match="s1_backscatter"), pytest.raises(NothingFoundError):
        ds.open_source(tmp_path).search(AREA)
    scene, patch = read(tmp_path, s1_backscatter="sigma0", s1_units="dB")
    assert (scene.id, scene.backscatter) == (name, "sigma0")
    same(patch, "VV")


def test_what_lies_on_no_map_is_told(tmp_path: Path) -> None:
    write(tmp_path / f"{PC}_VV.tif", power("VV"))
    other = HYP3.format("gpuned")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(tmp_path / f"{other}_VV.tif", power("VV"), crs=None)
    with pytest.warns((DeepSentinelWarning, rasterio.errors.NotGeoreferencedWarning)) as told:
        scenes = ds.open_source(tmp_path).search(AREA)
    assert any(f"{other}: {other}_VV.tif has no map projection" in str(one.message) for one in told)
    assert list(scenes.id) == [PC]


def test_rasters_of_something_else_are_none_of_our_business(tmp_path: Path) -> None:
    write(tmp_path / "all" / f"{PC}_VV.tif", power("VV"))
    write(tmp_path / "all" / "dem.tif", power("VV"))
    assert list(ds.open_source(tmp_path / "all").search(AREA).id) == [PC]
