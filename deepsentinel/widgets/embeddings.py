"""The fourth tab: what an encoder makes of the ground, in colours and groups, and what looks like a place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import ipywidgets

import deepsentinel as ds
from deepsentinel.encoders import find
from deepsentinel.errors import DeepSentinelError, InputError
from deepsentinel.figures.overlays import pictures
from deepsentinel.figures.panels import default_panels

from .canvas import Canvas
from .charts import Legend
from .controls import Slider
from .examples import Strip
from .jobs import Jobs
from .panel import Panel
from .shapes import CHOSEN, cell_m, middle_of, squares
from .state import Made, State

COLOURS, GROUPS, NOTHING = "Colours", "Groups", "Nothing"
SENSORS = {"S1 and S2": "both", "Sentinel-1": "s1", "Sentinel-2": "s2"}
LIKE, UNLIKE = "Like this", "Not like this"
NO_PATCH = "Read a pair first (tab Area): an embedding is made of its pixels."
START = "Choose an encoder and embed the pair."
CLICK = "Click the map: what looks like that place lights up."
MATCHES = 12
# So many cells between two matches, or all of them would lie in the field next door.
CELLS_APART = 3
# Cells smaller than this take minutes of a processor, and gigabytes, over a large area.
FINEST_PX = 2
SQUARES: Mapping[str, Any] = {"color": "#ffffff", "weight": 2, "opacity": 1, "fill": False}
PLUS: Mapping[str, Any] = {"color": "#ffffff", "weight": 2, "fillColor": "#0072b2", "fillOpacity": 1}
MINUS: Mapping[str, Any] = {"color": "#ffffff", "weight": 2, "fillColor": "#d55e00", "fillOpacity": 1}
OURS = ("embedding", "likeness")
SHAPES = ("asked", "matches", "match")


class EmbeddingPanel(Panel):
    """Embed a pair, look at it, search it."""

    title: ClassVar[str] = "Embedding"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self._painting = threading.RLock()
        self._quiet, self._front = False, True
        # Whether the heat map is what is looked at: two scales of colours at once nobody can read.
        self._searching = False
        self._asked: dict[str, list[tuple[float, float]]] = {LIKE: [], UNLIKE: []}
        self.facts = self.note("")
        names = [spec.name for spec in ds.ready_encoders()]
        self.encoder = self.control(ipywidgets.Dropdown, "Encoder", lambda _: self._offer(), options=names)
        self.encoder.tooltip = "Those whose weights are on this machine"
        self.sensors = self.control(ipywidgets.Dropdown, "Sensors", options=["S1 and S2"])
        self.cells = self.control(ipywidgets.Dropdown, "Cells", options=[("80 m", 0.0)])
        for each, width in ((self.encoder, "230px"), (self.sensors, "170px"), (self.cells, "130px")):
            each.layout.width = width
        self.make = self.button("Embed this pair", self.embed, main=True, tip="Make a vector for every cell of ground")
        self.halt = self.stopper("z", "Stop embedding", tip="Give up the embedding that is being made")
        self.show_as = self.control(
            ipywidgets.Dropdown, "View", lambda _: self.paint(), options=[COLOURS, GROUPS, NOTHING]
        )
        self.show_as.layout.width = "140px"
        self.groups = Slider(description="Groups", value=6, min=2, max=12, step=1)
        self.listen(self.groups, lambda _: self.paint())
        self.opacity = Slider(description="Opacity", value=80, max=100, step=5, unit="%")
        self.listen(self.opacity, lambda _: self._fade())
        self.legend = Legend(fixed=True)
        self.clicks = self.control(ipywidgets.Dropdown, "A click is", options=[LIKE, UNLIKE])
        self.clicks.layout.width = "200px"
        self.clear = self.button("Clear", self.forget, tip="Forget what was clicked")
        self.told = self.note(CLICK)
        self.heat = Slider(description="Heat map", value=80, max=100, step=5, unit="%")
        self.listen(self.heat, lambda _: self._light())
        self.scale = Legend(fixed=True)
        self.strip = Strip(title="Most alike")
        self.listen(self.strip, self.pick, "picked")
        self._shown = ipywidgets.VBox(
            [
                self.row(self.show_as, self.groups, self.opacity),
                self.legend,
                self.row(self.clicks, self.clear),
                self.told,
                self.heat,
                self.scale,
                self.strip,
            ]
        )
        choices = (self.encoder, self.sensors, self.cells)
        self.body.children = (self.row(*choices), self.row(self.make, self.halt), self.facts, self._shown)
        self._shown.layout.display = "none"
        self.at_end(canvas.on_click(self.guard(self.clicked)))
        self.watch("patch", self._read)
        self.watch("z", self.show)
        if "patch" not in state:
            self._read(None)
        self._offer()

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then its pictures and marks are on the map."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        if changed and not self.closed:
            with self._painting:
                self._fade()
                self._mark()

    # -- making --------------------------------------------------------------------------------------------------------

    def embed(self) -> None:
        """Make a vector of every cell."""
        if "patch" not in self.state:
            raise InputError(NO_PATCH)
        values: dict[str, Any] = {"encoder": self.encoder.value, "sensors": SENSORS[self.sensors.value]}
        line = "ds.embed(patch, {encoder}, sensors={sensors}, dense=True)"
        if self.cells.value:
            line = "ds.embed(patch, {encoder}, sensors={sensors}, dense=True, resolution_m={metres})"
            values["metres"] = self.cells.value
        make_vectors(self, self.halt, line, values)

    def _read(self, patch: Any) -> None:
        self.make.disabled = patch is None
        if patch is None:
            self.facts.value = NO_PATCH
        elif "z" not in self.state:
            self.facts.value = START
        self._offer()

    def _offer(self) -> None:
        """What the encoder can see of the pair, and how small its cells may be."""
        if self.encoder.value is None:
            return
        spec, patch = find(self.encoder.value), self.state["patch"]
        held = {"s1", "s2", "both"}
        if patch is not None:
            names = {str(name) for name in patch.data_vars}
            held = {"s1"} if not any(name.startswith("B") for name in names) else held
            held = {"s2"} if not names & {"VV", "VH", "HH", "HV"} else held
        words = [text for text, mode in SENSORS.items() if mode in spec.modes and mode in held]
        before = self.sensors.value
        self.sensors.options = words
        if words:
            self.sensors.value = before if before in words else words[0]
        metres, sizes, px = 10.0, [], int(spec.patch_px)
        while px >= FINEST_PX or px == spec.patch_px:
            size = px * metres
            sizes.append((f"{size:g} m", 0.0 if px == spec.patch_px else size))
            px //= 2
        chosen = self.cells.value
        self.cells.options = sizes
        self.cells.value = chosen if chosen in [value for _, value in sizes] else 0.0
        self.make.disabled = patch is None or not words

    # -- looking -------------------------------------------------------------------------------------------------------

    def show(self, z: Any) -> None:
        """A map of vectors was made, or is gone."""
        with self._painting:
            self._shown.layout.display = "none" if z is None else None
            self.forget()
            if z is None:
                self.canvas.lift("embedding")
                self.facts.value = NO_PATCH if self.state["patch"] is None else START
                return
            self.facts.value = words_of(z)
            self.run("index", "ds.similarity_index(z)", text="Making it searchable", then=self._warm, keep=self._ready)
            self.paint()

    def _ready(self, name: str, made: Made) -> bool:
        """Keep the index, unless a click was faster and made its own: what was found in that one is to stay."""
        with self._painting:
            return name not in self.state and self.state.keep(name, made)

    def _warm(self, index: Any) -> None:
        """Search once, for nobody: the first click is not to wait for what a search loads and prepares."""
        z, patch = self.state["z"], self.state["patch"]
        if z is None or patch is None:
            return
        # Where there is no data in the middle, there is nothing to search for.
        with suppress(DeepSentinelError):
            middle = middle_of(z)
            ds.overlay(index.score_map(positives=[middle]))
            found = index.query(positives=[middle], k=MATCHES, apart_m=CELLS_APART * cell_m(z))
            cut = ds.cutouts(ds.overlay(patch, picture_name(patch)), found, n=MATCHES, size_m=4 * cell_m(z))
            [each.url for each in cut]
            squares(found, z).to_crs(4326).to_json()

    def paint(self) -> None:
        """Lay colours or groups on the map; what is searched for goes into the background."""
        if self._quiet or "z" not in self.state:
            return
        with self._painting:
            kind = self.show_as.value
            self.groups.layout.display = None if kind == GROUPS else "none"
            self.legend.rows = []
            if kind == NOTHING:
                self.canvas.lift("embedding")
            elif kind == COLOURS:
                self._lay("view_z", "ds.overlay(z)")
            else:
                number = int(self.groups.value)
                self.run("groups", "ds.cluster(z, k={k})", text="Grouping", then=self._grouped, k=number)

    def _grouped(self, groups: Any) -> None:
        from deepsentinel.figures.shares import class_shares

        from .masks import percent

        if self.show_as.value != GROUPS or self.closed:
            return
        self._lay("view_groups", "ds.overlay(groups.to_dataset())")
        with self.legend.hold_sync():
            self.legend.title = "Groups that look alike, share of the cells"
            self.legend.rows = [
                {"code": each.code, "name": each.name, "color": each.color, "share": percent(each.share)}
                for each in class_shares(groups.to_dataset())
            ]

    def _lay(self, name: str, line: str) -> None:
        self.canvas.lay("embedding", self.state.do(name, line))
        self._searching = False
        self._fade()

    def _light(self) -> None:
        """The heat map comes before the colours, if there is one."""
        self._searching = "likeness" in self.canvas.pictures
        self._fade()

    def _fade(self) -> None:
        colours, heat = self.opacity.value / 100, self.heat.value / 100
        self.canvas.fade("embedding", colours if self._front and not self._searching else 0.0)
        self.canvas.fade("likeness", heat if self._front and self._searching else 0.0)

    # -- searching -----------------------------------------------------------------------------------------------------

    def clicked(self, lon: float, lat: float) -> None:
        """Somebody clicked the map: look for what is like that place, or unlike it."""
        if not self.front or "z" not in self.state:
            return
        asked = self._asked[self.clicks.value]
        asked.append((round(lon, 6), round(lat, 6)))
        try:
            self.search()
        except InputError:
            asked.pop()
            raise

    def search(self) -> None:
        """Light up what is like the places that were clicked."""
        like, unlike = self._asked[LIKE], self._asked[UNLIKE]
        if not like and not unlike:
            self._unlit()
            return
        with self._painting:
            if "index" not in self.state:
                self.state.do("index", "ds.similarity_index(z)")
        given = [(word, places) for word, places in (("positives", like), ("negatives", unlike)) if places]
        words, values = ", ".join(f"{word}={{{word}}}" for word, _ in given), {word: list(some) for word, some in given}
        with self._painting:
            self.state.do("likeness", f"index.score_map({words})", **values)
            drawn = self.state.do("view_likeness", "ds.overlay(likeness)")
            self.canvas.lay("likeness", drawn)
            self.scale.tell(drawn.panel)
            self._light()
            self._mark()
            line = f"index.query({words}, k={{k}}, apart_m={{metres}})"
            apart = CELLS_APART * cell_m(self.state["z"])
            found = self.state.do("matches", line, **values, k=MATCHES, metres=apart)
            self._cut(found)
        self.told.value = f"{counted(len(like), 'place')} to be like, {len(unlike)} not to be like"

    def _cut(self, found: Any) -> None:
        """Small pictures of what was found."""
        patch = self.state["patch"]
        with self.strip.hold_sync():
            self.strip.picked, self.strip.pieces = -1, []
        self.canvas.erase("match")
        if patch is None:
            return
        if "picture" not in self.state:
            self.state.do("picture", "ds.overlay(patch, {name})", name=picture_name(patch))
        size = max(320.0, 4 * cell_m(self.state["z"]))
        cut = self.state.do("thumbnails", "ds.cutouts(picture, matches, n={n}, size_m={size})", n=MATCHES, size=size)
        self.strip.pieces = [{"url": each.url, "text": each.text} for each in cut]
        self._mark()

    def _mark(self) -> None:
        """Where somebody clicked, and what was found."""
        import geopandas as gpd

        places = [(place, style) for kind, style in ((LIKE, PLUS), (UNLIKE, MINUS)) for place in self._asked[kind]]
        if not places or not self._front:
            for key in SHAPES:
                self.canvas.erase(key)
            return
        lon, lat = zip(*(place for place, _ in places), strict=True)
        table = gpd.GeoDataFrame({"style": [dict(style) for _, style in places]}, geometry=gpd.points_from_xy(lon, lat))
        if "matches" in self.state:
            self.canvas.outline("matches", squares(self.state["matches"], self.state["z"]), SQUARES)
        self.canvas.outline("asked", table.set_crs(4326), {})

    def pick(self, number: int) -> None:
        """One of the matches was chosen: show it on the map."""
        found = self.state["matches"]
        if number < 0 or found is None or number >= len(found):
            return
        self.canvas.outline("match", squares(found.iloc[[number]], self.state["z"]), CHOSEN)
        self.canvas.map.center = (float(found["lat"].iloc[number]), float(found["lon"].iloc[number]))

    def forget(self) -> None:
        """Forget what was clicked."""
        for places in self._asked.values():
            places.clear()
        self._unlit()

    def _unlit(self) -> None:
        self.canvas.lift("likeness")
        self.scale.clear()
        self._light()
        for key in SHAPES:
            self.canvas.erase(key)
        with self.strip.hold_sync():
            self.strip.picked, self.strip.pieces = -1, []
        self.told.value = CLICK
        for name in ("likeness", "matches"):
            self.state.drop(name)

    def close(self) -> None:
        """Take pictures and squares off the map, too."""
        if not self.closed:
            for key in OURS:
                self.canvas.lift(key)
            for key in SHAPES:
                self.canvas.erase(key)
        super().close()


def make_vectors(panel: Panel, stop: ipywidgets.Button, line: str, values: Mapping[str, Any]) -> None:
    """Embed the pair beside the kernel; how far it is stands in the panel's line, and the button ends it."""
    text = f"Embedding with {values['encoder']}"

    def told(done: int, total: int) -> None:
        if done < total:
            panel.progress(text, f"{text}: {done} of {total} rows")

    panel.run("z", line, {"on_progress": panel.guard(told)}, text=text, stop=stop, **values)


def words_of(z: Any) -> str:
    """What a map of vectors is, in a line.

    >>> import numpy as np, xarray as xr
    >>> place = {"y": [300.0, 220.0], "x": [40.0, 120.0, 200.0]}
    >>> words_of(xr.DataArray(np.zeros((2, 3, 8)), place, ("y", "x", "feature"), attrs={"encoder": "presto"}))
    'presto: 3 × 2 cells of 80 m, 8 features each'
    """
    told = str(z.attrs.get("encoder", "an encoder"))
    size = abs(float(z["x"][1] - z["x"][0])) if z.sizes["x"] > 1 else 0.0
    return f"{told}: {z.sizes['x']:,} × {z.sizes['y']:,} cells of {size:g} m, {z.sizes['feature']:,} features each"


def picture_name(patch: Any) -> str | None:
    """Which picture of a patch matches are cut out of."""
    return next((each for each in (*default_panels(patch), *pictures(patch))), None)


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "place"), counted(2, "place")
    ('1 place', '2 places')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
