"""What a corpus holds, in numbers: how many samples of what, where, when and how clear, and what their pixels are like.

The table of samples tells most of it, all samples at once. What only pixels tell (means, percentiles, the shares of
classes) is counted over as many samples as asked for, drawn by a seed, one after another: memory does not grow with
them, and because values are whole numbers on disk, the percentiles are exact and no estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError
from deepsentinel.files import folder_bytes
from deepsentinel.legend import Legend
from deepsentinel.progress import progress as bar

from .classes import CLASS_MAP, batches, class_shares, label_names
from .ground import ground_of, outlines_of
from .remote import is_url

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
CLOUD_EDGES = tuple(range(0, 101, 10))
GAP_EDGES_H = (0, 6, 12, 24, 48, 72, 120, 240, np.inf)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Levels of a value of two bytes; what is a fraction is counted in hundredths, as it lies on disk.
LEVELS, HALF, HUNDREDTHS = 65_536, 32_768, 100


@dataclass(frozen=True, eq=False)
class CorpusCard:
    """A corpus in numbers."""

    title: str
    """What it is called."""
    facts: dict[str, Any]
    """Counts, dates, area and so on, each by its name."""
    months: dict[str, list[int]]
    """How many samples each month of the year has, by sensor."""
    clouds: list[int]
    """How many samples have 0 to 10, 10 to 20 .. 90 to 100 % of clouds."""
    gaps: list[int]
    """How many samples have so many hours between the sensors, by `GAP_EDGES_H`."""
    classes: dict[str, pd.DataFrame]
    """For each label the classes: code, name, color, share of the labelled pixels, samples that hold it."""
    channels: pd.DataFrame
    """For each band: unit, mean, std, percentiles, share of the pixels that are known."""
    failed: pd.DataFrame
    """Why samples failed, and how many."""
    splits: pd.DataFrame | None
    """For each split its samples, places, dates; None where none were given."""
    counted: dict[str, int]
    """How many samples the pixels were counted of, of how many, drawn by which seed."""
    lon: np.ndarray = field(repr=False)
    """Where the samples lie."""
    lat: np.ndarray = field(repr=False)
    """Where the samples lie."""
    size_m: float = 0.0
    """How wide most of them are."""

    @property
    def basis(self) -> str:
        """Of which samples the pixels were counted, in words."""
        if self.counted["samples"] == self.counted["of"]:
            return f"counted over all {self.counted['of']:,} samples"
        return (
            f"counted over {self.counted['samples']:,} of {self.counted['of']:,} samples, drawn with seed"
            f" {self.counted['seed']}"
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """All of it as tables by their titles, for people."""
        import pandas as pd

        found = {"": pd.DataFrame([(name, _plain(value)) for name, value in self.facts.items()], columns=["", "value"])}
        months = pd.DataFrame({"month": MONTHS, **self.months})
        found["Samples by month"] = months
        if sum(self.clouds):
            steps = [f"{low} to {high} %" for low, high in pairwise(CLOUD_EDGES)]
            found["Samples by cloud cover"] = pd.DataFrame({"clouds": steps, "samples": self.clouds})
        if sum(self.gaps):
            found["Samples by the time between the sensors"] = pd.DataFrame({"gap": gap_names(), "samples": self.gaps})
        for name, table in self.classes.items():
            shown = table.drop(columns="color").assign(share=[f"{100 * share:.2f} %" for share in table["share"]])
            found[f"Classes of {name}"] = shown
        found["Channels"] = self.channels.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
        if len(self.failed):
            found["Failed samples"] = self.failed
        if self.splits is not None:
            found["Splits"] = self.splits
        return found

    def to_markdown(self) -> str:
        """The card as a page in Markdown."""
        parts = [f"# {self.title}"]
        for title, table in self.tables().items():
            parts.append(f"## {title}" if title else "")
            if title == "Channels" or title.startswith("Classes of"):
                parts.append(f"The pixels were {self.basis}.")
            parts.append(_markdown(table))
        return "\n\n".join(filter(None, parts)) + "\n"

    def _repr_html_(self) -> str:
        from html import escape

        parts = [f"<h3>{escape(self.title)}</h3>"]
        for title, table in self.tables().items():
            note = f" <small>{escape(self.basis)}</small>" if title == "Channels" or title.startswith("Classes") else ""
            parts.append(f"<h4>{escape(title)}{note}</h4>" if title else "")
            head = "".join(f"<th style='text-align:left'>{escape(str(name))}</th>" for name in table.columns)
            rows = "".join(
                f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>"
                for row in table.itertuples(index=False)
            )
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        frame = lambda table: [{key: _bare(v) for key, v in row.items()} for row in table.to_dict("records")]  # noqa: E731
        return {
            "title": self.title,
            "facts": {name: _bare(value) for name, value in self.facts.items()},
            "months": self.months,
            "cloud_cover": {"edges": list(CLOUD_EDGES), "samples": self.clouds},
            "gap_hours": {"edges": [edge for edge in GAP_EDGES_H if np.isfinite(edge)], "samples": self.gaps},
            "classes": {name: frame(table) for name, table in self.classes.items()},
            "channels": frame(self.channels),
            "failed": frame(self.failed),
            "splits": None if self.splits is None else frame(self.splits),
            "counted": self.counted,
        }


def corpus_card(
    corpus: xr.Dataset, *, splits: Sequence[xr.Dataset] | None = None, max_samples: int | None = 1000, seed: int = 0,
    progress: bool = True,
) -> CorpusCard:  # fmt: skip
    """The card of a corpus, or of a part of one.

    `splits` are listed beside. Pixels are counted of at most `max_samples` samples, drawn with `seed`; None: of all.
    """
    if "sample" not in corpus.dims or "status" not in corpus.coords:
        raise InputError("This is no corpus; give what open_corpus returns, or a selection of it.")
    if max_samples is not None and (not isinstance(max_samples, int) or max_samples < 1):
        raise InputError(f"max_samples={max_samples!r} is not a number of samples; give 1 or more, or None for all.")
    status = corpus["status"].to_numpy().astype(str)
    good = np.flatnonzero(status == "ok")
    if not len(good):
        raise InputError("None of these samples was built, so there is nothing to describe; build_corpus goes on.")
    kept = corpus.isel(sample=good)
    chosen = np.arange(len(good))
    if max_samples is not None and len(good) > max_samples:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(good))[:max_samples])
    looked = kept.isel(sample=chosen)
    return CorpusCard(
        title=str(corpus.attrs.get("title") or "A corpus"),
        facts=_facts(corpus, kept, status),
        months=_months(kept),
        clouds=_histogram(kept, "cloud_cover", CLOUD_EDGES),
        gaps=_histogram(kept, "gap_hours", GAP_EDGES_H),
        classes=_classes(kept, looked),
        channels=_channels(looked, progress),
        failed=_reasons(corpus, status),
        splits=None if splits is None else _splits(splits),
        counted={"samples": len(chosen), "of": len(good), "seed": int(seed)},
        lon=kept["lon"].to_numpy(),
        lat=kept["lat"].to_numpy(),
        size_m=_size_m(kept),
    )


def gap_names() -> list[str]:
    """The steps of time between the sensors in words.

    >>> gap_names()[0], gap_names()[-1]
    ('under 6 h', 'over 10 d')
    """
    words = [f"{edge:g} h" if edge < 24 else f"{edge / 24:g} d" for edge in GAP_EDGES_H[:-1]]
    middle = [f"{low} to {high}" for low, high in pairwise(words[1:])]
    return [f"under {words[1]}", *middle, f"over {words[-1]}"]


def _facts(corpus: xr.Dataset, kept: xr.Dataset, status: np.ndarray) -> dict[str, Any]:
    import pandas as pd

    attrs = corpus.attrs
    facts: dict[str, Any] = {"samples": len(status)}
    for name in ("failed", "planned"):
        if count := int((status == name).sum()):
            facts[name] = count
    if "place" in kept.coords:
        facts["places"] = int(pd.Series(kept["place"].to_numpy()).nunique())
    if {"id", "source"} <= set(map(str, kept.coords)):
        told = pd.DataFrame({"id": kept["id"].to_numpy(), "source": kept["source"].to_numpy()})
        facts["seen by several sources"] = int((told.drop_duplicates().groupby("id").size() > 1).sum())
        facts["sources"] = ", ".join(f"{name} ({count:,})" for name, count in told["source"].value_counts().items())
    facts["ground, km2"] = round(_ground_km2(kept), 1)
    for name in ("s2_time", "s1_time"):
        times = kept[name].to_numpy() if name in kept.coords else np.array([], "datetime64[ns]")
        times = times[~np.isnat(times)]
        if times.size:
            days = times.astype("datetime64[D]")
            span = f"{days.min()} to {days.max()}, {len(np.unique(days)):,} days"
            facts[f"Sentinel-{name[1]} dates"] = str(days[0]) if days.min() == days.max() else span
    used = {dim for values in corpus.data_vars.values() for dim in values.dims}
    facts["pixels"] = ", ".join(f"{dim} {size}" for dim, size in corpus.sizes.items() if dim in used - {"sample"})
    facts["resolution, m"] = attrs.get("resolution")
    for name in ("level", "backscatter", "baseline"):
        if name in kept.coords:
            held = pd.Series(kept[name].to_numpy()).dropna().value_counts()
            facts[name] = ", ".join(f"{value} ({count:,})" for value, count in held.items())
    for name, words in (
        ("clear", "clear share, mean"),
        ("valid_s1", "Sentinel-1 valid"),
        ("valid_s2", "Sentinel-2 valid"),
    ):
        if name in kept.coords and np.isfinite(kept[name].to_numpy()).any():
            facts[words] = round(float(np.nanmean(kept[name].to_numpy())), 4)
    path = attrs.get("path")
    if path and not is_url(path):
        facts["size on disk, GB"] = round(folder_bytes(path) / 1e9, 4)
    for name in ("seed", "version", "plan"):
        facts[name] = attrs.get(name)
    imaginary = "source" in kept.coords and set(kept["source"].to_numpy().tolist()) == {"demo"}
    facts["credits"] = "Imaginary demo world, not a real place" if imaginary else _listed(attrs.get("credits"))
    facts["licence"] = _listed(attrs.get("licence") or attrs.get("license"))
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _ground_km2(kept: xr.Dataset) -> float:
    """The ground of all places; what several of them share counts once."""
    import shapely
    from pyproj import Transformer

    if not kept.sizes["sample"]:
        return 0.0
    place = kept["place"].to_numpy() if "place" in kept.coords else np.arange(kept.sizes["sample"])
    around = outlines_of(kept.isel(sample=np.unique(place, return_index=True)[1]))
    # A window across the date line stays in one piece.
    around[..., 0] += 360 * (around[..., 0] < around[:, :1, 0] - 180) - 360 * (around[..., 0] > around[:, :1, 0] + 180)
    to_equal_area = Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
    east, north = to_equal_area.transform(np.mod(around[..., 0] + 180, 360) - 180, around[..., 1])
    world_m = 2 * to_equal_area.transform(180, 0)[0]
    east = east + world_m * np.round((around[..., 0] - (np.mod(around[..., 0] + 180, 360) - 180)) / 360)
    shapes = shapely.polygons(np.stack([east, north], axis=-1))
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    shared = np.zeros(len(shapes), bool)
    shared[one[one != other]] = True
    # Most corpora are sparse: only those that touch another need to be joined, which takes long.
    return float(shapely.area(shapes[~shared]).sum() + shapely.union_all(shapes[shared]).area) / 1e6


def _size_m(kept: xr.Dataset) -> float:
    width = ground_of(kept.isel(sample=slice(1000))).corners
    return float(np.median(np.linalg.norm(width[:, 1] - width[:, 0], axis=1)))


def _months(kept: xr.Dataset) -> dict[str, list[int]]:
    found = {}
    for sensor, name in (("Sentinel-2", "s2_time"), ("Sentinel-1", "s1_time")):
        if name in kept.coords:
            times = kept[name].to_numpy()
            month = times[~np.isnat(times)].astype("datetime64[M]").astype("int64") % 12
            found[sensor] = np.bincount(month, minlength=12).tolist()
    return found


def _histogram(kept: xr.Dataset, name: str, edges: Sequence[float]) -> list[int]:
    values = np.abs(kept[name].to_numpy().astype("float64")) if name in kept.coords else np.zeros(0)
    return [int(count) for count in np.histogram(values[np.isfinite(values)], np.asarray(edges))[0]]


def _reasons(corpus: xr.Dataset, status: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    why = corpus["reason"].to_numpy() if "reason" in corpus.coords else np.full(len(status), None)
    held = pd.Series(why[status == "failed"], dtype=object).fillna("no reason was given").value_counts()
    return pd.DataFrame({"reason": held.index.tolist(), "samples": held.to_numpy()})


def _splits(splits: Sequence[xr.Dataset]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, part in enumerate(splits):
        note = part.attrs.get("split") or {}
        row: dict[str, Any] = {"split": note.get("name", f"split {number}"), "samples": part.sizes["sample"]}
        if "place" in part.coords:
            row["places"] = int(pd.Series(part["place"].to_numpy()).nunique())
        row |= {"by": note.get("by"), "buffer_m": note.get("buffer_m")}
        rows.append(row)
    return pd.DataFrame(rows)


def _classes(kept: xr.Dataset, looked: xr.Dataset) -> dict[str, pd.DataFrame]:
    found = {}
    for name in label_names(looked):
        shares = class_shares(looked, name)
        legend = Legend.from_attrs(looked[name + CLASS_MAP].attrs) or Legend.of_codes(
            [int(code) for code in shares.columns]
        )
        found[name] = _class_table(shares, legend)
    if "class" in kept.coords and any(value is not None and value == value for value in kept["class"].to_numpy()):
        shares = class_shares(kept)
        legend = Legend.of_texts([str(name) for name in shares.columns], name="class")
        shares.columns = [legend.numbers[str(name)] for name in shares.columns]
        found["strata"] = _class_table(shares, legend)
    return found


def _class_table(shares: pd.DataFrame, legend: Legend) -> pd.DataFrame:
    import pandas as pd

    total = float(shares.to_numpy().sum()) or 1.0
    rows = [
        (code, legend.names.get(code, str(code)), legend.colors.get(code, "#9aa1a8"),
         float(column.sum()) / total, int((column > 0).sum()))
        for code, column in zip(map(int, shares.columns), shares.to_numpy().T, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["code", "name", "color", "share", "samples"])
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _channels(looked: xr.Dataset, progress: bool) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for name, values in looked.data_vars.items():
        band_dim = next((str(dim) for dim in values.dims if "band" in str(dim)), None)
        if band_dim is None and name != "angle":
            continue
        bands = [str(band) for band in looked[band_dim].to_numpy()] if band_dim else [str(name)]
        counts, seen = np.zeros((len(bands), LEVELS), "int64"), 0
        parts = batches(looked, str(name), at_a_time=8)
        total = -(-looked.sizes["sample"] // 8)
        for _, pixels in bar(parts, total=total, what=f"counting {name}", unit="batch") if progress else parts:
            axis = values.dims.index(band_dim) if band_dim else None
            layers = np.moveaxis(pixels, axis, 0) if axis is not None else pixels[None]
            seen += layers[0].size
            for at, layer in enumerate(layers):
                counts[at] += np.bincount(_levels(layer), minlength=LEVELS)
        # Where a series is shorter than the longest one, nothing was there to be known.
        seen = round(seen * _real_steps(looked, values))
        for band, held in zip(bands, counts, strict=True):
            rows.append({"band": band, "unit": str(values.attrs.get("units", "")), **_told(held, values.dtype, seen)})
    return pd.DataFrame(rows)


def _real_steps(looked: xr.Dataset, values: xr.DataArray) -> float:
    """The share of the steps of series that do not only pad them."""
    for dim, name in (("s2_step", "s2_time"), ("s1_step", "s1_time")):
        if dim in values.dims and name in looked.coords and dim in looked[name].dims:
            return float((~np.isnat(looked[name].to_numpy())).mean())
    return 1.0


def _levels(layer: np.ndarray) -> np.ndarray:
    """Values as whole numbers from 0; what is not known is left out."""
    if layer.dtype.kind == "f":
        known = layer[np.isfinite(layer)]
        return np.clip(np.rint(known * HUNDREDTHS).astype("int64") + HALF, 0, LEVELS - 1)
    return np.asarray(layer[layer != 0].astype("int64"))


def _told(held: np.ndarray, dtype: Any, seen: int) -> dict[str, Any]:
    values = np.arange(LEVELS, dtype="float64")
    if np.dtype(dtype).kind == "f":
        values = (values - HALF) / HUNDREDTHS
    count = int(held.sum())
    if not count:
        empty = ("mean", "std", *(f"p{at}" for at in PERCENTILES))
        return {**dict.fromkeys(empty, float("nan")), "known": 0.0}
    mean = float((held * values).sum() / count)
    std = float(np.sqrt((held * (values - mean) ** 2).sum() / count))
    # The value at or below which so many of the pixels lie.
    ranks = np.maximum(np.ceil(np.array(PERCENTILES) / 100 * count), 1)
    places = np.searchsorted(np.cumsum(held), ranks)
    marks = {f"p{at}": float(values[place]) for at, place in zip(PERCENTILES, places, strict=True)}
    return {"mean": mean, "std": std, **marks, "known": count / seen}


def _listed(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _bare(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _markdown(table: pd.DataFrame) -> str:
    cell = lambda value: str(value).replace("|", "\\|")  # noqa: E731
    lines = [f"| {' | '.join(map(str, table.columns))} |", f"|{' --- |' * len(table.columns)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
