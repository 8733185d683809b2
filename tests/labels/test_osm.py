"""OpenStreetMap: which tags make which class, in whatever layout, and what lies on top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import from_origin

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels
from deepsentinel.labels.planar import as_areas, flattened, metric_crs
from deepsentinel.labels.sea import sea
from deepsentinel.labels.tags import match, parse_tags, tag_table, widths_m
from deepsentinel.legend import Legend, corine

UTM = "EPSG:32632"


def quietly(path: Path, **options: Any) -> gpd.GeoDataFrame:
    with catch_warnings():
        simplefilter("ignore", DeepSentinelWarning)  # real files hold polygons that have to be repaired
        return read_labels(path, **options)


# What the table says ------------------------------------------------------------------------------------------------


def test_every_class_is_of_corine_and_every_row_can_be_reached() -> None:
    table = tag_table()
    assert set(table["code"]) <= set(corine().codes)
    assert not table.duplicated(["shape", "key", "value", "also"]).any()
    for row in table.itertuples():
        earlier = table[(table.index < row.Index) & (table["shape"] == row.shape) & (table["key"] == row.key)]
        # A general row hides the particular ones that come after it.
        assert not ((earlier["also"] == "") & earlier["value"].isin(["*", row.value])).any(), row


@pytest.mark.parametrize(
    ("shape", "tags", "code"),
    [
        ("polygon", {"landuse": "residential"}, 112),
        ("polygon", {"landuse": "residential", "building": "yes"}, 112),
        ("polygon", {"building": "warehouse", "landuse": "industrial"}, 121),
        ("polygon", {"building": "no", "landuse": "meadow"}, 231),
        ("polygon", {"landuse": "forest", "leaf_type": "needleleaved"}, 312),
        ("polygon", {"natural": "wood", "leaf_type": "broadleaved"}, 311),
        ("polygon", {"natural": "wood", "leaf_type": "leafless"}, 313),
        ("polygon", {"natural": "wetland", "wetland": "bog"}, 412),
        ("polygon", {"natural": "wetland"}, 411),
        ("polygon", {"natural": "water", "water": "river"}, 511),
        ("polygon", {"natural": "water", "water": "lake"}, 512),
        ("polygon", {"landuse": "vineyard;orchard"}, 221),
        ("polygon", {"landuse": " farmland"}, 211),
        ("polygon", {"amenity": "parking"}, 122),
        ("polygon", {"amenity": "parking", "parking": "underground"}, None),
        ("polygon", {"boundary": "administrative"}, None),
        ("polygon", {"highway": "residential"}, 122),
        ("line", {"highway": "residential"}, 122),
        ("line", {"highway": "residential", "tunnel": "yes"}, None),
        ("line", {"highway": "residential", "tunnel": "no"}, 122),
        ("line", {"highway": "service", "tunnel": "building_passage"}, 122),
        ("line", {"highway": "residential", "layer": "-1"}, None),
        ("line", {"highway": "residential", "layer": "1"}, 122),
        ("line", {"railway": "rail", "abandoned": "yes"}, None),
        ("line", {"highway": "proposed"}, None),
        ("line", {"waterway": "stream"}, 511),
        ("line", {"landuse": "forest"}, None),
        ("point", {"highway": "crossing"}, None),
        ("point", {"man_made": "water_tower"}, 121),
    ],
)
def test_a_feature_takes_the_class_of_its_tags(shape: str, tags: dict[str, str], code: int | None) -> None:
    table = tag_table()
    # Beside others, so that a column may be empty for it.
    features = pd.DataFrame([{"landuse": "quarry"}, tags, {"natural": "scrub"}], dtype=object)
    features = features.where(features.notna(), None)
    found = match(features, np.array(["polygon", shape, "polygon"]), table)
    assert table["code"][found.row[[0, 2]]].tolist() == [131, 324]
    assert (None if found.row[1] < 0 else table["code"][found.row[1]]) == code


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = written(tmp_path)
    own = pd.DataFrame(
        {"key": ["landuse", "landuse"], "value": ["forest", "*"], "code": [7, 9], "name": ["Trees", "Other land"]}
    )
    labels = read_labels(path, tags=own, flatten=False)
    assert labels["ground_truth"].tolist() == [7, 9, 9]
    assert Legend.from_json(labels.attrs["legend"]).names == {7: "Trees", 9: "Other land"}
    own.to_csv(tmp_path / "own.csv", index=False)
    assert read_labels(path, tags=tmp_path / "own.csv", flatten=False)["ground_truth"].tolist() == [7, 9, 9]
    with pytest.raises(InputError, match="level=2: osm has the levels 1"):
        read_labels(path, tags=own, level=2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code": ["x"]}, "code 'x' is not a positive integer"),
        ({"code": [0]}, "0 is the background"),
        ({"shape": ["area"]}, "shape 'area' is none of polygon, line, point"),
        ({"shape": ["line"]}, "line landuse=forest needs a width_m"),
    ],
)
def test_a_table_with_a_fault_says_which(change: dict[str, list[object]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tag_table(pd.DataFrame({"key": ["landuse"], "value": ["forest"], "code": [1], **change}))
    with pytest.raises(InputError, match="key, value and code, not key"):
        tag_table(pd.DataFrame({"key": ["landuse"]}))
    with pytest.raises(InputError, match="no such file"):
        tag_table("nowhere.csv")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=5))
def test_tags_survive_every_way_of_writing_them(tags: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    hstore = ",".join(f'"{escaped(key)}"=>"{escaped(value)}"' for key, value in tags.items())
    assert parse_tags(hstore) == tags
    assert parse_tags(json.dumps(tags)) == tags
    assert parse_tags(list(tags.items())) == tags
    assert parse_tags(tags) == tags


def test_widths_are_told_then_counted_in_lanes_then_usual() -> None:
    told = {"3.5": 3.5, "7,5 m": 7.5, "12 ft": 3.6576, "12'6\"": 3.81, "0.02 km": 20}
    rows = [*told.items(), ("wide", 8.0), ("0", 8.0), (None, 8.0), ("99999", 8.0)]
    tags = pd.DataFrame({"width": [text for text, _ in rows]})
    assert widths_m(tags, np.full(len(rows), 8.0)) == pytest.approx([width for _, width in rows])
    lanes = pd.DataFrame({"lanes": ["2", "2", "200", None], "width": [None, "9", None, None]})
    assert widths_m(lanes, np.full(4, 8.0)).tolist() == [6.5, 9.0, 8.0, 8.0]


# In whatever layout -------------------------------------------------------------------------------------------------

WOOD, FIELD, VINES = (shapely.box(500_000 + x, 5_200_000, 500_100 + x, 5_200_100) for x in (0, 200, 400))
FEATURES = [
    ("relation", 1, WOOD, {"landuse": "forest", "leaf_type": "broadleaved", "name": 'The "old" wood'}),
    ("way", 2, FIELD, {"landuse": "farmland"}),
    ("way", 3, VINES, {"landuse": "vineyard"}),
]


def written(folder: Path, layout: str = "gdal") -> Path:
    """The same three areas as different tools write them."""
    tags = [tags for *_, tags in FEATURES]
    shapes = [shape for _, _, shape, _ in FEATURES]
    ids = [(kind, number) for kind, number, _, _ in FEATURES]
    rest = [{key: text for key, text in entry.items() if key != "landuse"} for entry in tags]
    hstore = [",".join('"{}"=>"{}"'.format(k, v.replace('"', '\\"')) for k, v in e.items()) or None for e in rest]
    landuse = [entry["landuse"] for entry in tags]
    columns: dict[str, Any] = {
        "gdal": {
            "osm_id": [str(n) if kind == "relation" else None for kind, n in ids],
            "osm_way_id": [str(n) if kind == "way" else None for kind, n in ids],
            "landuse": landuse,
            "other_tags": hstore,
        },
        "osm2pgsql": {
            "osm_id": [-n if kind == "relation" else n for kind, n in ids],
            "landuse": landuse,
            "tags": hstore,
            "way_area": [1e4] * 3,
            "z_order": [0] * 3,
        },
        "quackosm": {"feature_id": [f"{kind}/{n}" for kind, n in ids], "tags": [json.dumps(entry) for entry in tags]},
        "pyrosm": {
            "id": [n for _, n in ids],
            "osm_type": [kind for kind, _ in ids],
            "landuse": landuse,
            "tags": [json.dumps(entry) for entry in rest],
        },
        "osmnx": {
            "element": [kind for kind, _ in ids],
            "id": [n for _, n in ids],
            "landuse": landuse,
            "leaf_type": [entry.get("leaf_type") for entry in tags],
        },
    }[layout]
    table = gpd.GeoDataFrame(columns, geometry=shapes, crs=UTM)
    if layout == "quackosm":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table.to_parquet(folder / "flat.parquet")
        flat = pq.read_table(folder / "flat.parquet")
        maps = pa.array([list(entry.items()) for entry in tags], type=pa.map_(pa.string(), pa.string()))
        pq.write_table(
            flat.set_column(flat.schema.get_field_index("tags"), "tags", maps).replace_schema_metadata(
                flat.schema.metadata
            ),
            folder / "quackosm.parquet",
        )
        return folder / "quackosm.parquet"
    table.to_file(folder / f"{layout}.gpkg", layer="planet_osm_polygon" if layout == "osm2pgsql" else "multipolygons")
    return folder / f"{layout}.gpkg"


@pytest.mark.parametrize("layout", ["gdal", "osm2pgsql", "quackosm", "pyrosm", "osmnx"])
def test_every_tools_layout_gives_the_same_labels(layout: str, tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, layout), level=3)
    assert labels["ground_truth"].tolist() == [311, 211, 221]
    assert labels["id"].tolist() == ["relation/1", "way/2", "way/3"]
    assert labels["tag"].tolist() == ["landuse=forest", "landuse=farmland", "landuse=vineyard"]
    assert labels.area.round(3).tolist() == [1e4] * 3
    assert read_labels(written(tmp_path, layout))["ground_truth"].tolist() == [31, 21, 22]


def test_geofabriks_shapefiles(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(
        {"osm_id": ["1", "2", "3"], "code": [7201, 7208, 7219], "fclass": ["forest", "meadow", "scrub"]},
        geometry=[WOOD, FIELD, VINES],
        crs=UTM,
    )
    table.to_file(tmp_path / "gis_osm_landuse_a_free_1.shp")
    assert read_labels(tmp_path / "gis_osm_landuse_a_free_1.shp", level=3)["ground_truth"].tolist() == [313, 231, 324]


def test_overture_by_its_source_tags_and_by_its_subtypes(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(
        {
            "id": ["x", "y", "z"],
            "version": [1, 1, 1],
            "sources": ["osm"] * 3,
            "subtype": ["agriculture", "forest", "protected"],
            "source_tags": [json.dumps({"landuse": "vineyard"}), None, None],
        },
        geometry=[WOOD, FIELD, VINES],
        crs=UTM,
    )
    table.to_file(tmp_path / "land.gpkg")
    labels = read_labels(tmp_path / "land.gpkg", level=3)
    assert labels.attrs["kind"] == "overture"
    assert labels["ground_truth"].tolist() == [221, 313]
    assert labels["id"].tolist() == ["x", "y"]
    assert labels.attrs["notes"] == ["1 features have no tag that the table gives a class"]


# What lies on top ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_flattening_is_what_a_painter_does(seed: int) -> None:
    """Independent: paint the shapes on fine pixels from the lowest rank up, and count whose paint is seen."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (12, 2))
    size = rng.integers(5, 40, (12, 2))
    shapes = shapely.box(*corner.T, *(corner + size).T)
    shapes[::3] = shapely.difference(shapes[::3], shapely.box(*(corner + 2).T, *(corner + 4).T)[::3])
    rank = rng.permutation(12)
    flat = flattened(shapes, rank)
    order = np.argsort(rank)
    paint = rasterize(
        [(shapes[number], number + 1) for number in order], out_shape=(100, 100), transform=from_origin(0, 100, 1, 1)
    )
    assert np.bincount(paint.ravel(), minlength=13)[1:].tolist() == pytest.approx(shapely.area(flat))
    assert shapely.area(shapely.union_all(shapes)) == pytest.approx(shapely.area(flat).sum())
    # In any order of the rows.
    turned = rng.permutation(12)
    assert shapely.equals(flattened(shapes[turned], rank[turned]), flat[turned]).all()


def test_smaller_areas_then_water_then_houses_then_roads_are_on_top(tmp_path: Path) -> None:
    town, park, pond, house = (shapely.box(0, 0, s, s) for s in (1000, 500, 400, 100))
    shift = [
        shapely.transform(shape, lambda xy: xy + np.array([500_000, 5_200_000])) for shape in (town, park, pond, house)
    ]
    areas = {
        "osm_way_id": ["1", "2", "3", "4"],
        "landuse": ["residential", None, None, None],
        "leisure": [None, "park", None, None],
        "natural": [None, None, "water", None],
        "building": [None, None, None, "yes"],
        "other_tags": None,
        "osm_id": None,
    }
    path = tmp_path / "osm.gpkg"
    gpd.GeoDataFrame(areas, geometry=shift, crs=UTM).to_file(path, layer="multipolygons")
    road = shapely.LineString([(500_000, 5_200_050), (501_000, 5_200_050)])
    lines = gpd.GeoDataFrame(
        {"osm_id": ["9"], "highway": ["primary"], "other_tags": ['"width"=>"10"']}, geometry=[road], crs=UTM
    )
    lines.to_file(path, layer="lines")
    labels = read_labels(path, level=3).set_index("id")
    ends = np.pi * 25 * (np.sin(np.pi / 8) / (np.pi / 8))  # round ends, drawn with 16 corners: half lies outside
    road_m2 = 10 * 1000 + ends
    assert labels.area["way/9"] == pytest.approx(road_m2, rel=1e-6)
    assert labels.area["way/4"] == pytest.approx(100 * 100 - 10 * 100)
    assert labels.area["way/3"] == pytest.approx(400 * 400 - 100 * 100 - 10 * 300)
    assert labels.area["way/2"] == pytest.approx(500 * 500 - 400 * 400 - 10 * 100)
    assert labels.area["way/1"] == pytest.approx(1000 * 1000 - 500 * 500 - 10 * 500)
    assert labels["ground_truth"].to_dict() == {"way/1": 112, "way/2": 141, "way/3": 512, "way/4": 112, "way/9": 122}
    whole = read_labels(path, level=3, flatten=False).set_index("id")
    assert whole.geometry["way/9"].equals(road)
    assert whole["width_m"]["way/9"] == 10.0
    assert whole.area["way/1"] == 1e6


def test_lines_become_areas_of_their_width_in_metres() -> None:
    line = gpd.GeoSeries([shapely.LineString([(2.0, 48.0), (2.0, 48.1)])], crs="EPSG:4326")
    crs = metric_crs(gpd.GeoDataFrame(geometry=line))
    metres = line.to_crs(crs).to_numpy()
    (area,) = as_areas(metres, np.array([20.0]))
    # One tenth of a degree of the meridian at 48 N is 11,119 m.
    assert shapely.area(area) == pytest.approx(11_119 * 20, rel=0.003)
    wide = gpd.GeoDataFrame(geometry=[shapely.box(-10, 40, 30, 60)], crs="EPSG:4326")
    assert metric_crs(wide).to_dict()["proj"] == "laea"


def test_the_sea_lies_on_the_right_of_the_coast() -> None:
    frame = shapely.box(0, 0, 100, 100)
    coast = shapely.LineString([(40, -20), (50, 50), (40, 120)])  # going north: land in the west, sea in the east
    island = shapely.Polygon([(70, 40), (80, 40), (80, 60), (70, 60)]).exterior  # anticlockwise: land inside
    waters, unclear = sea(np.array([coast, island]), frame)
    land = shapely.intersection(shapely.Polygon([*coast.coords, (-50, 120), (-50, -20)]), frame)
    expected = shapely.difference(shapely.difference(frame, land), shapely.Polygon(island))
    assert unclear == 0
    assert shapely.area(shapely.symmetric_difference(shapely.union_all(waters), expected)) < 1e-6
    lake = shapely.reverse(coast)
    assert shapely.area(shapely.union_all(sea(np.array([lake]), frame)[0])) == pytest.approx(land.area)
    # A coast that ends within the frame leaves it open which side is which.
    waters, unclear = sea(np.array([shapely.LineString([(40, -20), (50, 50)])]), frame)
    assert (len(waters), unclear) == (0, 1)
    assert sea(np.array([shapely.LineString([(500, 0), (500, 9)])]), frame) == (pytest.approx([]), 0)


# Real and imaginary places ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def monaco(real: Path) -> gpd.GeoDataFrame:
    return quietly(real / "osm" / "monaco.osm.pbf", level=3)


def test_monaco_counts_agree_with_gdal(real: Path) -> None:
    path = real / "osm" / "monaco.osm.pbf"
    labels = quietly(path, flatten=False, level=3)
    areas, lines = (pyogrio.read_dataframe(path, layer=layer) for layer in ("multipolygons", "lines"))
    assert labels.crs.to_epsg() == 4326
    below = r'"(?:layer"=>"-|tunnel"=>"(?!no|building)|location"=>"under|parking"=>"underground)'
    seen = ~areas["other_tags"].fillna("").str.contains(below)
    houses = areas["building"].notna() & (areas["building"] != "no") & seen
    assert labels["tag"].str.startswith("building=").sum() == houses.sum()
    open_air = ~lines["other_tags"].fillna("").str.contains(below)
    streets = (lines["highway"] == "residential") & open_air
    assert (labels["tag"] == "highway=residential").sum() == streets.sum()
    assert labels["id"].is_unique
    found = labels.set_index("id")
    number = areas[houses & areas["osm_way_id"].notna()].iloc[5]
    assert found.geometry[f"way/{number['osm_way_id']}"].equals(number.geometry)


def test_monaco_has_no_ground_with_two_classes(monaco: gpd.GeoDataFrame) -> None:
    assert monaco.crs.to_epsg() == 32632
    assert monaco.is_valid.all()
    shapes = monaco.geometry.to_numpy()
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = one < other
    assert len(one[pairs]) > 1000
    assert shapely.area(shapely.intersection(shapes[one[pairs]], shapes[other[pairs]])).max() < 1e-5
    assert set(monaco.geom_type) <= {"Polygon", "MultiPolygon"}


def test_monaco_by_the_sea(real: Path) -> None:
    labels = quietly(real / "osm" / "monaco.osm.pbf", bbox=(7.415, 43.727, 7.43, 43.74), level=3)

    def at(lon: float, lat: float) -> gpd.GeoDataFrame:
        place = gpd.GeoSeries(gpd.points_from_xy([lon], [lat]), crs="EPSG:4326").to_crs(labels.crs)[0]
        return labels[labels.contains(place)]

    # Two places off the Rock; the Oceanographic Museum at its edge, the harbour, a square in front of the palace.
    assert at(7.4275, 43.7285)["ground_truth"].tolist() == at(7.4295, 43.7285)["ground_truth"].tolist() == [523]
    assert at(7.4255, 43.7307)["name"].tolist() == ["Musée Océanographique"]
    assert at(7.4262, 43.7348)["ground_truth"].tolist() == [123]
    assert not (at(7.4202, 43.7313)["ground_truth"] == 523).any()


def test_the_demo_world_is_mapped_as_it_is() -> None:
    """Independent: the world's own map of what covers the ground, looked up at points inside the labels."""
    import rasterio

    source = ds.open_source("demo", size_px=512)
    labels = read_labels(source.labels["osm"], level=3)
    name = next(key for key in source.labels if key.startswith("land_cover_2018"))
    with rasterio.open(source.labels[name]) as cover:
        inside = labels[labels.area > 2000].to_crs(cover.crs)
        inside = inside[inside.geometry.within(shapely.box(*cover.bounds))]
        spots = inside.geometry.representative_point()
        values = np.array([value[0] for value in cover.sample(zip(spots.x, spots.y, strict=True))])
        legend = {code: values[inside["ground_truth"] == code] for code in (512, 311, 312, 211)}
    for code, found in legend.items():
        if len(found) >= 3:
            # One cover prevails, and is not that of the other classes.
            common = np.bincount(found).argmax()
            assert (found == common).mean() > 0.6, code


def test_a_file_in_pieces_reads_as_the_whole(real: Path) -> None:
    path = real / "osm" / "monaco.osm.pbf"
    whole = quietly(path, flatten=False)
    some = quietly(path, flatten=False, bbox=(7.415, 43.730, 7.425, 43.738))
    touching = whole[whole.intersects(shapely.box(7.415, 43.730, 7.425, 43.738))]
    assert 300 < len(some) < len(whole)
    assert sorted(some["id"]) == sorted(touching["id"])


def test_the_legend_is_of_openstreetmap_with_the_codes_and_colours_of_corine(tmp_path: Path) -> None:
    path = ds.open_source("demo", size_px=256).labels["osm"]
    for level in (1, 2, 3):
        legend = Legend.from_json(read_labels(path, level=level, flatten=False).attrs["legend"])
        assert legend.classes == corine(level).classes
        while legend is not None:
            assert legend.name == "osm"
            legend = legend.coarser
