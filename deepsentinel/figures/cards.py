"""What a notebook shows of our objects when a cell ends with one: a small picture, what it is, and the rest folded.

    patch            # at the end of a cell: pictures of both sensors, dates, size; the Dataset itself below, folded

`card` makes the HTML. Importing deepsentinel inside IPython has it called for patches, masks, corpora, reports, and
tables of scenes and pairs; whatever is none of ours looks as it always did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.bands import S1_BANDS, S2_BANDS, SCL_CLOUDY, sensor_of
from deepsentinel.corpus.classes import label_names

from . import masks, slides
from .card_parts import PICTURE_PX, SMALL_PX, Facts, bars, framed, image_tag, known_days, legend, picture, scatter
from .corpus import is_corpus
from .corpus_parts import pictures_of
from .panels import Panel, default_panels
from .patches import headline
from .pictures import has_bands, picture_of
from .shares import class_shares
from .stretch import VIEWS, coarsen

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

# Pixels are read where that is quick; a whole scene on a disk is not.
MOST_PX = 4096**2


def card(obj: Any) -> str | None:
    """The HTML of a patch, masks, a corpus, a report, or a table of scenes or pairs; None for anything else.

    >>> import deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> pairs = ds.pair(src.search(src.area, "2018-06-01", "2018-06-30"), aoi=src.area, max_days=3)
    >>> made = card(src.read(pairs.iloc[0], ds.geobox(src.area)))
    >>> made.count("<img"), "natural colour" in made, card({"no": "thing of ours"})
    (2, True, None)
    """
    draw = drawer_of(obj)
    return None if draw is None else draw(obj)


def drawer_of(obj: Any) -> Callable[[Any], str] | None:
    """Who makes the card of this, if it has one; nothing is imported to find out.

    >>> drawer_of([1, 2]) is None
    True
    """
    if hasattr(obj, "data_vars"):
        if is_corpus(obj):
            return corpus_card
        flat = {"y", "x"} <= set(obj.dims) and set(obj.dims) <= {"y", "x"} and min(obj.sizes.values(), default=0) > 0
        return patch_card if flat and "spatial_ref" in obj.coords and (has_bands(obj) or masks.is_masks(obj)) else None
    columns = {str(name) for name in getattr(obj, "columns", ())}
    if {"s1_time", "s2_time", "gap_hours", "cloud_cover"} <= columns and len(obj):
        return pairs_card
    if {"sensor", "time", "cloud_cover"} <= columns and len(obj):
        return scenes_card
    return report_card if hasattr(obj, "measured") and hasattr(obj, "reliability") else None


def own_html(obj: Any) -> str | None:
    """What an object says of itself, without a card."""
    tell = getattr(obj, "_repr_html_", None)
    return None if tell is None else tell()


def card_or_own(obj: Any) -> str | None:
    """The card, or else what the object says of itself: what a notebook asks for.

    >>> card_or_own(3) is None
    True
    """
    try:
        made = card(obj)
    except Exception:  # a display must not hide the object because its picture failed
        made = None
    return own_html(obj) if made is None else made


# -- the kinds ---------------------------------------------------------------------------------------------------------


def patch_card(patch: xr.Dataset) -> str:
    """Of a patch, of masks, or of both together."""
    bands = [str(name) for name in patch.data_vars if sensor_of(str(name))]
    where, size, crs = slides.place(patch).split(" · ")
    facts: Facts = [("Where", f"{where}, {crs.removesuffix(', grid north is up')}"), ("Size", size)]
    attrs = patch.attrs
    if bands:
        facts.append(("Bands", ", ".join(name for name in bands if name in (*S2_BANDS, *S1_BANDS))))
        told = [str(attrs[name]) for name in ("level", "baseline", "orbit", "backscatter") if attrs.get(name)]
        facts.append(("Made as", ", ".join(told)))
    if is_lazy(patch) or patch.sizes["y"] * patch.sizes["x"] > MOST_PX:
        facts.append(("Pixels", "not read for this card"))
        return framed(headline(patch) if bands else "Masks", [], facts, own_html(patch), "The Dataset")
    if "SCL" in patch:
        codes = patch["SCL"].to_numpy()
        share = np.isin(codes, SCL_CLOUDY).sum() / max(1, (codes != 0).sum())
        facts.append(("Clouds, shadows", f"{100 * share:.0f} % of what was seen"))
    layers = [name for name in masks.default_layers(patch) if name != "coverage"] if masks.is_masks(patch) else []
    words = masks.masks_headline(patch) if masks.is_masks(patch) else ""
    if layers:
        facts += [("Masks", words if bands else ""), ("Labels", masks.masks_subtitle([patch]))]
    pictures = [picture(thin(patch, name), PICTURE_PX) for name in [*(shown(patch) if bands else []), *layers]]
    key = legend(class_shares(patch)) if "class_map" in patch else ""
    return framed(headline(patch) if bands else words, pictures, facts, own_html(patch), "The Dataset", key)


def corpus_card(corpus: xr.Dataset) -> str:
    """Of a corpus, from the table of its samples and a few of them."""
    status = corpus["status"].to_numpy().astype(str)
    good = int((status == "ok").sum())
    facts: Facts = []
    lost = [f"{int((status == name).sum()):,} {name}" for name in ("failed", "planned") if (status == name).any()]
    title = str(corpus.attrs.get("title") or "") or f"A corpus of {slides.counted(good, 'sample')}"
    facts.append(("Samples", ", ".join([f"{good:,} ready", *lost])))
    sides = [f"{corpus.sizes[name]:,}" for name in ("x", "y") if name in corpus.sizes]
    if len(sides) == 2 and "resolution" in corpus.attrs:
        facts.append(("Size", f"{' × '.join(sides)} px of {float(corpus.attrs['resolution']):g} m"))
    for sensor in ("s2", "s1"):
        if f"{sensor}_band" in corpus.coords:
            facts.append((sensor.upper(), ", ".join(map(str, np.atleast_1d(corpus[f"{sensor}_band"].to_numpy())))))
    if names := label_names(corpus):
        facts.append(("Labels", ", ".join(names)))
    if "s2_time" in corpus.coords:
        facts.append(("Dates", days_of(corpus["s2_time"].to_numpy())))
    path = str(corpus.attrs.get("path", ""))
    facts.append(("Where", path))
    # What lies far away is not fetched to be glanced at.
    near = good and "://" not in path and not is_lazy(corpus)
    pictures = []
    for column in pictures_of(corpus, 4, ("natural",)) if near else []:
        for _, image in column.images[:1]:
            pictures.append((image_tag(image, column.words[0], SMALL_PX), column.words[0]))
    return framed(title, pictures, facts, own_html(corpus), "The Dataset")


def pairs_card(pairs: pd.DataFrame) -> str:
    """Of a table of pairs: when they are, how cloudy, and how far apart."""
    gaps, clouds = np.abs(pairs["gap_hours"].to_numpy("float64")), pairs["cloud_cover"].to_numpy("float64")
    times = pairs["s2_time"].to_numpy("datetime64[ns]")
    middle, longest = (slides.apart(float(hours)) for hours in (np.median(gaps), gaps.max()))
    facts: Facts = [("Dates", days_of(times)), ("Time apart", f"{middle} in the middle, {longest} at most")]
    facts.append(("Clouds", percents(clouds)))
    if "overlap" in pairs.columns:
        facts.append(("Of the area", percents(100 * pairs["overlap"].to_numpy("float64"))))
    colours = ["#0072b2" if gap <= 24 else "#e69f00" if gap <= 72 else "#999999" for gap in gaps]
    drawn = scatter(list(zip(times, clouds, colours, strict=True)), f"Clouds of {len(pairs)} pairs over time")
    note = "Each dot a pair. Blue: at most a day apart, orange: three, grey: more."
    return framed(
        slides.counted(len(pairs), "pair"), [(drawn, note)], facts, own_html(pairs), "The table", folded=False
    )


def scenes_card(scenes: pd.DataFrame) -> str:
    """Of a table of scenes."""
    counts = scenes["sensor"].value_counts()
    facts: Facts = [("Dates", days_of(scenes["time"].to_numpy("datetime64[ns]")))]
    facts += [(f"Sentinel-{str(name)[1:]}", slides.counted(int(count), "scene")) for name, count in counts.items()]
    optical = scenes[scenes["sensor"] == "S2"]
    times, clouds = optical["time"].to_numpy("datetime64[ns]"), optical["cloud_cover"].to_numpy("float64")
    drawn = []
    if len(optical):
        facts.append(("Clouds", percents(clouds)))
        marks = [(time, cloud, "#0072b2") for time, cloud in zip(times, clouds, strict=True)]
        drawn = [(scatter(marks, "Clouds of Sentinel-2 over time"), "Each dot a scene of Sentinel-2.")]
    return framed(slides.counted(len(scenes), "scene"), drawn, facts, own_html(scenes), "The table", folded=False)


def days_of(times: np.ndarray) -> str:
    """From when to when, as far as it is known.

    >>> days_of(np.array(["2018-06-01", "NaT"], "datetime64[ns]"))
    '1 June 2018'
    """
    known = known_days(times)
    return slides.day_span(known.min(), known.max()) if known.size else "not told"


def percents(shares: np.ndarray) -> str:
    """From the lowest to the highest, or the one that all have.

    >>> percents(np.array([3.2, np.nan, 40.0]))
    '3 to 40 %'
    """
    known = shares[np.isfinite(shares)]
    if not known.size:
        return "not told"
    return " to ".join(dict.fromkeys(f"{end:.0f}" for end in (known.min(), known.max()))) + " %"


def report_card(report: Any) -> str:
    """Of a report: the model's score beside its controls, and everything else below."""
    metric, sensors = report.headline, next(iter(report.measured), None)
    lacks = f"PROVISIONAL, for it lacks {'; '.join(report.missing)}." if report.missing else ""
    facts: Facts = [(str(name), str(value)) for name, value in report.about.items()]
    drawn = []
    if sensors is not None:
        scores = report.scores(metric, sensors=sensors)
        drawn.append((bars(scores), "The line is the interval; blue is the model, grey its controls."))
    if told := report.standing():
        facts.insert(0, ("Beside the best control", told))
    title = f"{report.task}: {metric.replace('_', ' ')}"
    return framed(title, drawn, facts, own_html(report), "The whole report", warning=lacks)


def shown(patch: xr.Dataset) -> list[str]:
    """The first picture of each sensor.

    >>> import xarray as xr
    >>> bands = {name: (("y", "x"), np.zeros((2, 2), "float32")) for name in ("VV", "VH", "B08")}
    >>> shown(xr.Dataset(bands))
    ['B08', 'VV']
    """
    found: dict[str, str] = {}
    for name in default_panels(patch):
        found.setdefault(VIEWS[name].sensor if name in VIEWS else str(sensor_of(name)), name)
    return list(found.values())


def thin(patch: xr.Dataset, name: str) -> Panel:
    """One picture of it, made of few pixels."""
    if name in masks.HEADINGS:
        return picture_of(patch, name)
    bands = VIEWS[name].bands if name in VIEWS and name != "s1" else (name,)
    if name == "s1":
        bands = tuple(band for band in S1_BANDS if band in patch)
    held = [band for band in (*bands, "SCL") if band in patch]
    return picture_of(coarsen(patch[held], 2 * PICTURE_PX), name)


def is_lazy(data: xr.Dataset) -> bool:
    """Whether pixels are on dask, which may have to compute long for them."""
    return any(each.chunks is not None for each in data.variables.values())
