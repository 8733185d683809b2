"""Sentinel-1 GRD over sea, made of a real product's XML: every number against a calculation of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from safe_builders import edited, grd_product, zipped

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError, SourceError
from deepsentinel.sources import patience
from deepsentinel.sources.engine import reading_until
from deepsentinel.sources.safe import render
from deepsentinel.sources.safe.calibration import Calibration
from deepsentinel.sources.safe.files import open_product
from deepsentinel.sources.safe.places import Geolocation, Places
from deepsentinel.sources.safe.sea import has_sea, land_share

LINES, PIXELS = 1100, 1300
SEA = (101.0, 79.5, 104.0, 80.2)
KNOWN = [(line, pixel) for line in (0, 500, 1000) for pixel in (0, 525, 1050)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safe"


# -- the metadata once more, by other means ----------------------------------------------------------------------------


class Plain:
    """The metadata of one channel by regular expressions, and a pixel's sigma0 by one-dimensional interpolation."""

    def __init__(self, safe: Path, band: str) -> None:
        folder = safe / "annotation"
        self.annotation = (folder / f"ew-{band}.xml").read_text()
        self.gain = self.vectors((folder / f"calibration/calibration-ew-{band}.xml").read_text(), "sigmaNought")
        self.noise_xml = (folder / f"calibration/noise-ew-{band}.xml").read_text()
        self.noise = self.vectors(self.noise_xml, "noiseRangeLut") or self.vectors(self.noise_xml, "noiseLut")
        self.bursts = []
        for text in re.findall(r"<noiseAzimuthVector>(.*?)</noiseAzimuthVector>", self.noise_xml, re.S):
            names = ("firstAzimuthLine", "lastAzimuthLine", "firstRangeSample", "lastRangeSample")
            bounds = [int(re.search(rf"<{name}>(\d+)<", text)[1]) for name in names]
            self.bursts.append((bounds, self.values(text, "line"), self.values(text, "noiseAzimuthLut")))
        self.points = {}
        for text in re.findall(r"<geolocationGridPoint>(.*?)</geolocationGridPoint>", self.annotation, re.S):
            point = {name: float(value) for name, value in re.findall(r"<(\w+)>([-\d.e+]+)</", text)}
            self.points[int(point["line"]), int(point["pixel"])] = point

    @staticmethod
    def values(text: str, name: str) -> list[float]:
        return [float(word) for word in re.search(rf"<{name} count=[^>]*>([^<]*)<", text)[1].split()]

    def vectors(self, text: str, name: str) -> list[tuple[int, list[float], list[float]]]:
        found = re.findall(rf"<line>(\d+)</line>(?:(?!<line>).)*?<pixel.*?</{name}>", text, re.S)
        bodies = re.findall(rf"<line>\d+</line>((?:(?!<line>).)*?</{name}>)", text, re.S)
        return [(int(n), self.values(b, "pixel"), self.values(b, name)) for n, b in zip(found, bodies, strict=True)]

    def table(self, vectors: list[tuple[int, list[float], list[float]]], line: int, pixel: int) -> float:
        across = [np.interp(pixel, pixels, values) for _, pixels, values in vectors]
        return float(np.interp(line, [n for n, _, _ in vectors], across))

    def sigma0(self, dn: float, line: int, pixel: int) -> float:
        noise = self.table(self.noise, line, pixel)
        for (top, bottom, left, right), lines, factors in self.bursts:
            if top <= line <= bottom and left <= pixel <= right:
                noise *= np.interp(line, lines, factors)
        return (dn**2 - noise) / self.table(self.gain, line, pixel) ** 2


@pytest.fixture(scope="module")
def annotations(real: Path) -> tuple[Path, dict[str, Plain]]:
    safe = next((real / "safe").glob("S1A_EW_GRDM*"))
    return safe, {band: Plain(safe, band) for band in ("hh", "hv")}


def scene(folder: Path, dn: Any, real: Path, **options: Any) -> tuple[Any, Any]:
    """A source over one product with these numbers, and its scene."""
    images = dn if isinstance(dn, dict) else {"HH": dn, "HV": dn}
    safe = grd_product(real, folder, images)
    source = ds.open_source(safe, **options)
    return source, source.search(SEA, sensors="S1").iloc[0]


def around(lon: float, lat: float, crs: str = "EPSG:3413", size: int = 9) -> GeoBox:
    """A grid of 40 m pixels on the product's own lattice, a place in its middle pixel."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    half = 40 * (size // 2)
    left, top = np.floor(x / 40) * 40 - half, np.floor(y / 40) * 40 + 40 + half
    return GeoBox.from_bbox((left, top - 40 * size, left + 40 * size, top), crs, resolution=40)


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", ["hh", "hv"])
def test_sigma0_is_what_the_formula_says_pixel_by_pixel(annotations: Any, band: str) -> None:
    safe, plain = annotations
    product = open_product(safe)
    names = (
        f"annotation/ew-{band}.xml",
        *(f"annotation/calibration/{k}-ew-{band}.xml" for k in ("calibration", "noise")),
    )
    calibration = Calibration.of(*(product.xml(name) for name in names), 10487, "x")
    rng = np.random.default_rng(3)
    # Corners, seams between sub-swaths and bursts, and anywhere.
    places = [(0, 0), (10707, 10486), (78, 3129), (79, 3129), (127, 3128), (128, 3130), (1345, 5011), (10706, 8960)]
    places += [(int(rng.integers(10708)), int(rng.integers(10487))) for _ in range(60)]
    for line, pixel in places:
        dn = int(rng.integers(1, 2000))
        got = calibration.sigma0(np.array([[dn]], "uint16"), slice(line, line + 1), slice(pixel, pixel + 1))
        assert got[0, 0] == pytest.approx(plain[band].sigma0(dn, line, pixel), rel=1e-9, abs=1e-12)
    # a window is its pixels
    rows, cols = slice(70, 140), slice(3100, 3160)
    dn = rng.integers(1, 900, (70, 60)).astype("uint16")
    window = calibration.sigma0(dn, rows, cols)
    for row, col in [(0, 0), (8, 29), (9, 29), (9, 30), (57, 28), (58, 29), (69, 59)]:
        wanted = plain[band].sigma0(int(dn[row, col]), rows.start + row, cols.start + col)
        assert window[row, col] == pytest.approx(wanted, rel=1e-9)


def test_patches_hold_calibrated_power_and_angle_where_the_product_says(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    plain = annotations[1]
    dn = {"HH": np.full((LINES, PIXELS), 300, "uint16"), "HV": np.full((LINES, PIXELS), 250, "uint16")}
    source, row = scene(tmp_path, dn, real)
    assert (row.polarisations, row.backscatter, row.orbit, row.relative_orbit) == ("HH+HV", "sigma0", "descending", 20)
    for line, pixel in KNOWN:
        if line == 0 or pixel == 0:
            continue  # half of the grid would lie outside
        point = plain["hh"].points[line, pixel]
        patch = ds.check_patch(source.read(row, around(point["longitude"], point["latitude"])))
        for band, value in (("HH", 300), ("HV", 250)):
            wanted = 10 * np.log10(plain[band.lower()].sigma0(value, line, pixel))
            assert float(patch[band][4, 4]) == pytest.approx(wanted, abs=0.02)
        assert float(patch["angle"][4, 4]) == pytest.approx(point["incidenceAngle"], abs=0.005)
    assert patch.attrs["backscatter"] == "sigma0"
    assert patch.attrs["noise_removed"] is True


def test_iw_with_vv_and_vh_under_the_names_that_services_give(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    dn = {"HH": np.full((LINES, PIXELS), 300, "uint16"), "HV": np.full((LINES, PIXELS), 250, "uint16")}
    safe = grd_product(real, tmp_path, dn)
    for path in sorted(safe.rglob("*-h?*.*")):
        band = "vv" if "-hh" in path.name else "vh"
        kind = {"calibration": "calibration-", "noise": "noise-"}.get(path.name.split("-")[0], "")
        tail = "-001-cog.tiff" if path.suffix == ".tiff" else "-001.xml"
        path.rename(path.with_name(f"{kind}s1a-iw-grd-{band}-20221130t014342-20221130t014446-046117-058549{tail}"))
    edited(safe / "manifest.safe", ("mode>EW<", "mode>IW<"), ("Polarisation>HH<", "Polarisation>VV<"))
    source = ds.open_source(safe)
    row = source.search(SEA).iloc[0]
    assert row.polarisations == "VV+VH"
    point = annotations[1]["hh"].points[500, 525]
    patch = ds.check_patch(source.read(row, around(point["longitude"], point["latitude"])))
    for band, plain, value in (("VV", "hh", 300), ("VH", "hv", 250)):
        wanted = 10 * np.log10(annotations[1][plain].sigma0(value, 500, 525))
        assert float(patch[band][4, 4]) == pytest.approx(wanted, abs=0.02)


def test_noise_that_is_gone_is_not_taken_twice_and_old_noise_has_one_list(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    plain = annotations[1]["hh"]
    point = plain.points[500, 525]
    grid = around(point["longitude"], point["latitude"])
    dn = np.full((LINES, PIXELS), 200, "uint16")
    gain = plain.table(plain.gain, 500, 525)
    level = {}
    for name in ("new", "done", "old", "bare"):
        safe = grd_product(real, tmp_path / name, {"HH": dn})
        noise = safe / "annotation/calibration/noise-ew-hh.xml"
        if name == "done":
            tag = "thermalNoiseCorrectionPerformed"
            edited(safe / "annotation/ew-hh.xml", (f"<{tag}>false", f"<{tag}>true"))
        if name == "old":
            edited(
                noise, ("noiseRangeVector", "noiseVector"), ("noiseRangeLut", "noiseLut"),
                ("<noiseAzimuthVectorList.*</noiseAzimuthVectorList>", ""),
            )  # fmt: skip
        if name in ("done", "bare"):
            noise.unlink()
        source = ds.open_source(safe)
        patch = source.read(source.search(SEA).iloc[0], grid, bands=["HH"])
        assert patch.attrs["noise_removed"] is (name != "bare")
        level[name] = float(10 ** (patch["HH"][4, 4] / 10))
    across = plain.table(plain.noise, 500, 525)
    assert level["done"] == pytest.approx(200**2 / gain**2, rel=2e-3)
    assert level["old"] == pytest.approx((200**2 - across) / gain**2, rel=2e-3)
    assert level["new"] == pytest.approx(plain.sigma0(200, 500, 525), rel=2e-3)
    assert level["bare"] == level["done"]
    assert len({round(value, 4) for value in level.values()}) == 3


def test_dark_sea_is_dark_and_not_missing(real: Path, annotations: Any, tmp_path: Path, cache: Path) -> None:
    point = annotations[1]["hh"].points[500, 525]
    dn = np.full((LINES, PIXELS), 40, "uint16")  # well below the noise
    dn[:, 530:] = 0
    source, row = scene(tmp_path, dn, real)
    patch = source.read(row, around(point["longitude"], point["latitude"], size=41), bands=["HH"])
    values = patch["HH"].values
    known = ~np.isnan(values)
    assert 0.3 < known.mean() < 0.9
    np.testing.assert_allclose(values[known], -50, atol=1e-4)


def test_averages_over_sea_in_the_noise_are_not_lifted(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    """A tenth of the noise is what the sea sends back: speckle puts more than half of the pixels below zero."""
    product = open_product(annotations[0])
    names = ("annotation/ew-hv.xml", *(f"annotation/calibration/{k}-ew-hv.xml" for k in ("calibration", "noise")))
    calibration = Calibration.of(*(product.xml(name) for name in names), PIXELS, "x")
    noise = calibration.noise_window(slice(0, LINES), slice(0, PIXELS))
    gain = calibration.gain.window(slice(0, LINES), slice(0, PIXELS)) ** 2
    truth = 0.1 * float(np.median(noise / gain))
    speckle = np.random.default_rng(8).gamma(4, 1 / 4, noise.shape)
    dn = np.maximum(np.rint(np.sqrt((noise + truth * gain) * speckle)), 1).astype("uint16")
    source, row = scene(tmp_path, {"HV": dn}, real)
    point = annotations[1]["hv"].points[500, 525]
    fine = around(point["longitude"], point["latitude"], size=401)
    for size in (80, 400, 800):
        grid = GeoBox.from_bbox(fine.boundingbox, fine.crs, resolution=size)
        values = source.read(row, grid, bands=["HV"])["HV"].values
        assert not np.isnan(values).any()
        if size >= 400:  # finer pixels of decibels hold no negative ones to make up for the others
            assert 10 * np.log10(np.mean(10 ** (values / 10)) / truth) == pytest.approx(0, abs=0.3)
    values = source.read(row, fine, bands=["HV"])["HV"].values
    assert not np.isnan(values).any()
    assert (values < -49.9).mean() > 0.3


def test_beside_nothing_power_is_what_it_is_elsewhere(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    plain = annotations[1]["hh"]
    point = plain.points[500, 525]
    dn = np.full((LINES, PIXELS), 300, "uint16")
    dn[:, 530:] = 0
    source, row = scene(tmp_path, {"HH": dn}, real)
    values = source.read(row, around(point["longitude"], point["latitude"], size=41), bands=["HH"])["HH"].values
    assert 0.3 < np.isnan(values).mean() < 0.7
    assert np.nanmin(values) > 10 * np.log10(plain.sigma0(300, 500, 525)) - 0.1


def test_coarser_levels_of_the_files_are_means_of_power(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    dn = np.random.default_rng(1).integers(200, 900, (LINES, PIXELS)).astype("uint16")
    source, row = scene(tmp_path, {"HH": dn}, real)
    point = annotations[1]["hh"].points[500, 525]
    source.read(row, around(point["longitude"], point["latitude"]), bands=["HH"])
    (path,) = cache.glob("*/hh.tif")
    with rasterio.open(path) as file:
        fine = file.read(1)
    with rasterio.open(path, overview_level=0) as file:
        coarse = file.read(1)
    rows, cols = (np.abs(np.arange(size // 2) - size // 4) < 40 for size in fine.shape)
    means = fine[: fine.shape[0] // 2 * 2, : fine.shape[1] // 2 * 2].reshape(rows.size, 2, cols.size, 2).mean((1, 3))
    one, other = (side[: rows.size, : cols.size][np.ix_(rows, cols)] for side in (coarse, means))
    assert not np.isnan(other).any()
    # An odd number of pixels shifts the levels by a part of one; single pixels would be off by far more.
    assert float(np.std(one - other)) < 0.5 * float(np.std(other))
    assert float(one.mean()) == pytest.approx(float(other.mean()), rel=0.01)


def test_power_is_what_is_averaged(real: Path, annotations: Any, tmp_path: Path, cache: Path) -> None:
    plain = annotations[1]["hh"]
    point = plain.points[500, 525]
    dn = np.full((LINES, PIXELS), 900, "uint16")
    dn[::2, ::2] = 100
    source, row = scene(tmp_path, {"HH": dn}, real)
    fine = around(point["longitude"], point["latitude"], size=31)
    coarse = GeoBox((1, 1), Affine(40 * 31, 0, fine.affine.c, 0, -40 * 31, fine.affine.f), fine.crs)
    gain = plain.table(plain.gain, 500, 525)
    mean = (3 * 900**2 + 100**2) / 4
    noise = 300**2 - plain.sigma0(300, 500, 525) * gain**2
    got = 10 ** (source.read(row, coarse, bands=["HH"])["HH"].item() / 10)
    assert got == pytest.approx((mean - noise) / gain**2, rel=0.01)


# -- places ------------------------------------------------------------------------------------------------------------


def grid_of(safe: Path) -> Geolocation:
    return Geolocation.of(open_product(safe).xml("annotation/ew-hh.xml"), "x")


def test_bright_targets_land_where_the_product_says(real: Path, annotations: Any, tmp_path: Path, cache: Path) -> None:
    points = annotations[1]["hh"].points
    targets = [key for key in KNOWN if 0 not in key]
    dn = np.full((LINES, PIXELS), 150, "uint16")
    for key in targets:
        dn[key] = 20_000
    for crs in (None, "EPSG:32647"):
        source, row = scene(tmp_path / str(crs), dn, real, s1_crs=crs)
        assert row.crs == (crs or "EPSG:3413")
        for key in targets:
            point = points[key]
            grid = around(point["longitude"], point["latitude"], row.crs, size=21)
            patch = source.read(row, grid, bands=["HH"])
            power = 10 ** (patch["HH"].values / 10)
            power[power < power.max() / 1000] = 0
            x = float((power.sum(0) * patch.x.values).sum() / power.sum())
            y = float((power.sum(1) * patch.y.values).sum() / power.sum())
            lon, lat = Transformer.from_crs(row.crs, 4326, always_xy=True).transform(x, y)
            off = Geod(ellps="WGS84").inv(lon, lat, point["longitude"], point["latitude"])[2]
            # to a tenth of a pixel where it is computed to be
            there = Places(grid_of(annotations[0]), row.crs, dn.shape).forward(*np.array(key, float)[:, None])
            assert np.hypot(x - there[0][0], y - there[1][0]) < 4
            # and the stated point itself is off by up to so much
            assert off < patch.attrs["placement_error_m"] + 5
            assert patch.attrs["placement_error_m"] == pytest.approx(22.8, abs=0.1)


def test_the_grid_of_points_comes_out_where_it_is_stated(annotations: Any) -> None:
    """Orbit, times and range polynomials give the positions that the product states, hills and all."""
    plain, grid = annotations[1], grid_of(annotations[0])
    earth = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
    places = grid.places(grid.lines, grid.pixels, grid.height_m)
    off = np.zeros(grid.lon.shape)
    for (i, line), (j, pixel) in ((a, b) for a in enumerate(grid.lines) for b in enumerate(grid.pixels)):
        point = plain["hh"].points[int(line), int(pixel)]
        lon, lat, height = earth.transform(*places[i, j])
        assert height == pytest.approx(point["height"], abs=0.01)
        off[i, j] = Geod(ellps="WGS84").inv(lon, lat, point["longitude"], point["latitude"])[2]
    assert off.max() == pytest.approx(grid.error_m, abs=0.1)
    assert off.max() < 25
    assert off[11:].max() < 3.5, "over open sea"


def test_hills_are_taken_out_of_the_places_of_the_sea(annotations: Any) -> None:
    """Between a hill of h and the sea in the same pixel lie h over the tangent of the angle, towards the satellite."""
    grid = grid_of(annotations[0])
    earth = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
    hills, sea = (grid.places(grid.lines, grid.pixels, height) for height in (grid.height_m, 0.0))
    (lon, lat, _), (sea_lon, sea_lat, height) = (earth.transform(*np.moveaxis(p, -1, 0)) for p in (hills, sea))
    assert np.abs(height).max() < 0.01
    geod = Geod(ellps="WGS84")
    azimuth, _, moved = geod.inv(lon, lat, sea_lon, sea_lat)
    wanted = grid.height_m / np.tan(np.deg2rad(grid.angle_deg))
    np.testing.assert_allclose(moved, wanted, atol=5, rtol=0.002)
    assert moved.max() > 1000
    steep = (grid.height_m > 200) & (np.arange(grid.pixels.size) > 0)
    to_near = geod.inv(lon[steep], lat[steep], *(np.roll(side, 1, axis=1)[steep] for side in (lon, lat)))[0]
    assert np.abs((azimuth[steep] - to_near + 180) % 360 - 180).max() < 5


def test_the_way_there_and_back(annotations: Any) -> None:
    grid = grid_of(annotations[0])
    for crs in ("EPSG:3413", "EPSG:3995", "EPSG:32647"):
        places = Places(grid, crs, (10708, 10487))
        rng = np.random.default_rng(5)
        line, pixel = rng.uniform([-40, -40], [10747, 10526], (500, 2)).T
        back = places.backward(*places.forward(line, pixel)[:2])
        np.testing.assert_allclose(back, [line, pixel], atol=1e-3)
        # What is interpolated is what would be computed there.
        lines, pixels = np.sort(line.clip(0, 10707))[:40], np.sort(pixel.clip(0, 10486))[:40]
        exact = grid.places(lines, pixels, 0.0)
        x, y, _ = Transformer.from_crs("EPSG:4978", crs, always_xy=True).transform(*np.moveaxis(exact, -1, 0))
        got = places.forward(*(side.ravel() for side in np.meshgrid(lines, pixels, indexing="ij")))
        assert np.hypot(got[0] - x.ravel(), got[1] - y.ravel()).max() < 1.0


def test_the_height_of_the_sea_moves_pixels(real: Path, annotations: Any, tmp_path: Path, cache: Path) -> None:
    dn = np.full((LINES, PIXELS), 150, "uint16")
    dn[500, 525] = 20_000
    found = {}
    for height in (0.0, 100.0):
        source, row = scene(tmp_path / str(height), {"HH": dn}, real, s1_height_m=height)
        point = annotations[1]["hh"].points[500, 525]
        patch = source.read(row, around(point["longitude"], point["latitude"], size=41), bands=["HH"])
        at = np.unravel_index(np.nanargmax(patch["HH"].values), patch["HH"].shape)
        found[height] = np.array([float(patch.x[at[1]]), float(patch.y[at[0]])])
        assert patch.attrs["sea_height_m"] == height
    # what is stated for one metre is the most that it can be anywhere in the scene
    steepest = min(point["incidenceAngle"] for point in annotations[1]["hh"].points.values())
    by_metre = patch.attrs["placement_shift_per_m"]
    assert by_metre == pytest.approx(1 / np.tan(np.deg2rad(steepest)), abs=0.01)
    moved = float(np.linalg.norm(found[100.0] - found[0.0]))
    assert moved <= 100 * by_metre + 60
    assert moved == pytest.approx(100 / np.tan(np.deg2rad(point["incidenceAngle"])), abs=60)


# -- land --------------------------------------------------------------------------------------------------------------


def test_land_is_refused_with_the_reason_and_what_to_take(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    source, row = scene(tmp_path, np.full((LINES, PIXELS), 150, "uint16"), real)
    assert max(point["height"] for point in annotations[1]["hh"].points.values()) > 600
    inland = (95.0, 79.4, 97.0, 79.9)  # October Revolution Island
    grid = ds.geobox(inland, crs="EPSG:3413", resolution=400)
    said = r"GRD product.*% of the area is land.*terrain-corrected.*planetary-computer.*s1_over_land"
    with pytest.raises(ReadError, match=said):
        source.read(row, grid)
    (failure,) = source.read_many(row, grid)
    assert not failure
    assert re.search(said, str(failure.error))
    with pytest.raises(NothingFoundError, match=said):  # plans of corpora go on without such places
        source.search(inland)
    told = ds.open_source(tmp_path, s1_over_land=True)
    assert len(told.search(inland)) == 1
    assert told.read(row, ds.geobox(inland, crs="EPSG:3413", resolution=400))["HH"].isnull().all()


def test_windows_at_sea_in_an_area_by_the_coast_are_found_and_read(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    dn = np.full((LINES, PIXELS), 300, "uint16")
    source, row = scene(tmp_path, dn, real)
    coast = (95.0, 79.4, 104.0, 80.2)
    share = land_share(shapely.intersection(row.geometry, shapely.box(*coast)))
    assert 0.25 < share < 0.98
    (found,) = source.search(coast, sensors="S1").itertuples()
    assert found.id == row.id
    point = annotations[1]["hh"].points[500, 525]
    assert not source.read(row, around(point["longitude"], point["latitude"]))["HH"].isnull().any()
    with pytest.raises(ReadError, match="is land"):
        source.read(row, ds.geobox((95.0, 79.4, 97.0, 79.9), crs="EPSG:3413", resolution=400))


def test_an_area_is_land_only_where_no_water_is_wide_enough_for_a_window(
    real: Path, annotations: Any, tmp_path: Path, cache: Path
) -> None:
    source, row = scene(tmp_path, np.full((LINES, PIXELS), 300, "uint16"), real)
    coast, rocks = (94.02, 79.24, 95.3, 79.75), (97.96, 80.32, 98.63, 80.44)
    for area in (coast, rocks):  # a bay, and narrow bits of water
        assert 0.99 < land_share(shapely.intersection(row.geometry, shapely.box(*area))) < 1
    assert list(source.search(coast, sensors="S1").id) == [row.id]
    with pytest.raises(NothingFoundError, match="GRD product"):
        source.search(rocks)
    # Where 6.8 km of open water lie in a corner of it.
    assert has_sea(shapely.box(-3.04, 38.14, -0.33, 39.94))
    assert not has_sea(shapely.box(2, 47, 3, 48))
    # Small areas are sea as well, and so is what lies on both sides of 180 degrees.
    assert has_sea(shapely.box(-30, 45, -29.9999, 45.0001))
    assert has_sea(shapely.union(shapely.box(179, 65, 180, 67), shapely.box(-180, 65, -178, 67)))


# -- the cache, and what is broken -------------------------------------------------------------------------------------


def test_a_scene_is_placed_once_however_many_read_it(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = annotations[1]["hh"].points[500, 525]
    grid = around(point["longitude"], point["latitude"])
    source, row = scene(tmp_path, np.full((LINES, PIXELS), 300, "uint16"), real)
    calls = []
    rendered = render.render
    monkeypatch.setattr(render, "render", lambda *args: (calls.append(1), rendered(*args)))
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(source.read(row, grid))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(patch.identical(got[0]) for patch in got)
    (folder,) = cache.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["angle.tif", "hh.tif", "hv.tif"]
    # another map or sea level is another scene, and so is a changed product
    for options in ({"s1_crs": "EPSG:3995"}, {"s1_height_m": 20}):
        other = ds.open_source(tmp_path, **options)
        other.read(other.search(SEA).iloc[0], grid)
    assert len(calls) == 3
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("how", ["read", "series", "many", "beside", "worker"])
def test_placing_a_scene_is_shown_to_who_waits_for_it(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In the thread that reads, whichever thread does it; and only when it has to be done."""
    monkeypatch.setattr(render, "BLOCK_PX", 128)
    shown: list[tuple[str, int, int, bool]] = []

    def bar(items: Any, *, total: int, what: str, unit: str) -> Any:
        seen = 0
        for item in items:
            yield item
            seen += 1
        shown.append((what, seen, total, threading.current_thread() is threading.main_thread()))

    monkeypatch.setattr(patience, "progress", bar)
    copied = render._copy
    # Slow enough to be waited for.
    monkeypatch.setattr(render, "_copy", lambda *args: (time.sleep(3 * patience.POLL_S), copied(*args)))
    source, row = scene(tmp_path, np.full((LINES, PIXELS), 300, "uint16"), real)
    place = far(annotations[1]["hh"].points[500, 525])
    if how == "worker":
        monkeypatch.setattr(patience.multiprocessing, "parent_process", lambda: "somebody")

    def read() -> Any:
        if how == "series":
            return source.read(source.search(SEA), place)
        if how == "many":
            return next(iter(source.read_many(row, [place] * 2)))
        return source.read(row, place)

    if how == "beside":
        reading = threading.Thread(target=read)
        reading.start()
        reading.join()
    else:
        assert not read()["HH"].isnull().any()
    if how == "worker":
        assert shown == []
        return
    ((what, seen, total, main),) = shown
    assert re.fullmatch(r"placing S1A_EW_GRDM_1SDH_\w+, once", what)
    assert main == (how != "beside")
    assert total > 100
    assert seen == total
    shown.clear()
    read()
    assert shown == [], "it is there already"


WORKER = """
import sys
import deepsentinel as ds
from deepsentinel.sources.safe import render
rendered = render.render
def noted(*args):
    with open(sys.argv[2], "a") as file:
        file.write("rendered\\n")
    rendered(*args)
render.render = noted
source = ds.open_source(sys.argv[1])
patch = source.read(source.search((101.0, 79.5, 104.0, 80.2)).iloc[0], ds.geobox((101.5, 80.0, 101.6, 80.02)))
print(float(patch["HH"].mean()))
"""


def test_processes_wait_for_the_first_and_not_for_the_dead(real: Path, tmp_path: Path, cache: Path) -> None:
    folder, log = tmp_path / "products", tmp_path / "log.txt"
    grd_product(real, folder, {"HH": np.full((LINES, PIXELS), 300, "uint16")})
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(folder), str(log)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate(timeout=120)[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(told) == 1
    assert log.read_text().splitlines() == ["rendered"]
    (made,) = cache.iterdir()
    # one who was killed at work left his mark
    mark = made.with_name(f".partial-{made.name}.lock")
    shutil.rmtree(made)
    mark.touch()
    os.utime(mark, (0, 0))
    assert {subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout} == told
    assert [path.name for path in cache.iterdir()] == [made.name]


def far(point: Any) -> GeoBox:
    return around(point["longitude"], point["latitude"])


@pytest.mark.parametrize("at", ["a block", "between bands", "an archive"])
def test_placing_a_scene_ends_soon_after_nobody_wants_it(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(render, "BLOCK_PX", 128)
    source, row = scene(tmp_path, np.full((LINES, PIXELS), 300, "uint16"), real)
    if at == "an archive":
        zipped(next(tmp_path.glob("*.SAFE")))
        source = ds.open_source(tmp_path)
        row = source.search(SEA).iloc[0]
    place = far(annotations[1]["hh"].points[500, 525])
    enough, blocks, bands, begun = threading.Event(), [], [], []
    between, copied, image = render.between, render._copy, render.calibration_of

    def one_block(*args: Any) -> Any:
        blocks.append(1)
        if at == "a block" and len(blocks) == 20:
            enough.set()
        return between(*args)

    def one_band(*args: Any) -> None:
        bands.append(1)
        copied(*args)
        if at == "between bands":
            enough.set()

    def beginning(*args: Any) -> Any:
        begun.append(1)
        if at == "an archive":
            enough.set()
        return image(*args)

    monkeypatch.setattr(render, "between", one_block)
    monkeypatch.setattr(render, "_copy", one_band)
    monkeypatch.setattr(render, "calibration_of", beginning)
    with reading_until(enough.is_set), pytest.raises(ReadError, match=r"^Reading was stopped before this was read\.$"):
        source.read(row, place)
    done = len(blocks)
    assert len(bands) == (at == "between bands")
    assert len(begun) == 1
    assert at != "a block" or done <= 20 + 3 * render.THREADS + 1
    assert at != "an archive" or done == 0
    assert list(cache.iterdir()) == []
    # The next one begins anew, and finds no one in his way; a stream of many is stopped as a single one is.
    blocks.clear()
    bands.clear()
    enough.clear()
    with reading_until(enough.is_set), pytest.raises(ReadError, match="stopped"):
        list(source.read_many(row, [place] * 3))
    assert at != "a block" or len(blocks) <= 20 + 3 * render.THREADS + 1
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(cache.parent))
    assert not source.read(row, place)["HH"].isnull().any()


@pytest.mark.parametrize("who", ["a process", "a thread"])
def test_who_waits_for_another_to_place_a_scene_can_leave(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    source, row = scene(tmp_path, {"HH": np.full((LINES, PIXELS), 300, "uint16")}, real)
    place = far(annotations[1]["hh"].points[500, 525])
    locks: dict[str, threading.Lock] = {}
    monkeypatch.setattr(render, "_locks", locks)
    patch = source.read(row, place)
    (made,) = cache.iterdir()
    mark = made.with_name(f".partial-{made.name}.lock")
    shutil.rmtree(made)
    if who == "a process":
        mark.touch()  # as one does that is at work now
    else:
        locks[str(made)].acquire()
    asked = []
    began = time.monotonic()
    with reading_until(lambda: asked.append(1) or len(asked) > 2), pytest.raises(ReadError, match="stopped"):  # type: ignore[func-returns-value]
        source.read(row, place)
    assert time.monotonic() - began < 10
    assert list(cache.iterdir()) == ([mark] if who == "a process" else [])
    if who == "a process":
        mark.unlink()
    else:
        locks[str(made)].release()
    assert source.read(row, place).identical(patch)


def test_the_cache_stays_within_its_bounds(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "CACHE_BYTES", 1)
    dn = {"HH": np.full((LINES, PIXELS), 300, "uint16")}
    point = annotations[1]["hh"].points[500, 525]
    grid = around(point["longitude"], point["latitude"])
    source, row = scene(tmp_path, dn, real)
    source.read(row, grid)
    (first,) = cache.iterdir()
    other = ds.open_source(tmp_path, s1_crs="EPSG:3995")
    other.read(row, grid)
    assert len(list(cache.iterdir())) == 2, "what was used a moment ago stays, whatever it takes"
    os.utime(first, (0, 0))
    third = ds.open_source(tmp_path, s1_crs="EPSG:32647")
    third.read(row, grid)
    assert len(list(cache.iterdir())) == 2
    assert not first.exists()


def test_zipped_radar_is_the_same_and_leaves_nothing(real: Path, annotations: Any, tmp_path: Path, cache: Path) -> None:
    dn = np.random.default_rng(0).integers(100, 900, (LINES, PIXELS)).astype("uint16")
    source, row = scene(tmp_path, dn, real)
    point = annotations[1]["hh"].points[500, 525]
    grid = around(point["longitude"], point["latitude"])
    patch = source.read(row, grid)
    zipped(next(tmp_path.glob("*.SAFE")), "./")
    source = ds.open_source(tmp_path)
    again = source.read(source.search(SEA).iloc[0], grid)
    assert again.equals(patch)
    assert sorted({path.suffix for path in cache.rglob("*") if path.is_file()}) == [".tif"]
    assert not list(cache.rglob("*image*"))


@pytest.mark.parametrize("fault", ["no calibration", "no image", "slc", "no manifest"])
def test_a_broken_radar_product_is_told_by_name(real: Path, tmp_path: Path, fault: str) -> None:
    safe = grd_product(real, tmp_path, {"HH": np.full((LINES, PIXELS), 300, "uint16")})
    if fault == "no calibration":
        (safe / "annotation/calibration/calibration-ew-hh.xml").unlink()
    elif fault == "no image":
        next(safe.glob("measurement/*")).unlink()
    elif fault == "slc":
        edited(safe / "manifest.safe", (r"productType>GRD<", "productType>SLC<"))
    else:
        (safe / "manifest.safe").unlink()
    said = {"slc": "Sentinel-1 SLC product", "no manifest": "no manifest"}.get(fault, "no image with its")
    with pytest.warns(DeepSentinelWarning, match=rf"{safe.name}.*{said}"), pytest.raises(NothingFoundError):
        ds.open_source(tmp_path).search(SEA)


@pytest.mark.parametrize("fault", ["cut image", "another size", "cut noise", "no orbit"])
def test_what_breaks_on_reading_names_the_scene(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, fault: str
) -> None:
    safe = grd_product(real, tmp_path, {"HH": np.full((LINES, PIXELS), 300, "uint16")})
    image = next(safe.glob("measurement/*"))
    if fault == "cut image":
        image.write_bytes(image.read_bytes()[:100_000])
    elif fault == "another size":
        edited(safe / "annotation/ew-hh.xml", (r"<numberOfLines>1100<", "<numberOfLines>1000<"))
    elif fault == "cut noise":
        path = safe / "annotation/calibration/noise-ew-hh.xml"
        path.write_bytes(path.read_bytes()[:50_000])
    else:
        edited(safe / "annotation/ew-hh.xml", ("<orbitList.*</orbitList>", ""))
    source = ds.open_source(tmp_path)
    row = source.search(SEA).iloc[0]
    point = annotations[1]["hh"].points[500, 525]
    with pytest.raises((ReadError, OSError), match=safe.stem):
        source.read(row, around(point["longitude"], point["latitude"]))
    assert not list(cache.glob("*")) if cache.exists() else True


def test_a_full_disk_is_not_blamed_on_the_product(
    real: Path, annotations: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    source, row = scene(tmp_path, {"HH": np.full((LINES, PIXELS), 300, "uint16")}, real)
    monkeypatch.setattr(render, "_copy", full)
    point = annotations[1]["hh"].points[500, 525]
    with pytest.raises(SourceError, match=r"No space left.*DEEPSENTINEL_CACHE"):
        source.read(row, around(point["longitude"], point["latitude"]))
    assert list(cache.iterdir()) == []


def test_options_are_checked(real: Path, tmp_path: Path) -> None:
    safe = grd_product(real, tmp_path, {"HH": np.full((LINES, PIXELS), 300, "uint16")})
    for options, said in (
        ({"s1_crs": "EPSG:4326"}, "not in metres"),
        ({"s1_crs": "the pole"}, "is no map"),
        ({"s1_height_m": 5000}, "within 200 m"),
    ):
        with pytest.raises(InputError, match=said):
            ds.open_source(safe, **options)
