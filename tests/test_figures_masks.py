"""Figures of masks, parcel sizes and label reports: the pictures against the arrays, the pages against their words."""

from __future__ import annotations

import factories
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from test_figures import drawn, outside_or_overlapping, panels, texts

import deepsentinel as ds
from deepsentinel.errors import InputError, PatchError
from deepsentinel.figures import masks as masks_module
from deepsentinel.figures.masks import ERROR, MIXED, class_table, mask_panel
from deepsentinel.legend import Legend, corine
from deepsentinel.masks.report import label_report
from deepsentinel.masks.windows import parcel_sizes


def make_masks(shape=(96, 96), *, resolution_m: float = 10.0, codes=(112, 211, 312), legend=None, holes=True, **more):
    """Vertical stripes of classes with a background on the left, a mixed line between them, and a block of errors."""
    rows, cols = shape
    stripe = np.linspace(0, len(codes), cols, endpoint=False).astype(int)
    classes = np.broadcast_to(np.array(codes)[stripe], shape).copy()
    if holes:
        classes[:, : cols // 8] = 0
    conflict = np.zeros(shape, "uint8")
    conflict[:, np.flatnonzero(np.diff(stripe))] = 1
    conflict[rows // 2 : rows // 2 + 2, cols // 2 : cols // 2 + 3] = 2
    variables = {
        "class_map": (("y", "x"), classes.astype("uint16")),
        "parcel_id": (("y", "x"), np.where(classes > 0, stripe + 1, 0).astype("int32")),
        "coverage": (("y", "x"), np.where(classes > 0, np.where(conflict == 1, 0.6, 1), 0).astype("float32")),
        "conflict": (("y", "x"), conflict),
    }
    made = factories.with_grid(variables | more, factories.grid(shape, resolution_m=resolution_m))
    made["class_map"].attrs = (legend or corine()).to_attrs() | {"background": 0}
    return made.assign_attrs(rule="coverage", conflict_between="polygon")


def merged(**options):
    return xr.merge([factories.make_patch(**options), make_masks()], compat="override")


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


# -- panels ------------------------------------------------------------------------------------------------------------


def test_classes_have_the_colours_of_their_legend_and_the_background_none():
    masks = make_masks()
    picture = mask_panel(masks, "class_map")
    for code, colour in {112: "#ff0000", 211: "#ffffa8", 312: "#00a600"}.items():
        assert (picture.image[masks.class_map.values == code] == rgb(colour)).all()
    np.testing.assert_array_equal(picture.known, masks.class_map.values != 0)


def test_a_background_that_is_not_zero_is_the_background():
    masks = make_masks(codes=(0, 7), legend=Legend.of_codes([0, 7]), holes=False)
    masks["class_map"] = masks["class_map"].where(masks["class_map"] != 7, 255).astype("uint8")
    masks["class_map"].attrs = Legend.of_codes([0, 7]).to_attrs() | {"background": 255}
    np.testing.assert_array_equal(mask_panel(masks, "class_map").known, masks.class_map.values == 0)
    assert [(number, name) for _, number, name in class_table([masks]).rows] == [
        ("50.0 %", "0"),
        ("50.0 %", "no label"),
    ]


def test_the_legend_tells_the_share_of_each_class():
    masks = make_masks((40, 80), codes=(112, 112, 211, 312))
    rows = {name: (number, colours) for colours, number, name in class_table([masks]).rows}
    assert {name: number for name, (number, _) in rows.items()} == {
        "Discontinuous urban fabric": "37.5 %",
        "Non-irrigated arable land": "25.0 %",
        "Coniferous forest": "25.0 %",
        "no label": "12.5 %",
    }
    assert rows["Coniferous forest"][1] == (rgb("#00a600"),)
    assert rows["no label"][1] == ()
    assert next(iter(rows)) == "Discontinuous urban fabric"


def test_small_classes_share_a_line_and_no_share_is_lost():
    codes = corine().codes[:30]
    masks = make_masks((30, 600), codes=codes)
    table = class_table([masks])
    assert len(table.rows) == 14
    assert table.rows[-2][2] == "15 smaller classes"  # of 27, as the background covers the first ones
    assert len(table.rows[-2][0]) == 6
    assert sum(float(number.split()[0]) for _, number, _ in table.rows) == pytest.approx(100, abs=0.6)
    thirteen = class_table([make_masks((13, 130), codes=codes[:13], holes=False)])
    assert len(thirteen.rows) == 13  # one more than fits would be a line anyway


def test_a_mask_without_a_legend_is_called_by_its_numbers():
    masks = make_masks(codes=(3, 9))
    masks["class_map"].attrs = {}
    assert [name for _, _, name in class_table([masks]).rows] == ["9", "3", "no label"]


def test_conflicts_stand_out_of_a_faint_map():
    masks = make_masks()
    picture = mask_panel(masks, "conflict")
    conflict = masks.conflict.values
    assert (picture.image[conflict == 1] == MIXED).all()
    assert (picture.image[conflict == 2] == ERROR).all()
    quiet = picture.image[(conflict == 0) & (masks.class_map.values == 312)].astype(int)
    assert quiet.min() > 180
    assert (quiet[:, 1] > quiet[:, 0]).all()  # and still green
    assert [text for _, text in picture.keys] == ["mixed pixel, 2.1 %", "claimed twice, 0.07 %"]


def test_one_wrong_pixel_of_millions_is_seen():
    masks = make_masks((3000, 3000))[["class_map", "conflict"]]
    masks["conflict"][:] = 0
    masks["conflict"][1234, 2345] = 2
    picture = mask_panel(masks, "conflict")
    assert max(picture.image.shape) <= masks_module.CONFLICT_MAX_PX
    assert (picture.image == ERROR).all(axis=-1).sum() == 1
    assert picture.keys[1][1] == "claimed twice, under 0.01 %"


def test_quantities_are_drawn_on_their_scale():
    shape = (96, 96)
    ramp = np.broadcast_to(np.linspace(0, 250, 96, dtype="float32"), shape)
    masks = make_masks(distance=(("y", "x"), ramp), overlap=(("y", "x"), ramp / 500))
    distance = mask_panel(masks, "distance")
    assert distance.bar == (0, 250, "m")
    brightness = distance.image[50].astype(int).sum(axis=-1)[12:]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[-1] > brightness[0] + 200
    assert mask_panel(masks, "coverage").bar[:2] == mask_panel(masks, "overlap").bar[:2] == (0, 1)
    values = factories.with_grid({"value": (("y", "x"), np.where(ramp < 50, np.nan, ramp))}, factories.grid(shape))
    picture = mask_panel(values, "value")
    assert picture.bar[:2] == pytest.approx((ramp[ramp >= 50].min(), 250))
    np.testing.assert_array_equal(picture.known, ramp >= 50)


def test_neighbouring_polygons_differ_in_colour():
    numbers = np.arange(1, 2501, dtype="int32").reshape(50, 50)
    picture = mask_panel(
        factories.with_grid({"parcel_id": (("y", "x"), numbers)}, factories.grid((50, 50))), "parcel_id"
    )
    beside = np.abs(np.diff(picture.image.astype(int), axis=1)).sum(axis=-1)
    assert np.quantile(beside, 0.05) > 30


# -- pages -------------------------------------------------------------------------------------------------------------


def test_masks_show_classes_coverage_and_conflict():
    fig = ds.show(make_masks())
    assert len(panels(fig)) == 3
    said = texts(fig)
    for wanted in (
        "3 classes cover 88 % of the pixels",
        "3 polygons   ·   2.1 % of the pixels are mixed, 0.07 % are claimed twice",
        "Classes",
        "Coverage",
        "Conflict",
        "Coniferous forest",
        "33.3 %",
        "no label",
        "Classes (CORINE Land Cover) and their share of the pixels",
        "© European Union, Copernicus Land Monitoring Service, European Environment Agency",
        "N",
    ):
        assert wanted in said
    assert any("96 × 96 px of 10 m" in text for text in said)


def test_masks_in_a_patch_are_panels_like_any_other():
    patch = merged(nodata=True)
    fig = ds.show(patch, panels=("natural", "class_map", "conflict"))
    assert len(panels(fig)) == 3
    said = texts(fig)
    assert {"Sentinel-2 natural colour", "Classes", "Conflict", "no data", "no label"} <= set(said)
    assert any(text.startswith("Sentinel-2 on 4 July 2018") for text in said)
    np.testing.assert_array_equal(panels(fig)[1][1][..., 3] > 0, patch.class_map.values > 0)
    headings = [
        text for text in texts(ds.show(patch)) if text.startswith(("Sentinel-1 ", "Sentinel-2 ", "Cla", "Conf"))
    ]
    assert headings[1:5] == ["Sentinel-2 natural colour", "Sentinel-1 VV", "Classes", "Conflict"]


def test_finer_masks_stand_beside_the_coarser_and_share_their_legend():
    patch, coarse, fine = factories.make_patch(), make_masks(), make_masks((384, 384), resolution_m=2.5)
    fig = ds.show([coarse, fine], panels=["class_map", "conflict"])
    said = texts(fig)
    assert [text for text in said if text.startswith(("Classes,", "Conflict,"))] == [
        "Classes, 10 m",
        "Classes, 2.5 m",
        "Conflict, 10 m",
        "Conflict, 2.5 m",
    ]
    assert said.count("Coniferous forest") == 1
    assert "33.3 / 33.3 %" in said
    assert [image.shape[0] for _, image in panels(fig)] == [96, 384, 96, 384]
    alone = ds.show((patch, coarse, fine))
    assert {"Sentinel-2 natural colour", "Classes, 10 m", "Classes, 2.5 m"} <= set(texts(alone))
    assert len(panels(alone)) == 3


def test_a_box_is_still_a_box():
    assert any("An area of" in text for text in texts(ds.show([2.0, 48.0, 2.1, 48.1])))


def test_credit_goes_to_whom_it_is_due_and_never_for_an_imaginary_place():
    masks = make_masks()
    assert "Labels from fr_rpg_2022.gpkg · deepsentinel" in texts(
        ds.show(masks.assign_attrs(labels="/data/fr_rpg_2022.gpkg"))
    )
    imaginary = ds.show(xr.merge([factories.make_patch(source="demo"), masks], compat="override"))
    assert not any("©" in text for text in texts(imaginary))
    world = texts(ds.show(masks.assign_attrs(labels="/cache/demo/s0/vectors/corine.gpkg")))
    assert any("Imaginary demo world" in text for text in world)
    assert not any("©" in text for text in world)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ds.show(make_masks(), panels=["natural"]), "no panel 'natural'.*'class_map', 'parcel_id'"),
        (lambda: ds.show(factories.make_patch(), panels=["class_map"]), "no panel 'class_map'"),
        (lambda: ds.show([make_masks(), make_masks((50, 50))]), "same ground"),
        (lambda: ds.show(make_masks(), panels=[]), "panels is empty"),
        (lambda: ds.show(make_masks().drop_vars("spatial_ref")), "no spatial_ref, so nobody knows"),
        (lambda: ds.show(make_masks().expand_dims(time=2)), "dims"),
        (lambda: ds.show(xr.Dataset({"dem": (("y", "x"), np.zeros((2, 2)))})), "none of its variables is a Sentinel"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(call, message):
    with pytest.raises((InputError, PatchError), match=message):
        call()


LONG = Legend.of_texts([f"a class whose name is long enough to need a line of its own, number {k}" for k in range(40)])
LAYERS = ["class_map", "parcel_id", "coverage", "conflict"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ds.show(make_masks()),
        lambda: ds.show(make_masks((60, 240), codes=corine().codes)),
        lambda: ds.show(make_masks((240, 60), codes=LONG.codes, legend=LONG)),
        lambda: ds.show(make_masks(), panels=LAYERS),
        lambda: ds.show(make_masks(), panels="class_map"),
        lambda: ds.show(merged(source="demo")),
        lambda: ds.show(merged(nodata=True), panels=["natural", "VV", "s1", "class_map", "coverage", "conflict"]),
        lambda: ds.show([factories.make_patch(), make_masks(), make_masks((384, 384), resolution_m=2.5)]),
        lambda: ds.show(make_masks()[["conflict"]]),
        lambda: ds.show(parcel_sizes(parcels(400))),
        lambda: ds.show(parcel_sizes(parcels(1))),
        lambda: ds.show(faulty_report()),
    ],
)
def test_no_text_leaves_the_page_or_runs_into_another(make):
    assert outside_or_overlapping(make()) == []


# -- parcel sizes and reports ------------------------------------------------------------------------------------------


def parcels(n: int) -> gpd.GeoDataFrame:
    sides_m = np.random.default_rng(0).lognormal(5, 0.5, n)
    corner = 575_000 + 1000 * np.arange(n)
    shapes = shapely.box(corner, 5_400_000, corner + sides_m, 5_400_000 + sides_m)
    return gpd.GeoDataFrame({"ground_truth": 1, "id": np.arange(n)}, geometry=shapes, crs="EPSG:32631")


def test_parcel_sizes_hold_every_parcel_and_mark_the_window_of_nine_in_ten():
    sizes = parcel_sizes(parcels(400))
    fig = ds.show(sizes)
    window = sizes.window(0.9)
    sides = sizes.table["side_px"].to_numpy()
    assert (sides <= window).mean() >= 0.9 > (sides < window).mean()
    bars, curve = fig.axes
    assert sum(bar.get_height() for bar in bars.patches) == 400
    blue = [bar for bar in bars.patches if bar.get_facecolor()[:3] == bars.patches[0].get_facecolor()[:3]]
    assert max(bar.get_x() for bar in blue) < window
    assert all(line.get_xdata()[0] == window for line in (bars.lines[0], curve.lines[1]))
    said = texts(fig)
    assert f"A window of {window} px holds 90 % of 400 parcels" in said
    assert f"{window} px hold 90 %" in said
    assert any(f"half of the parcels fit into {sizes.window(0.5)} px" in text for text in said)
    x, y = curve.lines[0].get_data()
    for size in (10, window, 40):
        assert np.max(y[x <= size]) == pytest.approx(100 * (sides <= size).mean())


def faulty_report():
    left, top = 575_000, 5_460_000
    shapes = [shapely.box(left + 100 * k, top - 90, left + 100 * k + 90, top) for k in range(9)]
    shapes[3] = shapely.affinity.translate(shapes[3], 30, 0)
    shapes += [shapes[6].reverse(), shapely.box(left, top - 205, left + 4, top - 200), None]
    shapes += [shapely.box(left + 3000, top - 90, left + 3090, top)]
    labels = gpd.GeoDataFrame({"ground_truth": 1, "id": range(len(shapes))}, geometry=shapes, crs="EPSG:32631")
    return label_report(labels, factories.make_patch((100, 100)))


def test_a_report_maps_its_findings_and_counts_them():
    report = faulty_report()
    fig = ds.show(report)
    said = texts(fig)
    assert "5 of 13 labels have a problem; 1 is smaller than a pixel, 1 lies outside" in said
    assert {"set aside", "invalid", "duplicated", "overlapping", "smaller than a pixel", "outside"} <= set(said)
    assert said.count("2") == 2  # two duplicates, two that overlap
    assert "not checked" in said
    drawn(fig)
    marks = [entry for entry in fig.axes[0].collections if entry.get_offsets().size and len(entry.get_offsets()) < 3]
    places = np.concatenate([entry.get_offsets() for entry in marks if entry.get_offsets().any()])
    assert len(places) == 4  # one overlap, two duplicates, one tiny
    shared = report.where.geometry[report.where["problem"] == "overlapping"].iloc[0].centroid
    assert (np.abs(places - [shared.x, shared.y]).max(axis=1) < 1e-6).any()
    # And the frame is where the grid is.
    frame = fig.axes[0].patches[0].get_bbox()
    assert (frame.x0, frame.y1, frame.width) == (575_000, 5_460_000, 1000)


def test_one_code_of_two_legends_is_two_classes() -> None:
    """CORINE's 1 and a farmer's 1 have nothing to do with each other."""
    ground = gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(0, 0, 40, 40)], crs="EPSG:32631")
    grid = GeoBox.from_bbox((0, 0, 40, 40), "EPSG:32631", resolution=10)
    legends = [Legend.of_texts([text], name=text) for text in ("oats", "water")]
    rows = class_table([ds.rasterize(ground, grid, legend=legend) for legend in legends]).rows
    assert [(share, name) for _, share, name in rows] == [("100.0 / – %", "oats"), ("– / 100.0 %", "water")]
