"""Downloaded Sentinel-2: what a .SAFE folder says and holds comes out as from any other source, or is told of."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from safe_builders import EPSG, LEFT, SIZE, TOP, demo_products, small_dn, small_safe, zipped

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, ReadError, SourceError
from deepsentinel.sources.safe.files import parse_xml
from deepsentinel.sources.safe.finding import find_paths

AREA = (4.385, 49.635, 4.395, 49.64)
GRID = GeoBox((SIZE, SIZE), from_origin(LEFT, TOP, 10, 10), f"EPSG:{EPSG}")
START, END = "2018-06-01", "2018-06-12"


def expected(band: str, offset: int, seed: int = 0) -> np.ndarray:
    """Reflectance on the 10 m grid, worked out pixel by pixel."""
    dn = small_dn(band, seed).astype(int)
    out = np.zeros_like(dn)
    for at, value in np.ndenumerate(dn):
        out[at] = value if value == 0 or band == "SCL" else max(1, value + offset)
    factor = SIZE // dn.shape[0]
    return out.repeat(factor, 0).repeat(factor, 1)


# -- the demo world as downloads ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Any:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def downloads(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = demo_products(demo, demo.search(demo.area, START, END), tmp_path_factory.mktemp("downloads"))
    zipped(next(folder.glob("*_T31UCQ_*.SAFE")))
    return folder


def test_the_same_scenes_pairs_and_pixels_as_the_catalog(demo: Any, downloads: Path) -> None:
    source = ds.open_source(downloads)
    theirs, ours = demo.search(demo.area, START, END), source.search(demo.area, START, END)
    told = [name for name in theirs.columns if name != "geometry"]
    assert len(ours) == len(theirs) > 10
    for name in told:
        same = (ours[name] == theirs[name]) | (ours[name].isna() & theirs[name].isna())
        assert same.all(), name
    optical = theirs.sensor == "S2"
    assert ours.geometry.geom_equals_exact(theirs.geometry, 1e-12)[optical].all()
    pairs, wanted = (ds.pair(table, aoi=demo.area, max_days=3) for table in (ours, theirs))
    assert pairs.drop(columns="geometry").equals(wanted.drop(columns="geometry"))
    grid = ds.geobox(demo.area, resolution=10)
    for (_, row), patch in zip(wanted.iterrows(), source.read_many(pairs, grid), strict=True):
        assert ds.check_patch(patch).equals(demo.read(row, grid))
    series = source.read(pairs, grid, bands=["B04", "B11", "SCL", "VH"])
    catalog = demo.read(wanted, grid, bands=["B04", "B11", "SCL", "VH"])
    assert series.equals(catalog)


def test_a_grid_of_its_own_is_resampled_as_any_other(demo: Any, downloads: Path) -> None:
    source = ds.open_source(downloads)
    row = source.search(demo.area, START, END, sensors="S2").iloc[0]
    for resolution in (7, 40):
        grid = ds.geobox(demo.area, resolution=resolution, crs="EPSG:3035")
        assert source.read(row, grid).equals(demo.read(row, grid))


# -- what the metadata says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("baseline", "offset"), [("02.14", 0), ("03.01", 0), ("04.00", -1000), ("05.11", -1000)])
@pytest.mark.parametrize("level", ["1C", "2A"])
def test_offsets_come_from_the_products_own_metadata(tmp_path: Path, baseline: str, offset: int, level: str) -> None:
    bands = ["B02", "B05", "B09"] + (["SCL"] if level == "2A" else ["B10"])
    small_safe(tmp_path, baseline=baseline, level=level, bands=bands, letter="C")
    source = ds.open_source(tmp_path)
    scene = source.search(AREA).iloc[0]
    assert (scene.level, scene.baseline, scene.platform) == (f"L{level}", baseline, "sentinel-2c")
    assert (scene.cloud_cover, scene.nodata_share, scene.tile, scene.crs) == (20.75, 0.125, "31UEQ", f"EPSG:{EPSG}")
    patch = ds.check_patch(source.read(scene, GRID))
    for band in bands:
        np.testing.assert_array_equal(patch[band], expected(band, offset), err_msg=band)
    assert patch.attrs["offset_removed"] == -offset
    angles = {name: patch.attrs[f"{name}_deg"] for name in ("sun_zenith", "sun_azimuth", "view_zenith", "view_azimuth")}
    # 355 .. 7 degrees: their middle is north by one degree, not south
    assert angles == {"sun_zenith": 30.5, "sun_azimuth": 150.25, "view_zenith": 3.6, "view_azimuth": 1.0}


def test_each_band_has_the_offset_that_is_stated_for_it(tmp_path: Path) -> None:
    safe = small_safe(tmp_path)
    path = safe / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace('band_id="3">-1000', 'band_id="3">-300'))  # B04
    source = ds.open_source(safe)
    patch = source.read(source.search(AREA).iloc[0], GRID)
    np.testing.assert_array_equal(patch["B04"], expected("B04", -300))
    np.testing.assert_array_equal(patch["B05"], expected("B05", -1000))


def test_a_new_baseline_without_offsets_is_not_guessed_at(tmp_path: Path) -> None:
    path = small_safe(tmp_path) / "MTD_MSIL2A.xml"
    path.write_text(re.sub(r"<BOA_ADD_OFFSET_VALUES_LIST>.*</BOA_ADD_OFFSET_VALUES_LIST>", "", path.read_text()))
    source = ds.open_source(tmp_path)
    scene = source.search(AREA).iloc[0]
    with pytest.raises(ReadError, match=r"05\.00 stores an offset, and its metadata states none.*s2_offset"):
        source.read(scene, GRID)
    patch = ds.open_source(tmp_path, s2_offset=-1000).read(scene, GRID)
    np.testing.assert_array_equal(patch["B02"], expected("B02", -1000))


def test_sen2cor_of_old_and_other_pixel_sizes(tmp_path: Path) -> None:
    """Tags and files as they were called before 2018, and 10 m bands that lie there at 20 m as well."""
    safe = small_safe(tmp_path, baseline="02.04", bands=("B02", "B05"))
    xml = safe / "MTD_MSIL2A.xml"
    text = xml.read_text()
    for tag in ("PRODUCT_URI", "PROCESSING_LEVEL"):
        text = text.replace(tag, f"{tag}_2A")
    text = text.replace("BOA_QUANT", "L2A_BOA_QUANT").replace("IMAGE_FILE", "IMAGE_FILE_2A")
    xml.write_text(text.replace("/T31UEQ", "/L2A_T31UEQ"))
    tile = next(safe.glob("GRANULE/*/MTD_TL.xml"))
    tile.write_text(tile.read_text().replace("TILE_ID", "TILE_ID_2A"))
    for image in list(safe.glob("GRANULE/*/IMG_DATA/*/*.jp2")):
        image.rename(image.with_name(f"L2A_{image.name}"))
    fine = next(safe.glob("GRANULE/*/IMG_DATA/R10m/*_B02_10m.jp2"))
    coarse = next(safe.glob("GRANULE/*/IMG_DATA/R20m/*_B05_20m.jp2"))
    shutil.copy(coarse, coarse.with_name(fine.name.replace("10m", "20m")))
    source = ds.open_source(tmp_path)
    patch = source.read(source.search(AREA).iloc[0], GRID)
    np.testing.assert_array_equal(patch["B02"], expected("B02", 0))
    np.testing.assert_array_equal(patch["B05"], expected("B05", 0))


def test_products_of_2016_hold_several_tiles_under_long_names(tmp_path: Path) -> None:
    made = {}
    for tile, seed in (("31UEQ", 1), ("31UFQ", 2)):
        made[tile] = small_safe(
            tmp_path / tile, tile=tile, seed=seed, baseline="02.01", level="1C", bands=["B02", "B05"]
        )
    safe = tmp_path / "all" / "S2A_OPER_PRD_MSIL1C_PDMC_20160101T120000_R094_V20160101T105620_20160101T105620.SAFE"
    safe.mkdir(parents=True)
    for tile, product in made.items():
        long = f"S2A_OPER_{{}}_L1C_TL_EPA__20160101T120000_A000123_T{tile}"
        target = safe / "GRANULE" / f"{long.format('MSI')}_N02.01"
        shutil.copytree(next(product.glob("GRANULE/*")), target)
        (target / "MTD_TL.xml").rename(target / f"{long.format('MTD')}.xml")
        for image in target.glob("IMG_DATA/*.jp2"):
            image.rename(image.with_name(f"{long.format('MSI')}_{image.name[-7:]}"))
        stated = (product / "MTD_MSIL1C.xml").read_text().replace(product.name, safe.name)
        (safe / "S2A_OPER_MTD_SAFL1C_PDMC_20160101T120000.xml").write_text(stated)
    source = ds.open_source(tmp_path / "all")
    scenes = source.search(AREA)
    assert sorted(scenes.tile) == ["31UEQ", "31UFQ"]
    assert list(scenes.id) == [f"{safe.stem}_T{tile}" for tile in scenes.tile]
    for _, row in scenes.iterrows():
        patch = source.read(row, GRID)
        np.testing.assert_array_equal(patch["B02"], expected("B02", 0, {"31UEQ": 1, "31UFQ": 2}[row.tile]))
        assert patch.attrs["level"] == "L1C"


@pytest.mark.parametrize("first", [0, 1])
def test_tiles_of_one_old_product_in_folders_of_their_own_are_scenes_of_their_own(tmp_path: Path, first: int) -> None:
    """As they were downloaded tile by tile: each states the name of the product that they are of."""
    uri = "S2A_OPER_PRD_MSIL1C_PDMC_20160101T120000_R094_V20160101T105620_20160101T105620"
    tiles = {"31UEQ": 1, "31UFQ": 2}
    for number, (tile, seed) in enumerate(tiles.items()):
        safe = small_safe(tmp_path / tile, tile=tile, seed=seed, baseline="02.01", level="1C", bands=["B02"])
        xml = safe / "MTD_MSIL1C.xml"
        xml.write_text(xml.read_text().replace(safe.name, f"{uri}.SAFE"))
        safe.rename(tmp_path / f"{number if first == 0 else 9 - number}.SAFE")
        (tmp_path / tile).rmdir()
    source = ds.open_source(tmp_path)
    scenes = source.search(AREA)
    assert sorted(scenes.id) == [f"{uri}_T{tile}" for tile in tiles], "as in a product that holds both"
    for _, row in scenes.iterrows():
        np.testing.assert_array_equal(source.read(row, GRID)["B02"], expected("B02", 0, tiles[row.tile]))


# -- which product -----------------------------------------------------------------------------------------------------


def test_zipped_or_not_is_the_same(tmp_path: Path) -> None:
    safe = small_safe(tmp_path / "a")
    before = ds.open_source(safe)
    scene = before.search(AREA).iloc[0]
    patch = before.read(scene, GRID)
    archive = zipped(safe)
    for location in (archive, tmp_path, tmp_path / "a"):
        source = ds.open_source(location)
        found = source.search(AREA).iloc[0]
        assert found.drop("geometry").equals(scene.drop("geometry"))
        assert source.read(found, GRID).equals(patch)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [archive.name], "nothing is unpacked"
    odd = archive.with_name("my {first} download.zip")
    archive.rename(odd)
    source = ds.open_source(tmp_path)
    assert source.read(source.search(AREA).iloc[0], GRID).equals(patch)


def test_a_product_beside_its_archive_is_one(tmp_path: Path) -> None:
    safe = small_safe(tmp_path)
    shutil.copytree(safe, tmp_path / "kept" / safe.name)
    zipped(safe)
    assert len(ds.open_source(tmp_path).search(AREA)) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("partial", ["folder", "archive"])
def test_of_a_product_and_its_archive_the_whole_one_is_read_and_nothing_is_missed(tmp_path: Path, partial: str) -> None:
    safe = small_safe(tmp_path, bands=["B02", "B04"])
    shutil.copytree(safe, tmp_path / "kept" / safe.name)
    kept = tmp_path / "kept" / safe.name
    next((kept if partial == "folder" else safe).rglob("*_B04_10m.jp2")).unlink()
    zipped(safe)
    source = ds.open_source(tmp_path)
    found = source.search(AREA)
    assert len(found) == 1
    np.testing.assert_array_equal(source.read(found.iloc[0], GRID, bands=["B04"])["B04"], expected("B04", -1000))


def test_of_two_processings_the_newest_is_found_and_both_can_be_read(tmp_path: Path) -> None:
    old = small_safe(tmp_path, baseline="03.01", seed=1)
    new = small_safe(tmp_path, baseline="05.00", generated="20230101", seed=2)
    again = small_safe(tmp_path, baseline="05.00", generated="20240101", seed=3)
    other = small_safe(tmp_path, tile="31UFQ", baseline="03.01", seed=4)
    source = ds.open_source(tmp_path)
    found = source.search(AREA)
    assert sorted(found.id) == sorted([again.stem, other.stem])
    assert list(found.index) == [0, 1]
    for product, offset, seed in ((old, 0, 1), (new, -1000, 2), (again, -1000, 3)):
        patch = source.read({"sensor": "S2", "id": product.stem}, GRID)
        np.testing.assert_array_equal(patch["B04"], expected("B04", offset, seed))


def test_levels_can_be_chosen(tmp_path: Path) -> None:
    small_safe(tmp_path, level="1C", bands=["B02"])
    small_safe(tmp_path, level="2A", bands=["B02"])
    assert set(ds.open_source(tmp_path).search(AREA).level) == {"L1C", "L2A"}
    for level in ("L1C", "L2A"):
        assert list(ds.open_source(tmp_path, s2_level=level).search(AREA).level) == [level]


def test_any_path_that_means_a_product_opens_it(tmp_path: Path) -> None:
    safe = small_safe(tmp_path / "2021" / "june")
    bare = tmp_path / "renamed"
    shutil.copytree(safe, bare)
    for location in (safe, str(safe), safe / "MTD_MSIL2A.xml", tmp_path / "2021", tmp_path, bare):
        source = ds.open_source(location)
        assert len(source.search(AREA, "2021-06-04", "2021-06-04")) == 1, location
    source = ds.open_source(safe)
    assert source.name == safe.name
    assert str(safe) in repr(source)
    with pytest.raises(InputError, match=r"no catalog\.json|without a catalog\.json"):
        (tmp_path / "empty").mkdir()
        ds.open_source(tmp_path / "empty")
    with pytest.raises(TypeError, match=r"s2_levle.*Did you mean 's2_level'"):
        ds.open_source(safe, s2_levle="L2A")


def test_an_archive_that_begins_its_names_with_a_dot_is_as_any_other(tmp_path: Path) -> None:
    patches = []
    for folder, begins in (("plain", ""), ("dotted", "./")):
        zipped(small_safe(tmp_path / folder), begins)
        source = ds.open_source(tmp_path / folder)
        patches.append(source.read(source.search(AREA).iloc[0], GRID))
    assert {"B02", "B09", "SCL"} <= set(patches[1].data_vars)
    for band in patches[0].data_vars:
        np.testing.assert_array_equal(patches[1][band], patches[0][band])


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """What was looked at and what GDAL then opens might be two files."""
    archive = zipped(small_safe(tmp_path))
    with zipfile.ZipFile(archive, "a") as file:
        image = next(name for name in file.namelist() if name.endswith("B02_10m.jp2"))
        file.writestr(f"./{image}", "<VRTDataset/>")
    with pytest.warns(DeepSentinelWarning, match="two files of the same name"), pytest.raises(NothingFoundError):
        ds.open_source(tmp_path).search(AREA)


@pytest.mark.parametrize("closed", ["lost+found", "2021/lost+found"])
def test_a_folder_that_cannot_be_listed_is_no_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    small_safe(tmp_path / "2021")
    (tmp_path / closed).mkdir()
    # Whoever runs tests may be root, to whom nothing is closed.
    for name in ("listdir", "scandir"):
        opened = getattr(os, name)

        def guarded(path: Any = ".", opened: Any = opened) -> Any:
            if Path(path).name == "lost+found":
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path)

        monkeypatch.setattr(os, name, guarded)
    with pytest.raises(PermissionError):
        list((tmp_path / closed).iterdir())
    assert len(ds.open_source(tmp_path).search(AREA)) == 1
    with pytest.raises(InputError, match=r"no catalog\.json|without a catalog\.json"):
        ds.open_source(tmp_path / closed)


def test_products_are_found_however_deep_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As services lay out their mirrors: by mission, instrument, level and day."""
    deep = tmp_path / "mirror/Sentinel-2/MSI/L2A/2018/05/08"
    whole = small_safe(deep, seed=1)
    zipped(small_safe(deep.parent / "09/again", tile="31UFQ"))
    bare = tmp_path / "mirror/a/b/c/d/e/f/renamed"
    shutil.copytree(small_safe(tmp_path / "elsewhere", day="2021-06-09"), bare)
    # What we keep of radar ourselves is no download.
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path / "mirror" / "kept"))
    kept = tmp_path / "mirror/kept/safe/S1A_IW_GRDH_1SDV_20180508-abc"
    kept.mkdir(parents=True)
    (kept / "vv.tif").touch()
    # Not into a product: what lies in it is its own.
    small_safe(whole / "HTML", tile="31UGQ")
    # Neither round and round.
    (deep / "up").symlink_to(tmp_path / "mirror", target_is_directory=True)
    source = ds.open_source(tmp_path / "mirror")
    found = source.search(AREA)
    assert sorted(found.tile) == ["31UEQ", "31UEQ", "31UFQ"]
    assert len(list(find_paths(tmp_path / "mirror"))) == 3
    row = found[found.id == whole.stem].iloc[0]
    np.testing.assert_array_equal(source.read(row, GRID)["B04"], expected("B04", -1000, 1))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "product").symlink_to(bare, target_is_directory=True)
    assert len(ds.open_source(tmp_path / "linked").search(AREA)) == 1


def test_a_folder_of_ordinary_files_is_gone_through_without_opening_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_safe(tmp_path)
    for number in range(3000):
        ending = (".txt", ".csv", ".tif", ".json", ".png", "")[number % 6]
        (tmp_path / f"{number}{ending}").touch()
    (tmp_path / "maps.zip").write_bytes(b"PK")
    opened: list[str] = []
    for name in ("open", "stat", "lstat"):
        ours = getattr(os, name)

        def noted(path: Any, *args: Any, ours: Any = ours, **kwargs: Any) -> Any:
            opened.append(str(path))
            return ours(path, *args, **kwargs)

        monkeypatch.setattr(os, name, noted)
    inside = zipfile.ZipFile

    def unzipped(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append("zip")
        return inside(path, *args, **kwargs)

    monkeypatch.setattr(zipfile, "ZipFile", unzipped)
    assert len(list(find_paths(tmp_path))) == len(list(find_paths(tmp_path))) == 1
    assert len(opened) < 20, opened
    assert opened.count("zip") == 1, "one that has not changed is not opened again"


def test_what_lies_among_products_and_is_none_is_told_once(tmp_path: Path) -> None:
    whole = zipped(small_safe(tmp_path))
    for name in ("borders", "dem", "hedges", "soils"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            file.writestr(f"{name}.shp", "x")
    (tmp_path / "broken.zip").write_bytes(whole.read_bytes()[:-3000])
    cut = tmp_path / f"2021/{whole.stem.replace('20210604', '20210609')}.SAFE.incomplete"
    shutil.copytree(small_safe(tmp_path / "elsewhere"), cut)
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / f"{whole.name}.part").write_bytes(b"PK")
    (tmp_path / "Unconfirmed 12.crdownload").write_bytes(b"PK")
    ordinary = ("a.txt", "a.csv", "a.json", "a.gpkg", "a.qml", "a.tif", "a.tif.aux.xml", "a.png", ".x.part", "part")
    for name in ordinary:
        (tmp_path / name).write_text("x")
    source = ds.open_source(tmp_path)
    with pytest.warns(DeepSentinelWarning) as told:
        assert list(source.search(AREA).id) == [whole.stem]
    said = sorted(str(each.message) for each in told)
    assert said == [
        f"{source.name}: 3 download(s) such as {whole.name}.part, Unconfirmed 12.crdownload, {cut.name} were left out: "
        "by their names they are not finished. The other products are used.",
        f"{source.name}: 5 archive(s) such as borders.zip, broken.zip, dem.zip were left out: they hold no Sentinel "
        "product, or are damaged. The other products are used.",
    ]
    (tmp_path / f"{whole.name}.part").write_bytes(b"PK and more")
    assert len(source.search(AREA)) == 1, "told once, not at every search"
    (tmp_path / "late.zip").write_bytes(b"PK")
    with pytest.warns(DeepSentinelWarning, match=r"1 archive\(s\) such as late\.zip were left out") as told:
        source.search(AREA)
    assert len(told) == 1


def test_what_is_downloaded_later_is_found(tmp_path: Path) -> None:
    small_safe(tmp_path, day="2021-06-04")
    source = ds.open_source(tmp_path)
    assert len(source.search(AREA)) == 1
    later = small_safe(tmp_path, day="2021-06-09")
    assert len(source.search(AREA)) == 2
    shutil.rmtree(later)
    assert len(source.search(AREA)) == 1


def test_a_download_that_is_finished_later_is_found(tmp_path: Path) -> None:
    archive = zipped(small_safe(tmp_path))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    source = ds.open_source(tmp_path)
    with pytest.warns(DeepSentinelWarning, match="cut short"), pytest.raises(NothingFoundError):
        source.search(AREA)
    archive.write_bytes(whole)
    assert len(source.search(AREA)) == 1


def test_workers_get_the_source_without_what_it_found(tmp_path: Path) -> None:
    small_safe(tmp_path)
    source = ds.open_source(tmp_path)
    scene = source.search(AREA).iloc[0]
    twin = pickle.loads(pickle.dumps(source))
    assert twin.read(scene, GRID).equals(source.read(scene, GRID))


# -- what is broken ----------------------------------------------------------------------------------------------------


def broken(folder: Path, fault: str) -> str:
    """One product broken in one way; the name that must be told."""
    safe = small_safe(folder, day="2021-06-09")
    images = sorted(safe.glob("GRANULE/*/IMG_DATA/*/*.jp2"))
    tile = next(safe.glob("GRANULE/*/MTD_TL.xml"))
    main = safe / "MTD_MSIL2A.xml"
    if fault == "no main xml":
        main.unlink()
    elif fault == "no tile xml":
        tile.unlink()
    elif fault == "cut xml":
        tile.write_text(tile.read_text()[:700])
    elif fault == "odd crs":
        tile.write_text(tile.read_text().replace("EPSG:32631", "EPSG:99999"))
        main.write_text(re.sub("<EXT_POS_LIST>.*</EXT_POS_LIST>", "", main.read_text()))
    elif fault == "odd footprint":
        main.write_text(re.sub("<EXT_POS_LIST>.*</EXT_POS_LIST>", "<EXT_POS_LIST>a b</EXT_POS_LIST>", main.read_text()))
    elif fault == "no images":
        for image in images:
            image.write_bytes(b"")
    elif fault == "doctype":
        secret = folder / "secret.txt"
        secret.write_text("L2A")
        text = main.read_text().replace(
            "?>\n<n1:Level", f'?>\n<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>\n<n1:Level'
        )
        main.write_text(text.replace("Level-2A</PROCESSING", "&e;</PROCESSING"))
    elif fault == "empty":
        shutil.rmtree(safe)
        safe.mkdir()
    else:
        archive = zipped(safe)
        if fault == "cut zip":
            archive.write_bytes(archive.read_bytes()[:-2000])
        elif fault == "damaged zip":
            with zipfile.ZipFile(archive) as file:
                at = file.getinfo(f"{safe.name}/MTD_MSIL2A.xml").header_offset
            data = bytearray(archive.read_bytes())
            data[at + 200 : at + 220] = bytes(20)
            archive.write_bytes(data)
        elif fault == "slip":
            with zipfile.ZipFile(archive, "a") as file:
                file.writestr("../../escaped.txt", "out")
        elif fault in ("absolute", "drive"):
            outside = {"absolute": f"/{folder.parent}/escaped.txt", "drive": "/C:/x"}[fault]
            with zipfile.ZipFile(archive, "a") as file:
                file.writestr(safe.name + outside, "out")
        elif fault == "link":
            info = zipfile.ZipInfo(f"{safe.name}/GRANULE/passwd.xml")
            info.external_attr = 0o120777 << 16
            with zipfile.ZipFile(archive, "a") as file:
                file.writestr(info, "/etc/passwd")
        return archive.name
    return safe.name


FAULTS = {
    "no main xml": "no MTD_MSIL1C.xml or MTD_MSIL2A.xml",
    "no tile xml": "no MTD_TL.xml",
    "cut xml": "not whole XML",
    "odd crs": "cannot be understood",
    "odd footprint": "cannot be understood",
    "no images": "no image of any band",
    "doctype": "document type",
    "empty": "no Sentinel product",
    "cut zip": "cut short",
    "damaged zip": "Download",
    "slip": "leads out of the archive",
    "absolute": "leads out of the archive",
    "drive": "leads out of the archive",
    "link": "leads out of the archive",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_product_is_told_by_name_and_the_others_are_used(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "all"
    whole = small_safe(folder)
    name = broken(folder, fault)
    source = ds.open_source(folder)
    with pytest.warns(DeepSentinelWarning, match=rf"{re.escape(name)}.*{re.escape(FAULTS[fault])}"):
        found = source.search(AREA)
    assert list(found.id) == [whole.stem]
    np.testing.assert_array_equal(source.read(found.iloc[0], GRID)["B04"], expected("B04", -1000))
    assert len(source.search(AREA)) == 1, "told once, not at every search"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all"]
    shutil.rmtree(whole)
    with pytest.warns(DeepSentinelWarning, match=re.escape(name)), pytest.raises(NothingFoundError):
        ds.open_source(folder).search(AREA)


def test_a_band_that_is_missing_is_told_and_the_others_can_be_read(tmp_path: Path) -> None:
    safe = small_safe(tmp_path)
    next(safe.glob("**/*_B04_10m.jp2")).unlink()
    source = ds.open_source(tmp_path)
    with pytest.warns(DeepSentinelWarning, match=rf"{safe.stem} lacks B04"):
        scene = source.search(AREA).iloc[0]
    assert "B04" not in source.read(scene, GRID)
    with pytest.raises(ReadError, match=rf"{safe.stem} has no B04"):
        source.read(scene, GRID, bands=["B04"])


def test_a_cut_image_is_named(tmp_path: Path) -> None:
    safe = small_safe(tmp_path)
    whole = small_safe(tmp_path, day="2021-06-09")
    image = next(safe.glob("**/*_B04_10m.jp2"))
    image.write_bytes(image.read_bytes()[:3000])
    source = ds.open_source(tmp_path)
    scenes = source.search(AREA)
    first, second = source.read_many(scenes, GRID)
    assert not first
    assert re.search(rf"{safe.stem}: B04 \(asset 'B04_10m'\) failed", str(first.error))
    assert second.attrs["s2_id"] == whole.stem


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_is_a_recipe_is_not_followed(tmp_path: Path, packed: bool) -> None:
    secret = small_safe(tmp_path / "elsewhere", seed=7)
    safe = small_safe(tmp_path / "all")
    image = next(safe.glob("**/*_B04_10m.jp2"))
    with rasterio.open(next(secret.glob("**/*_B04_10m.jp2"))) as other:
        rasterio.shutil.copy(other, image.with_suffix(".vrt"), driver="VRT")
    image.with_suffix(".vrt").replace(image)
    if packed:
        zipped(safe)
    source = ds.open_source(tmp_path / "all")
    scene = source.search(AREA).iloc[0]
    with pytest.raises(ReadError, match=rf"{scene.id}: {image.name}.*neither JPEG 2000 nor TIFF"):
        source.read(scene, GRID)
    np.testing.assert_array_equal(source.read(scene, GRID, bands=["B02"])["B02"], expected("B02", -1000))


def test_without_jpeg_2000_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.sources import safe

    small_safe(tmp_path)
    monkeypatch.setattr(safe, "has_jpeg2000", lambda: False)
    source = ds.open_source(tmp_path)
    with pytest.raises(ReadError, match="libgdal-jp2openjpeg"):
        source.read(source.search(AREA).iloc[0], GRID)


def test_xml_neither_pulls_in_files_nor_grows() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'
    for data in (bomb, bomb.decode().encode("utf-16")):
        with pytest.raises(SourceError, match="document type"):
            parse_xml(data, "x.xml")
    with pytest.raises(SourceError, match="not whole XML"):
        parse_xml(b"<a>&c;</a>", "x.xml")
    assert parse_xml("<a>\u00b5</a>".encode("utf-16"), "x.xml").text == "\u00b5"
