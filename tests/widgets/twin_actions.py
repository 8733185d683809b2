"""Every action of every tab of the map: how a hand does it, what it makes, and what the README calls it.

In the order of a session on one map, so that each finds what it needs. `Action.controls` names the controls it uses;
what only changes how a thing is seen is in `LOOKS`, and a test demands that nothing is missing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import shapely
from widget_kit import as_file, click_at, draw_on, settle, upload

from deepsentinel.widgets.embeddings import COLOURS, GROUPS, UNLIKE
from deepsentinel.widgets.labelling import BOTH
from deepsentinel.widgets.map import Map
from deepsentinel.widgets.masks import COARSE, FILE, FINE

# A tile of the small demo world: some windows of a corpus fit into it, the others are told of.
WEST, SOUTH, EAST, NORTH = -0.0286, 49.2381, -0.0046, 49.2541
RING = [[WEST, SOUTH], [WEST, NORTH], [EAST, NORTH], [EAST, SOUTH], [WEST, SOUTH]]
HERE = (-0.008, 49.249)


class Hand:
    """Whoever sits before the map."""

    def __init__(self, m: Map, home: Path) -> None:
        self.m, self.home = m, home
        """The folder of files that are there before."""

    def open(self, tab: str) -> Any:
        panel = self.m.open(tab)
        self.settle(tab)
        return panel

    def settle(self, tab: str) -> None:
        settle(self.m.jobs, self.m._panels[tab])

    def draw(self, ring: list[Any], action: str = "created") -> None:
        draw_on(self.m.canvas, ring, action)
        self.settle("Area")

    def click(self, tab: str, lon: float, lat: float) -> None:
        click_at(self.m.canvas, lon, lat)
        self.settle(tab)

    def press(self, tab: str, name: str) -> None:
        control(self.m, f"{tab}.{name}").click()
        self.settle(tab)

    def wish(self, kind: str, name: str, **more: str) -> None:
        self.m._panels["Labels"].classes._handle_custom_msg({"kind": kind, "name": name, **more}, [])


def control(m: Map, name: str) -> Any:
    """A control by its name, such as "Area.read" or "Labels.files.save"."""
    tab, *parts = name.split(".")
    found: Any = m._panels[tab]
    for part in parts:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@dataclass(frozen=True)
class Action:
    """One thing that can be done with the mouse."""

    row: str
    """What the README's table calls it; several actions may be one row."""
    do: Callable[[Hand], object]
    makes: tuple[str, ...] = ()
    """Names of the state that it makes anew."""
    drops: tuple[str, ...] = ()
    """Names that it takes away."""
    controls: tuple[str, ...] = ()
    """The controls that it uses."""
    says: Callable[[Map], Any] | None = None
    """What is shown and not kept; `twin` in its code gives the same."""
    twin: str = ""
    """For what is not kept: an expression, with the state's names."""

    @property
    def name(self) -> str:
        return self.do.__name__.strip("_")


# -- Area --------------------------------------------------------------------------------------------------------------


def draw(hand: Hand) -> None:
    hand.open("Area")
    hand.draw(RING)


def change(hand: Hand) -> None:
    hand.draw([[WEST, SOUTH], [WEST, NORTH], [EAST, NORTH], [WEST, SOUTH]], "edited")


def clear(hand: Hand) -> None:
    hand.press("Area", "clear")


def upload_an_outline(hand: Hand) -> None:
    field = gpd.GeoDataFrame(geometry=[shapely.Point(HERE).buffer(0.006)], crs=4326)
    upload(control(hand.m, "Area.upload"), "field.gpkg", as_file(field, "field.gpkg", hand.home))
    hand.settle("Area")


def take_a_good_place(hand: Hand) -> None:
    hand.press("Area", "suggest")


def choose_dates_and_limits(hand: Hand) -> None:
    hand.draw(RING)
    panel = hand.m._panels["Area"]
    panel.start.value = datetime.date(2018, 5, 15)
    panel.end.value = datetime.date(2018, 8, 15)
    panel.cloud.value, panel.gap.value = 80, 2.5
    hand.settle("Area")


def read_a_pair(hand: Hand) -> None:
    panel = hand.m._panels["Area"]
    panel.timeline.picked = hand.m.pairs["s2_id"].iloc[0]
    panel.choice.index = 1
    hand.press("Area", "read")
    hand.open("Pair")


# -- Pair --------------------------------------------------------------------------------------------------------------


def choose_pictures_and_stretch(hand: Hand) -> None:
    panel = hand.m._panels["Pair"]
    panel.choices["s2"].value, panel.choices["s1"].value = "false", "VV"
    panel.stretches["s2"].limits = [[0.0, 0.4], [0.0, 0.3], [0.0, 0.2]]
    panel.automatic["s1"].click()
    hand.settle("Pair")


def mark_clouds(hand: Hand) -> None:
    hand.m._panels["Pair"].clouds.value = True
    hand.settle("Pair")


def click_a_pixel(hand: Hand) -> None:
    hand.m._panels["Pair"].whole_year.value = False
    hand.click("Pair", *HERE)


def read_its_year(hand: Hand) -> None:
    panel = hand.m._panels["Pair"]
    panel.dates.options, panel.dates.value = ["2", *panel.dates.options], "8"
    panel.whole_year.value = True
    hand.click("Pair", *HERE)


def save_a_figure(hand: Hand) -> None:
    hand.m._panels["Pair"].kind.value = "png"
    hand.press("Pair", "figure")


# -- Masks -------------------------------------------------------------------------------------------------------------


def make_masks_of_a_raster(hand: Hand) -> None:
    panel = hand.open("Masks")
    panel.which.value = FILE
    panel.path.value = str(hand.m.src.labels["land_cover_2018_31UCQ"])
    hand.press("Masks", "burn")


def make_masks(hand: Hand) -> None:
    hand.m._panels["Masks"].which.value = "parcels_2018"
    hand.press("Masks", "burn")


def choose_layer_and_classes(hand: Hand) -> None:
    panel = hand.m._panels["Masks"]
    panel.layer.value = "class_map"
    panel.legend.hidden = [panel.legend.rows[0]["code"]]


def refine_masks(hand: Hand) -> None:
    hand.m._panels["Masks"].detail.value = FINE
    hand.settle("Masks")


def draw_outlines(hand: Hand) -> None:
    hand.m._panels["Masks"].edges.value = True


def point_at_masks(hand: Hand) -> None:
    hand.m._panels["Masks"].detail.value = COARSE
    lon, lat = HERE
    told = {"event": "interaction", "type": "mousemove", "coordinates": [lat, lon]}
    hand.m.canvas.map._handle_custom_msg(told, [])


# -- Embedding ---------------------------------------------------------------------------------------------------------


def embed_the_pair(hand: Hand) -> None:
    panel = hand.open("Embedding")
    panel.encoder.value, panel.sensors.value = "image-statistics", "Sentinel-2"
    panel.cells.value = 40.0
    hand.press("Embedding", "make")


def show_colours(hand: Hand) -> None:
    hand.m._panels["Embedding"].show_as.value = COLOURS


def show_groups(hand: Hand) -> None:
    panel = hand.m._panels["Embedding"]
    panel.show_as.value, panel.groups.value = GROUPS, 4
    hand.settle("Embedding")


def find_what_is_alike(hand: Hand) -> None:
    hand.click("Embedding", *HERE)
    hand.m._panels["Embedding"].clicks.value = UNLIKE
    hand.click("Embedding", HERE[0] - 0.01, HERE[1] + 0.004)


def clear_what_was_clicked(hand: Hand) -> None:
    hand.press("Embedding", "clear")


# -- Labels ------------------------------------------------------------------------------------------------------------


def pin(hand: Hand, name: str, *places: tuple[float, float]) -> None:
    if name not in hand.m._panels["Labels"].book.colors:
        hand.wish("add", name)
    hand.wish("take", name)
    for east, north in places:
        hand.click("Labels", WEST + east * (EAST - WEST), SOUTH + north * (NORTH - SOUTH))


def label_places(hand: Hand) -> None:
    panel = hand.open("Labels")
    panel.labelling.value = True
    pin(hand, "land / wood", (0.2, 0.2), (0.3, 0.8), (0.1, 0.5))
    pin(hand, "land / field", (0.7, 0.3), (0.6, 0.7), (0.9, 0.2))
    panel.undo.click()
    panel.table.index = 1
    panel.remove.click()
    hand.wish("color", "land / wood", color="#aa00bb")
    hand.wish("take", "land / field")
    west, south = WEST + 0.02, SOUTH + 0.004
    hand.draw([[west, south], [west, south + 0.003], [west + 0.004, south + 0.003], [west, south]])
    pin(hand, "water", (0.5, 0.9), (0.4, 0.1))
    hand.settle("Labels")


def show_the_map_and_its_doubt(hand: Hand) -> None:
    hand.m._panels["Labels"].view.value = BOTH


def choose_detail(hand: Hand) -> None:
    hand.m._panels["Labels"].level.value = 1
    hand.settle("Labels")


def ask_where_next(hand: Hand) -> None:
    hand.press("Labels", "next")


def ask_for_the_score(hand: Hand) -> None:
    hand.press("Labels", "check")


def save_the_labels(hand: Hand) -> None:
    hand.m._panels["Labels"].files.file.value = "mine.geojson"
    hand.press("Labels", "files.save")


def save_the_map(hand: Hand) -> None:
    hand.m._panels["Labels"].files.folder.value = "map"
    hand.press("Labels", "files.keep")


def add_labels_from_a_file(hand: Hand) -> None:
    fields = gpd.GeoDataFrame(
        {"ground_truth": [1, 2], "class_name": ["marsh", "dune"]},
        geometry=[shapely.Point(HERE).buffer(0.001), shapely.Point(HERE[0] - 0.01, HERE[1]).buffer(0.001)],
        crs=4326,
    )
    (hand.home / "others.gpkg").write_bytes(as_file(fields, "others.gpkg", hand.home))
    hand.m._panels["Labels"].files.file.value = str(hand.home / "others.gpkg")
    hand.press("Labels", "files.load")


def upload_labels(hand: Hand) -> None:
    data = (hand.home / "others.gpkg").read_bytes()
    upload(control(hand.m, "Labels.files.upload"), "others.gpkg", data)
    hand.settle("Labels")


def embed_from_the_labels(hand: Hand) -> None:
    hand.m.state.drop("z")
    hand.press("Labels", "embed")


# -- Train -------------------------------------------------------------------------------------------------------------


def plan_a_corpus(hand: Hand) -> None:
    panel = hand.open("Train")
    panel.path.value, panel.size.value, panel.dates.value = "corpus.zarr", 64, 1
    panel.names.value = ("osm",)
    hand.press("Train", "make_plan")


def build_it(hand: Hand) -> None:
    hand.press("Train", "make")


def train(hand: Hand) -> None:
    panel = hand.m._panels["Train"]
    panel.encoder.value, panel.weights.value, panel.frozen.value = "fusion-nano", "random", True
    panel.task.value, panel.labels.value, panel.sensors.value, panel.device.value = (
        "segmentation",
        "osm",
        "both",
        "cpu",
    )
    hand.settle("Train")
    panel.steps.value, panel.batch.value, panel.out.value = 2, 2, "runs/1"
    hand.press("Train", "start")


def load_a_run(hand: Hand) -> None:
    panel = hand.m._panels["Train"]
    panel.runs.value = panel.runs.options[0][1]
    hand.press("Train", "fetch")


def predict(hand: Hand) -> None:
    hand.press("Train", "map_it")


def open_a_corpus(hand: Hand) -> None:
    # What is opened has to be there, wherever the cell runs.
    hand.m._panels["Train"].path.value = str(Path("corpus.zarr").absolute())
    hand.press("Train", "load")


def what_is_under_the_pointer(m: Map) -> Any:
    return m._panels["Masks"].here.value


ACTIONS = (
    Action("draw an area, or change it", draw, ("aoi", "grid")),
    Action("draw an area, or change it", change, ("aoi", "grid")),
    Action("clear it", clear, drops=("aoi", "grid", "scenes", "pairs"), controls=("Area.clear",)),
    Action("an outline from a file", upload_an_outline, ("aoi", "grid"), controls=("Area.upload",)),
    Action("a good place", take_a_good_place, ("aoi", "grid"), controls=("Area.suggest",)),
    Action(
        "dates, cloud, gap",
        choose_dates_and_limits,
        ("scenes", "pairs"),
        controls=("Area.start", "Area.end", "Area.cloud", "Area.gap"),
    ),
    Action("read a pair", read_a_pair, ("patch",), controls=("Area.timeline", "Area.choice", "Area.read")),
    Action(
        "pictures and stretch",
        choose_pictures_and_stretch,
        ("view_s1", "view_s2"),
        controls=tuple(f"Pair.{name}.{key}" for name in ("choices", "stretches", "automatic") for key in ("s1", "s2")),
    ),
    Action("clouds", mark_clouds, ("view_clouds",), controls=("Pair.clouds",)),
    Action("click: spectrum", click_a_pixel, ("pixel",), controls=("Pair.inspect",)),
    Action("its year", read_its_year, ("point",), controls=("Pair.whole_year", "Pair.dates")),
    Action("save a figure", save_a_figure, ("figure", "figure_file"), controls=("Pair.kind", "Pair.figure")),
    Action("masks of labels", make_masks_of_a_raster, ("masks",), controls=("Masks.which", "Masks.path", "Masks.burn")),
    Action("masks of labels", make_masks, ("labels", "masks"), controls=("Masks.which", "Masks.burn")),
    Action("layer, classes", choose_layer_and_classes, ("view_masks",), controls=("Masks.layer", "Masks.legend")),
    Action("finer pixels", refine_masks, ("masks_fine",), controls=("Masks.detail",)),
    Action("outlines", draw_outlines, ("edges",), controls=("Masks.edges",)),
    Action("point at it", point_at_masks, says=what_is_under_the_pointer, twin=f"ds.value_at(masks, {HERE})"),
    Action(
        "embed",
        embed_the_pair,
        ("z", "index"),
        controls=("Embedding.encoder", "Embedding.sensors", "Embedding.cells", "Embedding.make"),
    ),
    Action("colours", show_colours, ("view_z",), controls=("Embedding.show_as",)),
    Action("groups", show_groups, ("groups", "view_groups"), controls=("Embedding.show_as", "Embedding.groups")),
    Action(
        "click: what looks like this",
        find_what_is_alike,
        ("likeness", "view_likeness", "matches", "picture", "thumbnails"),
        controls=("Embedding.clicks",),
    ),
    Action("clear it", clear_what_was_clicked, drops=("likeness", "matches"), controls=("Embedding.clear",)),
    Action(
        "pins and fields of yours",
        label_places,
        ("examples",),
        controls=("Labels.classes", "Labels.labelling", "Labels.undo", "Labels.table", "Labels.remove"),
    ),
    Action(
        "a map from a few of them",
        show_the_map_and_its_doubt,
        ("label_map", "view_label_map", "view_doubt"),
        controls=("Labels.view",),
    ),
    Action("coarser classes", choose_detail, ("label_map",), controls=("Labels.level",)),
    Action("where next?", ask_where_next, ("suggestions",), controls=("Labels.next",)),
    Action("score", ask_for_the_score, ("score",), controls=("Labels.check",)),
    Action("save labels", save_the_labels, ("labels_file",), controls=("Labels.files.file", "Labels.files.save")),
    Action("save that map", save_the_map, ("map_files",), controls=("Labels.files.folder", "Labels.files.keep")),
    Action(
        "labels from a file",
        add_labels_from_a_file,
        ("imported", "examples"),
        controls=("Labels.files.file", "Labels.files.load"),
    ),
    Action("labels from a file", upload_labels, ("imported", "examples"), controls=("Labels.files.upload",)),
    Action("embed", embed_from_the_labels, ("z",), controls=("Labels.embed",)),
    Action(
        "plan a corpus",
        plan_a_corpus,
        ("places", "plan"),
        controls=("Train.size", "Train.dates", "Train.make_plan"),
    ),
    Action("build it", build_it, ("built", "corpus"), controls=("Train.names", "Train.path", "Train.make")),
    Action("open a corpus", open_a_corpus, ("corpus",), controls=("Train.path", "Train.load")),
    Action(
        "train",
        train,
        ("parts", "model"),
        controls=tuple(
            f"Train.{name}"
            for name in (
                *("encoder", "weights", "frozen", "task", "labels", "sensors", "device", "steps", "batch", "out"),
                "start",
            )
        ),
    ),
    Action("load a run", load_a_run, ("model",), controls=("Train.runs", "Train.fetch")),
    Action("predict", predict, ("prediction", "view_prediction"), controls=("Train.map_it",)),
)
STOPS = {
    "Embedding.halt": "ds.embed",
    "Labels.halt": "ds.embed",
    "Train.halt": "ds.build_corpus",
    "Train.stop": "ds.finetune",
    "Train.pause": "ds.finetune",
    "Train.again": "ds.finetune",
}
"""What ends work on its way, or has it go on: arguments of the functions, with tests of their own."""
STOP_ROW = "stop, go on"
LOOKS = {
    *("Area.base", "Area.footprints"),
    *("Pair.views", "Pair.charts", "Pair.cloud_legend"),
    *("Masks.opacity", "Masks.key"),
    *("Embedding.opacity", "Embedding.heat", "Embedding.strip", "Embedding.legend", "Embedding.scale"),
    *("Labels.opacity", "Labels.go", "Labels.legend", "Labels.scale"),
    *("Train.opacity", "Train.legend", "Train.curves", "Train.more", "Train.building"),
}
"""What only changes how a thing is seen, or where on the map one looks."""
