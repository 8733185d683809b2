"""The mask inspector, driven from Python: burning, legends and filters, what stands under the pointer, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from pyproj import Transformer
from widget_kit import Bench

import deepsentinel as ds
from deepsentinel.figures.masks import legend_of
from deepsentinel.widgets.masks import BOTH, COARSE, FILE, FINE, MaskPanel

LEFT, TOP = 575_000, 5_460_000
TO = Transformer.from_crs(32631, 4326, always_xy=True)


class Masks(Bench):
    """A panel of masks, and where the pointer is."""

    def __init__(self) -> None:
        super().__init__(MaskPanel)

    def point(self, east_m: float, south_m: float) -> str:
        lon, lat = TO.transform(LEFT + east_m, TOP - south_m)
        told = {"event": "interaction", "type": "mousemove", "coordinates": [lat, lon]}
        self.canvas.map._handle_custom_msg(told, [])
        return str(self.panel.here.value)

    def burn(self) -> None:
        self.panel.burn.click()
        self.settle()


class Owner:
    """A source that knows labels."""

    def __init__(self, folder: Path) -> None:
        self.labels = {"fields": folder / "fields.gpkg", "cover": folder / "cover.tif"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fields, and on the first of them another that contradicts it; and a raster of the same ground."""
    import rasterio

    folder = tmp_path_factory.mktemp("labels")
    shapes = [shapely.box(LEFT, TOP - 300, LEFT + 205, TOP), shapely.box(LEFT + 205, TOP - 300, LEFT + 400, TOP)]
    shapes.append(shapely.box(LEFT, TOP - 300, LEFT + 50, TOP - 250))
    table = gpd.GeoDataFrame(
        {"ground_truth": [311, 211, 512], "id": ["1", "2", "3"], "class_name": ["wood", "field", "lake"]},
        geometry=shapes,
        crs=32631,
    )
    table.to_file(folder / "fields.gpkg")
    codes = np.where(np.arange(48)[None] < 24, 10, 80).repeat(48, 0).astype("uint8")
    shape: dict[str, Any] = {"driver": "GTiff", "width": 48, "height": 48, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        folder / "worldcover.tif",
        "w",
        **shape,
        crs="EPSG:32631",
        transform=rasterio.transform.from_origin(LEFT, TOP, 10, 10),
    ) as file:
        file.write(codes[None])
    (folder / "worldcover.tif").rename(folder / "cover.tif")
    return folder


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return make_patch((48, 48))


@pytest.fixture
def bench(files: Path, patch: xr.Dataset) -> Iterator[Masks]:
    made = Masks()
    made.state.put("src", Owner(files), "theirs")
    made.state.put("patch", patch, "mine")
    yield made
    made.close()


def test_labels_are_burnt_and_laid(bench: Masks, patch: xr.Dataset) -> None:
    assert bench.panel.which.options == ("fields", "cover", FILE)
    assert bench.panel._shown.layout.display == "none"
    bench.burn()
    assert bench.panel._shown.layout.display is None
    assert bench.state.code("masks").splitlines()[2:] == [
        "src = theirs", "patch = mine", "labels = ds.read_labels(src.labels['fields'])",
        "masks = ds.rasterize(labels, like=patch)",
    ]  # fmt: skip
    assert bench.state["masks"].identical(ds.rasterize(bench.state["labels"], like=patch))
    assert bench.canvas.pictures["masks"].url == bench.state["view_masks"].url
    assert bench.canvas.pictures["masks"].opacity == pytest.approx(0.7)


def test_the_legend_has_every_class_its_colour_and_its_share(bench: Masks) -> None:
    bench.burn()
    rows = {row["name"]: row for row in bench.panel.legend.rows}
    codes = bench.state["masks"]["class_map"].to_numpy()
    shares = {row["code"]: (codes == row["code"]).mean() for row in rows.values()}
    assert sum(shares.values()) == pytest.approx((codes != 0).mean())
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    for row in rows.values():
        assert row["share"] == f"{100 * shares[row['code']]:.{0 if shares[row['code']] > 0.0995 else 1}f} %"
        assert row["color"] == legend_of(bench.state["masks"]).colors[row["code"]]
    assert "share of the pixels" in bench.panel.legend.title


def test_classes_are_hidden_one_by_one(bench: Masks) -> None:
    bench.burn()
    whole = bench.state["view_masks"].image
    codes = [row["code"] for row in bench.panel.legend.rows]
    bench.panel.legend.hidden = codes[:1]
    some = bench.state["view_masks"].image
    assert 0 < (some[..., 3] > 0).sum() < (whole[..., 3] > 0).sum()
    assert f"classes={codes[1:]!r}" in bench.state.code("view_masks")
    bench.panel.legend.hidden = codes
    assert not bench.state["view_masks"].image[..., 3].any()
    bench.panel.legend.hidden = []
    assert np.array_equal(bench.state["view_masks"].image, whole)


def test_layers_and_opacity(bench: Masks) -> None:
    bench.burn()
    assert [name for _, name in bench.panel.layer.options] == ["class_map", "coverage", "conflict", "parcel_id"]
    for name in ("conflict", "coverage", "parcel_id", "class_map"):
        bench.panel.layer.value = name
        expected = ds.overlay(bench.state["masks"], name)
        assert np.array_equal(bench.state["view_masks"].image, expected.image)
        assert bench.canvas.pictures["masks"].url == expected.url
    bench.panel.opacity.value = 30
    assert bench.canvas.pictures["masks"].opacity == pytest.approx(0.3)
    bench.panel.layer.value = "conflict"
    assert bench.canvas.pictures["masks"].opacity == pytest.approx(0.3)


def test_finer_pixels_alone_and_beside_the_others(bench: Masks) -> None:
    bench.burn()
    assert [text for text, _ in bench.panel.detail.options][:2] == ["10 m", "2.5 m"]
    bench.panel.detail.value = FINE
    bench.settle()
    assert bench.state["masks_fine"].sizes["x"] == 4 * bench.state["masks"].sizes["x"]
    assert set(bench.canvas.pictures) == {"masks_fine"}
    bench.panel.detail.value = BOTH
    assert bench.canvas.swiped("masks", "masks_fine")
    bench.panel.detail.value = COARSE
    assert set(bench.canvas.pictures) == {"masks"}
    assert not bench.canvas.swiped("masks", "masks_fine")


def test_the_pointer_is_told_class_coverage_parcel_and_conflict(bench: Masks) -> None:
    bench.burn()
    inside = bench.point(105, 105)
    assert inside.startswith("wood · ")
    assert "covers 100 % of the pixel" in inside
    assert "parcel" in inside
    assert "covers 50 %" in bench.point(206, 105)
    assert "several polygons share this pixel" in bench.point(206, 105)
    assert "claimed twice" in bench.point(25, 275)
    assert bench.point(450, 400) == "no label here"
    assert bench.point(-100, 100) == "outside of the masks"
    bench.panel.front = False
    assert bench.point(105, 105) == "outside of the masks"


def test_moves_within_a_pixel_send_nothing(bench: Masks) -> None:
    bench.burn()
    bench.point(105, 105)
    heard: list[Any] = []
    bench.panel.here.observe(heard.append, "value")
    for step in range(9):
        bench.point(101 + step, 105)
    assert heard == []


def test_outlines_are_those_on_the_patch(bench: Masks) -> None:
    bench.burn()
    bench.panel.edges.value = True
    drawn = bench.canvas.shapes["edges"].data["features"]
    assert len(drawn) == 3
    west, south, east, north = bench.state["labels"].to_crs(4326).total_bounds
    for each in drawn:
        for lon, lat in shapely.get_coordinates(shapely.geometry.shape(each["geometry"])):
            assert west - 1e-4 <= lon <= east + 1e-4
            assert south - 1e-4 <= lat <= north + 1e-4
    bench.panel.edges.value = False
    assert "edges" not in bench.canvas.shapes


def test_a_raster_of_classes(bench: Masks, patch: xr.Dataset) -> None:
    bench.panel.which.value = FILE
    file = Path(bench.state["src"].labels["cover"])
    named = file.with_name("ESA_WorldCover_10m_2021.tif")
    named.write_bytes(file.read_bytes())
    bench.panel.path.value = str(named)
    bench.burn()
    assert [row["name"] for row in bench.panel.legend.rows] == ["Tree cover", "Permanent water bodies"]
    assert bench.panel.legend.rows[1]["color"] == "#0064c8"
    assert bench.point(5, 5).startswith("Tree cover")
    bench.panel.detail.value = FINE
    assert "no finer pixels" in bench.panel.line.text
    assert bench.panel.detail.value == COARSE
    assert set(bench.canvas.pictures) == {"masks"}


def test_what_goes_wrong_is_said(bench: Masks, files: Path) -> None:
    bench.panel.which.value = FILE
    for path, words in (("", "Give the path"), (str(files / "none.gpkg"), "none.gpkg")):
        bench.panel.path.value = path
        bench.panel.burn.click()
        assert bench.jobs.wait(10)
        assert bench.panel.line.kind == "error"
        assert words in bench.panel.line.text
    bench.state.drop("patch")
    bench.panel.burn.click()
    assert "Draw an area" in bench.panel.line.text


def test_masks_without_a_patch_take_the_area(bench: Masks) -> None:
    bench.state.drop("patch")
    west, south = TO.transform(LEFT + 100, TOP - 200)
    bench.state.put("aoi", (west, south, west + 0.002, south + 0.001))
    bench.state.do("grid", "ds.geobox(aoi)")
    bench.burn()
    assert bench.state.code("masks").splitlines()[-2:] == [
        "labels = ds.read_labels(src.labels['fields'], bbox=aoi)", "masks = ds.rasterize(labels, like=grid)"
    ]  # fmt: skip


def test_another_patch_takes_the_masks_away(bench: Masks) -> None:
    bench.burn()
    bench.panel.detail.value = BOTH
    bench.settle()
    bench.state.put("patch", make_patch((40, 40), seed=1), "another")
    assert bench.canvas.pictures == {}
    assert bench.panel._shown.layout.display == "none"
    bench.burn()
    assert set(bench.canvas.pictures) == {"masks"}


def test_the_cell_makes_the_same(bench: Masks, files: Path, patch: xr.Dataset) -> None:
    bench.burn()
    bench.panel.detail.value = FINE
    bench.settle()
    bench.panel.legend.hidden = [bench.panel.legend.rows[0]["code"]]
    made: dict[str, Any] = {"mine": patch, "theirs": Owner(files)}
    exec(bench.state.code(), made)
    for name in ("masks", "masks_fine"):
        assert made[name].identical(bench.state[name])
    assert np.array_equal(made["view_masks_fine"].image, bench.state["view_masks_fine"].image)


def test_closing_leaves_nothing(files: Path, patch: xr.Dataset) -> None:
    before, threads = len(_instances), threading.active_count()
    bench = Masks()
    bench.state.put("src", Owner(files), "theirs")
    bench.state.put("patch", patch, "mine")
    bench.burn()
    bench.panel.edges.value = True
    bench.close()
    assert len(_instances) == before
    assert threading.active_count() == threads
    bench.state.drop("masks")
