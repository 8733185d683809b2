"""`Map`: draw, look, label, embed, train and predict without leaving the notebook."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipyleaflet
import ipywidgets

from .area import AreaPanel
from .canvas import Bounds, Canvas
from .cells import end_former
from .closing import close_all
from .controls import Cell, Ended
from .jobs import Jobs
from .panel import Panel
from .state import ANY, State

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from deepsentinel.aoi import Area

# Tab -> where its panel is; it is imported and built when the tab is first opened.
PANELS = {
    "Area": "deepsentinel.widgets.area:AreaPanel",
    "Pair": "deepsentinel.widgets.pairs:PairPanel",
    "Masks": "deepsentinel.widgets.masks:MaskPanel",
    "Embedding": "deepsentinel.widgets.embeddings:EmbeddingPanel",
    "Labels": "deepsentinel.widgets.labelling:LabelPanel",
    "Train": "deepsentinel.widgets.training:TrainingPanel",
}
# What a tab says until its panel is built: that takes seconds where libraries are read at the same time.
PURPOSES = {
    "Pair": "Here a pair is looked at; choose one in the tab Area.",
    "Masks": "Here labels are burnt onto the pixels of a pair.",
    "Embedding": "Here a pair becomes vectors, and what is alike is found.",
    "Labels": "Here a few labels of yours become a map of all the ground.",
    "Train": "Here a model learns from a corpus, and makes a map of a pair.",
}
NOT_OPEN = "The source did not open; the tab Area says why."
WORLD = Path(__file__).parent / "pictures" / "world.webp"
WORLD_BOUNDS: Bounds = ((-85.0511287798066, -180.0), (85.0511287798066, 180.0))
# What is seen before anything is known: Europe.
CENTER, ZOOM = (49.0, 6.0), 4.0
HEIGHT = "580px"


class Map:
    """A map on which an area is drawn, and beside it the tabs that take it from there.

    source
        What `open_source` takes, or a source that is open. It is opened beside the kernel: the map does not wait.
    aoi
        Anything that `deepsentinel.aoi.area` takes, to begin with.
    host
        An ipyleaflet map, such as `geemap.Map(ee_initialize=False)`, to work in instead of one of our own.

    What was made with the mouse is there in Python: `m.aoi`, `m.scenes`, `m.patch` and so on, each None until it is
    made, and `m.code()` is a cell that makes the same without a map. Two maps share nothing. Running a cell again
    closes the maps that it made before.

    >>> m = Map(ds_source := __import__("deepsentinel").open_source("demo", size_px=256))
    >>> m.aoi = ds_source.area
    >>> m.wait(60)
    True
    >>> len(m.pairs) > 10
    True
    >>> print(m.code().splitlines()[2])
    src = ds.open_source('demo', size_px=256)
    >>> m.close()
    """

    def __init__(self, source: Any = "demo", aoi: Any = None, host: ipyleaflet.Map | None = None) -> None:
        if host is not None and not isinstance(host, ipyleaflet.Map):
            raise TypeError(f"host is a {type(host).__name__}; give an ipyleaflet map, such as geemap.Map().")
        self.state, self.jobs = State(), Jobs()
        self.canvas = Canvas(host, center=CENTER, zoom=ZOOM)
        self.canvas.map.layout.height = HEIGHT
        if host is None:
            self.canvas.lay_url("world", world_url(), WORLD_BOUNDS)
        self._cell = Cell()
        self._cell.observe(lambda _: self._show_code(), "opened")
        self._panels: dict[str, Panel] = {}
        # A source is open on the thread that opened it, while somebody may open a tab.
        self._opening, self._hinting = "", threading.Lock()
        # Tabs are turned by clicks, cells and jobs, each on a thread of its own.
        self._turning = threading.RLock()
        self._hints = {title: ipywidgets.Label(text) for title, text in PURPOSES.items()}
        self._places = {title: ipywidgets.VBox([self._hints[title]] if title in PURPOSES else []) for title in PANELS}
        for hint in self._hints.values():
            hint.add_class("ds-note")
        self._tabs = ipywidgets.Tab(list(self._places.values()), titles=list(PANELS))
        self._tabs.observe(lambda change: self.open(change["new"]), "selected_index")
        self._area = AreaPanel(self.state, self.canvas, self.jobs)
        self._panels["Area"] = self._area
        self._places["Area"].children = (self._area.widget,)
        side = ipywidgets.VBox([self._tabs, self._cell])
        left = ipywidgets.VBox([self.canvas.map])
        for box, name in ((left, "ds-left"), (side, "ds-side"), (self._tabs, "ds-tabs")):
            box.add_class(name)
        self._body = ipywidgets.HBox([left, side])
        self._body.add_class("ds-body")
        self._left, self._ended = left, Ended()
        self.widget = ipywidgets.VBox([self._ended, self._body, self.canvas.drawing.sketching])
        self.widget.add_class("ds-map")
        self.closed = False
        self._area.watch(ANY, lambda _: self._show_code())
        self._area.watch("patch", self._show_patch)
        if aoi is not None:
            self.aoi = aoi
        self._begin(source)
        end_former(self)

    # -- what was made -------------------------------------------------------------------------------------------------

    @property
    def aoi(self) -> Area | None:
        """The area that is drawn; setting it draws it, and None takes it away."""
        from deepsentinel.aoi import area

        held = self.state["aoi"]
        return None if held is None else area(held)

    @aoi.setter
    def aoi(self, obj: Any) -> None:
        if obj is None:
            self.state.drop("aoi")
        else:
            self._area.place(obj)

    @property
    def src(self) -> Any:
        """The source, once it is open."""
        return self.state["src"]

    @property
    def scenes(self) -> gpd.GeoDataFrame | None:
        """What was found over the area."""
        return self.state["scenes"]

    @property
    def pairs(self) -> gpd.GeoDataFrame | None:
        """Which Sentinel-1 goes with which Sentinel-2."""
        return self.state["pairs"]

    @property
    def patch(self) -> xr.Dataset | None:
        """The pixels that were read last."""
        return self.state["patch"]

    @property
    def labels(self) -> gpd.GeoDataFrame | None:
        """Labels: those of a file, as a table."""
        return self.state["labels"]

    @property
    def masks(self) -> xr.Dataset | None:
        """The labels on the patch's grid."""
        return self.state["masks"]

    @property
    def z(self) -> xr.DataArray | None:
        """The map of vectors."""
        return self.state["z"]

    @property
    def model(self) -> Any:
        """What was trained."""
        return self.state["model"]

    @property
    def prediction(self) -> Any:
        """The last map of the ground, whether labels (`label_map` in the cell) or a model (`prediction`) made it."""
        return self.state.latest("label_map", "prediction")

    def code(self, *names: str) -> str:
        """A cell that makes these things, or all there are, without a map."""
        return self.state.code(*names)

    def wait(self, timeout: float | None = None) -> bool:
        """Until nothing is being opened, searched, read or trained; False if that takes more seconds than this."""
        return self.jobs.wait(timeout)

    # -- what is seen --------------------------------------------------------------------------------------------------

    def open(self, tab: int | str | None) -> Panel | None:
        """Show a tab, and build its panel if nobody has seen it yet."""
        with self._turning:
            if tab is None or self.closed:
                return None
            title = list(PANELS)[tab] if isinstance(tab, int) else tab
            if title not in PANELS:
                raise ValueError(f"There is no tab {title!r}; there are {', '.join(PANELS)}.")
            # Who leaves takes pictures and handles away before who comes, or is new, puts others there.
            for name, panel in self._panels.items():
                if name != title:
                    panel.front = False
            if title not in self._panels:
                try:
                    module, name = PANELS[title].split(":")
                    panel = getattr(import_module(module), name)(self.state, self.canvas, self.jobs)
                except Exception as error:  # a tab that does not open must not take the others with it
                    panel = Panel(self.state, self.canvas, self.jobs)
                    panel.complain(error)
                self._panels[title] = panel
                self._places[title].children = (*self._places[title].children, panel.widget)
                self._hint()
            if self._tabs.selected_index != list(PANELS).index(title):
                self._tabs.selected_index = list(PANELS).index(title)
            self._panels[title].front = True
            return self._panels[title]

    def close(self) -> None:
        """Take everything away: work under way, the widgets, what was made. A host's own map stays."""
        if self.closed:
            return
        self.closed = True
        self.jobs.close()
        for panel in self._panels.values():
            panel.close()
        self._panels.clear()
        self.canvas.close()
        self.state.close()
        if self.canvas.hosted:
            # Or it would be closed with what holds it.
            self._left.children = ()
        close_all(self.widget)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    def __repr__(self) -> str:
        made = ", ".join(name for name in ("src", "aoi", "scenes", "pairs", "patch") if name in self.state)
        return f"Map({'closed' if self.closed else made or 'nothing made yet'})"

    # -- how it begins -------------------------------------------------------------------------------------------------

    def _begin(self, source: Any) -> None:
        self._area.watch("src", self._opened, now=False)
        if isinstance(source, str | Path):
            name = str(source)
            text = "Opening the demo world; it is built when it is first used" if name == "demo" else f"Opening {name}"
            self._open(text, "ds.open_source({name})", name=name)
        elif isinstance(source, Mapping):
            self._open("Opening the items", "ds.open_source({items})", items=dict(source))
        else:
            self.state.put("src", source, code_of(source))

    def _open(self, text: str, line: str, **values: Any) -> None:
        def failed(error: BaseException) -> None:
            self._hint(NOT_OPEN)
            self._area.complain(error)

        self._hint(f"{text} …")
        self._area.run("src", line, text=text, failed=failed, **values)

    def _hint(self, opening: str | None = None) -> None:
        """Say in each tab how far the source is, and what a tab is for whose panel nobody has opened yet."""
        with self._hinting:
            if opening is not None:
                self._opening = opening
            for title, hint in self._hints.items():
                purpose = "" if title in self._panels else PURPOSES[title]
                hint.value = " ".join(each for each in (self._opening, purpose) if each)
                hint.layout.display = None if hint.value else "none"

    def _opened(self, src: Any) -> None:
        self._hint("")
        start = getattr(src, "area", None)
        if start is None:
            return
        if "aoi" not in self.state:
            from deepsentinel.aoi import area

            west, south, east, north = area(start).bounds
            across, up = (east - west) / 2, (north - south) / 2
            self.canvas.fit(((south - up, west - across), (north + up, east + across)))
        if src.name == "demo":
            # A country is seen from above while somebody looks for the drawing tools; it is no loss if it is not.
            self.jobs.start("overview", lambda _: overview_of(src), done=self._lay_overview, failed=lambda _: None)

    def _lay_overview(self, drawn: tuple[str, Bounds]) -> None:
        if not self.closed:
            self.canvas.lay_url("base", *drawn)

    def _show_patch(self, patch: Any) -> None:
        # Who read a pair in the first tab wants to see it.
        if patch is not None and self._tabs.selected_index == 0:
            self.open("Pair")

    def _show_code(self) -> None:
        if self._cell.opened:
            self._cell.text = self.state.code()


@lru_cache(maxsize=1)
def world_url() -> str:
    """The picture of all land that comes with us, within its own address; `figures.ground.world` made it."""
    return "data:image/webp;base64," + base64.b64encode(WORLD.read_bytes()).decode()


def overview_of(src: Any) -> tuple[str, Bounds]:
    """A source's country from above, encoded, and where it lies."""
    from deepsentinel.figures.ground import overview

    drawn = overview(src)
    return drawn.url, drawn.bounds


def code_of(source: Any) -> str:
    """How a source that was opened elsewhere is opened, as far as it says so itself; or its name in the notebook.

    >>> import deepsentinel as ds
    >>> code_of(ds.open_source("demo", size_px=256))
    "ds.open_source('demo', size_px=256)"
    """
    told = str(getattr(source, "opened", ""))
    if told:
        return told
    if source.name == "demo":
        options = {"seed": source.seed, "size_px": source.size_px}
        usual = {"seed": 0, "size_px": 1024}
        words = [repr("demo"), *(f"{key}={value!r}" for key, value in options.items() if value != usual[key])]
        return f"ds.open_source({', '.join(words)})"
    return name_of(source) or "source"


def name_of(thing: Any) -> str:
    """What a notebook calls something; "" outside of notebooks, and for what has no name."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return ""
    held: Mapping[str, Any] = getattr(get_ipython(), "user_ns", {})
    # `_` and `_3` are what IPython calls results by itself, and mean something else in the next cell.
    return next((name for name, value in list(held.items()) if value is thing and not name.startswith("_")), "")
