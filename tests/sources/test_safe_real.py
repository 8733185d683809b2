"""Products built from real Sentinel-2 metadata: pixels written beside copies of the XML of four products."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from safe_builders import copied, write_jp2

import deepsentinel as ds
from deepsentinel.bands import S2_BANDS

SIZE = 120
PRODUCTS = {
    "S2A_MSIL1C_20200717T221941_R029_T01LAC_20200717T234135": ("L1C", "02.09", 0),
    "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248": ("L1C", "03.01", 0),
    "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857": ("L2A", "02.12", 0),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157": ("L2A", "05.09", 1000),
}


def tag(text: str, name: str) -> str:
    return re.search(rf"<{name}[^>]*>([^<]*)</{name}>", text)[1]


def stored(band: str) -> np.ndarray:
    """What is in the file: so that 10, 20 and 60 m bands differ, and one corner has nothing."""
    native = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
    rng = np.random.default_rng(sum(map(ord, band)))
    if band == "SCL":
        return rng.integers(1, 12, (SIZE // 2, SIZE // 2)).astype("uint8")
    dn = rng.integers(1, 12_000, (SIZE * 10 // native,) * 2).astype("uint16")
    dn[:2, :2] = 0
    return dn


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest, real: Path, tmp_path: Path) -> tuple[str, Path, str, str]:
    """Name, folder, and the text of both metadata files. Images hold the tile's first 1.2 km."""
    safe = copied(real / "safe" / f"{request.param}.SAFE", tmp_path)
    main = next(safe.glob("MTD_MSIL*.xml")).read_text()
    tile = next(safe.glob("GRANULE/*/MTD_TL.xml")).read_text()
    left, top = (float(tag(tile, name)) for name in ("ULX", "ULY"))
    for image in re.findall(r"<IMAGE_FILE>([^<]*)</IMAGE_FILE>", main):
        band, metres = re.search(r"_(B\d[0-9A]|SCL|TCI|AOT|WVP)(?:_(\d\d)m)?$", image).groups()
        if band in ("TCI", "AOT", "WVP"):
            continue
        native = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
        data = stored(band)
        if metres and int(metres) != native:
            data = np.full((SIZE // 6, SIZE // 6), 7, data.dtype)  # a resampled copy, which nobody wants
        step = SIZE * 10 / data.shape[0]
        write_jp2(safe / f"{image}.jp2", data, Affine(step, 0, left, 0, -step, top), tag(tile, "HORIZONTAL_CS_CODE"))
    return request.param, safe, main, tile


def test_real_metadata_is_understood(product: Any) -> None:
    name, safe, main, tile = product
    level, baseline, offset = PRODUCTS[name]
    source = ds.open_source(safe)
    crs, left, top = tag(tile, "HORIZONTAL_CS_CODE"), float(tag(tile, "ULX")), float(tag(tile, "ULY"))
    to = Transformer.from_crs(crs, 4326, always_xy=True)
    # Anywhere in the tile, whichever side of 180 degrees; the first has a footprint that crosses it.
    ring = [float(word) for word in tag(main, "EXT_POS_LIST").split()]
    lat, lon = np.mean(ring[0:-2:2]), np.rad2deg(np.angle(np.exp(1j * np.deg2rad(ring[1:-2:2])).mean()))
    scene = source.search((lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01)).iloc[0]
    assert scene.id == tag(main, "PRODUCT_URI").removesuffix(".SAFE")  # whoever calls the folder otherwise
    assert (scene.level, scene.baseline, scene.platform, scene.crs) == (level, baseline, "sentinel-2a", crs)
    assert scene.tile == re.search(r"_T(\d\d[A-Z]{3})_", name)[1]
    assert scene.time.isoformat()[:19] == tag(tile, "SENSING_TIME")[:19]
    assert scene.relative_orbit == int(re.search(r"_R(\d{3})_", name)[1])
    assert scene.orbit == "descending"
    assert scene.cloud_cover == float(tag(tile, "CLOUDY_PIXEL_PERCENTAGE"))
    assert scene.datatake == re.search(r'datatakeIdentifier="([^"]*)"', main)[1]
    if level == "L2A":
        assert scene.nodata_share == pytest.approx(float(tag(tile, "NODATA_PIXEL_PERCENTAGE")) / 100)
    # The footprint covers as much of the tile as the product says, on the globe.
    covered = abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.orient_polygons(scene.geometry))[0]) / 109.8e3**2
    assert covered == pytest.approx(1 - scene.nodata_share, abs=0.02)
    grid = GeoBox((SIZE, SIZE), Affine(10, 0, left, 0, -10, top), crs)
    if not scene.geometry.intersects(shapely.Point(*to.transform(left + 600, top - 600)).buffer(0.02)):
        pytest.skip("the first corner of this tile has no pixels")
    patch = ds.check_patch(source.read(scene, grid))
    wanted = [band for band in S2_BANDS if level == "L1C" or band != "B10"]
    assert [band for band in patch.data_vars if band != "SCL"] == wanted
    for band in patch.data_vars:
        dn = stored(band).astype(int)
        values = dn if band == "SCL" else np.where(dn == 0, 0, np.maximum(dn - offset, 1))
        factor = SIZE // dn.shape[0]
        np.testing.assert_array_equal(patch[band], values.repeat(factor, 0).repeat(factor, 1), err_msg=band)
    assert patch.attrs["offset_removed"] == offset
    sun = re.search(r"<Mean_Sun_Angle>(.*?)</Mean_Sun_Angle>", tile, re.S)[1]
    assert patch.attrs["sun_zenith_deg"] == pytest.approx(float(tag(sun, "ZENITH_ANGLE")), abs=1e-4)
    assert patch.attrs["sun_azimuth_deg"] == pytest.approx(float(tag(sun, "AZIMUTH_ANGLE")), abs=1e-4)
    views = re.search(r"<Mean_Viewing_Incidence_Angle_List>(.*?)</Mean_Viewing_Incidence_Angle_List>", tile, re.S)[1]
    zeniths = [float(word) for word in re.findall(r"<ZENITH_ANGLE[^>]*>([^<]*)<", views)]
    azimuths = [float(word) for word in re.findall(r"<AZIMUTH_ANGLE[^>]*>([^<]*)<", views)]
    assert len(zeniths) == 13
    assert patch.attrs["view_zenith_deg"] == pytest.approx(np.mean(zeniths), abs=1e-4)
    # all within some degrees of one another, so that the plain mean is close
    assert patch.attrs["view_azimuth_deg"] == pytest.approx(np.mean(azimuths), abs=0.05)
