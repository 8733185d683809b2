"""The map under everything: pictures in panes of their own, outlines, swipe, clicks. Panels know nothing of Leaflet."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import ipyleaflet

from deepsentinel.errors import InputError

from .closing import close_all
from .drawing import Drawing
from .swipe import Swipe

if TYPE_CHECKING:
    # Only the type: a first map does not wait for what pictures are made with.
    from deepsentinel.figures.overlays import Overlay

# What lies on what; all below 400, where Leaflet draws shapes, so that no picture hides what a person drew.
PANES: Mapping[str, int] = {
    "world": 230,
    "tiles": 240,
    "base": 250,
    "s2": 300,
    "s1": 310,
    "clouds": 320,
    "masks": 330,
    "masks_fine": 331,
    "embedding": 340,
    "likeness": 350,
    "prediction": 360,
    "doubt": 370,
}
Method = TypeVar("Method", bound=Callable[..., Any])
At = Callable[[float, float], object]
Bounds = tuple[tuple[float, float], tuple[float, float]]
# Leaflet's world is this wide at zoom 0; the size of a map that nobody has seen yet is a guess.
TILE_PX = 256
GUESSED_PX = (560, 480)
MAX_ZOOM = 17
# A layer taken off stays open for so long: were it closed while the page makes it, others would be lost with it.
LINGER_S = 5.0
OUTLINE: Mapping[str, Any] = {"color": "#d55e00", "weight": 2, "fillOpacity": 0}
# Points are circles of this many pixels: Leaflet's own pins are pictures that have to be fetched.
POINT: Mapping[str, Any] = {"radius": 6}


def pane_of(key: str) -> str:
    """What Leaflet calls the pane of a picture: hosts have panes of their own.

    >>> pane_of("s1")
    'deepsentinel-s1'
    """
    if key not in PANES:
        raise InputError(f"There is no layer {key!r}; there are {', '.join(PANES)}.")
    return f"deepsentinel-{key}"


def view_of(bounds: Bounds, size_px: tuple[int, int]) -> tuple[tuple[float, float], float]:
    """Centre (lat, lon) and zoom of a map of this many pixels that shows (south, west), (north, east).

    >>> view_of(((48.0, 2.0), (48.1, 2.1)), (560, 480))
    ((48.050024, 2.05), 12.0)
    """
    (south, west), (north, east) = bounds
    mercator = [math.asinh(math.tan(math.radians(max(-85.0, min(85.0, lat))))) for lat in (south, north)]
    # Shares of the world's width, which is 2 pi wide in these units; 5 % of a margin.
    shares = ((east - west) / 360 * 1.05, (mercator[1] - mercator[0]) / (2 * math.pi) * 1.05)
    zooms = [math.log2(side / (TILE_PX * share)) for side, share in zip(size_px, shares, strict=True) if share > 0]
    zoom = math.floor(min([MAX_ZOOM, *zooms]))
    middle = math.degrees(math.atan(math.sinh((mercator[0] + mercator[1]) / 2)))
    return (round(middle, 6), round((west + east) / 2, 6)), float(max(0, zoom))


def one_at_a_time(method: Method) -> Method:
    """Panels draw from the threads of their jobs too, and Leaflet's list of layers is one list for all of them."""

    @wraps(method)
    def alone(self: Canvas, *args: Any, **kwargs: Any) -> Any:
        with self._drawing:
            return method(self, *args, **kwargs)

    return cast(Method, alone)


class Canvas:
    """A Leaflet map, ours or that of a host such as geemap, with at most one picture a pane."""

    def __init__(
        self, host: ipyleaflet.Map | None = None, *, center: tuple[float, float] = (0, 0), zoom: float = 12
    ) -> None:
        self._drawing = threading.RLock()
        panes = {pane_of(key): {"zIndex": height} for key, height in PANES.items()}
        self.hosted = host is not None
        self._hosts_own = None if host is None else (dict(host.panes), host.layout.height)
        if host is None:
            # An empty tuple: the usual base layer would ask the internet.
            host = ipyleaflet.Map(layers=(), center=center, zoom=zoom, panes=panes, scroll_wheel_zoom=True)
            host.add(ipyleaflet.ScaleControl(position="bottomleft", imperial=False))
        else:
            host.panes = {**host.panes, **panes}
        self.map = host
        self.pictures: dict[str, ipyleaflet.ImageOverlay] = {}
        self.shapes: dict[str, ipyleaflet.Layer] = {}
        self._swipe: ipyleaflet.WidgetControl | None = None
        self._base: ipyleaflet.Layer | None = None
        self._gone: list[tuple[float, ipyleaflet.Layer]] = []
        self._heard: dict[str, list[At]] = {"click": [], "mousemove": []}
        self.drawing = Drawing(host)
        host.on_interaction(self._interaction)

    def lay(self, key: str, drawn: Overlay, *, opacity: float = 1.0) -> None:
        """Put a picture into its pane, in place of the one there."""
        self.lay_url(key, drawn.url, drawn.bounds, opacity=opacity)

    @one_at_a_time
    def lay_url(self, key: str, url: str, bounds: Bounds, *, opacity: float = 1.0) -> None:
        """The same for a picture that is encoded already."""
        held = self.pictures.get(key)
        if held is not None and tuple(map(tuple, held.bounds)) == bounds:
            # The layer stays, so that a new stretch does not flicker.
            held.url, held.opacity = url, opacity
            return
        self._remove(key)
        layer = ipyleaflet.ImageOverlay(url=url, bounds=bounds, pane=pane_of(key), opacity=opacity, name=key)
        self.pictures[key] = layer
        self.map.add(layer)

    @one_at_a_time
    def lift(self, key: str) -> None:
        """Take a picture away, if there is one; what was swiped with it is whole again."""
        self.unswipe(key)
        self._remove(key)

    @one_at_a_time
    def fade(self, key: str, opacity: float) -> None:
        """Make a picture more or less clear."""
        if key in self.pictures:
            self.pictures[key].opacity = opacity

    @one_at_a_time
    def outline(self, key: str, shapes: Any, style: Mapping[str, Any] = OUTLINE) -> None:
        """Draw a table with geometries, or anything with a `__geo_interface__`, in place of what had this name.

        With an empty style each row has its own, in the column `style`.
        """
        self.erase(key)
        table = shapes.to_crs(4326) if hasattr(shapes, "to_crs") else shapes
        data = json.loads(table.to_json()) if hasattr(table, "to_json") else table.__geo_interface__
        self.shapes[key] = ipyleaflet.GeoJSON(data=data, style=dict(style), point_style=dict(POINT), name=key)
        self.map.add(self.shapes[key])

    @one_at_a_time
    def erase(self, key: str) -> None:
        """Take an outline away, if there is one."""
        layer = self.shapes.pop(key, None)
        if layer is not None:
            self._take_off(layer)

    @one_at_a_time
    def tiles(self, url: str | None, attribution: str = "") -> None:
        """Map tiles of a service on the internet under all pictures, or none of them: only ever at somebody's wish."""
        if self._base is not None:
            self._take_off(self._base)
            self._base = None
        if url is not None:
            self._base = ipyleaflet.TileLayer(url=url, attribution=attribution, pane=pane_of("tiles"), max_zoom=19)
            self.map.add(self._base)

    @one_at_a_time
    def swipe(self, left: str, right: str) -> None:
        """Show one picture left of a handle and another right of it; they may change while they are swiped."""
        for key in (left, right):
            if key not in self.pictures:
                raise InputError(f"There is no picture {key!r} on the map to swipe.")
        if self._swipe is None:
            self._swipe = ipyleaflet.WidgetControl(widget=Swipe(), position="bottomright", transparent_bg=True)
            self.map.add(self._swipe)
        with self._swipe.widget.hold_sync():
            self._swipe.widget.left, self._swipe.widget.right = pane_of(left), pane_of(right)

    def swiped(self, left: str, right: str) -> bool:
        """Whether it is these two that a handle parts."""
        handle = None if self._swipe is None else self._swipe.widget
        return handle is not None and (handle.left, handle.right) == (pane_of(left), pane_of(right))

    @one_at_a_time
    def unswipe(self, of: str | None = None) -> None:
        """Both pictures whole again; with a name, only if that one is swiped."""
        handle = None if self._swipe is None else self._swipe.widget
        if handle is None or (of is not None and pane_of(of) not in (handle.left, handle.right)):
            return
        # The handle stays, hidden: a control that comes and goes leaves errors in the page.
        with handle.hold_sync():
            handle.left = handle.right = ""

    def fit(self, bounds: Bounds) -> None:
        """Show this ground, as large as it fits; longitudes go on beyond 180 where it crosses that."""
        centre, zoom = view_of(bounds, self.size_px())
        with self.map.hold_sync():
            self.map.center, self.map.zoom = centre, zoom

    def size_px(self) -> tuple[int, int]:
        """Width and height of the map on the screen, or a guess before it is on one."""
        (left, top), (right, bottom) = self.map.pixel_bounds or ((0, 0), (0, 0))
        width, height = abs(right - left), abs(bottom - top)
        # Before a map is shown, its bounds are nonsense.
        return (round(width), round(height)) if 0 < width < 1e5 and 0 < height < 1e5 else GUESSED_PX

    def on_click(self, callback: At) -> Callable[[], None]:
        """Call a function with (lon, lat) at each click on the map; returns what ends that."""
        return self._listen("click", callback)

    def on_hover(self, callback: At) -> Callable[[], None]:
        """The same for each move of the pointer."""
        return self._listen("mousemove", callback)

    @one_at_a_time
    def close(self) -> None:
        """Take everything of ours off the map, and the map away unless it is a host's."""
        self.unswipe()
        if self._swipe is not None:
            if self._swipe in self.map.controls:
                self.map.remove(self._swipe)
            close_all(self._swipe)
            self._swipe = None
        self.tiles(None)
        self.drawing.close()
        for key in list(self.pictures):
            self.lift(key)
        for key in list(self.shapes):
            self.erase(key)
        self._sweep(math.inf)
        for callbacks in self._heard.values():
            callbacks.clear()
        self.map.on_interaction(self._interaction, remove=True)
        if self._hosts_own is None:
            close_all(self.map)
        else:
            self.map.panes, self.map.layout.height = self._hosts_own

    def _remove(self, key: str) -> None:
        layer = self.pictures.pop(key, None)
        if layer is not None:
            self._take_off(layer)

    def _take_off(self, layer: ipyleaflet.Layer) -> None:
        if layer in self.map.layers:
            self.map.remove(layer)
        now = time.monotonic()
        self._gone.append((now, layer))
        self._sweep(now - LINGER_S)

    def _sweep(self, before: float) -> None:
        """Close the layers that went before this time: a page that is still drawing one must not find it closed."""
        for _, layer in [each for each in self._gone if each[0] <= before]:
            close_all(layer)
        self._gone = [each for each in self._gone if each[0] > before]

    def _listen(self, kind: str, callback: At) -> Callable[[], None]:
        self._heard[kind].append(callback)

        def end() -> None:
            if callback in self._heard[kind]:
                self._heard[kind].remove(callback)

        return end

    def _interaction(self, **told: Any) -> None:
        if told.get("coordinates") is None:
            return
        if told.get("type") == "click" and self.drawing.sketching.active:
            return
        lat, lon = told["coordinates"]
        for callback in list(self._heard.get(str(told.get("type")), ())):
            # Longitudes go on beyond 180 where somebody pans around the world.
            callback((lon + 180) % 360 - 180, lat)
