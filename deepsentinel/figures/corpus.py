"""Figures of corpora: what one holds, what a plan will cost, where splits lie; and the card that `describe` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.corpus.classes import CLASS_MAP, label_names
from deepsentinel.corpus.describe import CorpusCard, corpus_card
from deepsentinel.errors import InputError
from deepsentinel.files import atomic_path, write_text
from deepsentinel.legend import Legend

from . import credits, slides
from .corpus_map import sample_map
from .corpus_parts import bars_of_classes, channel_boxes, class_keys, histogram, month_bars, pictures_of, strip
from .slides import BLUE, FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN, SKY, VERMILION
from .views import view_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

IMAGINARY = "Imaginary demo world"
SPLIT_COLOURS = (BLUE, ORANGE, VERMILION, slides.GREEN, "#cc79a7", SKY)
EXAMPLES, STRIP = 6, 9
# For its picture the pixels of so many samples are counted, in a second or so; the card counts more.
LOOKED_AT = 200
# Splits of more samples than this are drawn without being measured.
MEASURED = 50_000
MAP_IN, CHARTS_IN, TOP_IN, ROW_IN = 6.0, 7.15, 0.32, 3.0


def is_corpus(obj: Any) -> bool:
    """Whether this is a corpus, or a part of one.

    >>> import xarray as xr
    >>> is_corpus(xr.Dataset(coords={"status": ("sample", ["ok"]), "lon": ("sample", [0.0])}))
    True
    """
    return hasattr(obj, "data_vars") and "sample" in obj.dims and {"status", "lon"} <= set(obj.coords)


def drawer_of(obj: Any) -> Callable[..., Figure] | None:
    """Who draws this, if it is of a corpus: the corpus itself, its card, a plan, or a list of splits.

    >>> drawer_of("something else") is None
    True
    """
    if is_corpus(obj):
        return corpus_figure
    if isinstance(obj, list | tuple) and len(obj) > 1 and all(map(is_corpus, obj)):
        return splits_figure
    if hasattr(obj, "samples") and hasattr(obj, "cost") and hasattr(obj, "settings"):
        return plan_figure
    return card_figure if isinstance(obj, CorpusCard) else None


def describe(
    corpus: xr.Dataset, out: str | os.PathLike[str] | None = None, *, splits: Sequence[xr.Dataset] | None = None,
    max_samples: int | None = 1000, seed: int = 0, progress: bool = True,
) -> CorpusCard:  # fmt: skip
    """The card of a corpus: what it holds in numbers, and with `out` a folder with the card as a page and figures.

    The folder then has `README.md`, which GitHub and Hugging Face show as the dataset's page, `card.json` with all the
    numbers, and the figures `overview.png`, `examples.png` and, where `splits` are given, `splits.png`. Pixels are
    counted of at most `max_samples` samples, drawn with `seed`; None counts all. `ds.show(card)` draws it.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid], crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> path = tempfile.mkdtemp() + "/corpus.zarr"
    >>> report = ds.build_corpus(plan, path, progress=False)
    >>> describe(ds.open_corpus(path), progress=False).facts["samples"]
    1
    """
    folder = None if out is None else _free(Path(out).expanduser())
    card = corpus_card(corpus, splits=splits, max_samples=max_samples, seed=seed, progress=progress)
    legends = [Legend.from_attrs(corpus[name + CLASS_MAP].attrs) for name in label_names(corpus)]
    whose = credits.credit_of_legends([legend for legend in legends if legend is not None])
    if whose and IMAGINARY not in str(card.facts.get("credits")):
        card.facts["credits"] = "; ".join(filter(None, (str(card.facts.get("credits") or ""), whose)))
    if folder is not None:
        _save(card, corpus, splits, folder)
    return card


def _free(folder: Path) -> Path:
    """The folder, if a card may be written there: nobody else's page is replaced."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a card is a folder. Name a new one.")
    for name in ("card.json", "README.md"):
        if (folder / name).exists() and not _is_card(folder / "card.json"):
            raise InputError(f"{folder} holds a {name} that is not a card's; name a new folder, such as {folder}/card.")
    return folder


def _is_card(path: Path) -> bool:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and {"facts", "channels", "counted"}.issubset(told)


def _save(card: CorpusCard, corpus: xr.Dataset, splits: Sequence[xr.Dataset] | None, folder: Path) -> None:
    import matplotlib

    from .patches import STYLE_GROUPS

    # As `show` does: nobody's own style.
    style = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] in STYLE_GROUPS}
    with matplotlib.rc_context(style):
        figures = {"overview.png": _overview(card, corpus), "examples.png": examples_figure(corpus)}
        if splits is not None:
            figures["splits.png"] = splits_figure(splits)
        for name, fig in figures.items():
            with atomic_path(folder / name) as temporary:
                fig.savefig(temporary, format="png")
    pages = card.to_markdown().split("\n\n", 1)
    shown = "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name in figures)
    write_text(folder / "card.json", json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n")
    # The page last: where it is, all that it shows is there too.
    write_text(folder / "README.md", f"{pages[0]}\n\n{shown}\n\n{pages[1]}")


def corpus_figure(corpus: xr.Dataset, *, title: str | None = None) -> Figure:
    """What a corpus holds: where, when, how clear, of which classes, and what it looks like."""
    return _overview(corpus_card(corpus, max_samples=LOOKED_AT, progress=False), corpus, title=title)


def card_figure(card: CorpusCard, *, title: str | None = None) -> Figure:
    """The same from its card alone, without examples."""
    return _overview(card, None, title=title)


def _overview(card: CorpusCard, corpus: xr.Dataset | None, *, title: str | None = None) -> Figure:
    facts = card.facts
    labels = list(card.classes)
    pictures = [] if corpus is None else pictures_of(corpus, STRIP, ("natural", "VV"))
    strip_in = 1.75 if pictures else 0.0
    fig = slides.page(
        HEAD_IN + TOP_IN + ROW_IN + 0.55 + 2.5 + 0.35 + strip_in + FOOT_IN,
        title or _headline(card),
        _subtitle(card),
        footer=f"Pixels {card.basis}" + (f" · deepsentinel {facts['version']}" if "version" in facts else ""),
        credit=_credit(card, corpus),
    )
    sample_map(fig, card.lon, card.lat, MARGIN_IN, HEAD_IN, MAP_IN, TOP_IN + ROW_IN, size_m=card.size_m)
    wide_in = PAGE_WIDTH_IN - MARGIN_IN - CHARTS_IN
    month_bars(fig, card.months, card.counted["of"], CHARTS_IN, HEAD_IN, wide_in, 1.15)
    half_in = (wide_in - 0.55) / 2
    below_in = HEAD_IN + TOP_IN + 1.15 + 0.75
    if sum(card.clouds):
        histogram(fig, "Cloud cover of the scene, %", card.clouds, CHARTS_IN, below_in, half_in, 0.95, of="clouds")
    if sum(card.gaps):
        left_in = CHARTS_IN + half_in + 0.55
        histogram(fig, "Time between the sensors", card.gaps, left_in, below_in, half_in, 0.95, of="gaps")
    second_in = HEAD_IN + TOP_IN + ROW_IN + 0.55
    if labels:
        bars_of_classes(fig, labels[0], card.classes[labels[0]], MARGIN_IN, second_in, MAP_IN)
    channel_boxes(fig, card.channels, CHARTS_IN, second_in, wide_in, 2.1)
    if pictures:
        strip(fig, pictures, second_in + 2.85)
    return fig


def _headline(card: CorpusCard) -> str:
    facts, good = card.facts, card.counted["of"]
    title = "" if card.title == "A corpus" else card.title
    # What build_corpus calls a corpus begins with their number.
    named = title.startswith(f"{good:,} ")
    words = title if named else slides.counted(good, "sample")
    if facts.get("places", good) != good:
        words += f" at {slides.counted(facts['places'], 'place')}"
    if facts.get("failed"):
        words += f", {facts['failed']:,} failed"
    return f"{title}: {words}" if title and not named else words


def _subtitle(card: CorpusCard) -> str:
    facts = card.facts
    parts = [str(facts[name]) for name in ("sources", "Sentinel-2 dates") if name in facts]
    parts.append(f"{facts['ground, km2']:,.0f} km² of ground" if facts["ground, km2"] >= 10 else "")
    parts += [f"{facts['seen by several sources']:,} twins"] if facts.get("seen by several sources") else []
    return slides.fitting([part for part in parts if part], PAGE_WIDTH_IN - 2 * MARGIN_IN, 10)


def _credit(card: CorpusCard, corpus: xr.Dataset | None) -> str:
    sources = {name.split(" (")[0] for name in str(card.facts.get("sources", "")).split(", ")}
    seed = {} if corpus is None or "world_seed" not in corpus.attrs else {"seed": corpus.attrs["world_seed"]}
    if sources == {"demo"}:
        return slides.credit_of({"source": "demo", **seed}, [])
    return f"{card.facts.get('credits') or 'Source not recorded'} · deepsentinel"


def examples_figure(corpus: xr.Dataset, *, title: str | None = None) -> Figure:
    """Some samples as pictures: natural colour, radar, and the classes of the first label."""
    columns = pictures_of(corpus, EXAMPLES, ("natural", "VV", "classes"))
    rows = max((len(column.images) for column in columns), default=0)
    if not rows:
        raise InputError("None of these samples has pixels that can be drawn; look at corpus.status and corpus.reason.")
    side_in = (PAGE_WIDTH_IN - 2 * MARGIN_IN - 0.15 * (EXAMPLES - 1)) / EXAMPLES
    words = title or f"{len(columns)} of {slides.counted(corpus.sizes['sample'], 'sample')}"
    shown = "Rows: " + ", ".join(name for name, _ in max(columns, key=lambda column: len(column.images)).images)
    subtitle = f"{shown} · spread evenly over the corpus, the clearest of each part"
    keys_in = 0.3 if any(column.classes for column in columns) else 0.0
    height_in = HEAD_IN + rows * (side_in + 0.12) + 0.5 + keys_in + FOOT_IN
    fig = slides.page(height_in, words, subtitle, credit=_credit(corpus_facts(corpus), corpus))
    for number, column in enumerate(columns):
        left_in = MARGIN_IN + number * (side_in + 0.15)
        for row, (_, image) in enumerate(column.images):
            axes = slides.bare(slides.axes_in(fig, left_in, HEAD_IN + row * (side_in + 0.12), side_in, side_in))
            axes.imshow(image, aspect="auto", interpolation="nearest")
        for line, text in enumerate(column.words):
            y = 1 - (HEAD_IN + rows * (side_in + 0.12) + 0.08 + 0.19 * line) / height_in
            fig.text(left_in / PAGE_WIDTH_IN, y, text, size=8, color=INK if not line else FAINT, va="center")
    if keys_in:
        class_keys(fig, columns, HEAD_IN + rows * (side_in + 0.12) + 0.6)
    return fig


def corpus_facts(corpus: xr.Dataset) -> CorpusCard:
    """A card of the table alone: no pixel is read."""
    return corpus_card(corpus.drop_vars(list(corpus.data_vars)), max_samples=1, progress=False)


def save_plan(plan: Any, folder: str | os.PathLike[str]) -> Path:
    """The plan in a folder, as `plan.save` writes it, and its picture beside it.

    >>> import tempfile, geopandas as gpd, deepsentinel as ds
    >>> src = ds.open_source("demo", size_px=256)
    >>> points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid], crs="EPSG:4326")
    >>> plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=64)
    >>> (save_plan(plan, tempfile.mkdtemp() + "/plan") / "plan.png").exists()
    True
    """
    from .patches import show

    target: Path = plan.save(folder)
    with atomic_path(target / "plan.png") as temporary:
        show(plan).savefig(temporary, dpi=150, format="png")
    return target


def plan_figure(plan: Any, *, title: str | None = None) -> Figure:
    """Where the samples of a plan are to be, and what building them will take."""
    from deepsentinel.corpus.cost import cost_table, duration, size

    lines = cost_table(plan)
    lon, lat = (plan.samples[name].to_numpy("float64") for name in ("lon", "lat"))
    headline = title or f"A plan for {slides.counted(len(plan.samples), 'sample')}"
    if plan.cost.hours is not None and not title:
        headline += f": {size(plan.cost.store_gb)} in {duration(plan.cost.hours)}"
    when = f"{plan.settings['start']} to {plan.settings['end']}"
    fig = slides.page(
        HEAD_IN + 5.4 + FOOT_IN, headline, f"{', '.join(plan.settings['sources'])} · {when}",
        footer=f"plan {plan.fingerprint}", credit="deepsentinel",
    )  # fmt: skip
    if len(lon):
        size_m = float(plan.settings["size_px"]) * float(plan.settings["resolution"])
        sample_map(fig, lon, lat, MARGIN_IN, HEAD_IN, 6.8, 5.2, size_m=size_m)
    height, left_in, top_in = fig.get_figheight(), MARGIN_IN + 7.3, HEAD_IN + 0.15
    letters = int((PAGE_WIDTH_IN - MARGIN_IN - left_in - 1.25) / 0.083)
    for name, value in lines:
        parts = _wrapped(value, letters)
        fig.text(left_in / PAGE_WIDTH_IN, 1 - top_in / height, name, size=9.5, color=FAINT, va="center")
        for part in parts:
            fig.text((left_in + 1.25) / PAGE_WIDTH_IN, 1 - top_in / height, part, size=10, color=INK, va="center")
            top_in += 0.24
        top_in += 0.14
    return fig


def _wrapped(text: str, letters: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, letters)[:6] or [""]


def splits_figure(splits: Sequence[xr.Dataset], *, title: str | None = None) -> Figure:
    """Where the splits of a corpus lie, how large each is, and how far apart they are."""
    from matplotlib.colors import to_rgb

    from deepsentinel.corpus.audit import audit_splits

    notes = [dict(part.attrs.get("split") or {}) for part in splits]
    names = [str(note.get("name", f"split {number}")) for number, note in enumerate(notes)]
    counts = [part.sizes["sample"] for part in splits]
    total = sum(counts)
    lon, lat = (np.concatenate([part[name].to_numpy() for part in splits]) for name in ("lon", "lat"))
    colours = [SPLIT_COLOURS[number % len(SPLIT_COLOURS)] for number in range(len(splits))]
    dots = np.repeat(np.array([to_rgb(colour) for colour in colours]), counts, axis=0)
    # The small ones on top, or rather all mixed: a large split must not cover the others.
    order = np.random.default_rng(0).permutation(total)
    note = notes[0]
    told = [f"by {note['by']}"] if note.get("by") else []
    told += [f"buffer of {note['buffer_m'] / 1000:g} km"] if note.get("buffer_m") else []
    told += [f"{slides.counted(note['dropped'], 'sample')} dropped for it"] if note.get("dropped") else []
    if total <= MEASURED and note.get("by") != "time":
        closest = audit_splits(splits, note.get("buffer_m") or 0, leaks="report").closest_m
        told.append(f"{slides.kilometres(closest)} km apart at the closest" if closest else "not apart")
    fig = slides.page(
        HEAD_IN + 5.4 + FOOT_IN,
        title or f"{slides.counted(total, 'sample')} in {slides.counted(len(splits), 'split')}",
        " · ".join(told),
        credit=_credit(corpus_facts(splits[0]), splits[0]),
    )
    size_m = corpus_facts(splits[0]).size_m
    room_in = 9.2 if view_of(lon, lat, size_m).world else 7.6
    sample_map(fig, lon[order], lat[order], MARGIN_IN, HEAD_IN, room_in, 5.3, size_m=size_m, colours=dots[order])
    height, left_in = fig.get_figheight(), MARGIN_IN + room_in + 0.4
    for row, (colour, name, count) in enumerate(zip(colours, names, counts, strict=True)):
        top_in = HEAD_IN + 0.35 + 0.62 * row
        axes = slides.axes_in(fig, left_in, top_in, 0.2, 0.2, xticks=[], yticks=[], facecolor=colour)
        for spine in axes.spines.values():
            spine.set_linewidth(0)
        y = 1 - (top_in + 0.1) / height
        fig.text((left_in + 0.32) / PAGE_WIDTH_IN, y, name, size=12, weight="bold", color=INK, va="center")
        words = f"{slides.counted(count, 'sample')}, {100 * count / total:.1f} %"
        fig.text((left_in + 0.32) / PAGE_WIDTH_IN, y - 0.24 / height, words, size=9.5, color=FAINT, va="center")
    return fig
