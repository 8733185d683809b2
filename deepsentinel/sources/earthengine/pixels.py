"""Pixels of Earth Engine's images on exactly our grid: requests of the size that the service takes, as many at once as
it bears, and what it sends in the units of the Patch contract."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepsentinel.bands import DTYPES, S1_BANDS, S2_BANDS
from deepsentinel.errors import InputError, ReadError
from deepsentinel.sources.assets import AssetRef, Item
from deepsentinel.sources.harmonise import Quantity, remove_offset, to_db
from deepsentinel.sources.patience import STOPPED, reading_until
from deepsentinel.sources.plans import COARSE_M, Scene, angle_degrees, time_of

from .scenes import S1_COLLECTION, S1_POWER_COLLECTION, ee_band
from .session import Refusal, Session

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Array = NDArray[Any]

# One answer: so many bytes before they are packed, and so many pixels along a side.
MOST_BYTES = 48 * 2**20
MOST_SIDE_PX = 32768
# A tile this small that is still too large for the service's memory is not helped by being smaller.
LEAST_SIDE_PX = 64
# Where Earth Engine has nothing; no decibels, power, degrees, probabilities or unit vectors are anywhere near.
FLOAT_FILL = -9999.0
# How soon a reader whom nobody listens to any more notices.
POLL_S = 0.5
METHODS: Mapping[str, str | None] = {"nearest": None, "bilinear": "bilinear", "cubic": "bicubic"}


@dataclass(frozen=True)
class Beside:
    """A layer that tells of clouds, beside the bands of a Sentinel-2 scene."""

    name: str
    """What the patch calls it."""
    collection: str
    """Where it is; its images go by the names of the scenes."""
    band: str


CLOUDS: Mapping[str, Beside | None] = {
    "scl": None,
    "cloud-score": Beside("cloud_score", "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", "cs_cdf"),
    "s2cloudless": Beside("cloud_probability", "COPERNICUS/S2_CLOUD_PROBABILITY", "probability"),
}


@dataclass(frozen=True)
class Layers:
    """An image to be computed: what makes it, and the type of each band that comes back."""

    doing: str
    """What for, as it begins a message."""
    image: Callable[[Any], Any]
    """The client -> the image, its bands named as ours."""
    dtypes: Mapping[str, str]

    @property
    def bytes_per_px(self) -> int:
        """As the service counts: each band brings a byte of mask along."""
        return sum(np.dtype(dtype).itemsize + 1 for dtype in self.dtypes.values())


@dataclass(frozen=True)
class SceneLayers:
    """One scene: what to ask for, and what to make of it."""

    sensor: str
    item: Item
    layers: Layers
    attrs: Mapping[str, Any]
    quantity: Quantity = "db"

    def finish(self, arrays: Mapping[str, Array]) -> Scene:
        """What came back, in the units of the contract."""
        variables = {name: self._convert(name, values) for name, values in arrays.items()}
        return Scene(self.sensor, self.item["id"], time_of(self.item), variables, dict(self.attrs), self.item)

    def _convert(self, name: str, values: Array) -> Array:
        if name in S1_BANDS:
            return to_db(values.astype("float32", copy=False), self.quantity, nodata=FLOAT_FILL)
        if name == "angle":
            return angle_degrees(values, AssetRef(key=name, href=""), FLOAT_FILL)
        if name in S2_BANDS:
            return remove_offset(values.astype("uint16", copy=False), 0)
        if name in DTYPES:
            return values.astype(DTYPES[name], copy=False)
        return filled(values)


def filled(values: Array) -> Array:
    """float32 with NaN where there was nothing.

    >>> filled(np.array([0.5, -9999.0])).tolist()
    [0.5, nan]
    """
    plain = values.astype("float32")
    plain[plain == np.float32(FLOAT_FILL)] = np.nan
    return plain


# -- images ------------------------------------------------------------------------------------------------------------


def check_methods(asked: Mapping[str, str] | str | None) -> None:
    """Refuse how nothing is resampled there, before anything is asked for.

    >>> check_methods({"B04": "bilinear"})
    """
    for name, method in {"the pixels": asked}.items() if isinstance(asked, str) else (asked or {}).items():
        if method not in METHODS:
            raise InputError(
                f"resampling={method!r} of {name}: Earth Engine resamples on its side, by {', '.join(METHODS)}. For "
                "another method read on the scene's own 10 m grid and resample the patch."
            )


def methods_of(names: Sequence[str], asked: Mapping[str, str] | str | None) -> dict[str, str]:
    """How each band goes onto the grid, as far as Earth Engine can.

    >>> methods_of(["B04", "SCL"], "bilinear")
    {'B04': 'bilinear', 'SCL': 'nearest'}
    """
    methods = {}
    for name in names:
        # Angles are kept in cells of kilometres, and change evenly between them.
        usual = "bilinear" if name == "angle" else "nearest"
        method = asked if isinstance(asked, str) else (asked or {}).get(name, usual)
        methods[name] = "nearest" if name == "SCL" else method
    return methods


def s2_layers(name: str, collection: str, methods: Mapping[str, str], beside: Beside | None) -> Layers:
    """Bands of one Sentinel-2 scene, 0 where there is nothing; and what tells of its clouds."""

    def image(ee: Any) -> Any:
        scene = ee.Image(f"{collection}/{name}")
        parts = []
        for method, bands in _by_method(methods).items():
            part = _resampled(scene.select([ee_band(band) for band in bands], list(bands)), method)
            # What is valid is at least 1, as 0 says that there is nothing; so it is with the offset gone, too.
            part = part if bands == ["SCL"] else part.max(ee.Image(1))
            part = part.unmask(0, False)
            parts.append(part.toUint8() if bands == ["SCL"] else part.toUint16())
        pixels = ee.Image.cat(*parts)
        if beside is None:
            return pixels
        linked = scene.linkCollection(ee.ImageCollection(beside.collection), [beside.band])
        return pixels.addBands(linked.select([beside.band], [beside.name]).unmask(FLOAT_FILL, False).toFloat())

    dtypes = {band: DTYPES[band] for bands in _by_method(methods).values() for band in bands}
    if beside is not None:
        dtypes[beside.name] = "float32"
    return Layers(f"Scene {name}: reading it", image, dtypes)


def s1_layers(name: str, methods: Mapping[str, str], grid: GeoBox) -> tuple[Layers, Quantity]:
    """Bands of one Sentinel-1 scene, and what they are.

    Decibels as Earth Engine has them, where pixels are only copied. Where they are interpolated, or come from a
    coarser level of the image, they are asked for as power: the mean of decibels is not that of what was measured.
    """
    coarse = grid.crs is not None and (not grid.crs.projected or abs(grid.affine.a) >= COARSE_M)
    power = coarse or any(method != "nearest" for band, method in methods.items() if band in S1_BANDS)
    collection = S1_POWER_COLLECTION if power else S1_COLLECTION

    def image(ee: Any) -> Any:
        scene = ee.Image(f"{collection}/{name}")
        parts = [_resampled(scene.select(list(bands)), method) for method, bands in _by_method(methods).items()]
        return ee.Image.cat(*parts).unmask(FLOAT_FILL, False).toFloat()

    dtypes = {band: "float32" for bands in _by_method(methods).values() for band in bands}
    return Layers(f"Scene {name}: reading it", image, dtypes), "power" if power else "db"


def _by_method(methods: Mapping[str, str]) -> dict[str, list[str]]:
    """Bands that go the same way together; codes by themselves, as they are of another type."""
    groups: dict[str, list[str]] = {}
    for band, method in methods.items():
        groups.setdefault("codes" if band == "SCL" else method, []).append(band)
    return groups


def _resampled(image: Any, method: str) -> Any:
    mode = METHODS.get(method)
    return image if mode is None else image.resample(mode)


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Rows and columns of a grid."""

    top: int
    left: int
    rows: int
    columns: int

    def halves(self) -> list[Window]:
        """Two windows, cut across the longer side; itself where it is small enough to be given up."""
        if max(self.rows, self.columns) < 2 * LEAST_SIDE_PX:
            return [self]
        if self.rows >= self.columns:
            half = self.rows // 2
            return [
                Window(self.top, self.left, half, self.columns),
                Window(self.top + half, self.left, self.rows - half, self.columns),
            ]
        half = self.columns // 2
        return [
            Window(self.top, self.left, self.rows, half),
            Window(self.top, self.left + half, self.rows, self.columns - half),
        ]


def windows(shape: tuple[int, int], bytes_per_px: int) -> list[Window]:
    """A grid cut into as few windows as the limits of a request allow, alike in size.

    >>> windows((4000, 3000), 38)[:2]
    [Window(top=0, left=0, rows=1000, columns=1000), Window(top=0, left=1000, rows=1000, columns=1000)]
    """
    rows, columns = (int(size) for size in shape)
    most_px = max(1, MOST_BYTES // bytes_per_px)
    side = math.isqrt(most_px)
    # As near to squares as the grid lets them be: first how wide, beside a height that fits; then how high.
    height = math.ceil(rows / math.ceil(rows / side))
    across = math.ceil(columns / min(most_px // height, MOST_SIDE_PX))
    width = math.ceil(columns / across)
    down = math.ceil(rows / min(most_px // width, MOST_SIDE_PX))
    tops, lefts = (
        np.linspace(0, size, parts + 1).round().astype(int) for size, parts in ((rows, down), (columns, across))
    )
    return [
        Window(int(top), int(left), int(bottom - top), int(right - left))
        for top, bottom in pairwise(tops)
        for left, right in pairwise(lefts)
    ]


def grid_of(grid: GeoBox, window: Window) -> dict[str, Any]:
    """A window of a grid, as Earth Engine is told of it."""
    a, crs = grid.affine, grid.crs
    assert crs is not None
    return {
        "dimensions": {"width": window.columns, "height": window.rows},
        "affineTransform": {
            "scaleX": a.a,
            "shearX": 0,
            "translateX": a.c + a.a * window.left,
            "shearY": 0,
            "scaleY": a.e,
            "translateY": a.f + a.e * window.top,
        },
        **({"crsCode": f"EPSG:{crs.epsg}"} if crs.epsg else {"crsWkt": crs.to_wkt()}),
    }


@dataclass
class Job:
    """One image on one grid, under way: its arrays, as windows of them come in."""

    layers: Layers
    grid: GeoBox
    arrays: dict[str, Array] = field(default_factory=dict)
    parts: list[Future[None]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """What it holds when it is done."""
        rows, columns = self.grid.shape
        return int(rows) * int(columns) * self.layers.bytes_per_px

    def start(self, pool: ThreadPoolExecutor, session: Session, stop: threading.Event) -> Job:
        """Ask for all its windows."""
        shape = (int(self.grid.shape[0]), int(self.grid.shape[1]))
        self.arrays = {name: np.empty(shape, dtype) for name, dtype in self.layers.dtypes.items()}
        cut = windows(shape, self.layers.bytes_per_px)
        self.parts = [pool.submit(self._read, session, window, stop) for window in cut]
        return self

    def done(self, unwanted: Callable[[], bool]) -> dict[str, Array]:
        """The arrays, once they are whole; waiting ends early where nobody wants them any more."""
        for part in self.parts:
            while wait([part], timeout=POLL_S).not_done:
                if unwanted():
                    raise ReadError(STOPPED)
            part.result()
        return self.arrays

    def _read(self, session: Session, window: Window, stop: threading.Event) -> None:
        if stop.is_set():
            raise ReadError(STOPPED)
        try:
            with reading_until(stop.is_set):
                pixels = self._pixels(session, window)
        except Refusal as refusal:
            smaller = window.halves()
            if refusal.kind != "too large" or len(smaller) == 1:
                raise
            for part in smaller:
                self._read(session, part, stop)
            return
        rows = slice(window.top, window.top + window.rows)
        columns = slice(window.left, window.left + window.columns)
        for name, array in self.arrays.items():
            array[rows, columns] = pixels[name]

    def _pixels(self, session: Session, window: Window) -> Array:
        names = list(self.layers.dtypes)

        def ask(ee: Any) -> Array:
            found = ee.data.computePixels(
                {
                    "expression": self.layers.image(ee),
                    "fileFormat": "NUMPY_NDARRAY",
                    "bandIds": names,
                    "grid": grid_of(self.grid, window),
                }
            )
            if found.dtype.names is None or not set(names) <= set(found.dtype.names):
                raise ValueError(f"bands {found.dtype.names} instead of {names}")
            if found.shape != (window.rows, window.columns):
                raise ValueError(f"{found.shape} pixels instead of {(window.rows, window.columns)}")
            return np.asarray(found)

        return session.call(self.layers.doing, ask)
