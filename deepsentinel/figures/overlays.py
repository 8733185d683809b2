"""Pictures that lie on a web map: `overlay` brings anything that `show` draws to the map's projection, as one image."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from deepsentinel.bands import SCL_CLASSES
from deepsentinel.errors import InputError
from deepsentinel.files import write_bytes
from deepsentinel.grids import crs_of, grid_of

from . import embeddings, masks, predictions
from .panels import Panel, default_panels, panel
from .pictures import available, has_bands, picture_of
from .stretch import coarsen, limits_of

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

WEB_MERCATOR = "EPSG:3857"
# A screen shows no more, and a browser takes long to decode more.
MAX_PX = 1024
# Cells of an embedding are squares of the ground, not of the map: they are drawn with corners that are seen.
CELLS_PX = 512
MOST_FINER = 16
# Speckle is most of a radar picture's bytes; at this quality nobody sees what is lost of it.
QUALITY = 85
# What SCL calls cloud and shadow, in colours that stand out from white clouds, for every kind of colour vision.
CLOUDS = "clouds"
CLOUD_COLOURS = {3: (0, 114, 178), 8: (230, 159, 0), 9: (213, 94, 0), 10: (86, 180, 233)}


@dataclass(frozen=True, eq=False)
class Overlay:
    """A picture that a web map can lay on the ground."""

    image: np.ndarray
    """uint8, shape (rows, cols, 4), in Web Mercator; clear where nothing is known."""
    bounds: tuple[tuple[float, float], tuple[float, float]]
    """(south, west), (north, east) in degrees, as Leaflet wants them."""
    panel: Panel
    """What it shows: heading, legend, scale."""
    exact: bool
    """Whether colours mean classes and must not be changed by compression."""
    limits: tuple[tuple[float, float], ...] = ()
    """Black and white of each channel, as `limits=` takes them; nothing for classes and shares."""

    def encoded(self) -> bytes:
        """The picture as WebP, without loss where colours mean classes."""
        from PIL import Image

        held = io.BytesIO()
        # Effort 0 takes a third of the time of the usual 4, for a few percent more bytes.
        Image.fromarray(self.image, "RGBA").save(held, "WEBP", quality=QUALITY, lossless=self.exact, method=0)
        return held.getvalue()

    @property
    def url(self) -> str:
        """The picture within its own address, so that no server is asked for it."""
        return "data:image/webp;base64," + base64.b64encode(self.encoded()).decode()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture, as WebP."""
        target = Path(path).expanduser()
        if target.suffix.lower() != ".webp":
            raise InputError(f"{target.name} would be a WebP picture; give it the ending .webp.")
        write_bytes(target, self.encoded())
        return target


def overlay(
    obj: Any,
    name: str | None = None,
    *,
    limits: Sequence[tuple[float, float]] | None = None,
    classes: Sequence[int] | None = None,
    max_px: int = MAX_PX,
) -> Overlay:
    """A patch, masks or a map of an embedding as a picture for a web map.

    name: the view ("natural", "false", "swir", "s1"), band or layer, as `panels` of `show`, "uncertainty" of a map of
    classes, or "clouds" for what SCL calls cloud and shadow, clear elsewhere; None: what suits it best.
    limits: black and white of each channel, see `figures.stretch.limits_of`. classes: the only codes of a class map
    that are drawn. max_px: the longer side of the picture.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> pairs = ds.pair(src.search(src.area, "2018-06-01", "2018-06-30"), aoi=src.area, max_days=3)
    >>> drawn = overlay(src.read(pairs.iloc[0], ds.geobox(src.area)), "false")
    >>> drawn.panel.heading, drawn.image.shape[2], drawn.url[:16]
    ('false colour', 4, 'data:image/webp;')
    """
    if max_px < 1:
        raise InputError(f"max_px={max_px!r}: a picture has at least one pixel.")
    layers = embeddings.as_layers(obj) if embeddings.is_map(obj) else obj
    choices = pictures(layers) if hasattr(layers, "data_vars") else []
    if not choices:
        raise InputError(
            f"A {type(obj).__name__} is nothing that lies on a map as a picture: patches, masks, dense embeddings, and "
            "maps made of these are."
        )
    if name is None:
        name = (default_panels(layers) if has_bands(layers) else choices)[0]
    if name not in choices:
        raise InputError(f"There is no picture {name!r} of this; there are {', '.join(map(repr, choices))}.")
    if classes is not None:
        layers = _only(layers, name, classes)
    drawn, used = _panel(layers, name, limits, max_px)
    exact = bool(drawn.keys) or name in masks.HEADINGS or name == CLOUDS
    cells = not has_bands(layers) and max(drawn.known.shape) < CELLS_PX
    image, bounds = warped(
        drawn.image, drawn.known, grid_of(layers), smooth=not exact and not cells, max_px=max_px,
        finer=min(MOST_FINER, CELLS_PX // max(drawn.known.shape)) if cells else 1,
    )  # fmt: skip
    return Overlay(image, bounds, drawn, exact, used)


def pictures(layers: xr.Dataset) -> list[str]:
    """What `overlay` can draw of this, by name.

    >>> import xarray as xr
    >>> pictures(xr.Dataset({"SCL": (("y", "x"), np.zeros((2, 2), "uint8"))}))
    ['SCL', 'clouds']
    """
    more = {CLOUDS: "SCL", predictions.UNCERTAINTY: predictions.UNCERTAINTY}
    return [*available(layers), *(name for name, of in more.items() if of in layers.data_vars)]


def outlines(labels: gpd.GeoDataFrame, like: Any) -> gpd.GeoDataFrame:
    """The shapes of labels that touch a grid, cut off at its edge, in degrees and no finer than its pixels.

    >>> import geopandas as gpd
    >>> from shapely import box
    >>> grid = GeoBox.from_bbox((500_000, 5_400_000, 500_640, 5_400_640), "EPSG:32631", resolution=10)
    >>> fields = gpd.GeoSeries([box(500_600, 5_400_000, 500_900, 5_400_100), box(0, 0, 9, 9)], crs="EPSG:32631")
    >>> outlines(fields.to_frame("geometry"), grid).total_bounds.round(4).tolist()
    [3.0082, 48.753, 3.0087, 48.7539]
    """
    import shapely

    grid = grid_of(like)
    box = shapely.box(*grid.boundingbox)
    shapes = labels[["geometry"]].to_crs(crs_of(grid))
    shapes = shapes[shapes.intersects(box)]
    cut = shapes.geometry.intersection(box).simplify(abs(grid.affine.a) / 2)
    return shapes.set_geometry(cut)[~cut.is_empty].to_crs("EPSG:4326")


def _only(layers: xr.Dataset, name: str, classes: Sequence[int]) -> xr.Dataset:
    if name != "class_map":
        raise InputError(f"classes= picks among the classes of a class map, not of {name!r}.")
    held = layers["class_map"]
    nothing = int(held.attrs.get("background", 0))
    some = held.where(held.isin(list(classes)), nothing).astype(held.dtype)
    return layers.assign(class_map=some.assign_attrs(held.attrs))


def _panel(
    layers: xr.Dataset, name: str, limits: Sequence[tuple[float, float]] | None, max_px: int
) -> tuple[Panel, tuple[tuple[float, float], ...]]:
    """The picture, and the stretch that it has."""
    if name == CLOUDS:
        return _clouds(coarsen(layers[["SCL"]], max_px)["SCL"].to_numpy()), ()
    if name in masks.HEADINGS or name in embeddings.HEADINGS:
        return picture_of(layers, name), ()
    if name == predictions.UNCERTAINTY:
        return predictions.doubt_panel(layers), ()
    small = coarsen(layers, max_px)
    if name in ("SCL", "angle"):
        return panel(small, name), ()
    used = tuple((float(low), float(high)) for low, high in limits or limits_of(small, name))
    return panel(small, name, used), used


def _clouds(codes: np.ndarray) -> Panel:
    table = np.zeros((256, 3), "uint8")
    for code, colour in CLOUD_COLOURS.items():
        table[code] = colour
    known = np.isin(codes, list(CLOUD_COLOURS))
    present = [code for code in CLOUD_COLOURS if (codes == code).any()]
    keys = tuple((CLOUD_COLOURS[code], SCL_CLASSES[code].removesuffix(" probability")) for code in present)
    share = known.sum() / max((codes != 0).sum(), 1)
    notes = (f"{100 * share:.0f} % of what was seen",)
    return Panel(CLOUDS, "S2", "clouds and shadows", table[codes], known, keys=keys, notes=notes)


def warped(
    image: np.ndarray, known: np.ndarray, grid: GeoBox, *, smooth: bool, max_px: int, finer: int = 1
) -> tuple[np.ndarray, tuple[tuple[float, float], tuple[float, float]]]:
    """(picture with its fourth channel, bounds) in Web Mercator, of a picture that covers a grid.

    finer: pixels of the result beside each other in one of the picture, so that turned squares keep their shape.

    >>> grid = GeoBox.from_bbox((500_000, 5_400_000, 500_640, 5_400_640), "EPSG:32631", resolution=10)
    >>> white = np.full((64, 64, 3), 255, "uint8")
    >>> picture, ((south, west), (north, east)) = warped(white, np.ones((64, 64), bool), grid, smooth=True, max_px=1024)
    >>> round(south, 2), round(west, 2), bool(picture[32, 32].all())
    (48.75, 3.0, True)
    """
    from rasterio.enums import Resampling
    from rasterio.warp import reproject, transform_bounds

    rows, cols = known.shape
    a, _, c, _, e, f, *_ = grid.affine
    affine = Affine(a * grid.shape.x / cols, 0, c, 0, e * grid.shape.y / rows, f)
    crs = crs_of(grid)
    west, south, east, north = transform_bounds(crs, WEB_MERCATOR, *grid.boundingbox, densify_pts=21)
    scale = finer * max(rows, cols) / max(east - west, north - south)
    width, height = (max(1, min(max_px, round(side * scale))) for side in (east - west, north - south))
    target = Affine((east - west) / width, 0, west, 0, -(north - south) / height, north)
    out = np.zeros((4, height, width), "uint8")
    common = {"src_transform": affine, "src_crs": crs, "dst_transform": target, "dst_crs": WEB_MERCATOR}
    bands = np.concatenate([np.moveaxis(image, -1, 0), (known * np.uint8(255))[None]])
    how = Resampling.bilinear if smooth else Resampling.nearest
    reproject(bands, out, resampling=how, num_threads=2, **common)
    # What is known is never smeared over its edge: half of a pixel makes it one, and colours beyond it are not seen.
    out[3] = np.where(out[3] >= 128, 255, 0)
    left, bottom, right, top = transform_bounds(WEB_MERCATOR, "EPSG:4326", west, south, east, north)
    return np.ascontiguousarray(np.moveaxis(out, 0, -1)), ((bottom, left), (top, right))
