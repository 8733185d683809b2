"""The second tab: Sentinel-1 against Sentinel-2, the pixel under a click, its year, and the figure to take away."""

from __future__ import annotations

import base64
import html
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets

from deepsentinel.errors import InputError
from deepsentinel.figures.overlays import CLOUDS, Overlay
from deepsentinel.figures.panels import default_panels
from deepsentinel.figures.points import spectrum_of, year_of

from .canvas import Canvas
from .charts import Legend, PixelCharts, Stretch
from .jobs import Jobs
from .pair_words import channels_of, cross_at, day_of, names_of, offered_of, pixel_words, place_words, told
from .panel import Panel
from .state import Made, State
from .uploads import free_path, whole

SENSORS = {"s2": "S2", "s1": "S1"}
SWIPE, ONLY_S2, ONLY_S1 = "Swipe: S2 left, S1 right", "Sentinel-2", "Sentinel-1"
CLOUD_OPACITY = 0.6
NONE_READ = "No pair is read yet: choose one in the tab Area."
CLICK = "Click the picture for the spectrum of a pixel, and its year."
DATES = {"8": 8, "12": 12, "24": 24, "all": None}
MIME = {"png": "image/png", "svg": "image/svg+xml"}
CROSS: Mapping[str, Any] = {"color": "#d55e00", "weight": 2, "opacity": 1}


class PairPanel(Panel):
    """Look at a pair."""

    title: ClassVar[str] = "Pair"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        # A patch arrives on the thread that read it, while somebody may be at a slider.
        self._painting = threading.RLock()
        self._asked = 0
        self._at: tuple[float, float] | None = None
        self._quiet = False
        self._front = True
        self._wrote: set[Path] = set()
        self.facts = self.note(NONE_READ)
        self.views = self.control(
            ipywidgets.Dropdown, "Show", lambda _: self.arrange(), options=[SWIPE, ONLY_S2, ONLY_S1]
        )
        self.choices: dict[str, ipywidgets.Dropdown] = {}
        self.stretches: dict[str, Stretch] = {}
        self.automatic: dict[str, ipywidgets.Button] = {}
        for key, sensor in SENSORS.items():
            text = f"Sentinel-{sensor[1]}"
            self.choices[key] = self.control(ipywidgets.Dropdown, text, self._of(key, self.choose), options=[])
            self.choices[key].layout.width = "230px"
            self.stretches[key] = Stretch(text=f"Stretch of {text}")
            self.listen(self.stretches[key], self._of(key, self.restretch), "limits")
            self.automatic[key] = self.button(
                "Auto", self._of(key, self.choose), tip=f"The stretch that suits this picture of {text}"
            )
        self.clouds = self.control(ipywidgets.Checkbox, "Clouds", lambda _: self.mark_clouds(), indent=False)
        self.clouds.tooltip = "What the scene classification calls cloud or shadow"
        self.clouds.layout.width = "auto"
        self.cloud_legend = Legend(fixed=True)
        self.inspect = self.control(ipywidgets.Checkbox, "Spectrum on click", value=True, indent=False)
        self.whole_year = self.control(ipywidgets.Checkbox, "and its year", value=True, indent=False)
        self.dates = self.control(ipywidgets.Dropdown, "Dates", options=list(DATES), value="12")
        for each in (self.inspect, self.whole_year):
            each.layout.width = "auto"
        self.dates.layout.width = "110px"
        self.dates.tooltip = "At most so many of each sensor"
        self.charts = PixelCharts(text="")
        self.listen(self.charts, self.pick, "picked")
        self.kind = self.control(ipywidgets.Dropdown, "Figure as", options=["png", "svg"])
        self.kind.layout.width = "150px"
        self.figure = self.button("Save figure", self.save_figure, tip="A figure of this pair, beside the notebook")
        self.link = ipywidgets.HTML()
        self.link.add_class("ds-note")
        self._shown = ipywidgets.VBox(
            [
                self.row(self.views, self.clouds),
                self.cloud_legend,
                self.row(self.choices["s2"], self.automatic["s2"]),
                self.stretches["s2"],
                self.row(self.choices["s1"], self.automatic["s1"]),
                self.stretches["s1"],
                self.row(self.inspect, self.whole_year, self.dates),
                self.charts,
                self.row(self.kind, self.figure),
                self.link,
            ]
        )
        self._shown.layout.display = "none"
        self.body.children = (self.facts, self._shown)
        self.at_end(canvas.on_click(self.guard(self.clicked)))
        self.watch("patch", self.show)
        self.watch("point", self._show_point)

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then a handle parts its pictures; other tabs lie on one of them."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        if changed and self.state["patch"] is not None:
            self.guard(self.arrange)()
            self.guard(self._cross)()

    # -- the pictures --------------------------------------------------------------------------------------------------

    def show(self, patch: Any) -> None:
        """A pair was read, or is gone."""
        with self._painting:
            self._forget_pixel()
            self._shown.layout.display = "none" if patch is None else None
            if patch is None:
                self.facts.value = NONE_READ
                for key in (*SENSORS, CLOUDS):
                    self.canvas.lift(key)
                return
            self.facts.value = told(patch)
            self.link.value = ""
            self._quiet = True
            try:
                for key, sensor in SENSORS.items():
                    offered = offered_of(patch, sensor)
                    names, before = [name for _, name in offered], self.choices[key].value
                    suits = [name for name in default_panels(patch) if name in names]
                    self.choices[key].options = offered
                    best = "s1" if "s1" in names else next(iter(suits or names), None)
                    self.choices[key].value = before if before in names else best
                    self.choices[key].disabled = not names
                both = all(self.choices[key].value for key in SENSORS)
                self.views.options = (
                    [SWIPE, ONLY_S2, ONLY_S1] if both else [ONLY_S2 if names_of(patch, "S2") else ONLY_S1]
                )
                self.clouds.disabled = "SCL" not in patch
            finally:
                self._quiet = False
            self.paint(dict.fromkeys(SENSORS))
            self.mark_clouds()
            self.charts.text = CLICK

    def choose(self, key: str) -> None:
        """Draw the chosen picture of a sensor, stretched as suits it."""
        if not self._quiet and self.state["patch"] is not None:
            self.paint({key: None})

    def restretch(self, key: str) -> None:
        """Draw it again with black and white as they are set."""
        if not self._quiet and self.state["patch"] is not None:
            self.paint({key: [(float(low), float(high)) for low, high in self.stretches[key].limits]})

    def paint(self, wanted: Mapping[str, list[tuple[float, float]] | None]) -> None:
        """Lay pictures of the sensors on the map, each with its own stretch or with what suits it (None)."""
        with self._painting:
            names = {key: self.choices[key].value for key in wanted}
            # Both at once: drawing and encoding leave Python to itself most of the time.
            with ThreadPoolExecutor(len(wanted)) as pool:
                tasks = {key: pool.submit(self._draw, name, wanted[key]) for key, name in names.items() if name}
            for key in wanted:
                if key not in tasks:
                    self.canvas.lift(key)
                    continue
                drawn, made, url = tasks[key].result()
                if self.state.keep(f"view_{key}", made):
                    self.canvas.lay_url(key, url, drawn.bounds)
                self._show_stretch(key, drawn)
            self.arrange()

    def _draw(self, name: str, limits: list[tuple[float, float]] | None) -> tuple[Overlay, Made, str]:
        if limits is None:
            drawn, made = self.state.compute("ds.overlay(patch, {name})", name=name)
        else:
            drawn, made = self.state.compute("ds.overlay(patch, {name}, limits={limits})", name=name, limits=limits)
        return drawn, made, drawn.url

    def _show_stretch(self, key: str, drawn: Overlay) -> None:
        """Where the sliders stand is how the picture is drawn."""
        self._quiet = True
        try:
            with self.stretches[key].hold_sync():
                self.stretches[key].channels = (
                    channels_of(self.state["patch"], drawn.panel.name) if drawn.limits else []
                )
                self.stretches[key].limits = [list(pair) for pair in drawn.limits]
            self.automatic[key].disabled = not drawn.limits
        finally:
            self._quiet = False

    def arrange(self) -> None:
        """Both sensors, apart at a handle, or one of them."""
        if self._quiet:
            return
        with self._painting:
            shown, held = self.views.value, set(self.canvas.pictures)
            if shown == SWIPE and self._front and set(SENSORS) <= held:
                for key in SENSORS:
                    self.canvas.fade(key, 1.0)
                if not self.canvas.swiped("s2", "s1"):
                    self.canvas.swipe("s2", "s1")
                return
            self.canvas.unswipe("s2")
            radar = shown == ONLY_S1 or "s2" not in held
            self.canvas.fade("s2", 0.0 if radar else 1.0)
            self.canvas.fade("s1", 1.0 if radar else 0.0)

    def mark_clouds(self) -> None:
        """Colour what SCL calls cloud and shadow, or stop it."""
        patch = self.state["patch"]
        with self._painting:
            if patch is None or not self.clouds.value or "SCL" not in patch:
                self.canvas.lift(CLOUDS)
                self.cloud_legend.clear()
                return
            drawn = self.state.do("view_clouds", "ds.overlay(patch, {name})", name=CLOUDS)
            self.canvas.lay(CLOUDS, drawn, opacity=CLOUD_OPACITY)
            self.cloud_legend.tell(drawn.panel, f"Clouds and shadows: {drawn.panel.notes[0]}")

    # -- one pixel -----------------------------------------------------------------------------------------------------

    def clicked(self, lon: float, lat: float) -> None:
        """Somebody clicked the map: show what the pair holds there at once, and then its year."""
        patch = self.state["patch"]
        if patch is None or not self.front or not self.inspect.value:
            return
        at = round(lon, 6), round(lat, 6)
        values = self.state.do("pixel", "ds.value_at(patch, {at})", at=at)
        with self._painting:
            self._asked += 1
            # The year of another pixel, that nobody sees any more.
            self.state.drop("point")
        self._at = at
        self.charts.spectra, self.charts.picked = [], ""
        if not values:
            self._forget_pixel()
            self.charts.text = f"{place_words(at)}: outside of the pair."
            return
        self._cross()
        with self.charts.hold_sync():
            self.charts.text = f"{place_words(at)}\n{pixel_words(values)}"
            self.charts.spectra = [{"text": f"This pair, {day_of(patch)}", "points": spectrum_of(values)}]
            self.charts.year = {"s2": [], "s1": []}
        if self.whole_year.value:
            self.read_year(at)

    def _cross(self) -> None:
        """Mark the pixel that was clicked, while its numbers are to be seen."""
        at = self._at
        if at is None or not self._front:
            self.canvas.erase("pixel")
        else:
            self.canvas.outline("pixel", cross_at(self.state["patch"], at), CROSS)

    def read_year(self, at: tuple[float, float]) -> None:
        """Read the pixel on other dates of the pair's year."""
        patch, asked, year = self.state["patch"], self._asked, day_of(self.state["patch"])[:4]
        if "src" not in self.state:
            raise InputError("The source is not open yet, so the year cannot be read.")

        def so_far(point: Any) -> None:
            with self._painting:
                if asked == self._asked and not self.closed and self.state["patch"] is patch:
                    self._show_point(point)

        # A click ends what was read for the one before, and nobody wants to hear of that, or of how it ended.
        def keep(name: str, made: Made) -> bool:
            with self._painting:
                return asked == self._asked and self.state.keep(name, made)

        def failed(error: BaseException) -> None:
            if asked == self._asked:
                self.complain(error)

        line = "ds.read_point(src, {at}, {start}, {end}, max_dates={dates}, like=patch)"
        hidden = {"on_read": so_far, "stop": lambda: asked != self._asked or self.closed}
        options: Any = {"at": at, "start": f"{year}-01-01", "end": f"{year}-12-31", "dates": DATES[self.dates.value]}
        text = f"Reading this pixel through {year}"
        self.run("point", line, hidden, text=text, keep=keep, failed=failed, **options)

    def pick(self, time: str) -> None:
        """Show the spectrum of another date beside the pair's."""
        mine = [each for each in self.charts.year["s2"] if each["time"] == time]
        if mine and self.charts.spectra:
            text = time.replace("T", " ") + " UTC"
            self.charts.spectra = [self.charts.spectra[0], {"text": text, "points": mine[0]["spectrum"]}]

    def _show_point(self, point: Any) -> None:
        if point is not None:
            self.charts.year = year_of(point)

    def _forget_pixel(self) -> None:
        self._asked += 1
        self._at = None
        self.canvas.erase("pixel")
        with self.charts.hold_sync():
            self.charts.text, self.charts.spectra, self.charts.picked = "", [], ""
            self.charts.year = {"s2": [], "s1": []}

    # -- to take away --------------------------------------------------------------------------------------------------

    def save_figure(self) -> None:
        """A figure of what is shown, as a link and beside the notebook, where files of others stay as they are."""
        names = [self.choices[key].value for key in SENSORS if self.choices[key].value]
        wanted = {ONLY_S2: names[:1], ONLY_S1: names[-1:]}.get(self.views.value, names)
        asked = Path(f"pair_{day_of(self.state['patch'])}.{self.kind.value}")
        path = free_path(asked, lambda each: each.exists() and whole(each) not in self._wrote)
        self._wrote.add(whole(path))
        line = "ds.show(patch, panels={panels})"
        self.run("figure", line, text="Drawing", then=lambda _: self._saved(asked, path), panels=wanted)

    def _saved(self, asked: Path, path: Path) -> None:
        target: Path = self.state.do("figure_file", "ds.save_figure(figure, {path})", path=str(path))
        if path != asked:
            self.say(f"The figure is in {path}. {asked} was there already, and stays as it is.")
        data = target.read_bytes()
        address = f"data:{MIME[target.suffix[1:]]};base64,{base64.b64encode(data).decode()}"
        name = html.escape(target.name)
        self.link.value = (
            f'<a download="{name}" href="{address}">Download {name}</a> ({len(data) / 1e6:.1f} MB), '
            f"also at {html.escape(str(target))}"
        )

    def close(self) -> None:
        """Take the pictures off the map, too."""
        if not self.closed:
            self._asked += 1
            self.canvas.erase("pixel")
            for key in (*SENSORS, CLOUDS):
                self.canvas.lift(key)
        super().close()

    def _of(self, key: str, do: Callable[[str], object]) -> Callable[..., object]:
        return lambda *_: None if self._quiet else do(key)
