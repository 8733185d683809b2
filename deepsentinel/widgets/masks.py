"""The third tab: labels burnt onto the patch, in their official colours, and what the pixel under the pointer holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.credits import title_of
from deepsentinel.figures.masks import HEADINGS, legend_of
from deepsentinel.figures.shares import class_shares
from deepsentinel.grids import grid_of

from .canvas import Canvas
from .charts import Legend
from .controls import Slider
from .jobs import Jobs
from .panel import Panel
from .state import State

COARSE, FINE, BOTH = "coarse", "fine", "both"
FINER = 4
FILE = "A file …"
RASTERS = (".tif", ".tiff", ".vrt")
LAYERS = ("class_map", "value", "coverage", "conflict", "parcel_id")
EDGES: Mapping[str, Any] = {"color": "#ffffff", "weight": 1.2, "opacity": 0.95, "fill": False}
MOST_OUTLINES = 5000
NO_GROUND = "Draw an area, or read a pair: masks need a grid."
START = "Choose labels, and make masks of them."
POINT = "Point at the map: class, coverage and parcel stand here."


class MaskPanel(Panel):
    """Look at masks."""

    title: ClassVar[str] = "Masks"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self._painting = threading.RLock()
        self._quiet, self._front = False, True
        self.which = self.control(ipywidgets.Dropdown, "Labels", lambda _: self._chosen(), options=[FILE])
        self.which.layout.width = "250px"
        self.path = self.control(ipywidgets.Text, "Path", placeholder="parcels.gpkg", continuous_update=False)
        self.path.layout.width = "250px"
        self.burn = self.button("Make masks", self.make, main=True, tip="Burn the labels onto the patch's pixels")
        self.layer = self.control(ipywidgets.Dropdown, "Layer", lambda _: self.paint(), options=[])
        self.detail = self.control(ipywidgets.Dropdown, "Pixels", lambda _: self.refine(), options=detail_words(10.0))
        self.opacity = Slider(description="Opacity", value=70, max=100, step=5, unit="%")
        self.listen(self.opacity, lambda _: self._fade())
        self.edges = self.control(ipywidgets.Checkbox, "Outlines", lambda _: self.draw_edges(), indent=False)
        self.edges.layout.width = "auto"
        self.legend = Legend()
        self.listen(self.legend, lambda _: self.paint(), "hidden")
        self.key = Legend(fixed=True)
        self.here = self.note(POINT)
        self.here.add_class("ds-here")
        self._shown = ipywidgets.VBox(
            [
                self.here,
                self.row(self.layer, self.detail),
                self.row(self.opacity, self.edges),
                self.legend,
                self.key,
            ]
        )
        self._shown.layout.display = "none"
        self.body.children = (self.row(self.which, self.path, self.burn), self._shown)
        self.at_end(canvas.on_hover(self.guard(self.hovered)))
        self.watch("src", self._opened)
        self.watch("masks", self.show)
        self.watch("masks_fine", lambda _: self.paint())
        self.watch("labels", lambda _: self.draw_edges())
        if "src" not in state:
            self._opened(None)
        self.say("" if "masks" in state else START)

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then classes hide the pictures below. Outlines stay."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        if changed:
            self.guard(self._arrange)()

    # -- what is burnt -------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Read the chosen labels, and burn them."""
        like = self._like()
        name = self.which.value
        if name == FILE and not self.path.value.strip():
            raise InputError("Give the path of a file with labels, such as parcels.gpkg.")
        known = name != FILE
        place = "src.labels[{name}]" if known else "{name}"
        file = Path(self.state["src"].labels[name] if known else self.path.value.strip())
        values = {"name": name if known else self.path.value.strip()}
        if file.suffix.lower() in RASTERS:
            line = f"ds.read_label_raster({place}, like={like})"
            self.state.drop("labels")
            self.run("masks", line, text="Reading classes", **values)
            return
        box = ", bbox=aoi" if "aoi" in self.state else ""
        line = f"ds.read_labels({place}{box})"
        self.run("labels", line, text="Reading labels", then=lambda _: self._burnt(), **values)

    def _burnt(self) -> None:
        self.run("masks", f"ds.rasterize(labels, like={self._like()})", text="Burning labels")

    def refine(self) -> None:
        """Burn them onto finer pixels too, where those are to be seen."""
        if self._quiet or "masks" not in self.state:
            return
        if self.detail.value != COARSE and "masks_fine" not in self.state:
            if "labels" not in self.state:
                self.detail.value = COARSE
                raise InputError("These classes come from a raster, which has no finer pixels to show.")
            finer = abs(grid_of(self.state["masks"]).affine.a) / FINER
            line = f"ds.rasterize(labels, like={self._like()}, resolution={{resolution}})"
            self.run("masks_fine", line, text=f"Burning labels at {finer:g} m", resolution=finer)
        self.paint()

    def _like(self) -> str:
        for name in ("patch", "grid"):
            if name in self.state:
                return name
        raise InputError(NO_GROUND)

    # -- what is seen --------------------------------------------------------------------------------------------------

    def show(self, masks: Any) -> None:
        """Masks were made, or are gone."""
        with self._painting:
            self._shown.layout.display = "none" if masks is None else None
            self.here.value = POINT
            self.state.drop("masks_fine")
            self._quiet = True
            try:
                held = [name for name in LAYERS if masks is not None and name in masks]
                before = self.layer.value
                self.layer.options = [(HEADINGS[name], name) for name in held]
                self.layer.value = before if before in held else next(iter(held), None)
                if masks is not None:
                    self.detail.options = detail_words(abs(grid_of(masks).affine.a))
                self.detail.value = COARSE
                rows = []
                if masks is not None and "class_map" in masks:
                    rows = [
                        {"code": each.code, "name": each.name, "color": each.color, "share": percent(each.share)}
                        for each in class_shares(masks)
                    ]
                    title = title_of(legend_of(masks)) or "Classes"
                with self.legend.hold_sync():
                    self.legend.rows, self.legend.hidden = rows, []
                    self.legend.title = f"{title}, share of the pixels" if rows else ""
            finally:
                self._quiet = False
            if masks is None:
                for key in ("masks", "masks_fine"):
                    self.canvas.lift(key)
            self.paint()

    def paint(self) -> None:
        """Lay the chosen layer on the map."""
        if self._quiet or "masks" not in self.state or self.layer.value is None:
            return
        with self._painting:
            # Each layer has its own legend: that of the classes says nothing of shares and conflicts.
            classes = self.layer.value == "class_map"
            self.legend.layout.display = None if classes else "none"
            self.key.layout.display = "none" if classes else None
            shown = {COARSE: ("masks",), FINE: ("masks_fine",), BOTH: ("masks", "masks_fine")}[self.detail.value]
            for key in ("masks", "masks_fine"):
                if key not in shown:
                    self.canvas.lift(key)
                elif key in self.state:
                    self._lay(key)
            self._arrange()

    def _arrange(self) -> None:
        """Seen or not, whole or parted by a handle."""
        with self._painting:
            self._fade()
            if self._front and self.detail.value == BOTH and {"masks", "masks_fine"} <= set(self.canvas.pictures):
                if not self.canvas.swiped("masks", "masks_fine"):
                    self.canvas.swipe("masks", "masks_fine")
            else:
                self.canvas.unswipe("masks")

    def _lay(self, key: str) -> None:
        layer, hidden = self.layer.value, set(self.legend.hidden)
        line, values = f"ds.overlay({key}, {{layer}})", {"layer": layer}
        if layer == "class_map" and hidden:
            line = f"ds.overlay({key}, {{layer}}, classes={{classes}})"
            values["classes"] = [row["code"] for row in self.legend.rows if row["code"] not in hidden]
        drawn = self.state.do(f"view_{key}", line, **values)
        self.canvas.lay(key, drawn, opacity=self._opacity())
        self.key.tell(drawn.panel)

    def _opacity(self) -> float:
        return self.opacity.value / 100 if self._front else 0.0

    def _fade(self) -> None:
        for key in ("masks", "masks_fine"):
            self.canvas.fade(key, self._opacity())

    def draw_edges(self) -> None:
        """Draw the outlines of the polygons, or take them away."""
        labels = self.state["labels"]
        self.canvas.erase("edges")
        if not self.edges.value or labels is None:
            return
        found = self.state.do("edges", f"ds.outlines(labels, {self._like()})")
        if len(found) > MOST_OUTLINES:
            self.edges.value = False
            raise InputError(f"{len(found):,} outlines are too many for a map; draw a smaller area.")
        if len(found):
            self.canvas.outline("edges", found, EDGES)

    def hovered(self, lon: float, lat: float) -> None:
        """The pointer moved over the map."""
        masks = self.state["masks_fine" if self.detail.value == FINE else "masks"]
        if masks is None or not self.front:
            return
        text = told(ds.value_at(masks, (lon, lat)))
        if text != self.here.value:
            self.here.value = text

    def _opened(self, src: Any) -> None:
        held = getattr(src, "labels", None) or {}
        self.which.options = [*held, FILE]
        self.which.value = next(iter(held), FILE)
        self._chosen()

    def _chosen(self) -> None:
        self.path.layout.display = None if self.which.value == FILE else "none"

    def close(self) -> None:
        """Take masks and outlines off the map, too."""
        if not self.closed:
            self.canvas.erase("edges")
            for key in ("masks", "masks_fine"):
                self.canvas.lift(key)
        super().close()


def detail_words(size: float) -> list[tuple[str, str]]:
    """Which pixels masks may have, on a grid whose own are of this size.

    >>> detail_words(10)[1]
    ('2.5 m', 'fine')
    """
    finer = f"{size / FINER:g} m"
    return [(f"{size:g} m", COARSE), (finer, FINE), (f"Swipe: {size:g} m left, {finer} right", BOTH)]


def told(values: Mapping[str, Any]) -> str:
    """What a pixel of a mask holds, in a line.

    >>> told({"class_map": 3, "class_name": "Rye", "coverage": 0.5, "parcel_id": 12, "conflict": 0})
    'Rye · covers 50 % of the pixel · parcel 12'
    >>> told({"class_map": 0, "class_name": None, "coverage": 0.0, "parcel_id": 0})
    'no label here'
    >>> told({})
    'outside of the masks'
    """
    if not values:
        return "outside of the masks"
    parts = [str(values["class_name"])] if values.get("class_name") else []
    parts += [f"{values['value']:.4g}"] if values.get("value") is not None else []
    if not parts and not values.get("parcel_id"):
        return "no label here"
    parts += [f"covers {percent(values['coverage'])} of the pixel"] if values.get("coverage") else []
    parts += [f"parcel {values['parcel_id']}"] if values.get("parcel_id") else []
    parts += [values["conflict_words"]] if "conflict_words" in values else []
    return " · ".join(parts)


def percent(share: float) -> str:
    """A share with the digits that mean something.

    >>> percent(0.123), percent(0.0123), percent(0.0004), percent(1.0), percent(0.0)
    ('12 %', '1.2 %', 'under 0.1 %', '100 %', '0 %')
    """
    value = 100 * share
    if value == 0:
        return "0 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.1 else "under 0.1 %"
