"""`show`: a figure worth a slide, of anything this package hands out.

A figure says by itself what it shows: which sensor, when, where, how large, which bands, whose data. Patches, their
masks and maps of embeddings are drawn here, series in `strips.py`, tables and areas in `timelines.py`, labels in
`labels.py`, class fractions and objects in `fractions.py` and `objects.py`, reports on labels in `reports.py`, those of
probes in `probes.py`; the pages and their marks are in `slides.py`, `sheets.py` and `listing.py`, the colours in
`stretch.py`, `masks.py` and `embeddings.py`, whom to credit in `credits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import sensor_of
from deepsentinel.contract import check_patch
from deepsentinel.errors import InputError

from . import corpus, credits, embeddings, fractions, masks, objects
from .corpus_layers import taken_apart
from .panels import default_panels
from .pictures import available, has_bands, picture_of
from .sheets import sheet
from .slides import apart, credit_of, day_words, metres_per_px, place, time_of, years_of
from .stretch import VIEWS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SHOWS = (
    "a patch (four panels)",
    "labels from read_labels, or any GeoDataFrame with a column ground_truth (by class, with shares of the area)",
    "masks, one layer of them, masks merged into a patch, and predictions (classes, conflicts, uncertainty)",
    "class fractions (the largest classes), and objects from boxes (their boxes and pixels)",
    "a dense embedding (its principal components), and clusters, likeness and change made of it",
    "a list of patches, masks and such maps of the same ground (side by side)",
    "a list of a patch, more of the above, and the results of a query (marked, with a piece of the patch around each)",
    "a series (a strip of dates for each sensor)",
    "one pixel through the year, from read_point (spectra, greenness, backscatter)",
    "objects that predict found, or a list of a patch and them (outlines, by themselves or on the picture)",
    "a scenes table (what there is, and how cloudy)",
    "a pairs table (what goes with what, and the gaps)",
    "a match rate (how many dates have a partner)",
    "parcel sizes (which window holds them)",
    "a label report (what is wrong, and where)",
    "a probe report, or one of ds.evaluate (what is told apart, and how well, beside controls)",
    "a table of ds.few_shot (classes never seen, by the number of examples)",
    "points or windows (on a map of the ground or of the world)",
    "a corpus, its card, its plan, or a list of its splits",
    "an area, a box or geometry in degrees, or a GeoBox (its outline and size)",
)
STYLE_GROUPS = frozenset({"axes", "figure", "font", "hatch", "lines", "patch", "text", "xtick", "ytick", "image"})


def show(obj: Any, *, panels: Sequence[str] | None = None, title: str | None = None, max_dates: int = 10) -> Figure:
    """A figure of a patch, masks, an embedding, a series, a table, a report or an area; `figure.savefig("a.png")`.

    `panels` (patch, masks, series) picks what is drawn: "natural", "false", "swir", "s1", the name of any band ("VV",
    "B08", "SCL", "angle") in grey or in its classes, or a layer of the masks ("class_map", "conflict", "coverage",
    "parcel_id", "distance", "overlap"). A list of the same ground, such as `[patch, masks, finer]` or `[patch, z]` with
    a dense embedding, is drawn side by side; with the results of a query in it (`[patch, index.query(...)]`) the best
    ones are marked. `title` replaces the headline. `max_dates` bounds the pictures in a strip of a series.

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
    obj, panels = taken_apart(obj, panels)
    obj = _whole(obj)
    if corpus.drawer_of(obj) is not None or objects.is_found(obj):
        pass
    elif isinstance(obj, (tuple, list)) and obj and all(_has_place(each) for each in obj):
        obj = [embeddings.as_layers(each) if embeddings.is_map(each) else each for each in obj]
    elif isinstance(obj, (tuple, list, dict)):  # a box or GeoJSON, as `search` takes them
        from deepsentinel.aoi import area

        _check_list(obj)
        obj = area(obj)
    draw, takes_panels, takes_dates = _drawer(obj)
    options: dict[str, Any] = {"title": title}
    if takes_panels:
        options["panels"] = panels
    elif panels is not None:
        raise InputError(
            f"panels= picks pictures of a patch, masks, fractions or a series; a {type(obj).__name__} has none."
            " Leave it out."
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
    from . import few_shots, labels, learning, places, points, predictions, probes, reports, strips, timelines

    of_corpora = corpus.drawer_of(obj)
    if of_corpora is not None:
        return of_corpora, False, False
    if predictions.is_prediction(obj):
        return predictions.prediction_figure, False, False
    columns = {str(name) for name in getattr(obj, "columns", ())}
    if fractions.is_fractions(obj):
        return fractions.fractions_figure, True, False
    if objects.is_objects(obj):
        return objects.objects_figure, False, False
    if objects.is_found(obj):
        return objects.found_figure, False, False
    if labels.is_labels(obj):
        return labels.labels_figure, False, False
    if isinstance(obj, (tuple, list)):
        return (_matches if any(map(embeddings.is_matches, obj)) else pictures_figure), True, False
    if points.is_point(obj):
        return points.point_figure, False, False
    if hasattr(obj, "data_vars"):
        series = {"s1_time", "s2_time"} & set(obj.dims)
        return (strips.series_figure, True, True) if series else (_one_figure, True, False)
    if places.is_places(obj):
        return places.places_figure, False, False
    if {"s1_time", "s2_time", "gap_hours"} <= columns:
        return timelines.pairs_figure, False, False
    if {"sensor", "time", "cloud_cover"} <= columns:
        return timelines.scenes_figure, False, False
    if hasattr(obj, "by_days") and hasattr(obj, "by_month"):
        return timelines.rate_figure, False, False
    if hasattr(obj, "outlines") and hasattr(obj, "counts"):
        return reports.report_figure, False, False
    if hasattr(obj, "probe") and hasattr(obj, "folds"):
        return probes.probe_figure, False, False
    if hasattr(obj, "measured") and hasattr(obj, "reliability"):
        return learning.report_of_learning, True, False
    if few_shots.is_few_shot(obj):
        return few_shots.few_shot_figure, False, False
    if hasattr(obj, "history") and hasattr(obj, "story"):
        return (lambda held, **how: learning.figure_of_history(held.history.reset_index(), **how)), False, False
    if embeddings.is_matches(obj):
        raise InputError("Results of a query are marked on the ground that was searched: ds.show([patch, results]).")
    if hasattr(obj, "window") and hasattr(obj, "table"):
        return reports.sizes_figure, False, False
    if hasattr(obj, "affine") and hasattr(obj, "extent"):
        return timelines.grid_figure, False, False
    if (hasattr(obj, "geom_type") and not columns) or hasattr(getattr(obj, "geometry", None), "geom_type"):
        return timelines.area_figure, False, False
    raise InputError(_unknown(obj, columns))


def _whole(obj: Any) -> Any:
    """A layer of masks as the Dataset it came from, also in a list; any other map becomes a list of one."""
    if isinstance(obj, (tuple, list)):
        return [masks.opened(_alone(each)) for each in obj]
    obj = masks.opened(_alone(obj))
    return [obj] if _is_layer(obj) else obj


def _alone(obj: Any) -> Any:
    """An embedding or class fractions that were written and opened again, out of the Dataset they are alone in."""
    held = [str(name) for name in obj.data_vars] if hasattr(obj, "data_vars") else []
    return obj[held[0]] if held in (["embedding"], ["class_fraction"]) else obj


def _check_list(obj: Any) -> None:
    """A list is of things that lie on the same ground, or four numbers; what else is in it is named."""
    if isinstance(obj, dict) or not any(_has_place(each) or hasattr(each, "columns") for each in obj):
        return
    number, odd = next((number, each) for number, each in enumerate(obj, start=1) if not _has_place(each))
    what = type(odd).__name__
    todo = "Show it by itself."
    if hasattr(odd, "columns") and hasattr(odd, "crs"):
        todo = "Labels are shown by themselves, show(labels), or burnt first: show([patch, rasterize(labels, patch)])."
    elif fractions.is_fractions(odd):
        what, todo = "class fractions", "They are shown by themselves: show(shares)."
    raise InputError(
        f"A list is drawn side by side, and may hold patches, masks or layers of them, and maps of embeddings, all of"
        f" the same ground; number {number} is of another kind ({what}). {todo}"
    )


def _unknown(obj: Any, columns: set[str]) -> str:
    todo = "Give it one of these."
    if columns:
        todo = f"A table is known by its columns, and this one has {', '.join(sorted(columns))[:300]}."
    return f"show does not know how to draw a {type(obj).__name__}. {todo} It draws: {'; '.join(SHOWS)}."


def _has_place(each: Any) -> bool:
    return hasattr(each, "data_vars") or _is_layer(each) or embeddings.is_matches(each)


def _is_layer(each: Any) -> bool:
    return embeddings.is_map(each) and not fractions.is_fractions(each)


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
        drawn = masks.is_masks(each) or embeddings.held_maps(each)
        masks.check_masks(each) if drawn and not has_bands(each) else check_patch(each)
    masks.check_same_ground(several)
    chosen = _chosen(several, panels, alone=len(several) == 1)
    patches = [each for each in several if has_bands(each)]
    labels = [each for each in several if masks.is_masks(each)]
    apart_words = credits.told_apart(
        labels, [masks.legend_of(each) if "class_map" in each else None for each in labels]
    )
    pictures = []
    for name, each in chosen:
        picture = picture_of(each, name)
        if name in masks.HEADINGS and len(labels) > 1 and not embeddings.is_embedded(each):
            which = next(words for words, one in zip(apart_words, labels, strict=True) if one is each)
            picture = replace(picture, heading=f"{picture.heading}, {which}")
        pictures.append(picture)
    first = several[0]
    maps = [each for name, each in chosen if name == "class_map"]
    return sheet(
        pictures,
        first.sizes["x"] / first.sizes["y"],
        metres_per_px(first)[1] * first.sizes["x"],
        headline=title or _told(several, headline, embeddings.map_headline, masks.masks_headline),
        subtitle=_ids(patches[0]) if patches else masks.masks_subtitle(labels) if labels else "",
        footer=place(first),
        credit=_told(several, _patch_credit, embeddings.map_credit, lambda _: credits.page_credit(*labels)),
        classes=masks.class_table(maps, imaginary=any(map(credits.imaginary, several))) if maps else None,
    )


def _matches(several: Sequence[Any], *, panels: Sequence[str] | None, title: str | None) -> Figure:
    """The results of one query, marked on everything that stands beside them."""
    found = [each for each in several if embeddings.is_matches(each)]
    grounds = [each for each in several if not embeddings.is_matches(each)]
    if len(found) > 1 or not grounds:
        raise InputError("Results of a query are shown one query at a time, with the patch: ds.show([patch, results]).")
    for each in grounds:
        masks.check_masks(each) if not has_bands(each) else check_patch(each)
    masks.check_same_ground(grounds)
    chosen = _chosen(grounds, panels, alone=False)
    pictures = [picture_of(each, name) for name, each in chosen]
    credit = _told(grounds, _patch_credit, embeddings.map_credit, credits.page_credit)
    return embeddings.matches_figure(found[0], pictures, [each for _, each in chosen], credit=credit, title=title)


def _chosen(
    several: Sequence[xr.Dataset], panels: Sequence[str] | None, *, alone: bool
) -> list[tuple[str, xr.Dataset]]:
    """Which pictures are drawn, and what each is made of."""
    if panels is None:
        return [(name, each) for each in several for name in _defaults(each, alone=alone)]
    names = [panels] if isinstance(panels, str) else list(panels)
    chosen = [(name, each) for name in names for each in several if name in available(each)]
    _check_names(names, {name for name, _ in chosen}, several)
    return chosen


def _told(several: Sequence[xr.Dataset], *who: Callable[[xr.Dataset], str]) -> str:
    """What is said of a page: of its first patch, else of what was made of an embedding, else of its masks."""
    for is_one, say in zip((has_bands, embeddings.is_embedded, masks.is_masks), who, strict=True):
        for each in several:
            if is_one(each):
                return say(each)
    return ""


def _patch_credit(patch: xr.Dataset) -> str:
    return credit_of(patch.attrs, years_of(patch))


def _defaults(each: xr.Dataset, *, alone: bool) -> list[str]:
    """What one Dataset is best shown as, and of several one picture each."""
    names = masks.default_layers(each) + embeddings.held_maps(each)
    if has_bands(each):
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


def headline(patch: xr.Dataset) -> str:
    """What a patch is in one line: the dates, and above all the time between the sensors.

    >>> import xarray as xr
    >>> headline(xr.Dataset(coords={"s2_time": np.datetime64("2018-07-04T10:57", "ns")}))
    'Sentinel-2 on 4 July 2018'
    """
    s1, s2 = (time_of(patch, sensor) for sensor in ("S1", "S2"))
    has = _sensors(patch)
    if s1 is not None and s2 is not None and has >= {"S1", "S2"}:
        gap_hours = float((s1 - s2) / np.timedelta64(1, "h"))
        order = "later" if gap_hours >= 0 else "earlier"
        return f"Sentinel-2 on {day_words(s2)}, Sentinel-1 {apart(gap_hours)} {order}"
    if s2 is not None and "S2" in has:
        return f"Sentinel-2 on {day_words(s2)}"
    if s1 is not None and "S1" in has:
        return f"Sentinel-1 on {day_words(s1)}"
    return " and ".join(name for key, name in (("S1", "Sentinel-1"), ("S2", "Sentinel-2")) if key in has)


def _sensors(patch: xr.Dataset) -> set[str]:
    """Of which sensors it has bands: one that was taken out is not told of, whatever its attributes still say."""
    told = {str(sensor_of(str(name))) for name in patch.data_vars} & {"S1", "S2"}
    return told or {"S1", "S2"}


def _ids(patch: xr.Dataset) -> str:
    has = _sensors(patch)
    keys = [key for key, sensor in (("s2_id", "S2"), ("s1_id", "S1")) if sensor in has]
    return "   ·   ".join(str(patch.attrs[key]) for key in keys if patch.attrs.get(key))
