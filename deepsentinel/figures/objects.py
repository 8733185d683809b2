"""Objects to detect, and those that a model found: each with its outline in the colour of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

from . import credits, slides
from .listing import Entry, listed, map_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepsentinel.legend import Legend

# More boxes than this are drawn without a frame of their own: they would hide each other.
FRAMED = 2000
# The pixels are lighter than their box.
LIGHTER = 0.45
# Lines stand on a dark rim, so that they are seen on bright ground too.
LINE, RIM = 1.4, 3.0
COUNTED = "Classes and their number of objects"


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
        heading=COUNTED,
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


def is_found(obj: Any) -> bool:
    """Whether this is a table of what a model found, or a list of it and the patch that it looked at.

    >>> import geopandas as gpd
    >>> found = gpd.GeoDataFrame({"ground_truth": [], "name": [], "score": []}, geometry=[], crs="EPSG:32631")
    >>> is_found(found), is_found([found]), is_found(found.drop(columns="score"))
    (True, False, False)
    """
    if isinstance(obj, (tuple, list)):
        tables = [each for each in obj if is_found(each)]
        return len(obj) == 2 and len(tables) == 1 and any(hasattr(each, "data_vars") for each in obj)
    return {"ground_truth", "name", "score", "geometry"} <= set(getattr(obj, "columns", ()))


def found_figure(obj: Any, *, title: str | None) -> Figure:
    """What a model found, on the picture that it looked at, where that is given; else as labels are drawn.

    >>> import geopandas as gpd, shapely
    >>> columns = {"ground_truth": [7, 7], "name": ["barn"] * 2, "score": [0.9, 0.8]}
    >>> shapes = [shapely.box(0, 0, 80, 60), shapely.box(200, 0, 250, 40)]
    >>> found_figure(gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32631"), title=None).texts[0].get_text()
    '2 objects of 1 class by a model'
    """
    several = obj if isinstance(obj, (tuple, list)) else [obj]
    found = next(each for each in several if is_found(each))
    patch = next((each for each in several if hasattr(each, "data_vars")), None)
    if patch is not None:
        return _on_patch(found, patch, title)
    if not len(found):
        raise InputError("Nothing was found, so there is nothing to show; a lower least_score= in predict finds more.")
    return _alone(found, title)


def _alone(found: Any, title: str | None) -> Figure:
    """Outlines on white: what a model found has edges and a number, and is no share of any labelled ground."""
    from .labels import flat, place_of, view_of_shapes

    crs = flat(found)
    table = found.to_crs(crs)
    left, bottom, right, top = view_of_shapes(np.asarray(table.geometry.array, dtype=object))
    unit_m = crs.axis_info[0].unit_conversion_factor or 1.0
    wide_m, tall_m = (right - left) * unit_m, (top - bottom) * unit_m
    fig, axes = map_page(
        wide_m / tall_m,
        wide_m,
        headline=title or _headline(found, found),
        subtitle="outlines alone; ds.show([patch, objects]) draws them on the picture",
        footer=place_of(found, crs, wide_m, tall_m),
        # Whose pixels they are is known, but these are no labels of theirs.
        credit=slides.credit_of({"source": "demo"}, []) if credits.imaginary(found) else "deepsentinel",
        heading=COUNTED,
        entries=_counted(found, table),
    )
    _outlines(axes, found, table, rim=False)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    return fig


def _counted(found: Any, shown: Any) -> list[Entry]:
    """A line for each class with how many there are, the most frequent first."""
    colour = _colours(found)
    codes, counts = np.unique(shown["ground_truth"], return_counts=True)
    name = dict(zip(found["ground_truth"], found["name"], strict=True))
    entries = [
        Entry((colour[int(code)],), str(name[code]), n / max(len(shown), 1), f"{n:,}")
        for code, n in sorted(zip(codes, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
    ]
    return listed(entries, of_rest=lambda rest: f"{sum(int(e.number.replace(',', '')) for e in rest):,}")


def _outlines(axes: Axes, found: Any, table: Any, *, rim: bool) -> None:
    """The edges of objects in the colours of their classes; the rim is for pictures."""
    import shapely
    from matplotlib.collections import LineCollection

    colour = _colours(found)
    rings = [
        (shapely.get_coordinates(ring), code)
        for shape, code in zip(table.geometry, table["ground_truth"], strict=True)
        for part in shapely.get_parts(shape)
        for ring in (part.exterior, *part.interiors)
    ]
    if rings:
        lines = [line for line, _ in rings]
        shades = np.array([colour[int(code)] for _, code in rings]) / 255
        thin = 1.0 if len(rings) <= 200 else 0.5 if len(rings) <= FRAMED else 0.25
        if rim:
            axes.add_collection(LineCollection(lines, colors="#000000", alpha=0.55, linewidths=RIM * thin))
        axes.add_collection(LineCollection(lines, colors=shades, linewidths=LINE * thin))


def _colours(found: Any) -> dict[int, tuple[int, int, int]]:
    return {int(code): (r, g, b) for code, (r, g, b, *_) in _legend(found).color_table().items()}


def _headline(found: Any, shown: Any) -> str:
    """How many there are of what, by whom."""
    from .predictions import SENSORS

    seen = SENSORS.get(str(found.attrs.get("seen", found.attrs.get("sensors", ""))), "")
    who = f"{found.attrs.get('encoder', 'a model')}{', from ' if seen else ''}{seen}"
    kinds = f" of {slides.counted(shown['ground_truth'].nunique(), 'class')}" if len(shown) else ""
    return f"{slides.counted(len(shown), 'object')}{kinds} by {who}"


def _on_patch(found: Any, patch: Any, title: str | None) -> Figure:
    """Outlines on the picture that a person reads best."""
    import shapely

    from deepsentinel.contract import check_patch
    from deepsentinel.grids import bounds_of, crs_of, grid_of

    from .panels import default_panels
    from .pictures import patch_pictures

    check_patch(patch)
    names = default_panels(patch)
    grid = grid_of(patch)
    left, bottom, right, top = bounds_of(grid)
    table = found.to_crs(crs_of(grid))
    table = table[table.intersects(shapely.box(left, bottom, right, top))]
    if len(found) and not len(table):
        raise InputError("None of these objects lies on the ground of the patch: they were found elsewhere.")
    panel = patch_pictures(patch, names[:1])[0]
    fig, axes = map_page(
        (right - left) / (top - bottom),
        slides.metres_per_px(patch)[1] * patch.sizes["x"],
        headline=title or _headline(found, table),
        subtitle=f"on {panel.heading}, {panel.notes[0]}" if panel.notes else f"on {panel.heading}",
        footer=slides.place(patch),
        credit=slides.credit_of(patch.attrs, slides.years_of(patch)) if patch.attrs.get("source") else "deepsentinel",
        heading=COUNTED,
        entries=_counted(found, table),
    )
    axes.imshow(panel.image, aspect="auto", extent=(left, right, bottom, top), interpolation="nearest")
    _outlines(axes, found, table, rim=True)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    return fig


def _legend(found: Any) -> Legend:
    """The classes that a model tells apart, or those of its finds where the table came from a file."""
    from dataclasses import replace

    from deepsentinel.legend import Legend

    text = found.attrs.get("legend")
    if text and set(found["ground_truth"]) <= set((legend := Legend.from_json(text)).codes):
        return legend
    names = dict(zip(found["ground_truth"], found["name"], strict=True))
    plain = Legend.of_codes(found["ground_truth"].to_numpy("int64"))
    return replace(plain, classes=tuple(replace(each, name=str(names[each.code])) for each in plain))


def _ground(objects: Any) -> Any:
    """The grid as a Dataset, which knows its place."""
    import xarray as xr

    from deepsentinel.grids import grid_coords

    attrs = {"labels": objects.labels} if objects.labels else {}
    return xr.Dataset(coords=grid_coords(objects.geobox, None), attrs=attrs)
