"""Masks as GeoTIFFs: read back by rasterio, by GDAL's own C interface, by parsers of XML, and by our own reader."""

from __future__ import annotations

import ctypes
import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import factories
import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image
from test_figures_masks import make_masks

from deepsentinel.errors import InputError
from deepsentinel.export import to_geotiff
from deepsentinel.legend import Legend, by_name, corine, named

COLOUR_MAP = 320
SHAPE = (150, 130)


def layers() -> dict[str, tuple]:
    ramp = np.linspace(0, 90, SHAPE[0] * SHAPE[1], dtype="float32").reshape(SHAPE)
    return {"distance": (("y", "x"), np.where(ramp < 9, np.nan, ramp)), "overlap": (("y", "x"), ramp / 100)}


@pytest.fixture(scope="module")
def masks():
    return make_masks(SHAPE, **layers()).assign_attrs(labels="/data/clc/U2018.gpkg")


@pytest.fixture(scope="module")
def written(masks, tmp_path_factory):
    return {path.stem: path for path in to_geotiff(masks, tmp_path_factory.mktemp("masks"))}


def test_one_file_a_layer_and_beside_classes_their_names_and_style(written):
    assert list(written) == ["class_map", "parcel_id", "coverage", "conflict", "distance", "overlap"]
    names = {path.name for path in written["class_map"].parent.iterdir()}
    assert names == {f"{name}.tif" for name in written} | {
        "class_map.tif.aux.xml", "class_map.qml", "conflict.tif.aux.xml", "conflict.qml"
    }  # fmt: skip


def test_values_types_place_and_no_data_are_those_of_the_masks(masks, written):
    nodata = {"class_map": 0, "parcel_id": 0, "distance": np.nan}
    for name, path in written.items():
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), masks[name].values)
            assert file.dtypes[0] == masks[name].dtype
            np.testing.assert_equal(file.nodata, nodata.get(name))
            assert file.crs.to_epsg() == 32631
            assert file.transform[:6] == (10, 0, 575_000, 0, -10, 5_460_000)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_units_and_tags_say_what_it_is(written):
    with rasterio.open(written["distance"]) as file:
        assert file.units == ("m",)
    with rasterio.open(written["coverage"]) as file:
        assert file.units == ("share",)
    with rasterio.open(written["class_map"]) as file:
        assert file.tags()["RULE"] == "coverage"
        assert file.tags()["LABELS"] == "U2018.gpkg"  # and not whose folder it lay in
        assert Legend.from_json(file.tags(1)["legend"]) == corine()


def test_the_colour_table_is_that_of_the_legend(written):
    with rasterio.open(written["class_map"]) as file:
        colours = file.colormap(1)
        assert file.colorinterp[0].name == "palette"
    assert {entry.code: colours[entry.code] for entry in corine()} == corine().color_table()
    with Image.open(written["conflict"]) as image:  # a reader without GDAL
        table = np.reshape(image.tag_v2[COLOUR_MAP], (3, 256)) // 257
        assert table[:, 1].tolist() == [0, 114, 178]
        assert table[:, 2].tolist() == [213, 94, 0]


def test_gdal_finds_the_names_beside_the_file(written):
    libraries = list((Path(rasterio.__file__).parents[1] / "rasterio.libs").glob("libgdal*"))
    if not libraries:
        pytest.skip("GDAL's own interface is not at hand in this build of rasterio")
    gdal = ctypes.CDLL(str(libraries[0]))
    for name in ("GDALOpen", "GDALGetRasterBand", "GDALGetDefaultRAT"):
        getattr(gdal, name).restype = ctypes.c_void_p
    gdal.GDALGetRasterCategoryNames.restype = ctypes.POINTER(ctypes.c_char_p)
    gdal.GDALRATGetValueAsString.restype = ctypes.c_char_p
    gdal.GDALClose.restype = None
    gdal.GDALAllRegister()
    dataset = ctypes.c_void_p(gdal.GDALOpen(str(written["class_map"]).encode(), 0))
    band = ctypes.c_void_p(gdal.GDALGetRasterBand(dataset, 1))
    table = ctypes.c_void_p(gdal.GDALGetDefaultRAT(band))
    row = gdal.GDALRATGetRowOfValue(table, ctypes.c_double(312))
    cells = [gdal.GDALRATGetValueAsString(table, row, column).decode() for column in range(6)]
    names = gdal.GDALGetRasterCategoryNames(band)
    listed = names[211].decode(), names[0].decode()
    gdal.GDALClose(dataset)
    assert cells == ["312", "Coniferous forest", "0", "166", "0", "255"]
    assert listed == ("Non-irrigated arable land", "")


def test_the_style_for_qgis_lists_the_classes_that_are_there(written):
    style = ET.parse(written["class_map"].with_suffix(".qml")).getroot()
    renderer = style.find("pipe/rasterrenderer")
    assert (style.tag, renderer.get("type"), renderer.get("band")) == ("qgis", "paletted", "1")
    entries = [
        (int(e.get("value")), e.get("color"), e.get("label")) for e in renderer.findall("colorPalette/paletteEntry")
    ]
    assert entries == [(code, corine()[code].color, corine()[code].name) for code in (112, 211, 312)]
    conflict = ET.parse(written["conflict"].with_suffix(".qml")).findall(".//paletteEntry")
    # Where there is no conflict, the map below is seen.
    assert [(entry.get("value"), entry.get("alpha")) for entry in conflict] == [("0", "0"), ("1", "255"), ("2", "255")]


def test_names_may_hold_any_sign(tmp_path):
    legend = Legend.of_texts(['reed & "rush" <wet>', "Wälder, übrige"])
    masks = make_masks(codes=(1, 2), legend=legend).isel(y=slice(20))
    path = to_geotiff(masks[["class_map"]], tmp_path)[0]
    labels = [entry.get("label") for entry in ET.parse(path.with_suffix(".qml")).findall(".//paletteEntry")]
    assert labels == list(legend.names.values())
    cells = ET.parse(f"{path}.aux.xml").findall(".//Row/F[2]")
    assert [cell.text for cell in cells] == list(legend.names.values())


def test_what_is_read_back_is_what_was_written(masks, written):
    from deepsentinel.labels.rasters import read_label_raster

    again = read_label_raster(written["class_map"], masks)["class_map"]
    np.testing.assert_array_equal(again.values, masks["class_map"].values)
    names = Legend.from_attrs(again.attrs).names
    assert {code: names[code] for code in (112, 211, 312)} == {code: corine()[code].name for code in (112, 211, 312)}


def test_masks_in_a_patch_are_written_with_it(tmp_path):
    patch = factories.make_patch((96, 96))
    paths = to_geotiff(xr.merge([patch, make_masks()], compat="override"), tmp_path)
    assert [path.stem.split("_2018")[0] for path in paths] == [
        "S2", "SCL", "S1", "class_map", "parcel_id", "coverage", "conflict"
    ]  # fmt: skip
    chosen = to_geotiff(xr.merge([patch, make_masks()], compat="override"), tmp_path / "few", bands=["conflict", "VV"])
    assert [path.stem.split("_2018")[0] for path in chosen] == ["S1", "conflict"]


def test_codes_beyond_a_palette_keep_their_names_and_style(tmp_path):
    legend = Legend.of_codes([70_000, 80_000])
    masks = make_masks(codes=legend.codes, legend=legend)
    masks["class_map"] = masks["class_map"].copy(data=np.where(masks.class_map.values > 0, 70_000, 0).astype("int32"))
    path = to_geotiff(masks[["class_map"]], tmp_path)[0]
    with rasterio.open(path) as file:
        assert file.read(1).max() == 70_000
        with pytest.raises(ValueError):
            file.colormap(1)
    [entry] = ET.parse(path.with_suffix(".qml")).findall(".//paletteEntry")
    assert entry.get("value") == "70000"
    assert not ET.parse(f"{path}.aux.xml").findall(".//Category")
    assert len(ET.parse(f"{path}.aux.xml").findall(".//Row")) == 2


def test_a_background_of_its_own_is_no_data(tmp_path):
    legend = Legend.of_texts(["a", "b"])
    masks = make_masks(codes=(1, 2), legend=legend)
    masks["class_map"] = masks["class_map"].copy(data=np.where(masks.class_map.values == 0, 255, 1).astype("uint8"))
    masks["class_map"].attrs["background"] = 255
    with rasterio.open(to_geotiff(masks, tmp_path)[0]) as file:
        assert file.nodata == 255
        np.testing.assert_array_equal(file.read_masks(1) > 0, masks.class_map.values == 1)


def test_what_is_no_layer_or_lies_nowhere_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no 'B02'; bands can be any of class_map, parcel_id"):
        to_geotiff(make_masks(), tmp_path, bands=["B02"])
    with pytest.raises(InputError, match="no spatial_ref"):
        to_geotiff(make_masks().drop_vars("spatial_ref"), tmp_path)


# -- single layers, fractions and credits ------------------------------------------------------------------------------


def fractions(codes=(112, 211, 312)) -> xr.DataArray:
    legend = corine().only(codes)
    rng = np.random.default_rng(3)
    grid = factories.with_grid({"f": (("y", "x"), np.zeros(SHAPE))}, factories.grid(SHAPE))
    coords = {
        "class": ("class", np.array(codes, "int32"), legend.to_attrs()),
        "class_name": ("class", [legend[code].name for code in codes]),
        **{name: grid.coords[name] for name in ("y", "x", "spatial_ref")},
    }
    values = rng.random((len(codes), *SHAPE), dtype="float32") / len(codes)
    return xr.DataArray(values, coords, ("class", "y", "x"), "class_fraction")


def test_a_layer_by_itself_is_written_as_from_its_masks(masks, written, tmp_path):
    for name in written:
        (path,) = to_geotiff(masks[name], tmp_path)
        assert path.name == f"{name}.tif"
        with rasterio.open(path) as alone, rasterio.open(written[name]) as whole:
            np.testing.assert_array_equal(alone.read(1), whole.read(1))
            assert (alone.transform, alone.crs) == (whole.transform, whole.crs)
            np.testing.assert_equal(alone.nodata, whole.nodata)
    assert (tmp_path / "class_map.qml").read_text() == written["class_map"].with_suffix(".qml").read_text()


def test_fractions_are_one_file_with_a_band_for_each_class(tmp_path):
    shares = fractions()
    (path,) = to_geotiff(shares, tmp_path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), shares.values)
        assert file.descriptions == tuple(shares.class_name.values)
        assert [file.tags(band)["CLASS"] for band in file.indexes] == ["112", "211", "312"]
        assert set(file.units) == {"share"}
        assert file.transform[:6] == (10, 0, 575_000, 0, -10, 5_460_000)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert Legend.from_json(file.tags()["LEGEND"]).codes == (112, 211, 312)
        assert "European Environment Agency" in file.tags()["CREDIT"]
    (path,) = to_geotiff(shares, tmp_path, bands=["Coniferous forest", 112])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), shares.values[[2, 0]])
    with pytest.raises(InputError, match=r"no class 999 .*112 'Discontinuous urban fabric'"):
        to_geotiff(shares, tmp_path, bands=[999])
    with pytest.raises(InputError, match="have no spatial_ref"):
        to_geotiff(shares.drop_vars("spatial_ref"), tmp_path)


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"A DataArray called 'VV' cannot be written: .* bands="):
        to_geotiff(factories.make_patch()["VV"], tmp_path)


def test_every_known_legend_is_credited_and_the_demo_world_is_not(tmp_path):
    for name in [*named(), "osm"]:
        legend = dataclasses.replace(corine(), name="osm") if name == "osm" else by_name(name)
        masks = make_masks(codes=legend.codes[-2:], legend=legend)
        path = to_geotiff(masks, tmp_path / name)[0]
        with rasterio.open(path) as file:
            credit = file.tags()["CREDIT"]
        assert len(credit) > 10
        assert (credit == "© OpenStreetMap contributors") == (name == "osm")
    demo = make_masks().assign_attrs(labels="/cache/demo/seed0/vectors/corine.gpkg")
    with rasterio.open(to_geotiff(demo, tmp_path / "demo")[0]) as file:
        assert "CREDIT" not in file.tags()
