"""`show`: a figure worth a slide, of anything this package hands out.

A figure says by itself what it shows: which sensor, when, where, how large, which bands, whose data. Patches and their
masks are drawn here, series in `strips.py`, tables and areas in `timelines.py`, reports on labels in `reports.py`; the
page and its marks are in `slides.py` and `sheets.py`, the colours in `stretch.py` and `masks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import S1_BANDS, sensor_of
from deepsentinel.contract import check_patch
from deepsentinel.errors import InputError

from . import masks
from .panels import Panel, default_panels, panel
from .sheets import sheet
from .slides import apart, credit_of, day_words, metres_per_px, minute, place, time_of, years_of
from .stretch import VIEWS, coarsen

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SHOWS = (
    "a patch (four panels)",
    "masks, by themselves or merged into a patch (classes, coverage, conflicts)",
    "a list of patches and masks of the same ground (side by side)",
    "a series (a strip of dates for each sensor)",
    "a scenes table (what there is, and how cloudy)",
    "a pairs table (what goes with what, and the gaps)",
    "a match rate (how many dates have a partner)",
    "parcel sizes (which window holds them)",
    "a label report (what is wrong, and where)",
    "an area, a box or geometry in degrees, or a GeoBox (its outline and size)",
)
# More pixels than this on a side are not visible in a panel, and slow the drawing down.
PANEL_MAX_PX = 1000
STYLE_GROUPS = frozenset({"axes", "figure", "font", "hatch", "lines", "patch", "text", "xtick", "ytick", "image"})


def show(obj: Any, *, panels: Sequence[str] | None = None, title: str | None = None, max_dates: int = 10) -> Figure:
    """A figure of a patch, masks, a series, a table, a report or an area. Save it with `figure.savefig("a.png")`.

    `panels` (patch, masks, series) picks what is drawn: "natural", "false", "swir", "s1", the name of any band ("VV",
    "B08", "SCL", "angle") in grey or in its classes, or a layer of the masks ("class_map", "conflict", "coverage",
    "parcel_id", "distance", "overlap"). A list of Datasets of the same ground, such as `[patch, masks, finer]`, is
    drawn side by side. `title` replaces the headline. `max_dates` bounds the pictures in a strip of a series.

    >>> import numpy as np, xarray as xr
    >>> from pyproj import CRS
    >>> patch = xr.Dataset(
    ...     {"VV": (("y", "x"), np.full((8, 8), -9, "float32"))},
    ...     coords={"y": 75.0 - 10 * np.arange(8), "x": 5.0 + 10 * np.arange(8), "spatial_ref": 0},
    ...     attrs={"backscatter": "sigma0"},
    ... )
    >>> patch["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> type(show(patch)).__mro__[1].__name__
    'Figure'
    """
    if isinstance(obj, (tuple, list)) and obj and all(hasattr(each, "data_vars") for each in obj):
        pass
    elif isinstance(obj, (tuple, list, dict)):  # a box or GeoJSON, as `search` takes them
        from deepsentinel.aoi import area

        obj = area(obj)
    draw, takes_panels, takes_dates = _drawer(obj)
    options: dict[str, Any] = {"title": title}
    if takes_panels:
        options["panels"] = panels
    elif panels is not None:
        raise InputError(
            f"panels= picks pictures of a patch or a series; a {type(obj).__name__} has none. Leave it out."
        )
    if takes_dates:
        if not isinstance(max_dates, int) or max_dates < 1:
            raise InputError(f"max_dates is {max_dates!r}; a strip shows at least one date, so give 1 or more.")
        options["max_dates"] = max_dates
    import matplotlib

    # A notebook's own style (dark, serif) would fight the page's fixed colours and sizes.
    style = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] in STYLE_GROUPS}
    with matplotlib.rc_context(style):
        return draw(obj, **options)


def _drawer(obj: Any) -> tuple[Callable[..., Figure], bool, bool]:
    """Who draws it, and whether panels and dates mean anything to it. Types are told by what they carry: no imports."""
    from . import reports, strips, timelines

    columns = {str(name) for name in getattr(obj, "columns", ())}
    if isinstance(obj, (tuple, list)):
        return pictures_figure, True, False
    if hasattr(obj, "data_vars"):
        series = {"s1_time", "s2_time"} & set(obj.dims)
        return (strips.series_figure, True, True) if series else (_one_figure, True, False)
    if {"s1_time", "s2_time", "gap_hours"} <= columns:
        return timelines.pairs_figure, False, False
    if {"sensor", "time", "cloud_cover"} <= columns:
        return timelines.scenes_figure, False, False
    if hasattr(obj, "by_days") and hasattr(obj, "by_month"):
        return timelines.rate_figure, False, False
    if hasattr(obj, "outlines") and hasattr(obj, "counts"):
        return reports.report_figure, False, False
    if hasattr(obj, "window") and hasattr(obj, "table"):
        return reports.sizes_figure, False, False
    if hasattr(obj, "affine") and hasattr(obj, "extent"):
        return timelines.grid_figure, False, False
    if (hasattr(obj, "geom_type") and not columns) or hasattr(getattr(obj, "geometry", None), "geom_type"):
        return timelines.area_figure, False, False
    raise InputError(f"show does not know how to draw a {type(obj).__name__}. It draws: {'; '.join(SHOWS)}.")


def _one_figure(obj: xr.Dataset, *, panels: Sequence[str] | None, title: str | None) -> Figure:
    return pictures_figure([obj], panels=panels, title=title)


def pictures_figure(several: Sequence[xr.Dataset], *, panels: Sequence[str] | None, title: str | None) -> Figure:
    """Patches, masks, or patches with masks in them: one, or several of the same ground side by side.

    >>> import numpy as np, xarray as xr
    >>> from pyproj import CRS
    >>> def classes(step):
    ...     at = np.arange(step / 2, 40, step)
    ...     cover = {"class_map": (("y", "x"), np.ones((at.size, at.size), "uint8"))}
    ...     made = xr.Dataset(cover, coords={"y": at[::-1], "x": 500_000 + at, "spatial_ref": 0})
    ...     made["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    ...     return made
    >>> fig = pictures_figure([classes(10), classes(2.5)], panels=None, title=None)
    >>> [text.get_text() for text in fig.texts if text.get_text().startswith("Classes,")]
    ['Classes, 10 m', 'Classes, 2.5 m']
    """
    for each in several:
        # What holds layers of a mask need not be a patch; anything else is told what it lacks.
        masks.check_masks(each) if masks.is_masks(each) and not _has_bands(each) else check_patch(each)
    masks.check_same_ground(several)
    names = [panels] if isinstance(panels, str) else None if panels is None else list(panels)
    if names is None:
        chosen = [(name, each) for each in several for name in _defaults(each, alone=len(several) == 1)]
    else:
        chosen = [(name, each) for name in names for each in several if name in available(each)]
        _check_names(names, {name for name, _ in chosen}, several)
    patches = [each for each in several if _has_bands(each)]
    labels = [each for each in several if masks.is_masks(each)]
    pictures = []
    for name, each in chosen:
        picture = masks.mask_panel(each, name) if name in masks.HEADINGS else patch_pictures(each, [name])[0]
        if name in masks.HEADINGS and len(labels) > 1:
            picture = replace(picture, heading=f"{picture.heading}, {metres_per_px(each)[1]:.3g} m")
        pictures.append(picture)
    first = several[0]
    maps = [each for name, each in chosen if name == "class_map"]
    return sheet(
        pictures,
        first.sizes["x"] / first.sizes["y"],
        metres_per_px(first)[1] * first.sizes["x"],
        headline=title or (headline(patches[0]) if patches else masks.masks_headline(labels[0])),
        subtitle=_ids(patches[0]) if patches else masks.masks_subtitle(labels),
        footer=place(first),
        credit=credit_of(patches[0].attrs, years_of(patches[0])) if patches else masks.page_credit(labels[0]),
        classes=masks.class_table(maps, imaginary=any(masks.imaginary(each) for each in several)) if maps else None,
    )


def _defaults(each: xr.Dataset, *, alone: bool) -> list[str]:
    """What one Dataset is best shown as, and of several one picture each."""
    names = masks.default_layers(each)
    if _has_bands(each):
        bands = default_panels(each)
        if names:  # one picture a sensor leaves room for two of the masks
            sensors = [VIEWS[name].sensor if name in VIEWS else sensor_of(name) for name in bands]
            bands = [bands[sensors.index(sensor)] for sensor in dict.fromkeys(sensors)]
            names = [name for name in names if name != "coverage"]
        names = bands + names
    return names if alone else names[:1]


def _check_names(names: Sequence[str], drawn: set[str], several: Sequence[xr.Dataset]) -> None:
    if not names:
        raise InputError("panels is empty; name at least one, such as 'natural' or 'VV', or leave it out.")
    missing = [name for name in names if name not in drawn]
    if missing:
        choices = dict.fromkeys(name for each in several for name in available(each))
        raise InputError(
            f"There is no panel {missing[0]!r} of {'this' if len(several) == 1 else 'these'}; there are"
            f" {', '.join(map(repr, choices))}."
        )


def _has_bands(each: xr.Dataset) -> bool:
    return any(sensor_of(str(name)) for name in each.data_vars)


def patch_pictures(patch: xr.Dataset, names: Sequence[str]) -> list[Panel]:
    """The panels of a patch that bear these names, with when they were taken below their headings.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({"VV": (("y", "x"), np.full((2, 2), -9, "float32"))}, attrs={"orbit": "ascending"})
    >>> patch_pictures(patch, ["VV"])[0].notes
    ('date not recorded', 'ascending')
    """
    small = coarsen(patch[_needed(patch, names)], PANEL_MAX_PX)
    pictures = [panel(small, name) for name in names]
    return [replace(picture, notes=tuple(_when(patch, picture.sensor))) for picture in pictures]


def available(each: xr.Dataset) -> list[str]:
    """The panels that can be drawn of a patch or of masks: views that its bands make, bands, and layers of masks.

    >>> import numpy as np, xarray as xr
    >>> available(xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))}))
    ['VV']
    """
    held = [str(name) for name in each.data_vars if sensor_of(str(name))]
    views = [view.name for view in VIEWS.values() if set(view.bands) <= set(held)]
    if {"HH", "HV"} <= set(held):  # the composite takes either pair
        views.append("s1")
    return [*views, *held, *(name for name in masks.HEADINGS if name in each.data_vars)]


def _needed(patch: xr.Dataset, names: Sequence[str]) -> list[str]:
    """The variables these panels are made of, and SCL, which tells the stretch where clouds are."""
    wanted = {"SCL", *(band for name in names for band in (VIEWS[name].bands if name in VIEWS else (name,)))}
    if "s1" in names:
        wanted |= {band for band in S1_BANDS if band in patch.data_vars}
    return [str(name) for name in patch.data_vars if name in wanted]


def headline(patch: xr.Dataset) -> str:
    """What a patch is in one line: the dates, and above all the time between the sensors.

    >>> import xarray as xr
    >>> headline(xr.Dataset(coords={"s2_time": np.datetime64("2018-07-04T10:57", "ns")}))
    'Sentinel-2 on 4 July 2018'
    """
    s1, s2 = (time_of(patch, sensor) for sensor in ("S1", "S2"))
    has = {sensor_of(str(name)) for name in patch.data_vars}
    if s1 is not None and s2 is not None:
        gap_hours = float((s1 - s2) / np.timedelta64(1, "h"))
        order = "later" if gap_hours >= 0 else "earlier"
        return f"Sentinel-2 on {day_words(s2)}, Sentinel-1 {apart(gap_hours)} {order}"
    if s2 is not None:
        return f"Sentinel-2 on {day_words(s2)}"
    if s1 is not None:
        return f"Sentinel-1 on {day_words(s1)}"
    return " and ".join(name for key, name in (("S1", "Sentinel-1"), ("S2", "Sentinel-2")) if key in has)


def _when(patch: xr.Dataset, sensor: str) -> list[str]:
    time = time_of(patch, sensor)
    parts = ["date not recorded" if time is None else minute(time)]
    attrs = patch.attrs
    if sensor == "S1":
        backscatter = {"gamma0_rtc": "gamma0 RTC"}.get(str(attrs.get("backscatter")), attrs.get("backscatter"))
        parts += [str(part) for part in (attrs.get("orbit"), backscatter) if part]
    else:
        baseline = f"baseline {attrs['baseline']}" if attrs.get("baseline") else None
        parts += [str(part) for part in (attrs.get("level"), baseline) if part]
    return parts


def _ids(patch: xr.Dataset) -> str:
    return "   ·   ".join(str(patch.attrs[key]) for key in ("s2_id", "s1_id") if patch.attrs.get(key))
