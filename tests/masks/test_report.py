"""The report on labels: planted faults are found, each once, and nothing else is; overlaps against brute force."""

from __future__ import annotations

import itertools

import factories
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.geometries import clean
from deepsentinel.labels import read_labels
from deepsentinel.masks.report import PROBLEMS, label_report

LEFT, TOP = 575_000.0, 5_460_000.0
GRID = factories.grid((100, 100))


def fields(n: int = 6, side_m: float = 120.0) -> list:
    """Abutting squares in the upper left of the grid."""
    corners = itertools.product(range(n), range(n))
    return [
        shapely.box(
            LEFT + u * side_m, TOP - (v + 1) * side_m, LEFT + (u + 1) * side_m, TOP - v * side_m
        )
        for v, u in corners
    ]  # fmt: skip


def table(shapes, **columns) -> gpd.GeoDataFrame:
    data = {"ground_truth": np.arange(len(shapes)) % 5 + 1, "id": np.arange(len(shapes)) + 1000} | columns
    return gpd.GeoDataFrame(data, geometry=list(shapes), crs="EPSG:32631")


def found(report, problem: str) -> list[int]:
    return report.where.loc[report.where["problem"] == problem, "row"].tolist()


def test_sound_labels_have_no_findings():
    report = label_report(table(fields()), GRID)
    assert len(report.where) == report.faulty == report.outside == 0
    assert report.counts["rows"].drop("out of date").tolist() == [0] * 6
    assert pd.isna(report.counts["rows"]["out of date"])
    assert list(report.counts.index) == list(PROBLEMS)


def test_each_planted_fault_is_found_once_and_named():
    shapes = fields()
    moved = shapely.affinity.translate(shapes[7], 3, 0)
    corners = [(800, 800), (900, 900), (900, 800), (800, 900)]
    bow_tie = shapely.Polygon([(LEFT + x, TOP - y) for x, y in corners])
    tiny = shapely.box(LEFT + 900, TOP - 703, LEFT + 903, TOP - 700)
    far = shapely.affinity.translate(shapes[0], 50_000, 0)
    nan = shapely.from_wkt(f"POLYGON (({LEFT} {TOP}, {LEFT + 5} nan, {LEFT + 5} {TOP - 5}, {LEFT} {TOP}))")
    shapes = [*shapes[:7], moved, *shapes[8:], bow_tie, tiny, far, None, nan, shapes[3]]
    labels = table(shapes)
    report = label_report(labels, GRID)
    assert report.rows == 42
    assert report.counts["rows"].fillna(-1).to_dict() == {
        "set aside": 2, "invalid": 1, "duplicated": 2, "overlapping": 2, "smaller than a pixel": 1, "outside": 1,
        "out of date": -1,
    }  # fmt: skip
    assert found(report, "set aside") == [39, 40]
    assert found(report, "invalid") == [36]
    assert found(report, "smaller than a pixel") == [37]
    assert found(report, "outside") == [38]
    assert found(report, "duplicated") == [3, 41]
    overlap = report.where[report.where["problem"] == "overlapping"].iloc[0]
    assert (overlap["row"], overlap["other_row"], overlap["id"]) == (7, 8, 1007)
    assert overlap["area_px"] == pytest.approx(3 * 120 / 100)
    assert overlap.geometry.area == pytest.approx(360)
    # Rows 7 and 8 share one line; neither a small label nor one outside is at fault.
    assert (report.faulty, report.small, report.outside) == (7, 1, 1)
    assert report.outside == 1
    assert "42 labels: 7 with a problem; 1 smaller than a pixel, 1 outside of the grid" in repr(report)


def test_overlaps_are_those_of_brute_force():
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (60, 9)))
    radius = rng.uniform(20, 90, (60, 9))
    centre = np.array([LEFT, TOP]) + rng.uniform(100, 900, (60, 1, 2)) * [1, -1]
    rings = centre + np.stack([np.cos(angles), np.sin(angles)], -1) * radius[..., None]
    shapes = shapely.polygons(rings)
    shapes = shapes[shapely.is_valid(shapes)]
    report = label_report(table(shapes), GRID)
    got = report.where[report.where["problem"] == "overlapping"]
    wanted = {
        (a, b): shapely.intersection(shapes[a], shapes[b]).area
        for a, b in itertools.combinations(range(len(shapes)), 2)
        if shapely.intersection(shapes[a], shapes[b]).area > 0.1
    }
    assert len(wanted) > 50
    assert set(zip(got["row"], got["other_row"], strict=True)) == set(wanted)
    assert got["area_px"].to_numpy() * 100 == pytest.approx([wanted[pair] for pair in sorted(wanted)], rel=1e-9)
    assert report.counts["rows"]["overlapping"] == len(set(itertools.chain(*wanted)))


@pytest.mark.parametrize(("wide_m", "resolution", "pairs"), [(0.5, None, 1), (0.1, 10, 0), (0.1, 2.5, 1)])
def test_an_overlap_counts_from_a_thousandth_of_a_pixel(wide_m, resolution, pairs):
    # 0.8 m high: 0.4 and 0.08 square metres, of pixels of 100 and 6.25.
    a = shapely.box(LEFT, TOP - 0.8, LEFT + 50, TOP)
    b = shapely.box(LEFT + 50 - wide_m, TOP - 0.8, LEFT + 100, TOP)
    report = label_report(table([a, b]), GRID, resolution=resolution)
    assert found(report, "overlapping") == [0] * pairs


def test_neighbours_that_abut_in_degrees_do_not_overlap_on_the_grid():
    """One long edge against many short ones: the same line in degrees, but not when projected corner by corner."""
    west, north = 4.03, 49.28
    long = shapely.box(west, north - 0.02, west + 0.3, north)
    short = [shapely.box(west + 0.01 * k, north, west + 0.01 * (k + 1), north + 0.01) for k in range(30)]
    labels = table([long, *short]).set_crs("EPSG:4326", allow_override=True)
    assert label_report(labels, GRID).counts["rows"]["overlapping"] == 0
    # The very thing that is avoided: overlaps of what was projected corner by corner.
    projected = labels.to_crs("EPSG:32631").geometry
    assert shapely.intersection(projected[0], projected[10]).area > 0.1


def test_duplicates_are_told_by_their_outline_however_it_is_written():
    ring = [(0, 0), (40, 0), (40, 30), (0, 30)]
    shifted = [(LEFT + x + 100, TOP + y - 100) for x, y in ring]
    turned = [shapely.Polygon(shifted[k:] + shifted[:k]) for k in range(4)]
    parts = [shapely.box(LEFT, TOP - 20, LEFT + 20, TOP), shapely.box(LEFT + 40, TOP - 20, LEFT + 60, TOP)]
    several = [shapely.MultiPolygon(parts), shapely.MultiPolygon(parts[::-1])]
    other = shapely.box(LEFT + 300, TOP - 40, LEFT + 340, TOP)
    report = label_report(table([*turned, turned[0].reverse(), *several, other]), GRID)
    assert found(report, "duplicated") == list(range(7))
    assert report.where["detail"][0] == "5 rows with this outline"
    assert found(report, "overlapping") == []


def test_a_thousand_copies_are_no_million_pairs():
    one, across = shapely.box(LEFT, TOP - 50, LEFT + 50, TOP), shapely.box(LEFT + 20, TOP - 50, LEFT + 90, TOP)
    report = label_report(table([one] * 1000 + [across]), GRID)
    assert len(report.where) == 1001
    assert report.counts["rows"]["duplicated"] == 1000
    assert report.counts["rows"]["overlapping"] == 1001
    assert report.faulty == 1001


def test_the_order_of_the_rows_changes_nothing_but_their_numbers():
    shapes = fields()
    shapes[9] = shapely.affinity.translate(shapes[9], 7, 4)
    shapes.append(shapes[20].reverse())
    labels = table(shapes)
    shuffled = labels.sample(frac=1, random_state=1)
    first, second = label_report(labels, GRID), label_report(shuffled, GRID)
    pd.testing.assert_frame_equal(first.counts, second.counts)

    def named(report, table):
        ids = table["id"].to_numpy()
        rows = report.where[["row", "other_row"]].astype("float64").to_numpy()
        return sorted(
            (problem, *sorted(ids[int(r)] for r in pair if r == r), shape.normalize().wkt)
            for problem, pair, shape in zip(report.where["problem"], rows, report.where.geometry, strict=True)
        )

    assert named(first, labels) == named(second, shuffled)
    assert len(first.where) > 4


TIME = "2018-07-04T10:57:00"


@pytest.mark.parametrize(
    ("begin", "end", "old"),
    [
        ("2018-01-01", "2018-12-31", False),
        ("2018-01-01", "2018-07-04", True),  # until midnight: as of readers, an end is the first moment without it
        ("2018-01-01", "2018-07-05", False),
        (TIME, None, False),
        (None, TIME, True),
        ("2018-01-01", "2018-07-04T09:00", True),
        ("2018-01-01", "2018-07-03", True),
        ("2018-07-05", "2018-12-31", True),
        (None, None, False),
        (None, "2017-12-31", True),
        ("2019-01-01", None, True),
        ("2017-01-01", None, False),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_label_is_out_of_date_when_it_holds_at_no_time_of_the_scene(begin, end, old, zone):
    bounds = {"valid_from": pd.to_datetime([begin] * 2), "valid_to": pd.to_datetime([end] * 2)}
    if zone:
        bounds = {name: values.tz_localize(zone) for name, values in bounds.items()}
    scene = factories.make_patch((100, 100), sensors=("S2",))
    report = label_report(table(fields()[:2], **bounds), scene)
    assert found(report, "out of date") == ([0, 1] if old else [])
    assert report.counts["rows"]["out of date"] == 2 * old


def test_between_two_sensors_a_label_may_end():
    scene = factories.make_patch((100, 100))  # S2 at 10:57, S1 at 17:56
    ends = pd.to_datetime(["2018-07-04T12:00", "2018-07-04T10:00"])
    assert found(label_report(table(fields()[:2], valid_to=ends), scene), "out of date") == [1]


def test_what_a_reader_repaired_or_set_aside_is_counted_too():
    labels = table(fields()[:4])
    labels.attrs["repairs"] = [{"row": 17, "id": 1002, "what": "made valid: self-intersection at (1, 1)"}]
    labels.attrs["set_aside"] = [{"row": 3, "id": 77, "reason": "no geometry", "wkt": None}]
    report = label_report(labels, GRID)
    assert report.rows == 5
    assert found(report, "invalid") == [2]
    assert report.where.set_index("problem")["id"].to_dict() == {"set aside": 77, "invalid": 1002}
    assert report.counts["rows"]["set aside"] == 1
    assert report.faulty == 2


def test_the_labels_stay_as_they_are():
    labels = table(
        [*fields()[:4], shapely.Polygon([(LEFT, TOP), (LEFT + 9, TOP - 9), (LEFT + 9, TOP), (LEFT, TOP - 9)])]
    )
    before = labels.to_wkb().copy()
    label_report(labels, GRID)
    pd.testing.assert_frame_equal(labels.to_wkb(), before)


def test_the_demo_worlds_planted_faults_are_found():
    from deepsentinel.world.landscape import build_landscape
    from deepsentinel.world.rpg import parcels, planted_faults

    landscape = build_landscape(0, size_px=256)
    labels = parcels(landscape, 2018).rename(columns={"ID_PARCEL": "id", "CODE_CULTU": "ground_truth"})
    faults = planted_faults(landscape)
    planted = {fault: set(rows["ID_PARCEL"]) for fault, rows in faults.groupby("fault")}
    west, south, east, north = labels.total_bounds
    from deepsentinel.aoi import geobox

    report = label_report(labels, geobox((west, south, east, north)))
    by_problem = {problem: set(rows["id"]) for problem, rows in report.where.groupby("problem")}
    assert by_problem["invalid"] == planted["invalid"]
    assert by_problem["smaller than a pixel"] == planted["tiny"]
    assert "outside" not in by_problem
    overlapping = report.where[report.where["problem"] == "overlapping"]
    ids = labels["id"].to_numpy()
    pairs = {frozenset((a, ids[b])) for a, b in zip(overlapping["id"], overlapping["other_row"], strict=True)}
    # What was not grown, moved or twisted abuts: every overlap has one of those in it.
    disturbed = planted["overlap"] | planted["shifted"] | planted["invalid"]
    assert all(pair & disturbed for pair in pairs)
    metric = clean(labels).table.to_crs("EPSG:32631")
    metric = metric.set_index("id").geometry
    for name in disturbed:
        shared = metric.drop(name).intersection(metric[name]).area
        assert {frozenset((name, other)) for other in shared.index[shared > 1]} <= pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels.set_crs(None, allow_override=True), "no CRS"),
        (lambda labels: labels.drop(columns="ground_truth"), "no column 'ground_truth'"),
    ],
)
def test_tables_nobody_can_use_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        label_report(change(table(fields())), GRID)


def test_a_class_is_not_needed_for_the_geometry():
    assert label_report(table(fields()).drop(columns="ground_truth"), GRID, value=None).rows == 36


def test_points_and_lines_are_neither_small_nor_overlapping():
    shapes = [
        shapely.Point(LEFT + 50, TOP - 50),
        shapely.LineString([(LEFT, TOP - 50), (LEFT + 100, TOP - 50)]),
        fields()[0],
    ]
    report = label_report(table(shapes), GRID)
    assert len(report.where) == 0


def test_labels_on_the_other_side_of_the_earth_are_outside():
    labels = table([shapely.box(-175, -60, -174, -59), shapely.box(4.034, 49.28, 4.036, 49.285)]).set_crs(
        "EPSG:4326", allow_override=True
    )
    report = label_report(labels, GRID)
    assert found(report, "outside") == [0]


def test_a_label_that_only_touches_the_grid_is_outside():
    beside = shapely.box(LEFT - 100, TOP - 100, LEFT, TOP)
    partly = shapely.box(LEFT - 100, TOP - 300, LEFT + 1, TOP - 200)
    assert found(label_report(table([beside, partly]), GRID), "outside") == [0]


def test_the_findings_can_be_opened_in_a_gis(tmp_path):
    shapes = fields()
    shapes[7] = shapely.affinity.translate(shapes[7], 3, 2)
    report = label_report(table([*shapes, None]), GRID)
    report.where.to_file(tmp_path / "where.gpkg")
    again = gpd.read_file(tmp_path / "where.gpkg")
    assert again["problem"].tolist() == report.where["problem"].tolist()
    assert again.crs.to_epsg() == 32631


def test_overlaps_are_looked_for_where_the_grid_is():
    shapes = fields()
    here = [shapes[0], shapely.affinity.translate(shapes[0], 7, 0)]
    far = [shapely.affinity.translate(shape, 50_000, 0) for shape in here]
    report = label_report(table([*here, *far]), GRID)
    assert report.counts["rows"]["overlapping"] == 2
    assert report.faulty == 2
    assert report.outside == 2
    assert found(report, "overlapping") == [0]
    everywhere = label_report(table(far), GRID)
    assert (everywhere.faulty, everywhere.outside) == (0, 2)


def test_small_labels_are_a_remark_and_all_meanings_can_be_read():
    shapes = [shapely.box(LEFT + 20 * k, TOP - 5, LEFT + 20 * k + 5, TOP) for k in range(30)]
    report = label_report(table(shapes), GRID)
    assert (report.faulty, report.small) == (0, 30)
    assert report.counts["rows"]["smaller than a pixel"] == 30
    text = repr(report.counts)
    assert "..." not in text
    assert all(meaning in text for meaning in PROBLEMS.values())


def test_classes_as_a_mask_has_them_and_those_that_are_spelled_alike():
    texts = ["rye", "Rye", " rye ", "winter wheat", "winter  wheat", "oats", " "]
    report = label_report(table(fields()[:7], crop=texts), GRID, value="crop")
    assert report.alike == (("Rye", "rye"), ("winter  wheat", "winter wheat"))
    assert found(report, "set aside") == [6]
    assert "'Rye' and 'rye'" in repr(report)
    assert label_report(table(fields()[:7], crop=list("abcdefg")), GRID, value="crop").alike == ()


def test_a_readers_texts_are_held_against_each_other_too(tmp_path):
    table(fields()[:3], ground_truth=["rye", "Rye", "oats"]).to_file(tmp_path / "a.gpkg")
    assert label_report(read_labels(tmp_path / "a.gpkg"), GRID).alike == (("Rye", "rye"),)


def test_all_rows_that_a_reader_set_aside_are_counted(tmp_path):
    count = 1200
    columns = {"gewascode": [233] * count, "category": ["Sloot"] * (count - 1) + ["Bouwland"], "jaar": [2018] * count}
    shapes = [fields()[0]] * count
    gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32631").to_file(tmp_path / "a.gpkg")
    with pytest.warns(DeepSentinelWarning, match="1199 of 1200 rows set aside"):
        labels = read_labels(tmp_path / "a.gpkg")
    report = label_report(labels, GRID)
    assert (report.rows, report.counts["rows"]["set aside"]) == (1200, 1199)


def test_labels_that_all_miss_the_grid_are_told_so():
    turned = [shapely.transform(shape, lambda xy: xy[:, ::-1]) for shape in fields(2)]
    report = label_report(table(turned), GRID)
    assert report.outside == 4
    assert "None of the 4 labels lies on the grid" in report.nowhere
    assert "x and y exchanged" in repr(report)
    assert "There are no labels" in repr(label_report(table([]), GRID))
    one_is_there = label_report(table([*turned, *fields(1)]), GRID)
    assert one_is_there.nowhere == ""
    assert "None of" not in repr(one_is_there)
