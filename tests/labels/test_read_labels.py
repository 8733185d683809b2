"""Opening files of labels: what they really are, which layer, whose CRS, and only the part that is wanted."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, ReadError
from deepsentinel.labels import read_labels
from deepsentinel.labels.layers import check_content

UTM = "EPSG:32632"


def squares(count: int = 100, crs: str = UTM, **columns: object) -> gpd.GeoDataFrame:
    """A row of squares of 50 m, 100 m apart, with classes 1 to 5."""
    x = 500_000.0 + 100 * np.arange(count)
    table = {"ground_truth": np.arange(count) % 5 + 1, "id": np.arange(count), **columns}
    return gpd.GeoDataFrame(table, geometry=shapely.box(x, 5_200_000, x + 50, 5_200_050), crs=UTM).to_crs(crs)


def around(table: gpd.GeoDataFrame, first: int, last: int) -> tuple[float, float, float, float]:
    """A box in degrees from within square `first` to within square `last`."""
    west, east = 500_025.0 + 100 * first, 500_025.0 + 100 * last
    box = gpd.GeoSeries([shapely.box(west, 5_199_000, east, 5_201_000)], crs=UTM).to_crs("EPSG:4326")
    return tuple(box.total_bounds)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.gpkg", b"<!DOCTYPE html><html>login</html>", "not a GeoPackage, .* web page"),
        ("a.gpkg", b"PK\x03\x04........", "not a GeoPackage, .* zip archive; name it .zip"),
        ("a.gpkg", b"just some text", "not a GeoPackage, .* begins with b'just some text'"),
        ("a.shp", b"SQLite format 3\0....", "not a shapefile, .* GeoPackage"),
        ("a.geojson", b"id,ground_truth\n1,2", "not GeoJSON"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1", "not GeoParquet, .* Git LFS pointer"),
        ("a.csv", b"PK\x03\x04", "not a CSV, .* zip archive"),
        ("a.csv", b"a,b\0\0", "not a CSV"),
        ("a.zip", b"SQLite format 3\0", "not a zip archive, .* GeoPackage"),
        ("a.osm.pbf", b"\x1f\x8b\x08abc", "not OpenStreetMap's PBF, .* gzip"),
        ("a.gpkg", b"", "a.gpkg is empty"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_labels(tmp_path / name)


def test_real_files_pass_the_check_of_their_content(real: Path) -> None:
    files = [
        *real.glob("parcels/*.g*"),
        *real.glob("parcels/*.zip"),
        *real.glob("osm/*.pbf"),
        *real.glob("*/*.geojson"),
    ]
    assert len(files) > 8
    for file in files:
        check_content(file.read_bytes()[:512], file.suffix, file.name)
        others = {".gpkg", ".zip", ".geojson", ".parquet", ".shp", ".pbf", ".fgb"} - {file.suffix}
        for suffix in others:
            with pytest.raises(InputError):
                check_content(file.read_bytes()[:512], suffix, file.name)


def test_damaged_files_are_read_errors(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gpkg"
    squares(2000).to_file(whole)
    for name, source in (("cut.gpkg", whole), ("cut.zip", tmp_path / "whole.zip"), ("cut.parquet", None)):
        if name == "cut.zip":
            with zipfile.ZipFile(source, "w") as archive:
                archive.write(whole, "whole.gpkg")
        if name == "cut.parquet":
            source = tmp_path / "whole.parquet"
            squares(2000).to_parquet(source)
        content = source.read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 3])
        with pytest.raises(ReadError, match=name.replace(".", r"\.")):
            read_labels(tmp_path / name)


def test_what_is_no_file_of_labels_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*nowhere"):
        read_labels(tmp_path / "nowhere.gpkg")
    (tmp_path / "map.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"raster: .*read_label_raster"):
        read_labels(tmp_path / "map.tif")
    squares(2).to_file(tmp_path / "a.gpkg")
    with pytest.raises(InputError, match=r"folder; give one of the files in it: a\.gpkg"):
        read_labels(tmp_path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(InputError, match=r"holds no file of labels .* it holds notes\.txt"):
        read_labels(tmp_path / "b.zip")
    (tmp_path / "table.csv").write_text("id,ground_truth\n1,2\n")
    with pytest.raises(InputError, match=r"no geometries.*'table' with id, ground_truth"):
        read_labels(tmp_path / "table.csv")


def test_an_unknown_kind_lists_what_was_found_and_looked_for(tmp_path: Path) -> None:
    squares(3).rename(columns={"ground_truth": "LULC"}).to_file(tmp_path / "a.gpkg", layer="mine")
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path / "a.gpkg")
    said = str(caught.value)
    assert "Layer 'mine' has LULC, id." in said
    for name in ("corine: a column such as CODE_18", "rpg: ", "osm: ", "value='...'"):
        assert name in said
    assert read_labels(tmp_path / "a.gpkg", value="LULC")["ground_truth"].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="has no column 'LULCC'"):
        read_labels(tmp_path / "a.gpkg", value="LULCC")
    with pytest.raises(InputError, match=r"is not 'corine': that has a column such as CODE_18.*'mine' has LULC"):
        read_labels(tmp_path / "a.gpkg", kind="corine")
    with pytest.raises(InputError, match="kind='corinne' is not known; there are corine, "):
        read_labels(tmp_path / "a.gpkg", kind="corinne")
    with pytest.raises(TypeError):
        read_labels(tmp_path / "a.gpkg", columns=["LULC"])  # type: ignore[call-arg]


def test_layers_with_the_right_columns_are_found_among_others(real: Path, tmp_path: Path) -> None:
    path = tmp_path / "several.gpkg"
    squares(4).rename(columns={"ground_truth": "other"}).to_file(path, layer="aaa")
    squares(3).to_file(path, layer="labels")
    assert len(read_labels(path)) == 3
    assert len(read_labels(path, layer="aaa", value="other")) == 4
    with pytest.raises(InputError, match="no layer 'bbb' with geometries; it has 'aaa', 'labels'"):
        read_labels(path, layer="bbb")
    # Two layers with geometries and one of styles, of which one is CORINE.
    assert len(read_labels(real / "corine" / "lanjaron.gpkg")) == 136
    with pytest.raises(InputError, match="of no known kind"):
        read_labels(real / "corine" / "lanjaron.gpkg", layer="lanjaron")


def test_a_crs_is_taken_from_the_user_only_where_the_file_has_none(tmp_path: Path) -> None:
    squares(3).to_file(tmp_path / "a.shp")
    assert read_labels(tmp_path / "a.shp", crs=UTM).crs == UTM
    with pytest.raises(InputError, match=r"says it is in EPSG:32632, and crs='EPSG:32631' was given"):
        read_labels(tmp_path / "a.shp", crs="EPSG:32631")
    (tmp_path / "a.prj").unlink()
    with pytest.raises(InputError, match=r"does not tell its CRS \(a shapefile needs its \.prj\)"):
        read_labels(tmp_path / "a.shp")
    assert read_labels(tmp_path / "a.shp", crs=32632).crs == UTM
    with pytest.raises(InputError, match="crs='EPSG:nothing' is not known"):
        read_labels(tmp_path / "a.shp", crs="EPSG:nothing")


def test_metres_that_are_said_to_be_degrees_are_not_believed(tmp_path: Path) -> None:
    message = json.loads(squares(2).to_json())
    message.pop("crs", None)
    (tmp_path / "a.geojson").write_text(json.dumps(message))
    with pytest.raises(InputError, match=r"says it is in degrees .* they are of a map projection"):
        read_labels(tmp_path / "a.geojson")


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035", "EPSG:3042", "EPSG:3857"])
@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.csv"])
def test_a_bbox_in_degrees_narrows_a_file_in_any_crs(name: str, crs: str, tmp_path: Path) -> None:
    table = squares(100, crs)
    if name == "a.gpkg":
        table.to_file(tmp_path / name)
    elif name == "a.parquet":
        table.to_parquet(tmp_path / name)
    else:
        rows = table.drop(columns="geometry").assign(crs=crs, geometry=table.geometry.to_wkt())
        rows.to_csv(tmp_path / name, index=False)
    labels = read_labels(tmp_path / name, bbox=around(table, 20, 29))
    assert labels["id"].tolist() == list(range(20, 30))
    assert labels.crs == crs
    # A slanted area is not its bounding box, and rows that touch it are whole.
    triangle = shapely.Polygon([(502_000, 5_199_000), (504_000, 5_199_000), (502_000, 5_200_100)])
    slanted = read_labels(tmp_path / name, bbox=gpd.GeoSeries([triangle], crs=UTM))
    inside = squares(100).geometry.intersects(triangle)
    assert slanted["id"].tolist() == np.flatnonzero(inside).tolist()
    assert slanted.to_crs(UTM).area.round().eq(2500).all()


def test_an_area_across_the_antimeridian_reaches_both_sides(tmp_path: Path) -> None:
    x = np.array([-179.9, -170.0, 0.0, 170.0, 179.9])
    places = shapely.box(x - 0.05, 10, x + 0.05, 10.1)
    gpd.GeoDataFrame({"ground_truth": [1, 2, 3, 4, 5]}, geometry=places, crs=4326).to_file(tmp_path / "a.gpkg")
    labels = read_labels(tmp_path / "a.gpkg", bbox=(179.0, 9.0, -179.0, 11.0))
    assert labels["ground_truth"].tolist() == [1, 5]


@pytest.mark.parametrize("covering", [True, False])
def test_row_groups_elsewhere_are_not_even_read(covering: bool, tmp_path: Path) -> None:
    table = squares(5000, text=["x" * 50 + str(n) for n in range(5000)])
    path = tmp_path / "a.parquet"
    if covering:
        table.to_parquet(path, write_covering_bbox=True, schema_version="1.1.0", row_group_size=500)
    else:  # as older fiboa files have it: the boxes are there, the metadata does not say so
        boxes = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in table.bounds.to_numpy()]
        table.assign(bbox=boxes).to_parquet(path, row_group_size=500)
    content = bytearray(path.read_bytes())
    near = around(table, 1, 30)
    expected = read_labels(path, bbox=near)
    # What is far away is spoilt: everything from the third row group on, up to the metadata at the end.
    import pyarrow.parquet as pq

    groups = pq.ParquetFile(path).metadata
    start = groups.row_group(2).column(0).file_offset or groups.row_group(2).column(0).data_page_offset
    first = min(groups.row_group(2).column(n).data_page_offset for n in range(groups.num_columns))
    last = groups.row_group(9).column(0).data_page_offset
    content[first - 100 if start == 0 else first : last] = b"\xff" * (last - (first - 100 if start == 0 else first))
    path.write_bytes(bytes(content))
    labels = read_labels(path, bbox=near)
    assert labels["id"].tolist() == expected["id"].tolist() == list(range(1, 31))
    with pytest.raises(Exception):  # noqa: B017  whichever part of it is met first
        read_labels(path)


def test_a_small_part_of_a_large_file_is_quick(tmp_path: Path) -> None:
    import time

    table = squares(60_000)
    table.to_file(tmp_path / "a.gpkg")

    def seconds(**options: object) -> float:
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            read_labels(tmp_path / "a.gpkg", **options)  # type: ignore[arg-type]
            best = min(best, time.process_time() - began)
        return best

    near = around(table, 100, 120)
    read_labels(tmp_path / "a.gpkg", bbox=near)
    assert seconds(bbox=near) * 5 < seconds()


def test_a_zip_of_a_shapefile_and_of_two_files(tmp_path: Path) -> None:
    squares(3).to_file(tmp_path / "a.shp")
    with zipfile.ZipFile(tmp_path / "shape.zip", "w") as archive:
        for part in tmp_path.glob("a.*"):
            archive.write(part, f"data/{part.name}")
    labels = read_labels(tmp_path / "shape.zip")
    assert (len(labels), labels.crs.to_epsg()) == (3, 32632)
    squares(5).to_file(tmp_path / "b.gpkg")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(tmp_path / "b.gpkg", "b.gpkg")
        for part in tmp_path.glob("a.*"):
            archive.write(part, part.name)
    assert len(read_labels(tmp_path / "two.zip")) == 8
    assert len(read_labels(tmp_path / "two.zip", layer="b")) == 5


def test_the_demo_files_are_recognised() -> None:
    paths = ds.open_source("demo", size_px=256).labels
    assert read_labels(paths["corine"]).attrs["kind"] == "corine"
    assert read_labels(paths["osm"], flatten=False).attrs["kind"] == "osm"
    with pytest.raises(InputError, match="raster"):
        read_labels(next(path for name, path in paths.items() if "class_map" in name))


def test_an_empty_layer_gives_an_empty_table_and_says_so(tmp_path: Path) -> None:
    squares(3).iloc[:0].to_file(tmp_path / "a.gpkg")
    with pytest.warns(DeepSentinelWarning, match="holds no rows"):
        labels = read_labels(tmp_path / "a.gpkg")
    assert len(labels) == 0
    assert labels.crs == UTM


def test_real_polygons_under_a_column_of_any_name(real: Path) -> None:
    path = real / "eopatch" / "TestEOPatch" / "vector_timeless" / "LULC.gpkg"
    labels = read_labels(path, value="LULC_ID")
    raw = pyogrio.read_dataframe(path)
    assert labels["ground_truth"].tolist() == raw["LULC_ID"].tolist()
    assert labels.crs.to_epsg() == 32633
    assert labels.geometry.to_wkb().tolist() == shapely.force_2d(raw.geometry).to_wkb().tolist()


def test_the_names_of_classes_survive_what_pandas_does_to_attributes(tmp_path: Path) -> None:
    table = squares(4, Code_18=["111", "211", "211", "312"], class_name=["a", "b", "c", "d"]).drop(
        columns="ground_truth"
    )
    table.to_file(tmp_path / "clc.gpkg")
    labels = read_labels(tmp_path / "clc.gpkg")
    both = pd.concat([labels, squares(2).assign(class_name="mine")])
    fine = ["Continuous urban fabric", *["Non-irrigated arable land"] * 2, "Coniferous forest"]
    assert both["class_name"].tolist() == [*fine, "mine", "mine"]
    # A column of that name in the file is not lost.
    assert labels["class_name_source"].tolist() == ["a", "b", "c", "d"]
    squares(2, class_name=["x", "y"]).to_file(tmp_path / "own.gpkg")
    assert read_labels(tmp_path / "own.gpkg")["class_name"].tolist() == ["x", "y"]


def test_a_year_may_be_text_and_anything_else_is_told(tmp_path: Path) -> None:
    squares(3).to_file(tmp_path / "a.gpkg")
    labels = read_labels(tmp_path / "a.gpkg", year="2018")
    assert labels["valid_from"].tolist() == [pd.Timestamp(2018, 1, 1)] * 3
    for wrong in ("18", "2018-07", 2018.5, True, 20180):
        with pytest.raises(InputError, match="is not a year; give a number of four digits"):
            read_labels(tmp_path / "a.gpkg", year=wrong)


def test_what_is_no_path_is_told(tmp_path: Path) -> None:
    table = squares(3)
    with pytest.raises(InputError, match="is a table already: give it to rasterize"):
        read_labels(table)
    with pytest.raises(InputError, match="path is a list"):
        read_labels([tmp_path / "a.gpkg"])
    table.to_file(tmp_path / "a.gpkg")
    with pytest.raises(InputError, match=r"value=\['crop'\] is a list; give one name"):
        read_labels(tmp_path / "a.gpkg", value=["crop"])


def test_a_table_of_points_by_longitude_and_latitude(tmp_path: Path) -> None:
    path = tmp_path / "field.csv"
    path.write_text("Longitude;latitude;label;plot\n8.5;47.3;wheat;1\n8.6;47.4;maize;2\n;47.5;rye;3\n8.7;x;rye;4\n")
    with pytest.warns(DeepSentinelWarning) as said:
        found = ds.read_labels(path)
    assert {"set aside" in str(entry.message) or "'label' was taken" in str(entry.message) for entry in said} == {True}
    assert found.crs == "EPSG:4326"
    assert [(point.x, point.y) for point in found.geometry] == [(8.5, 47.3), (8.6, 47.4)]
    assert list(found["class_name"]) == ["wheat", "maize"]
    assert list(found["plot"]) == [1, 2]
    with pytest.warns(DeepSentinelWarning):
        assert len(ds.read_labels(path, bbox=(8.55, 47.35, 8.65, 47.45))) == 1


def test_points_are_in_degrees_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    # A table of samples tells the CRS of the tile of each, and that is not the one of its longitude and latitude.
    told = tmp_path / "tiles.csv"
    told.write_text("id,lon,lat,epsg,ground_truth\n1,8.5,48.1,32632,3\n2,8.6,48.2,32632,4\n3,2.1,48.2,32631,5\n")
    found = ds.read_labels(told)
    assert found.crs == "EPSG:4326"
    assert [(point.x, point.y) for point in found.geometry] == [(8.5, 48.1), (8.6, 48.2), (2.1, 48.2)]
    assert found["epsg"].tolist() == [32632, 32632, 32631]
    assert len(ds.read_labels(told, bbox=(8, 48, 9, 49))) == 2
    # A CRS beside WKT is that of the WKT, whatever else is there.
    wkt = tmp_path / "wkt.csv"
    wkt.write_text("lon,lat,epsg,geometry,ground_truth\n9,47,32632,POINT (500000 5200000),3\n")
    assert ds.read_labels(wkt).crs == UTM

    there = tmp_path / "utm.csv"
    there.write_text("lon,lat,epsg,ground_truth\n500000,5200000,32632,1\n500100,5200000,32632,2\n")
    with pytest.raises(InputError, match=r"not degrees, such as POINT \(500000 5200000\).*crs='EPSG:\.\.\.'"):
        ds.read_labels(there)
    moved = ds.read_labels(there, crs="EPSG:32632")
    assert moved.to_crs("EPSG:4326").geometry.x.iloc[0] == pytest.approx(9)
    some = tmp_path / "some.csv"
    some.write_text("lon,lat,ground_truth\n8.5,48.1,1\n500000,5200000,2\n900,48.1,3\n8.5,91,4\n-8.5,-89,5\n")
    with pytest.warns(DeepSentinelWarning, match="3 .*rows set aside.* lon and lat are not degrees"):
        kept = ds.read_labels(some)
    assert kept["ground_truth"].tolist() == [1, 5]
    assert {entry["reason"] for entry in kept.attrs["set_aside"]} == {"lon and lat are not degrees"}
    comma = tmp_path / "comma.csv"
    comma.write_text("lon;lat;ground_truth\n8,5;48,1;1\n8.5;48.1;2\n")
    with pytest.warns(DeepSentinelWarning, match="1 .*lon or lat that cannot be read"):
        assert ds.read_labels(comma)["ground_truth"].tolist() == [2]
