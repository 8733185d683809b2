"""Which scenes are worth having: clear, covering the area, full, and spread evenly over the period.

The four are chosen together. Taking the best scene first and the next best far enough from it (greedy) ends with holes
that no later choice can mend; instead the sum over the whole selection

    quality of each scene  -  spread x (each gap / the ideal gap - 1)^2

is maximised exactly. A gap only involves two neighbours in time, so the best selection of k scenes that ends in a given
scene follows from the best selections of k - 1: dynamic programming over the dates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from .errors import InputError, warn
from .footprints import SENSORS, check_number, check_scenes, clip, drop_reprocessed, nothing, one_per_pass, place_of


@dataclass(frozen=True)
class Weights:
    """What makes a scene worth having: the product of its clear, overlap and full shares, each to a power.

    >>> Weights(clear=2)  # clouds count double
    Weights(clear=2, overlap=1.0, full=0.5, spread=0.5, unknown_clear=0.5)
    """

    clear: float = 1.0
    """Exponent of the clear share of the sky, 1 - cloud_cover / 100. Radar sees through clouds: 1 for Sentinel-1."""

    overlap: float = 1.0
    """Exponent of the share of the area that the footprint covers."""

    full: float = 0.5
    """Exponent of 1 - nodata_share. Half a vote, as the footprint already tells most of it; unknown is full."""

    spread: float = 0.5
    """Quality given up for a gap that is wrong by one ideal gap (nil, or twice as long). 0 ignores the dates."""

    unknown_clear: float = 0.5
    """The clear share of a Sentinel-2 scene whose catalog tells no cloud cover."""

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = 1.0 if field.name == "unknown_clear" else 1e6
            check_number(field.name, getattr(self, field.name), highest=limit, example=f"{field.name}=0.5")


def select(
    scenes: gpd.GeoDataFrame,
    *,
    aoi: Any,
    n: int,
    sensor: str | None = None,
    weights: Weights | None = None,
    period: tuple[Any, Any] | None = None,
) -> gpd.GeoDataFrame:
    """The `n` scenes of each sensor that together show an area best: clear, covering, full, evenly spread.

    Parameters
    ----------
    scenes
        A scenes table, from `source.search`. The order of its rows does not matter.
    aoi
        The area of interest, anything `deepsentinel.aoi.area` takes. Scenes that miss it are left out, and of one
        pass of a satellite only the scene that covers it best is considered (as `pair` does).
    n
        How many scenes of each sensor. With fewer there, all are returned and a warning says so.
    sensor
        "S1" or "S2" for one of them; None for each sensor in the table.
    weights
        What counts how much: `deepsentinel.pairing.Weights`.
    period
        First and last day to spread the dates over (UTC); by default from the first to the last scene over the area, of
        either sensor.

    Returns
    -------
    GeoDataFrame
        Rows of `scenes` in order of time, with columns `clear`, `overlap`, `full` (shares, 0 to 1) and `quality`.
        `attrs["selection"]` holds the weights and, for each sensor, the terms of the objective.

    The ideal is a date in the middle of each n-th of the period, so the gaps to both ends of the period are ideally
    half as long as those between dates. The result is exact: no other choice of `n` scenes has a higher objective.

        >>> import deepsentinel as ds
        >>> src = ds.open_source("demo", size_px=256)
        >>> year = src.search(src.area, "2018-01-01", "2018-12-31")
        >>> ds.select(year, aoi=src.area, n=6).sensor.value_counts().to_dict() == {"S1": 6, "S2": 6}
        True
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n={n!r} is not a number of scenes; give 1 or more")
    if sensor is not None and sensor not in SENSORS:
        raise InputError(f"sensor={sensor!r} is not known; take 'S1', 'S2' or None for each in the table")
    if aoi is None:
        raise InputError("select needs an area: give aoi=, for example (lon_min, lat_min, lon_max, lat_max)")
    if weights is not None and not isinstance(weights, Weights):
        raise InputError(
            f"weights={weights!r} is not a Weights; write for example deepsentinel.pairing.Weights(clear=2)"
        )
    weights = weights or Weights()
    candidates = _candidates(scenes, aoi, weights)
    start, end = _period(candidates, period)
    candidates = candidates[candidates["time"].between(start, end)]
    wanted = [sensor] if sensor else sorted(set(scenes["sensor"]))
    chosen: list[int] = []
    terms = {}
    for name in wanted:
        mine = candidates[candidates["sensor"] == name]
        if mine.empty:
            raise nothing(
                scenes,
                f"No {SENSORS[name]} scene touches the area between {start:%Y-%m-%d} and {end:%Y-%m-%d}",
                "search a longer period or with a higher max_cloud, with the aoi you select for",
            )
        if len(mine) < n:
            warn(
                f"Only {len(mine)} {SENSORS[name]} dates touch the area where n={n} were asked for: all are returned. "
                "Search a longer period or with a higher max_cloud."
            )
        rows = _spread_evenly(mine["time"], mine["quality"], min(n, len(mine)), start, end, weights.spread)
        chosen.extend(mine.index[rows])
        terms[name] = _terms(mine.iloc[rows], start, end, weights.spread)
    best = candidates.loc[sorted(chosen)].reset_index(drop=True)
    best.attrs = {name: scenes.attrs[name] for name in ("source", "searched") if name in scenes.attrs}
    best.attrs["selection"] = {"weights": asdict(weights), "period": (start.isoformat(), end.isoformat()), **terms}
    return best


def _candidates(scenes: gpd.GeoDataFrame, aoi: Any, weights: Weights) -> gpd.GeoDataFrame:
    """One scene a pass over the area, with its quality and the terms of it."""
    clean = check_scenes(scenes)
    place = place_of(aoi)
    _, overlap = clip(clean.geometry.to_numpy(), place)
    clean = clean.assign(overlap=overlap)[overlap > 0]
    if clean.empty:
        raise nothing(
            scenes,
            f"None of the {len(scenes)} scenes touches the area",
            "search with the aoi you select for, or a longer period",
        )
    clean = one_per_pass(drop_reprocessed(clean), place)
    radar = clean["sensor"] == "S1"
    clear = (1 - clean["cloud_cover"] / 100).fillna(weights.unknown_clear).where(~radar, 1.0).clip(0, 1)
    full = (1 - clean["nodata_share"]).fillna(1.0).clip(0, 1)
    quality = clear**weights.clear * clean["overlap"] ** weights.overlap * full**weights.full
    return clean.assign(clear=clear, full=full, quality=quality)


def _period(candidates: pd.DataFrame, period: tuple[Any, Any] | None) -> tuple[pd.Timestamp, pd.Timestamp]:
    if period is None:
        return candidates["time"].min(), candidates["time"].max()
    try:
        start, end = (pd.Timestamp(day) for day in period)
        start, end = (day.tz_localize("UTC") if day.tz is None else day.tz_convert("UTC") for day in (start, end))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"period={period!r} is not a first and a last day; give ('2018-01-01', '2018-12-31')"
        ) from error
    # A day without a clock time, given as the last one, is meant to be included.
    if end == end.normalize():
        end += pd.Timedelta(days=1) - pd.Timedelta(1, "ns")
    if not start < end:
        raise InputError(f"period={period!r} ends before it starts; give the first day first")
    return start, end


def _gap_cost(actual: np.ndarray, ideal: float) -> np.ndarray:
    """Squared deviation of gaps from their ideal, in units of the ideal gap between two dates."""
    return (actual - ideal) ** 2


def _positions(times: pd.Series, start: pd.Timestamp, end: pd.Timestamp, n: int) -> np.ndarray:
    """Times on a scale where the period starts at 0 and the ideal gap is 1, so the period ends at n."""
    if start == end:
        return np.full(len(times), n / 2)
    return ((times - start) / (end - start)).to_numpy() * n


def _spread_evenly(
    times: pd.Series, quality: pd.Series, n: int, start: pd.Timestamp, end: pd.Timestamp, spread: float
) -> np.ndarray:
    """Row numbers of the `n` scenes, sorted by time, with the highest objective."""
    at, worth = _positions(times, start, end, n), quality.to_numpy()
    best = worth - spread * _gap_cost(at, 0.5)
    before: list[np.ndarray] = []
    for _ in range(1, n):
        predecessor, reach = _best_before(best, at, spread)
        before.append(predecessor)
        best = reach + worth
    row = int((best - spread * _gap_cost(n - at, 0.5)).argmax())
    rows = [row]
    for predecessor in reversed(before):
        row = int(predecessor[row])
        rows.append(row)
    return np.array(rows[::-1])


def _best_before(best: np.ndarray, at: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """For each date j the date i < j with the highest best[i] - spread x gap cost, and that value; -inf for the first.

    Trying all i for all j takes m^2 steps, a minute for all scenes of ten years. But as the cost is convex, a later j
    never wants an earlier i. So the date in the middle is solved first, then those at the quarters and so on, and each
    only looks between the answers of its solved neighbours: some 2 m steps a level, for log2(m) levels.
    """
    m = len(at)
    choice, value = np.zeros(m, dtype=np.int64), np.full(m, -np.inf)
    half = 1 << (m - 1).bit_length() >> 1
    while half:
        rows = np.arange(half, m, 2 * half)
        lowest = choice[rows - half]
        later = np.minimum(rows + half, m - 1)
        highest = np.minimum(np.where(rows + half < m, choice[later], m - 1), rows - 1)
        counts = highest - lowest + 1
        starts = np.cumsum(counts) - counts
        tried = np.arange(counts.sum()) + np.repeat(lowest - starts, counts)
        reach = best[tried] - spread * _gap_cost(np.repeat(at[rows], counts) - at[tried], 1.0)
        value[rows] = np.maximum.reduceat(reach, starts)
        # Of equals the earliest, so that the result does not hang on the order in which they are tried.
        winners = np.flatnonzero(reach == np.repeat(value[rows], counts))
        choice[rows] = tried[winners[np.searchsorted(winners, starts)]]
        half //= 2
    return choice, value


def _terms(chosen: pd.DataFrame, start: pd.Timestamp, end: pd.Timestamp, spread: float) -> dict[str, float]:
    at = _positions(chosen["time"], start, end, len(chosen))
    uneven = _gap_cost(np.diff(at), 1.0).sum() + _gap_cost(at[0], 0.5) + _gap_cost(len(at) - at[-1], 0.5)
    quality, penalty = float(chosen["quality"].sum()), float(spread * uneven)
    return {
        "scenes": len(chosen),
        "ideal_gap_days": (end - start) / pd.Timedelta(days=1) / len(chosen),
        "quality": quality,
        "spread_penalty": penalty,
        "objective": quality - penalty,
    }
