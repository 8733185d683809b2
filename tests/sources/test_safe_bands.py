"""Downloaded Sentinel-2 of which a file is gone, or that lies under another name: what it states itself counts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from safe_builders import EPSG, LEFT, SIZE, TOP, small_dn, small_safe, zipped

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, ReadError

AREA = (4.385, 49.635, 4.395, 49.64)
GRID = GeoBox((SIZE, SIZE), from_origin(LEFT, TOP, 10, 10), f"EPSG:{EPSG}")


def with_copy(folder: Path, band: str = "B04") -> tuple[Path, Path]:
    """A product that has a 10 m band at 20 m as well, as whole L2A products do; the product, and the 10 m file."""
    safe = small_safe(folder)
    fine = next(safe.glob(f"GRANULE/*/IMG_DATA/R10m/*_{band}_10m.jp2"))
    coarse = next(safe.glob("GRANULE/*/IMG_DATA/R20m/*_B05_20m.jp2"))
    shutil.copy(coarse, coarse.with_name(fine.name.replace("10m", "20m")))
    xml = safe / "MTD_MSIL2A.xml"
    listed = f"{coarse.with_name(fine.stem.replace('10m', '20m')).relative_to(safe).as_posix()}"
    xml.write_text(xml.read_text().replace("</Granule>", f"<IMAGE_FILE>{listed}</IMAGE_FILE></Granule>"))
    return safe, fine


def expected(band: str) -> np.ndarray:
    dn = small_dn(band).astype(int)
    dn = np.where(dn == 0, 0, np.maximum(1, dn - 1000))
    factor = SIZE // dn.shape[0]
    return dn.repeat(factor, 0).repeat(factor, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", ["gone", "empty"])
def test_a_band_whose_file_is_lost_is_not_taken_from_its_coarser_copy(tmp_path: Path, fault: str, packed: bool) -> None:
    safe, fine = with_copy(tmp_path)
    if fault == "gone":
        fine.unlink()
    else:
        fine.write_bytes(b"")
    if packed:
        zipped(safe)
    source = ds.open_source(tmp_path)
    told = rf"{safe.stem} lacks B04 \({fine.stem}\), which its metadata lists.*[Dd]ownload it again"
    with pytest.warns(DeepSentinelWarning, match=told):
        scene = source.search(AREA).iloc[0]
    patch = source.read(scene, GRID)
    assert "B04" not in patch
    np.testing.assert_array_equal(patch["B02"], expected("B02"))
    np.testing.assert_array_equal(patch["B05"], expected("B05"))
    with pytest.raises(ReadError, match=rf"{safe.stem} has no B04: .*{fine.stem}.*Download the product again"):
        source.read(scene, GRID, bands=["B02", "B04"])
    with pytest.raises(ReadError, match=rf"{safe.stem} has no B08: it has B02"):  # which it never had
        source.read(scene, GRID, bands=["B08", "B02"])


def test_a_whole_product_is_read_from_its_own_files(tmp_path: Path) -> None:
    with_copy(tmp_path)
    source = ds.open_source(tmp_path)
    np.testing.assert_array_equal(source.read(source.search(AREA).iloc[0], GRID)["B04"], expected("B04"))


def test_a_copy_that_is_lost_is_not_missed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    _, fine = with_copy(tmp_path)
    next(tmp_path.glob("*/GRANULE/*/IMG_DATA/R20m/*_B04_20m.jp2")).unlink()
    source = ds.open_source(tmp_path)
    np.testing.assert_array_equal(source.read(source.search(AREA).iloc[0], GRID)["B04"], expected("B04"))
    assert not [one for one in recwarn if issubclass(one.category, DeepSentinelWarning)]
    assert fine.is_file()


def test_a_product_that_never_had_a_band_at_10_m_has_it_as_it_is(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Sen2Cor can be asked for 20 m alone."""
    safe, fine = with_copy(tmp_path)
    fine.unlink()
    xml = safe / "MTD_MSIL2A.xml"
    xml.write_text(re.sub(r"<IMAGE_FILE>[^<]*_B04_10m</IMAGE_FILE>", "", xml.read_text()))
    source = ds.open_source(tmp_path)
    patch = source.read(source.search(AREA).iloc[0], GRID, bands=["B04"])
    np.testing.assert_array_equal(patch["B04"], expected("B05"))
    assert not [one for one in recwarn if issubclass(one.category, DeepSentinelWarning)]


@pytest.mark.parametrize("name", ["my product.SAFE", "renamed", "S2A_MSIL2A_20210604.SAFE"])
def test_a_product_keeps_its_id_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    safe = small_safe(tmp_path / "a")
    before = ds.open_source(safe).search(AREA).iloc[0]
    shutil.copytree(safe, tmp_path / "b" / name)
    source = ds.open_source(tmp_path / "b")
    after = source.search(AREA).iloc[0]
    assert after.id == before.id == safe.stem
    assert source.read(before, GRID).attrs["s2_id"] == safe.stem
    assert list(ds.open_source(tmp_path).search(AREA).id) == [safe.stem]  # the two are one


def test_what_is_wrong_with_a_renamed_product_is_told_with_its_folder(tmp_path: Path) -> None:
    safe = small_safe(tmp_path)
    next(safe.glob("GRANULE/*/IMG_DATA/R10m/*_B04_10m.jp2")).unlink()
    safe.rename(tmp_path / "mine.SAFE")
    with pytest.warns(DeepSentinelWarning, match=rf"{safe.stem} \(in mine\.SAFE\) lacks B04"):
        ds.open_source(tmp_path).search(AREA)


@pytest.mark.parametrize("uri", ["", "../../../etc/passwd", "S2A_x/../../y.SAFE", "."])
def test_a_name_that_is_none_is_not_taken(tmp_path: Path, uri: str) -> None:
    safe = small_safe(tmp_path)
    xml = safe / "MTD_MSIL2A.xml"
    xml.write_text(re.sub(r"<PRODUCT_URI>[^<]*", f"<PRODUCT_URI>{uri}", xml.read_text()))
    named = tmp_path / "mine.SAFE"
    safe.rename(named)
    assert ds.open_source(tmp_path).search(AREA).iloc[0].id == "mine"


def test_of_two_names_a_product_of_sen2cor_has_the_one_of_its_level(tmp_path: Path) -> None:
    """Before 2018 it stated what it was made of, too, and that first."""
    safe = small_safe(tmp_path)
    xml = safe / "MTD_MSIL2A.xml"
    both = f"<PRODUCT_URI_1C>{safe.name.replace('MSIL2A', 'MSIL1C')}</PRODUCT_URI_1C>"
    both += f"<PRODUCT_URI_2A>{safe.name}</PRODUCT_URI_2A>"
    xml.write_text(re.sub(r"<PRODUCT_URI>[^<]*</PRODUCT_URI>", both, xml.read_text()))
    assert ds.open_source(tmp_path).search(AREA).iloc[0].id == safe.stem
