"""Objects to detect: each with its box and its pixels in the colour of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import credits, slides
from .listing import Entry, listed, map_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More boxes than this are drawn without a frame of their own: they would hide each other.
FRAMED = 2000
# The pixels are lighter than their box.
LIGHTER = 0.45


def is_objects(obj: Any) -> bool:
    """Whether this is what `boxes` gives.

    >>> is_objects([1, 2])
    False
    """
    return all(hasattr(obj, name) for name in ("boxes", "instances", "geobox", "legend"))


def objects_figure(objects: Any, *, title: str | None) -> Figure:
    """All objects on their grid, with how many there are of each class.

    >>> import geopandas as gpd, shapely
    >>> from odc.geo.geobox import GeoBox
    >>> from deepsentinel.masks.objects import boxes
    >>> labels = gpd.GeoDataFrame({"ground_truth": [7]}, geometry=[shapely.box(0, 0, 80, 60)], crs="EPSG:32631")
    >>> fig = objects_figure(boxes(labels, GeoBox.from_bbox((0, 0, 100, 100), "EPSG:32631", resolution=10)), title=None)
    >>> fig.texts[0].get_text()
    '1 object of 1 class'
    """
    from matplotlib.collections import PolyCollection

    rows, columns = (int(side) for side in objects.geobox.shape)
    rgb = {code: np.array(entry[:3]) for code, entry in objects.legend.color_table().items()}
    codes, counts = np.unique(objects.classes, return_counts=True)
    entries = [
        Entry((tuple(rgb[int(code)]),), objects.legend.names[int(code)], n / max(len(objects), 1), f"{n:,}")
        for code, n in sorted(zip(codes, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
    ]
    ground = _ground(objects)
    step_m = slides.metres_per_px(ground)[1]
    kinds = slides.counted(len(codes), "class")
    fig, axes = map_page(
        columns / rows,
        columns * step_m,
        headline=title or f"{slides.counted(len(objects), 'object')} of {kinds}",
        subtitle="the box of each, and the pixels of which it covers half or more",
        footer=slides.place(ground),
        credit=credits.made_credit(ground, objects.legend),
        heading="Classes and their number of objects",
        entries=listed(entries, of_rest=lambda rest: f"{sum(int(e.number.replace(',', '')) for e in rest):,}"),
    )
    picture = np.full((rows, columns, 3), 255, "uint8")
    for index in np.argsort(-np.asarray(objects.area_px), kind="stable"):  # the small ones lie on top
        item, colour = objects.instances[index], rgb[int(objects.classes[index])]
        part = picture[item.top : item.top + item.mask.shape[0], item.left : item.left + item.mask.shape[1]]
        part[item.mask] = 255 - (255 - colour) * (1 - LIGHTER)
    axes.imshow(picture, aspect="auto", extent=(0, columns, rows, 0), interpolation="nearest")
    if len(objects):
        left, top, right, bottom = objects.boxes.astype("float64").T
        frames = np.stack([np.c_[left, top], np.c_[right, top], np.c_[right, bottom], np.c_[left, bottom]], axis=1)
        faces = np.array([rgb[int(code)] for code in objects.classes]) / 255
        width = 1.3 if len(objects) <= 200 else 0.8 if len(objects) <= FRAMED else 0.3
        axes.add_collection(PolyCollection(list(frames), facecolors="none", edgecolors=faces * 0.7, linewidths=width))
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    return fig


def _ground(objects: Any) -> Any:
    """The grid as a Dataset, which knows its place."""
    import xarray as xr

    from deepsentinel.grids import grid_coords

    attrs = {"labels": objects.labels} if objects.labels else {}
    return xr.Dataset(coords=grid_coords(objects.geobox, None), attrs=attrs)
