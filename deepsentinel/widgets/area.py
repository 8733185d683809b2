"""The first tab: where, when and which. An area is drawn, scenes are found, a pair is chosen and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, ClassVar

import ipywidgets

import deepsentinel as ds
from deepsentinel.errors import InputError

from .canvas import Canvas
from .controls import Slider, Upload
from .drawing import plain
from .jobs import Jobs
from .panel import Panel
from .state import State
from .timeline import Timeline
from .uploads import OUTLINES, WORDS, held, spoken

# The demo world's summer; anything else begins with the last three months.
DEMO_DATES = (date(2018, 5, 1), date(2018, 8, 31))
LAST_DAYS = 90
# A pair of this size is read in seconds from files nearby; a larger one deserves a thought.
MUCH_BYTES = 300_000_000
# Of the square that fits a grid, what fits it as a square of the map at most latitudes.
ASKEW = 0.9
# Models look at windows of so many pixels at least.
FEW_PX = 32
MOST_PAIRS = 300
BASE_MAPS: Mapping[str, tuple[str, str] | None] = {
    "None (works offline)": None,
    "OpenStreetMap": (
        "https://tile.openstreetmap.org/{z}/{x}/{y}.png",
        "© OpenStreetMap contributors",
    ),
    "Sentinel-2 cloudless": (
        "https://tiles.maps.eox.at/wmts/1.0.0/s2cloudless-2020_3857/default/g/{z}/{y}/{x}.jpg",
        "Sentinel-2 cloudless 2020 by EOX (contains modified Copernicus Sentinel data 2020)",
    ),
}
FOOTPRINTS: Mapping[str, str] = {"S1": "#e69f00", "S2": "#0072b2"}
# Outlines that differ by less than about this are one on the map.
ABOUT_DEGREES = 0.01
HINT = "Draw a rectangle or a polygon with the tools on the map, or take:"


class AreaPanel(Panel):
    """Draw an area, find scenes, choose a pair, read it."""

    title: ClassVar[str] = "Area"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self._filling, self._front = False, True
        self.size = self.note("")
        self.warning = self.note("")
        self.warning.add_class("ds-warning")
        self.suggest = self.button("A good place", self.take_suggested, tip="The area this source suggests")
        self.clear = self.button("Clear", lambda: self.state.drop("aoi"), tip="Forget the area")
        self.upload = Upload(description="From a file …", accept=OUTLINES, tooltip=f"An outline from a file: {WORDS}")
        self.listen(self.upload, self.uploaded, "file")
        self.start = self.control(ipywidgets.DatePicker, "From", self._dates, value=None)
        self.end = self.control(ipywidgets.DatePicker, "to", self._dates, value=None)
        for picker in (self.start, self.end):
            picker.layout.width = "160px"
        self.cloud = Slider(description="Cloud at most", value=100, max=100, step=5, unit="%")
        self.gap = Slider(description="Gap at most", value=3, min=0.5, max=10, step=0.5, unit="days")
        self.listen(self.cloud, lambda _: self.search())
        self.listen(self.gap, lambda _: self.pair())
        self.timeline = Timeline()
        self.listen(self.timeline, self.picked, "picked")
        self.choice = ipywidgets.Select(options=[], rows=7, description="Pairs", layout={"width": "auto"})
        self.choice.style.description_width = "initial"
        for name in ("ds-list", "ds-pairs"):
            self.choice.add_class(name)
        self.listen(self.choice, self.chose, "index")
        self.read = self.button("Read this pair", self.read_pair, main=True)
        # An empty list asks for nothing but questions.
        for each in (self.choice, self.read):
            each.layout.display = "none"
        self.base = self.control(ipywidgets.Dropdown, "Online base map", self.put_base, options=list(BASE_MAPS))
        self.base.layout.width = "auto"
        self.footprints = self.control(
            ipywidgets.Checkbox, "Outlines of scenes", lambda _: self._outline(), value=True, indent=False
        )
        self.footprints.tooltip = "Sentinel-2 in blue, Sentinel-1 in orange"
        self.footprints.layout.width = "auto"
        self.body.children = (
            self.size,
            self.row(self.suggest, self.upload, self.clear),
            self.warning,
            self.row(self.start, self.end),
            self.row(self.cloud, self.gap),
            self.timeline,
            self.choice,
            self.row(self.read, self.footprints),
            self.base,
        )
        canvas.drawing.drawn.append(self.guard(self.drawn))
        for name, callback in (
            ("src", self._opened),
            ("aoi", self._placed),
            ("start", self._fill_dates),
            ("end", self._fill_dates),
            ("scenes", self._found),
            ("pairs", self._paired),
        ):
            self.watch(name, callback)
        if "aoi" not in state:
            self._placed(None)

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then the outlines of scenes cross the map."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        if changed and not self.closed:
            self.guard(self._outline)()

    # -- where ---------------------------------------------------------------------------------------------------------

    def drawn(self, geometry: dict[str, Any] | None) -> None:
        """A person drew, changed or deleted the area on the map."""
        if geometry is None:
            self.state.drop("aoi")
            return
        from deepsentinel.aoi import area

        try:
            with told_to_the_mouse():
                ds.geobox(plain(geometry))
        except InputError:
            # A slip of the mouse takes nothing away: the area that was there is drawn again, and what was made of it
            # stays.
            before = self.state["aoi"]
            self.canvas.drawing.refuse(None if before is None else area(before).__geo_interface__)
            raise
        self.state.put("aoi", plain(geometry))

    def place(self, obj: Any) -> None:
        """Make anything that outlines a place the area, and show it."""
        from deepsentinel.aoi import area

        found = area(obj)
        suggested = getattr(self.state["src"], "area", None)
        if isinstance(obj, type(found)) and suggested is not None and found.geometry.equals(area(suggested).geometry):
            self.take_suggested()  # one word in the cell, instead of all its corners
            return
        box = isinstance(obj, tuple | list)
        self.state.put("aoi", tuple(map(float, obj)) if box else dict(found.__geo_interface__))
        self.show_area()

    def take_suggested(self) -> None:
        """The area that the source suggests."""
        self.state.do("aoi", "src.area")
        self.show_area()

    def show_area(self) -> None:
        """Move the map to the area."""
        from deepsentinel.aoi import area

        west, south, east, north = area(self.state["aoi"]).bounds
        self.canvas.fit(((south, west), (north, east + 360 * (east < west))))

    def uploaded(self, file: Mapping[str, Any]) -> None:
        """An outline from a file."""
        if not file:
            return
        self.upload.file = {}
        with held(file) as path:
            # GeoJSON as text may be a bare geometry, which is no table.
            outline = path.read_text() if path.suffix.lower() in (".json", ".geojson") else path
            with told_to_the_mouse():
                ds.geobox(outline)
            self.place(outline)

    def _placed(self, aoi: Any) -> None:
        suggested = getattr(self.state["src"], "area", None) is not None
        self.suggest.layout.display = None if suggested else "none"
        self.clear.disabled = aoi is None
        self.warning.value = ""
        if aoi is None:
            self.size.value = HINT
            self.canvas.drawing.show(None)
            self.search()
            return
        from deepsentinel.aoi import area, patch_bytes

        found = area(aoi)
        self.canvas.drawing.show(found.__geo_interface__)
        words = f"{found.width_km:,.2f} × {found.height_km:,.2f} km, {found.area_km2:,.2f} km²"
        self.size.value = words
        # An area that is too large for one grid says so, in red.
        with told_to_the_mouse():
            grid = self.state.do("grid", "ds.geobox(aoi)")
        size = patch_bytes(grid)
        self.size.value = f"{words} · {grid.shape.x:,} × {grid.shape.y:,} pixels of 10 m · {spoken(size)} a pair"
        if size > MUCH_BYTES:
            self.warning.value = f"This is large: each pair takes {spoken(size)} of memory, and a while to read."
        elif min(grid.shape) < FEW_PX:
            self.warning.value = f"This is small: many models look at {FEW_PX} × {FEW_PX} pixels and more at a time."
        elif found.notes:
            self.warning.value = " ".join(found.notes)
        self.say()
        self.search()

    # -- when ----------------------------------------------------------------------------------------------------------

    def _opened(self, src: Any) -> None:
        if src is None:
            return
        if "start" not in self.state:
            today = date.today()
            first, last = DEMO_DATES if src.name == "demo" else (today - timedelta(days=LAST_DAYS), today)
            self.state.put("start", first.isoformat())
            self.state.put("end", last.isoformat())
        self.suggest.layout.display = None if getattr(src, "area", None) is not None else "none"
        self.search()

    def _dates(self, _: Any) -> None:
        if self._filling:
            return
        for name, picker in (("start", self.start), ("end", self.end)):
            if picker.value is None:
                raise InputError(f"There is no date in {picker.description!r}; give one.")
            if self.state[name] != picker.value.isoformat():
                self.state.put(name, picker.value.isoformat())
        self.search()

    def _fill_dates(self, _: Any) -> None:
        self._filling = True
        try:
            for name, picker in (("start", self.start), ("end", self.end)):
                if self.state[name] is not None:
                    picker.value = date.fromisoformat(str(self.state[name])[:10])
        finally:
            self._filling = False

    # -- which ---------------------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Find scenes, as soon as there is a source, an area and dates."""
        if not all(name in self.state for name in ("src", "grid", "start", "end")):
            self.jobs.stop("scenes")
            self.state.drop("scenes")
            return
        line, values = "src.search(aoi, start, end)", dict[str, Any]()
        if self.cloud.value < 100:
            line, values = "src.search(aoi, start, end, max_cloud={cloud})", {"cloud": whole(self.cloud.value)}
        self.state.drop("scenes")
        self.run("scenes", line, text="Looking for scenes", then=lambda _: self._pair(), **values)

    def pair(self) -> None:
        """Which Sentinel-1 goes with which Sentinel-2."""
        if "scenes" in self.state:
            self.say()
            self._pair()

    def _pair(self) -> None:
        # What went wrong while scenes were looked for, such as a file that is no outline, stays to be read.
        if "scenes" in self.state:
            self.state.do("pairs", "ds.pair(scenes, aoi=aoi, max_days={days})", days=whole(self.gap.value))

    def _found(self, scenes: Any) -> None:
        self.timeline.show(scenes, None)
        self._outline()

    def _outline(self) -> None:
        scenes, wanted = self.state["scenes"], self._front and self.footprints.value
        for sensor, colour in FOOTPRINTS.items():
            key = f"footprints {sensor}"
            some = None if scenes is None else outlines_of(scenes, sensor)
            if not wanted or some is None or some.empty:
                self.canvas.erase(key)
            else:
                self.canvas.outline(key, some, {"color": colour, "weight": 1.5, "opacity": 0.8, "fill": False})

    def _paired(self, pairs: Any) -> None:
        if pairs is not None:
            self.timeline.show(self.state["scenes"], pairs)
        rows = [] if pairs is None else [in_words(pair) for pair in pairs.head(MOST_PAIRS).to_dict("records")]
        self.choice.options = [(text, row) for row, text in enumerate(rows)]
        self.read.disabled = not rows
        for each in (self.choice, self.read):
            each.layout.display = None if rows else "none"
        if rows:
            self.choice.index = 0
            self.chose(0)
        elif pairs is not None:
            self.say(str(pairs.attrs.get("hint", "")) or "No pairs. A longer gap or more days may give some.")

    def chose(self, row: int | None) -> None:
        """A row of the list was chosen."""
        pairs = self.state["pairs"]
        if row is not None and pairs is not None and row < len(pairs):
            pair = pairs.iloc[row]
            self.timeline.choose((pair["s1_id"], pair["s2_id"]))

    def picked(self, scene: str) -> None:
        """A scene was chosen on the strip: its best pair is."""
        pairs = self.state["pairs"]
        if not scene or pairs is None:
            return
        mine = ((pairs["s1_id"] == scene) | (pairs["s2_id"] == scene)).to_numpy().nonzero()[0]
        if len(mine) and mine[0] < len(self.choice.options):
            self.choice.index = int(mine[0])

    def read_pair(self) -> None:
        """Read the chosen pair's pixels."""
        row = self.choice.index
        if row is None or "pairs" not in self.state:
            raise InputError("No pair is chosen yet.")
        self.run("patch", "src.read(pairs.iloc[{row}], grid)", text="Reading pixels", row=int(row))

    def put_base(self, name: str) -> None:
        """Lay map tiles from the internet under everything, or take them away."""
        chosen = BASE_MAPS[name]
        self.canvas.tiles(*(chosen or (None,)))

    def close(self) -> None:
        """Take the footprints and the area off the map, too."""
        if not self.closed:
            for sensor in FOOTPRINTS:
                self.canvas.erase(f"footprints {sensor}")
        super().close()


@contextmanager
def told_to_the_mouse() -> Iterator[None]:
    """Have an area that is too large for one grid told to who draws: its own words name arguments."""
    from deepsentinel.aoi import TooLargeError

    try:
        yield
    except TooLargeError as error:
        # A square on the map lies askew on the grid.
        fits_km = ASKEW * error.fits_km // 10 * 10
        raise InputError(
            f"The area is too large for one grid of pixels. Draw a smaller one: a square of {fits_km:.0f} km fits."
        ) from error


def outlines_of(scenes: Any, sensor: str) -> Any:
    """The outlines of a sensor's scenes, each once: those of one orbit differ by metres from pass to pass."""
    import pandas as pd
    import shapely

    some = scenes.loc[scenes["sensor"] == sensor, ["geometry"]]
    rounded = shapely.normalize(shapely.set_precision(some.geometry.to_numpy(), ABOUT_DEGREES))
    return some[~pd.Series(shapely.to_wkb(rounded)).duplicated().to_numpy()]


def in_words(pair: Mapping[str, Any]) -> str:
    """A pair in a line.

    >>> import pandas as pd
    >>> when = pd.Timestamp("2018-07-04T10:57:00Z")
    >>> in_words({"s2_time": when, "gap_hours": -5.25, "cloud_cover": 7.4, "orbit": "ascending"})
    '2018-07-04 · cloud 7 % · radar 5.2 h before, ascending'
    """
    gap, cloud, orbit = pair["gap_hours"], pair.get("cloud_cover"), pair.get("orbit")
    sky = f"cloud {cloud:.0f} %" if cloud is not None and cloud == cloud else "cloud not known"
    apart = f"{abs(gap):.1f} h" if abs(gap) < 48 else f"{abs(gap) / 24:.1f} days"
    radar = f"radar {apart} {'before' if gap < 0 else 'after'}" + (f", {orbit}" if orbit else "")
    return f"{pair['s2_time']:%Y-%m-%d} · {sky} · {radar}"


def whole(value: float) -> float | int:
    """3.0 as 3, so that it reads well in a line.

    >>> whole(3.0), whole(0.5)
    (3, 0.5)
    """
    return int(value) if float(value).is_integer() else float(value)
