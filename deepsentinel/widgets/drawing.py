"""Shapes drawn with the mouse: one of them is the area; a panel may take what is drawn for itself, such as labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipyleaflet
import traitlets

from .closing import close_all

Geometry = Mapping[str, Any]
Taken = Callable[[dict[str, Any]], object]
STYLE: Mapping[str, Any] = {
    "color": "#d55e00",
    "weight": 3,
    "fillColor": "#d55e00",
    "fillOpacity": 0.04,
    "className": "ds-area",
}


class Sketching(anywidget.AnyWidget):
    """Knows, from the page, whether a drawing tool is at work: clicks are corners then, and ask for nothing else."""

    _esm = Path(__file__).parent / "js" / "sketching.js"
    active = traitlets.Bool(False)

    def __init__(self) -> None:
        super().__init__()
        self.on_msg(self._told)

    def _told(self, _: Any, content: Any, __: Any) -> None:
        self.active = bool(content.get("active"))


class Drawing:
    """The drawing tools of a map. A map has room for one set of them: Leaflet tells each of all that is drawn.

    One shape stays on the map, the area; a new one takes its place. `mode` offers other tools while a panel takes what
    is drawn for itself.
    """

    def __init__(self, host: ipyleaflet.Map) -> None:
        self.map = host
        tool = {"shapeOptions": dict(STYLE)}
        # Not by `remove`: a host may close what it removes, and its own tools come back.
        self._before = tuple(host.controls)
        host.controls = tuple(each for each in self._before if not isinstance(each, ipyleaflet.leaflet.DrawControlBase))
        self.control = ipyleaflet.DrawControl(
            rectangle=tool, polygon={**tool, "allowIntersection": False}, polyline={}, circlemarker={}
        )
        self.sketching = Sketching()
        """It has to be on the page, anywhere within the box of the map."""
        self.area: dict[str, Any] | None = None
        """The geometry of the area as it is drawn now, in GeoJSON."""
        self.drawn: list[Callable[[dict[str, Any] | None], object]] = []
        """Called with the geometry of the area whenever a person drew, changed or deleted it."""
        self._takers: list[Taken] = []
        self._refused: Geometry | None = None
        self.control.on_draw(self._heard)
        self.control.observe(self._listed, "data")
        host.add(self.control)

    def show(self, geometry: Geometry | None) -> None:
        """Draw this area in place of the one there; nobody is told."""
        self.area = None if geometry is None else dict(geometry)
        self._keep_area()

    def refuse(self, geometry: Geometry | None) -> None:
        """Draw this area in place of what a person has drawn, or has made of it, just now; nobody is told."""
        self._refused = self.area
        self.show(geometry)

    def take(self, callback: Taken) -> Callable[[], None]:
        """Give what is drawn next (GeoJSON features) to this function, not to the area; returns what ends that."""
        self._takers.append(callback)

        def end() -> None:
            if callback in self._takers:
                self._takers.remove(callback)

        return end

    def close(self) -> None:
        """Take the tools away, and put a host's own back."""
        self.drawn.clear()
        self._takers.clear()
        self.control.unobserve_all()
        others = [each for each in self.map.controls if each is not self.control and each not in self._before]
        # What the host took away itself stays away; its drawing tools come back where they were.
        tools = ipyleaflet.leaflet.DrawControlBase
        stay = [each for each in self._before if each in self.map.controls or isinstance(each, tools)]
        self.map.controls = (*stay, *others)
        close_all(self.control, self.sketching)

    def _heard(self, _: Any, action: str, geo_json: dict[str, Any]) -> None:
        feature = {**geo_json, "geometry": home(geo_json["geometry"])}
        if self._takers and action == "created":
            self._takers[-1](feature)
            return
        self.area = None if action == "deleted" else feature["geometry"]
        for callback in list(self.drawn):
            callback(self.area)

    def _listed(self, change: Mapping[str, Any]) -> None:
        # What the page lists comes after what it told of a new shape: now others can be taken off.
        drawn = [home(each["geometry"]) for each in change["new"]]
        if len(drawn) > (self.area is not None) or self._refused in drawn:
            self._keep_area()

    def _keep_area(self) -> None:
        held = [] if self.area is None else [feature_of(self.area)]
        if self.control.data != held:
            self.control.data = held


def feature_of(geometry: Geometry) -> dict[str, Any]:
    """A geometry as Leaflet's drawing tools list it."""
    return {"type": "Feature", "properties": {"style": dict(STYLE)}, "geometry": dict(geometry)}


def home(geometry: Geometry) -> dict[str, Any]:
    """A drawn shape on the world between -180 and 180: who pans around the globe draws on copies of it.

    >>> home({"type": "Polygon", "coordinates": [[[362, 48], [363, 48], [363, 49], [362, 48]]]})["coordinates"][0][0]
    [2, 48]
    """
    if geometry["type"] != "Polygon":
        return dict(geometry)
    ring = [point[0] for point in geometry["coordinates"][0]]
    turns = 360 * round((min(ring) + max(ring)) / 720)
    moved = [[[lon - turns, lat] for lon, lat, *_ in each] for each in geometry["coordinates"]]
    return {**geometry, "coordinates": moved}


def plain(geometry: Geometry) -> tuple[float, float, float, float] | dict[str, Any]:
    """A drawn shape as somebody would write it: a box (west, south, east, north) where it is one, to 0.1 m.

    >>> plain({"type": "Polygon", "coordinates": [[[2, 48], [2, 48.5], [3, 48.5], [3, 48.0000000001], [2, 48]]]})
    (2, 48, 3, 48.5)
    """
    rings = [[(round(lon, 6), round(lat, 6)) for lon, lat, *_ in ring] for ring in geometry["coordinates"]]
    lons, lats = ({point[axis] for point in rings[0]} for axis in (0, 1))
    box = min(lons), min(lats), max(lons), max(lats)
    west, south, east, north = box
    corners = {(west, south), (west, north), (east, south), (east, north)}
    is_box = len(rings) == 1 and len(rings[0]) == 5 and set(rings[0]) == corners and len(corners) == 4
    return box if is_box else {"type": "Polygon", "coordinates": [[list(point) for point in ring] for ring in rings]}
