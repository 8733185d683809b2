"""GeoTIFFs of a patch, read back by rasterio, and their tags by a parser that knows nothing of GDAL."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import factories
import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

import deepsentinel as ds
from deepsentinel.bands import SCL_CLASSES
from deepsentinel.errors import InputError, PatchError
from deepsentinel.export import to_geotiff

GDAL_METADATA, GDAL_NODATA, PIXEL_SCALE, TIEPOINT, GEOKEYS, COLOUR_MAP = 42112, 42113, 33550, 33922, 34735, 320


@pytest.fixture(scope="module")
def patch():
    return factories.make_patch((150, 130), nodata=True, angle=True)


@pytest.fixture(scope="module")
def written(patch, tmp_path_factory):
    return {path.name.split("_")[0]: path for path in to_geotiff(patch, tmp_path_factory.mktemp("tif"))}


def test_one_file_a_sensor_and_one_for_the_classes_named_by_their_time(written):
    assert {kind: path.name for kind, path in written.items()} == {
        "S2": "S2_20180704T105700.tif",
        "SCL": "SCL_20180704T105700.tif",
        "S1": "S1_20180704T175612.tif",
    }
    folder = written["S2"].parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "S1_20180704T175612.tif",
        "S2_20180704T105700.tif",
        "SCL_20180704T105700.tif",
        "SCL_20180704T105700.tif.aux.xml",
    ]


def test_values_types_and_no_data_are_exactly_those_of_the_patch(patch, written):
    for kind, dtype, nodata in (("S2", "uint16", 0), ("S1", "float32", np.nan), ("SCL", "uint8", 0)):
        with rasterio.open(written[kind]) as file:
            assert set(file.dtypes) == {dtype}
            np.testing.assert_equal(file.nodata, nodata)
            for index, name in enumerate(file.descriptions, start=1):
                band = "angle" if name.startswith("incidence") else name.split()[0]
                np.testing.assert_array_equal(file.read(index), patch[band].values)
            mask = file.read_masks(1) > 0
    assert mask.mean() == pytest.approx((patch.SCL.values > 0).mean())


def test_they_lie_where_the_patch_lies(patch, written):
    for path in written.values():
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32631
            assert file.transform[:6] == (10, 0, 575_000, 0, -10, 5_460_000)
            x, y = file.xy(7, 5)
            assert (x, y) == (patch.x.values[5], patch.y.values[7])


def test_a_slice_lies_where_it_was_cut(patch, tmp_path):
    cut = patch.isel(y=slice(20, 60), x=slice(30, 90))
    for path in to_geotiff(cut, tmp_path):
        with rasterio.open(path) as file:
            assert file.transform[:6] == (10, 0, 575_300, 0, -10, 5_459_800)


def test_band_names_scale_and_units_are_what_a_gis_lists(written):
    with rasterio.open(written["S2"]) as file:
        assert file.descriptions[:4] == ("B01 coastal aerosol", "B02 blue", "B03 green", "B04 red")
        assert set(file.scales) == {1e-4}
        assert set(file.offsets) == {0.0}
        assert [interp.name for interp in file.colorinterp[1:4]] == ["blue", "green", "red"]
        assert file.tags(8, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.842"
    with rasterio.open(written["S1"]) as file:
        assert file.descriptions == ("VV (dB)", "VH (dB)", "incidence angle (degrees)")
        assert file.units == ("dB", "dB", "degree")


def test_tags_tell_where_it_came_from(written):
    with rasterio.open(written["S2"]) as file:
        tags = file.tags()
    assert tags["S2_ID"] == "S2B_MSIL2A_20180704T105700_R094_T31UCQ"
    assert tags["S2_TIME"] == "2018-07-04T10:57:00Z"
    assert (tags["LEVEL"], tags["BASELINE"], tags["OFFSET_REMOVED"]) == ("L2A", "05.00", "1000")
    assert tags["TIFFTAG_DATETIME"] == "2018:07:04 10:57:00"
    assert tags["TIFFTAG_SOFTWARE"] == f"deepsentinel {ds.__version__}"
    with rasterio.open(written["S1"]) as file:
        tags = file.tags()
    assert (tags["BACKSCATTER"], tags["ORBIT"]) == ("gamma0_rtc", "ascending")
    assert "S2_ID" not in tags


def test_the_files_say_the_same_to_a_reader_without_gdal(patch, written):
    with Image.open(written["SCL"]) as image:
        np.testing.assert_array_equal(np.asarray(image), patch.SCL.values)
        assert image.tag_v2[GDAL_NODATA].strip("\0 ") == "0"
        assert image.tag_v2[PIXEL_SCALE][:2] == (10.0, 10.0)
        assert image.tag_v2[TIEPOINT][3:5] == (575_000.0, 5_460_000.0)
        keys = np.reshape(image.tag_v2[GEOKEYS], (-1, 4))
        assert dict(zip(keys[:, 0].tolist(), keys[:, 3].tolist(), strict=True))[3072] == 32631
        colours = np.reshape(image.tag_v2[COLOUR_MAP], (3, 256)) // 257
        from deepsentinel.figures.stretch import SCL_COLOURS

        assert {code: tuple(colours[:, code].tolist()) for code in SCL_COLOURS} == dict(SCL_COLOURS)
    with open(written["S2"], "rb") as file:  # more bands than Pillow makes a picture of, so its header only
        header = ImageFileDirectory_v2(file.read(8))
        file.seek(header.next)
        header.load(file)
    items = ET.fromstring(header[GDAL_METADATA].strip("\0"))
    by_role = {(item.get("role"), item.get("sample")): item.text for item in items}
    assert by_role["description", "3"] == "B04 red"
    assert float(by_role["scale", "3"]) == 1e-4


def test_the_classes_have_their_names_beside_the_file(written):
    path = written["SCL"]
    names = ET.parse(path.with_name(path.name + ".aux.xml")).findall(".//Category")
    assert [name.text for name in names] == [SCL_CLASSES[code] for code in range(12)]


def test_they_are_cloud_optimised(tmp_path):
    large = factories.make_patch((600, 1100), sensors=("S1",))
    [path] = to_geotiff(large, tmp_path)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes[0] == (512, 512)
        assert file.overviews(1)[0] == 2
        assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"


def test_bands_can_be_chosen(patch, tmp_path):
    paths = to_geotiff(patch, tmp_path, bands=["B08", "VH"])
    found = {}
    for path in paths:
        with rasterio.open(path) as file:
            found[path.name[:2]] = file.descriptions
    assert found == {"S2": ("B08 near infrared, wide",), "S1": ("VH (dB)",)}
    assert [path.name[:2] for path in to_geotiff(patch, tmp_path, bands="VV")] == ["S1"]


def test_a_series_gives_each_date_its_file(tmp_path):
    series = factories.make_series(2, 3)
    series["angle"] = (("y", "x"), np.full((48, 48), 37, "float32"))
    paths = to_geotiff(series, tmp_path)
    kinds = [path.name.split("_")[0] for path in paths]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"S2": 2, "SCL": 2, "S1": 3}
    with rasterio.open(tmp_path / "S2_20180511T105700.tif") as file:
        np.testing.assert_array_equal(file.read(2), series.B02.values[1])
    with rasterio.open(tmp_path / "S1_20180513T175700.tif") as file:
        np.testing.assert_array_equal(file.read(1), series.VV.values[2])
        assert file.descriptions[-1] == "incidence angle (degrees)"
        assert file.tags()["S1_TIME"] == "2018-05-13T17:57:00Z"


def test_dates_in_one_second_do_not_overwrite_each_other(tmp_path):
    series = factories.make_series(2, 2)
    series["s1_time"] = series.s1_time.values[[0, 0]] + np.array([0, 1], "timedelta64[ms]")
    for _ in range(2):  # and the second time the same files are replaced
        paths = to_geotiff(series, tmp_path, bands=["VV"])
        assert [path.name for path in paths] == ["S1_20180501T175700.tif", "S1_20180501T175700_2.tif"]
    for path, wanted in zip(paths, series.VV.values, strict=True):
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), wanted)


def test_a_band_asked_for_twice_is_written_once(patch, tmp_path):
    [path] = to_geotiff(patch, tmp_path, bands=["B02", "B02"])
    with rasterio.open(path) as file:
        assert file.count == 1


def test_writing_again_replaces_and_a_failure_leaves_what_was_there(patch, tmp_path, monkeypatch):
    [path] = to_geotiff(patch, tmp_path, bands=["VV"])
    before = path.read_bytes()
    import rasterio.shutil

    def fails(source, target, **options):
        with open(target, "wb") as file:
            file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(rasterio.shutil, "copy", fails)
    with pytest.raises(OSError, match="disk full"):
        to_geotiff(patch, tmp_path, bands=["VV"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_one_pixel_is_placed_by_its_transform_or_refused(patch, tmp_path):
    pixel = patch.isel(y=[4], x=[6])
    [path] = to_geotiff(pixel, tmp_path, bands=["VV"])
    with rasterio.open(path) as file:
        assert file.bounds == (575_060, 5_459_950, 575_070, 5_459_960)
    del pixel["spatial_ref"].attrs["GeoTransform"]
    with pytest.raises(InputError, match="GeoTransform"):
        to_geotiff(pixel, tmp_path)


def test_what_cannot_be_written_is_refused(patch, tmp_path):
    with pytest.raises(InputError, match=r"'B99'.*B01.*SCL.*angle"):
        to_geotiff(patch, tmp_path, bands=["B99"])
    with pytest.raises(PatchError, match="spatial_ref"):
        to_geotiff(patch.drop_vars("spatial_ref"), tmp_path)
    with pytest.raises(TypeError, match="band"):
        to_geotiff(patch, tmp_path, band=["B02"])
    assert list(tmp_path.iterdir()) == []


def test_real_patches_go_through_unchanged(real, tmp_path):
    patch = factories.terramind(real, "282D_485L_3_3")
    for path in to_geotiff(patch, tmp_path):
        with rasterio.open(path) as file:
            for index, name in enumerate(file.descriptions, start=1):
                np.testing.assert_array_equal(file.read(index), patch[name.split()[0]].values)
            # This grid is not on round metres; centimetres count.
            assert file.transform.c == pytest.approx(790236.0403820039, abs=1e-6)
            assert file.crs.to_epsg() == 32722


def test_a_file_name_is_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"patch\.tif' is a file's name; give a folder"):
        to_geotiff(factories.make_patch((8, 8)), tmp_path / "patch.tif")
    assert not list(tmp_path.iterdir())
