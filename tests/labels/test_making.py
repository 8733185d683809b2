"""Labels made by hand: numbered as they come, added to others, and the same after a file as before it."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.labels.making import PALETTE, legend_of_labels
from deepsentinel.legend import Legend, corine

FIELD = {"type": "Polygon", "coordinates": [[[2.1, 48.1], [2.2, 48.1], [2.2, 48.2], [2.1, 48.1]]]}


def test_places_of_every_kind() -> None:
    labels = ds.make_labels([((2.1, 48.1), "wood"), (FIELD, "rye"), (shapely.Point(3, 49), " wood ")])
    assert labels.geometry.geom_type.tolist() == ["Point", "Polygon", "Point"]
    assert labels["ground_truth"].tolist() == [1, 2, 1]
    assert labels["class_name"].tolist() == ["wood", "rye", "wood"]
    assert labels["color"].tolist() == [PALETTE[0], PALETTE[1], PALETTE[0]]
    assert labels.crs == "EPSG:4326"
    assert list(labels.columns[:5]) == ["geometry", "ground_truth", "id", "valid_from", "valid_to"]
    assert Legend.from_json(labels.attrs["legend"]).names == {1: "wood", 2: "rye"}


def test_colors_set_the_order_and_keep_classes_that_nobody_used_yet() -> None:
    labels = ds.make_labels([((2, 48), "b")], colors={"a": "#112233", "b": "#445566"})
    assert labels["ground_truth"].tolist() == [2]
    assert legend_of_labels(labels).colors == {1: "#112233", 2: "#445566"}


def test_given_colours_are_not_given_twice() -> None:
    labels = ds.make_labels([((2, 48), name) for name in "abcdefghij"], colors={"c": PALETTE[0]})
    assert labels["color"].nunique() == 10
    assert labels.loc[labels["class_name"] == "c", "color"].item() == PALETTE[0]


def test_labels_are_added_to_others() -> None:
    before = gpd.GeoDataFrame(
        {"ground_truth": [211, 311], "note": ["x", "y"]},
        geometry=gpd.points_from_xy([5e5, 5.01e5], [5e6, 5e6]),
        crs=32631,
    )
    before.attrs["legend"] = corine().to_json()
    after = ds.make_labels([((3, 45), "Broad-leaved forest"), ((3, 46), "yurt")], add_to=before)
    assert after["ground_truth"].tolist() == [211, 311, 311, 524]
    assert after["class_name"].tolist()[2:] == ["Broad-leaved forest", "yurt"]
    assert after["id"].is_unique
    np.testing.assert_allclose(after.geometry.x[:2], before.to_crs(4326).geometry.x)
    assert after["color"].iloc[0] == corine().colors[211]


def test_labels_are_added_to_texts_in_a_column_of_another_name() -> None:
    before = gpd.GeoDataFrame(
        {"ground_truth": ["oats", "rye"]}, geometry=gpd.points_from_xy([2, 2], [48, 49]), crs=4326
    )
    before = before.rename_geometry("shape")
    after = ds.make_labels([((3, 45), "oats")], add_to=before)
    assert after["class_name"].tolist() == ["oats", "rye", "oats"]
    assert after.geometry.name == "geometry"


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".parquet"])
def test_a_file_gives_the_same_labels_again(tmp_path: Path, ending: str) -> None:
    labels = ds.make_labels(
        [((2.1, 48.1), "crop / rye"), (FIELD, "wood"), ((2.15, 48.11), "crop / rye")], colors={"wood": "#123456"}
    )
    path = ds.save_labels(labels, tmp_path / f"mine{ending}")
    again = ds.read_labels(path)
    assert again["ground_truth"].tolist() == labels["ground_truth"].tolist()
    assert again["class_name"].tolist() == labels["class_name"].tolist()
    assert again.crs == labels.crs
    for one, other in zip(again.geometry, labels.geometry, strict=True):
        assert one.equals_exact(other, 1e-7)
    assert legend_of_labels(again).colors == legend_of_labels(labels).colors
    # And once more, as what was added to.
    more = ds.make_labels([((2.3, 48.3), "wood")], add_to=again)
    assert more["ground_truth"].tolist() == [*labels["ground_truth"], 1]
    assert legend_of_labels(more).colors[1] == "#123456"


def test_only_labels_are_replaced(tmp_path: Path) -> None:
    labels = ds.make_labels([((2.1, 48.1), "wood")])
    path = ds.save_labels(labels, tmp_path / "mine.gpkg")
    ds.save_labels(ds.make_labels([((2.1, 48.1), "wood"), ((2, 48), "town")]), path)
    assert len(ds.read_labels(path)) == 2
    other = tmp_path / "other.gpkg"
    labels[["geometry", "id"]].to_file(other)
    before = other.read_bytes()
    with pytest.raises(InputError, match="no file of labels"):
        ds.save_labels(labels, other)
    assert other.read_bytes() == before
    with pytest.raises(InputError, match=r"ends in none"):
        ds.save_labels(labels, tmp_path / "mine.shp")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (((2.0, 48.0), ""), "Item 0 has the class ''"),
        (((2.0, 95.0), "a"), "no longitude and latitude"),
        (((500_000, 5_400_000), "a"), "no longitude and latitude"),
        (("here", "a"), "give \\(lon, lat\\)"),
        ((shapely.LineString([(0, 0), (1, 1)]), "a"), "LineString"),
        ((2.0, 48.0, "a"), "each is a place"),
    ],
)
def test_what_is_no_label_is_said(item: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ds.make_labels([item])  # type: ignore[list-item]
