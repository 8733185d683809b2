"""Figures of labels, class fractions and objects: what is painted, in which colours, and what is said beside it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import factories
import geopandas as gpd
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import shapely
from odc.geo.geobox import GeoBox
from test_figures import outside_or_overlapping, panels, texts
from test_figures_masks import make_masks, rgb

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.masks import class_table
from deepsentinel.legend import Legend, corine
from deepsentinel.masks.fractions import class_fractions
from deepsentinel.masks.objects import boxes

LEFT, BOTTOM = 575_000, 5_460_000
GRID = GeoBox.from_bbox((LEFT, BOTTOM, LEFT + 1000, BOTTOM + 600), "EPSG:32631", resolution=10)


def labels(crs: str = "EPSG:32631", **attrs: object) -> gpd.GeoDataFrame:
    """Three fields of 6, 3 and 1 parts of the area; the first has a hole in which the third lies."""
    hole = shapely.box(LEFT + 200, BOTTOM + 200, LEFT + 300, BOTTOM + 300)
    shapes = [shapely.box(LEFT, BOTTOM, LEFT + 700, BOTTOM + 100).union(
        shapely.box(LEFT, BOTTOM + 100, LEFT + 700, BOTTOM + 600) - hole
    ), shapely.box(LEFT + 700, BOTTOM, LEFT + 1000, BOTTOM + 600), hole]  # fmt: skip
    table = {"ground_truth": [112, 211, 312], "id": [1, 2, 3]}
    made = gpd.GeoDataFrame(table, geometry=shapes, crs="EPSG:32631").to_crs(crs)
    made.attrs = {"legend": corine().to_json(), "source": "/data/clc.gpkg", "kind": "corine", **attrs}
    return made


def colour_at(fig, x_share: float, y_share: float) -> tuple[int, ...]:
    """The colour of the map at a place, by how far it is from its left and its upper edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    box = fig.axes[0].get_window_extent()
    column = int(box.x0 + x_share * box.width)
    row = int(pixels.shape[0] - box.y1 + y_share * box.height)
    return tuple(int(part) for part in pixels[row, column, :3])


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326", "EPSG:3857"])
def test_labels_are_painted_where_they_lie_in_the_colours_of_their_classes(crs):
    fig = ds.show(labels(crs))
    said = texts(fig)
    assert colour_at(fig, 0.15, 0.5) == rgb("#ff0000")
    assert colour_at(fig, 0.85, 0.5) == rgb("#ffffa8")
    # The hole is not filled by what lies around it.
    assert colour_at(fig, 0.26, 0.58) == rgb("#00a600")
    assert "3 labels in 3 classes" in said
    area = np.array([700 * 600 - 100 * 100, 300 * 600, 100 * 100]) / (1000 * 600)
    assert [text for text in said if text.endswith(" %")] == [f"{100 * share:.1f} %" for share in area]
    assert ("drawn in an equal-area projection" in " ".join(said)) == (crs != "EPSG:32631")
    assert any("European Environment Agency · Labels from clc.gpkg" in text for text in said)
    scale = next(text for text in said if text.endswith(" m"))
    assert scale == "200 m"


def test_bad_labels_are_drawn_without_a_word():
    """Mending is for the masks: a picture of what is there must not fail on it, nor warn."""
    table = labels()
    bow_tie = shapely.Polygon([(LEFT, BOTTOM), (LEFT + 50, BOTTOM + 50), (LEFT + 50, BOTTOM), (LEFT, BOTTOM + 50)])
    odd = gpd.GeoDataFrame(
        {"ground_truth": pd.array([112, 112, None, 211, 211, 211], "Int64"), "id": range(4, 10)},
        geometry=[bow_tie, None, bow_tie, shapely.Point(LEFT, BOTTOM),
                  shapely.LineString([(LEFT, BOTTOM), (LEFT + 9, BOTTOM)]),
                  shapely.GeometryCollection([bow_tie.buffer(0), shapely.Point(LEFT, BOTTOM)])],
        crs="EPSG:32631",
    )  # fmt: skip
    both = pd.concat([table, odd])
    both.attrs = table.attrs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = texts(ds.show(both))
    assert "7 labels in 3 classes" in said
    assert "2 more have no shape or no class" in " ".join(said)


def test_texts_numbers_and_lost_legends_are_drawn_too():
    crops = labels().assign(ground_truth=["oats", "rye", "oats"])
    crops.attrs = {}
    assert {"oats", "rye"} <= set(texts(ds.show(crops)))
    lost = labels().assign(class_name=["town", "fields", "wood"])
    lost.attrs = {}  # as after pd.concat of two tables
    assert {"town", "fields", "wood"} <= set(texts(ds.show(lost)))
    bare = labels()
    bare.attrs = {}
    assert {"112", "211", "312"} <= set(texts(ds.show(bare)))
    yields = labels().assign(ground_truth=[1.5, 2.5, 8.25])
    fig = ds.show(yields)
    assert "3 labels with values from 1.5 to 8.25" in texts(fig)
    low, high = (colour_at(fig, x, 0.5) for x in (0.15, 0.26))
    assert low != high
    lines = labels().set_geometry(labels().boundary)
    assert "Classes and their share of the labels" in texts(ds.show(lines))


def test_fields_lost_in_a_country_get_a_dot():
    shapes = [shapely.box(x, 5_000_000 + x, x + 50, 5_000_050 + x) for x in range(300_000, 800_000, 50_000)]
    table = gpd.GeoDataFrame({"ground_truth": [1] * len(shapes)}, geometry=shapes, crs="EPSG:32631")
    axes = ds.show(table).axes[0]
    dots = [entry for entry in axes.collections if len(entry.get_offsets()) == len(shapes)]
    assert len(dots) == 1
    axes = ds.show(labels()).axes[0]
    assert all(len(entry.get_offsets()) <= 1 for entry in axes.collections)


def test_the_demo_world_is_imaginary_and_openstreetmap_is_credited(real: Path):
    demo = ds.read_labels(ds.open_source("demo", size_px=256).labels["osm"])
    grid = ds.geobox(ds.open_source("demo", size_px=256).area)
    for made in (demo, class_fractions(demo, grid), boxes(demo, grid)):
        said = " ".join(texts(ds.show(made)))
        assert "Imaginary demo world" in said
        assert "©" not in said
    path = real / "osm" / "monaco.osm.pbf"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monaco = ds.read_labels(path, bbox=(7.41, 43.73, 7.42, 43.74))
    assert any("© OpenStreetMap contributors · Labels from monaco.osm.pbf" in text for text in texts(ds.show(monaco)))
    masks = ds.rasterize(monaco, ds.geobox((7.41, 43.73, 7.42, 43.74)))
    said = texts(ds.show(masks))
    assert "© OpenStreetMap contributors" in said
    assert any(text.startswith("Classes (OpenStreetMap) and their share of the pixels") for text in said)


def test_many_labels_are_drawn_in_a_few_seconds():
    import time

    x, y = (part.ravel() for part in np.meshgrid(np.arange(300), np.arange(300)))
    squares = shapely.box(LEFT + 20 * x, BOTTOM + 20 * y, LEFT + 20 * x + 20, BOTTOM + 20 * y + 20)
    table = gpd.GeoDataFrame({"ground_truth": (x + y) % 7 + 1}, geometry=squares, crs="EPSG:32631")
    begun = time.perf_counter()
    fig = ds.show(table)
    seen = {colour_at(fig, (20 * k + 10 + 120) / 6240, 1 - (10 + 120) / 6240) for k in range(7)}
    assert time.perf_counter() - begun < 20
    assert "90,000 labels in 7 classes" in texts(fig)
    assert len(seen) > 2


@pytest.mark.parametrize("make", [
    labels,
    lambda: labels("EPSG:4326"),
    lambda: labels().assign(ground_truth=[1.5, 2.5, 8.25]),
    lambda: gpd.GeoDataFrame({"ground_truth": corine().codes}, crs="EPSG:32631", geometry=[
        shapely.box(LEFT + 100 * k, BOTTOM, LEFT + 100 * k + 100, BOTTOM + 500) for k in range(44)
    ]),
    lambda: gpd.GeoDataFrame({"ground_truth": [1]}, geometry=[shapely.box(LEFT, BOTTOM, LEFT + 50, BOTTOM + 4000)],
                             crs="EPSG:32631"),
    lambda: boxes(labels(), GRID),
    lambda: class_fractions(labels(), GRID),
    lambda: [make_masks().assign_attrs(labels="a.gpkg"), make_masks().assign_attrs(labels="b.gpkg")],
    lambda: make_masks()["class_map"],
])  # fmt: skip
def test_no_text_leaves_the_page_or_runs_into_another(make):
    assert outside_or_overlapping(ds.show(make())) == []


# -- fractions, objects, layers and lists ------------------------------------------------------------------------------


def test_fractions_are_small_maps_of_the_largest_classes():
    shares = class_fractions(labels(), GRID)
    fig = ds.show(shares)
    said = texts(fig)
    names = [corine()[code].name for code in (112, 211, 312)]
    assert [text for text in said if text.rstrip("…") in "".join(names) and len(text) > 9] != []
    shown = [text.partition(" of the ground")[0] for text in said if " of the ground" in text]
    assert shown == ["68 %", "30 %", "1.7 %"]
    images = panels(fig)
    wood = np.asarray(images[2][1])[..., :3].astype(int)
    expected = shares.sel({"class": 312}).to_numpy()
    assert (wood[expected == 0] == 255).all()
    assert (wood[expected == 1] < 255).any(axis=-1).all()
    one = ds.show(shares, panels=[312])
    assert len(panels(one)) == 1
    with pytest.raises(InputError, match="no class 'wheat' among these fractions; there are 11"):
        ds.show(shares, panels=["wheat"])


def test_objects_have_their_boxes_and_pixels():
    found = boxes(labels(), GRID)
    fig = ds.show(found)
    said = texts(fig)
    assert "3 objects of 3 classes" in said
    assert said.count("1") == 3
    frames = fig.axes[0].collections[-1].get_paths()
    edges = [path.get_extents().extents.tolist() for path in frames]
    assert edges == found.boxes.astype(float).tolist()
    picture = np.asarray(fig.axes[0].images[0].get_array())
    assert picture.shape[:2] == GRID.shape
    red, _, blue = picture[30, 30].astype(int)
    assert red - blue > 50
    assert len(ds.show(dataclasses.replace(found, boxes=found.boxes[:0], classes=found.classes[:0], instances=(),
                                           area_px=found.area_px[:0])).axes) > 0  # fmt: skip


@pytest.mark.parametrize("name", ["class_map", "parcel_id", "coverage", "conflict"])
def test_a_layer_is_drawn_as_its_masks_are(name):
    masks = make_masks()
    alone, whole = panels(ds.show(masks[name])), panels(ds.show(masks[[name]], panels=[name]))
    assert len(alone) == len(whole) == 1
    np.testing.assert_array_equal(alone[0][1], whole[0][1])
    beside = panels(ds.show([factories.make_patch(), masks[name]]))
    np.testing.assert_array_equal(beside[1][1], whole[0][1])


def test_a_list_names_what_cannot_be_in_it():
    masks, shares = make_masks(), class_fractions(labels(), GRID)
    with pytest.raises(InputError, match=r"number 1 is of another kind \(GeoDataFrame\). Labels .* rasterize\(labels"):
        ds.show([labels(), masks])
    with pytest.raises(InputError, match=r"number 2 is of another kind \(class fractions\)"):
        ds.show([masks, shares])
    with pytest.raises(InputError, match=r"may hold patches, masks .* number 2 is of another kind \(int\)"):
        ds.show([masks, 3])
    with pytest.raises(InputError, match="this one has a, b"):
        ds.show(pd.DataFrame({"a": [1], "b": [2]}))


def test_requested_layers_are_drawn():
    ramp = np.broadcast_to(np.linspace(0, 1, 96, dtype="float32"), (96, 96))
    said = texts(ds.show(make_masks(distance=(("y", "x"), ramp), overlap=(("y", "x"), ramp))))
    assert {"Classes", "Coverage", "Conflict", "Distance to the boundary", "Overlap"} <= set(said)
    assert "Polygons" not in said


def test_masks_of_one_size_are_told_apart_by_their_files_and_both_are_credited():
    one, two = (make_masks().assign_attrs(labels=f"/data/{name}.gpkg") for name in ("corine", "osm"))
    two["class_map"].attrs |= dataclasses.replace(corine(), name="osm").to_attrs()
    said = texts(ds.show([one, two]))
    assert {"Classes, CORINE Land Cover", "Classes, OpenStreetMap"} <= set(said)
    assert any(text.startswith("Labels from corine.gpkg and osm.gpkg") for text in said)
    assert any("Environment Agency; © OpenStreetMap contributors" in text for text in said)
    # The classes are the same ones in both.
    assert next(number for _, number, _ in class_table([one, two]).rows) == "33.3 / 33.3 %"
    years = [make_masks().assign_attrs(labels=f"/data/clc_{year}.gpkg") for year in (2012, 2018)]
    assert {"Classes, clc_2012.gpkg", "Classes, clc_2018.gpkg"} <= set(texts(ds.show(years)))
    same = texts(ds.show([make_masks(), make_masks()]))
    assert {"Classes, CORINE Land Cover, 10 m (1)", "Classes, CORINE Land Cover, 10 m (2)"} <= set(same)


def test_values_are_called_by_their_column():
    grid = factories.grid((96, 96))
    field = gpd.GeoDataFrame({"yield_t_ha": [7.25]}, geometry=[shapely.box(*grid.boundingbox)], crs=str(grid.crs))
    masks = ds.rasterize(field, grid, value="yield_t_ha", layers="class_map")
    said = texts(ds.show(masks))
    assert "Values of yield_t_ha" in said
    assert "Values of yield_t_ha for 100 % of the pixels" in said


def test_the_colours_beside_a_map_are_those_on_it():
    fig = ds.show(labels())
    swatches = [axes.images[0].get_array()[0, 0].tolist() for axes in fig.axes[1:] if axes.images]
    assert swatches[:3] == [list(rgb(corine().colors[code])) for code in (112, 211, 312)]
    legend = Legend.from_json(labels().attrs["legend"])
    assert matplotlib.colors.to_hex(np.array(swatches[0]) / 255) == legend.colors[112]
