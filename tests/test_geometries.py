"""Cleaning of label tables: what comes out can be burnt, what went in is untouched, and nothing is lost in silence."""

from __future__ import annotations

import json
import time

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsentinel.errors import InputError
from deepsentinel.geometries import clean, kinds

UTM = "EPSG:32631"
BOX = shapely.box(0, 0, 10, 10)
BOW_TIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
with np.errstate(invalid="ignore"):
    NAN_RING = shapely.polygons(np.array([[0, 0], [1, 0], [np.nan, 1], [0, 0]], dtype="float64"))


def table(*geometries: object, crs: str | None = UTM, **columns: object) -> gpd.GeoDataFrame:
    columns = {"ground_truth": range(1, len(geometries) + 1), **columns}
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def test_sound_labels_come_out_as_they_went_in() -> None:
    labels = table(BOX, shapely.LineString([(0, 0), (5, 5)]), shapely.Point(1, 1), id=[7, 8, 9])
    labels.index = [30, 10, 10]
    labels.attrs = {"kind": "mine"}
    cleaned = clean(labels)
    assert cleaned.table.equals(labels)
    assert cleaned.table.attrs == {"kind": "mine"}
    assert cleaned.positions.tolist() == [0, 1, 2]
    assert (cleaned.repairs, cleaned.set_aside, cleaned.warnings) == ([], [], [])


def test_polygons_that_cross_themselves_keep_both_halves() -> None:
    cleaned = clean(table(BOX, BOW_TIE, id=["a", "b"]))
    assert cleaned.table.area.tolist() == [100.0, 2.0]
    assert cleaned.repairs == [{"row": 1, "id": "b", "what": "made valid: self-intersection at (1, 1)"}]
    assert "1 of 2 geometries were repaired, the first in row 1 (id b)" in cleaned.warnings[0]


def test_a_ring_drawn_twice_stays_an_area() -> None:
    # The even-odd rule would make nothing of it, and of overlapping parts a hole.
    twice = shapely.MultiPolygon([BOX, shapely.box(5, 0, 15, 10)])
    assert clean(table(twice)).table.area.tolist() == [150.0]


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (None, "no geometry"),
        (shapely.Polygon(), "no geometry"),
        (shapely.GeometryCollection(), "no geometry"),
        (NAN_RING, "a coordinate that is not a number"),
        (shapely.Point(np.inf, 0), "a coordinate that is not a number"),
        (shapely.GeometryCollection([BOX, shapely.Point(np.nan, 0)]), "a coordinate that is not a number"),
        (shapely.Polygon([(0, 0), (1, 0), (2, 0), (0, 0)]), "a polygon without area"),
        (shapely.LineString([(1, 1), (1, 1)]), "a line without length"),
        (
            shapely.GeometryCollection([shapely.Polygon([(0, 0), (1, 0), (2, 0), (0, 0)])]),
            "a collection of parts without area or length",
        ),
    ],
)
def test_what_nobody_can_use_is_set_aside_with_the_reason(geometry: object, reason: str) -> None:
    cleaned = clean(table(BOX, geometry, BOX, id=[5, 6, 7]))
    assert cleaned.table["id"].tolist() == [5, 7]
    assert cleaned.positions.tolist() == [0, 2]
    (entry,) = cleaned.set_aside
    assert (entry["row"], entry["id"], entry["reason"]) == (1, 6, reason)
    assert (entry["wkt"] is None) == (geometry is None)
    assert cleaned.warnings == [f"1 of 3 rows set aside, {reason}; the first is row 1 (id 6)"]
    json.dumps(cleaned.set_aside)


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        ([1.5, np.nan, 3.0], [0, 2]),
        ([1.5, np.inf, 3.0], [0, 2]),
        (["wheat", None, "rye"], [0, 2]),
        ([1, 2, 3], [0, 1, 2]),
    ],
)
def test_rows_without_a_class_are_set_aside(classes: list[object], kept: list[int]) -> None:
    cleaned = clean(table(BOX, BOX, BOX, ground_truth=classes))
    assert cleaned.positions.tolist() == kept
    assert all("ground_truth" in entry["reason"] for entry in cleaned.set_aside)
    assert clean(table(BOX, BOX, BOX, ground_truth=classes), value=None).positions.tolist() == [0, 1, 2]


def test_collections_give_their_polygons_even_from_within_collections() -> None:
    inner = shapely.GeometryCollection([shapely.box(5, 0, 15, 10), shapely.Point(0, 0)])
    nested = shapely.GeometryCollection([BOX, inner, BOW_TIE, shapely.LineString([(0, 0), (9, 0)])])
    lines = shapely.GeometryCollection([shapely.LineString([(0, 0), (3, 4)]), shapely.Point(0, 0)])
    points = shapely.GeometryCollection([shapely.Point(0, 0), shapely.MultiPoint([(1, 1), (2, 2)])])
    cleaned = clean(table(nested, lines, points))
    assert kinds(cleaned.table.geometry).tolist() == ["polygon", "line", "point"]
    # Parts that overlap count once: 150 for the boxes; the bow tie lies inside the first.
    assert cleaned.table.area.tolist() == [150.0, 0.0, 0.0]
    assert cleaned.table.length[1] == 5.0
    assert len(shapely.get_parts(cleaned.table.geometry[2])) == 3
    assert cleaned.repairs[0]["what"] == "a collection: its 3 polygons taken, 2 other parts left out"
    assert cleaned.repairs[1]["what"] == "a collection: its 1 line taken, 1 other part left out"


def test_kinds_that_are_not_wanted_are_set_aside() -> None:
    labels = table(BOX, shapely.LineString([(0, 0), (5, 5)]), shapely.MultiPoint([(0, 0)]))
    cleaned = clean(labels, keep_kinds=["polygon"])
    assert cleaned.positions.tolist() == [0]
    assert [entry["reason"].partition(",")[0] for entry in cleaned.set_aside] == ["a line", "a point"]
    with pytest.raises(InputError, match="polygons"):
        clean(labels, keep_kinds=["polygons"])  # type: ignore[list-item]


def test_heights_are_left_out() -> None:
    high = shapely.from_wkt("POLYGON Z ((0 0 5, 10 0 5, 10 10 nan, 0 0 5))")
    cleaned = clean(table(high))
    assert not cleaned.table.has_z.any()
    assert cleaned.repairs == cleaned.set_aside == []


def test_the_given_table_is_never_changed() -> None:
    labels = table(BOW_TIE, None, shapely.GeometryCollection([BOX, shapely.Point(0, 0)]), id=[1, 2, 3])
    before = labels.copy(deep=True)
    cleaned = clean(labels).table
    cleaned["ground_truth"] = 99
    assert labels.equals(before)


def test_a_geometry_column_of_another_name_and_an_empty_table() -> None:
    labels = table(BOW_TIE, BOX).rename_geometry("way")
    cleaned = clean(labels)
    assert cleaned.table.geometry.name == "way"
    assert cleaned.table.area.tolist() == [2.0, 100.0]
    empty = clean(labels.iloc[:0])
    assert len(empty.table) == 0
    assert empty.table.crs == labels.crs


def test_without_a_crs_or_a_class_it_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no CRS.*set_crs"):
        clean(table(BOX, crs=None))
    with pytest.raises(InputError, match=r"no column 'ground_truth'; they have .*CODE_18.*mean value='CODE_18'"):
        clean(gpd.GeoDataFrame({"CODE_18": ["111"], "area": [1]}, geometry=[BOX], crs=UTM))
    with pytest.raises(InputError, match=r"mean value='ground_truth'"):
        clean(table(BOX), value="groundtruth")
    with pytest.raises(InputError, match="GeoDataFrame"):
        clean([BOX])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no geometry column"):
        clean(gpd.GeoDataFrame({"ground_truth": [1]}))


def test_many_rows_without_a_class_do_not_become_many_texts() -> None:
    labels = table(*[BOX] * 3000, ground_truth=[np.nan] * 3000)
    aside = clean(labels).set_aside
    assert len(aside) == 3000
    assert sum(entry["wkt"] is not None for entry in aside) == 1000


def crossings(place: np.ndarray, ring: list[tuple[int, int]]) -> int:
    """How many edges a ray to the east crosses: odd inside, by the oldest of rules."""
    a, b = np.array(ring, dtype="float64"), np.roll(np.array(ring, dtype="float64"), -1, axis=0)
    straddles = (a[:, 1] > place[1]) != (b[:, 1] > place[1])
    a, b = a[straddles], b[straddles]
    return int((a[:, 0] + (place[1] - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1]) > place[0]).sum())


rings = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(rings, min_size=1, max_size=5))
def test_any_rings_at_all_become_valid_or_are_set_aside(scribbles: list[list[tuple[int, int]]]) -> None:
    labels = table(*[shapely.Polygon(ring) for ring in scribbles])
    cleaned = clean(labels)
    assert cleaned.table.is_valid.all()
    assert (cleaned.table.area > 0).all()
    rows = sorted([*cleaned.positions.tolist(), *(entry["row"] for entry in cleaned.set_aside)])
    assert rows == list(range(len(labels)))
    places = np.random.default_rng(0).uniform(0, 20, (60, 2))
    for row, shape in zip(cleaned.positions, cleaned.table.geometry, strict=True):
        odd = np.array([crossings(place, scribbles[row]) % 2 == 1 for place in places])
        assert shapely.contains_xy(shape, places[odd]).all()


def test_a_ring_that_runs_along_itself_becomes_valid() -> None:
    # GEOS' own repair gives two triangles with a common edge, which is not valid either.
    cleaned = clean(table(shapely.Polygon([(1, 1), (0, 0), (1, 0), (1, 1), (0, 0), (0, 1)])))
    assert cleaned.table.is_valid.all()
    assert cleaned.table.area.tolist() == [1.0]


def test_a_million_rows_take_seconds() -> None:
    count = 200_000
    corners = np.random.default_rng(0).uniform(0, 1e5, (count, 1, 2))
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circles = shapely.polygons(corners + 20 * np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    labels = gpd.GeoDataFrame({"ground_truth": np.ones(count, dtype=int)}, geometry=circles, crs=UTM)
    began = time.process_time()
    clean(labels)
    assert time.process_time() - began < 10 * count / 1e6 * 1.5
