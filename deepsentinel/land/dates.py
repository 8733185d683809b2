"""Dates for points: every point a repeat cycle of the satellites, and a day in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError

from .cells import check_count, check_seed

# One Sentinel-1 satellite sees the same ground again, from the same orbit, after this long.
CYCLE_DAYS = 12


def spread_dates(
    n: int, start: Any, end: Any, seed: int = 0, cycles: int | None = None, cycle_days: int = CYCLE_DAYS
) -> pd.DatetimeIndex:
    """A date for each of `n` points, spread over repeat cycles, as DeepSentinel's corpora are.

    The period from `start` to `end` (both days included) is cut into cycles of `cycle_days`; days at its end that make
    no whole cycle are left out. `cycles` takes so many of them, evenly spread over the period; None takes all. Every
    cycle gets equally many points, within one, in random order, and each point a day of its cycle, all days alike.

        >>> dates = spread_dates(1000, "2018-01-01", "2018-12-31", seed=0, cycles=4)
        >>> len(dates), str(dates.min().date()) >= "2018-01-01", str(dates.tz)
        (1000, True, 'UTC')

    As a column of the points: `points.assign(date=spread_dates(len(points), "2018-01-01", "2018-12-31"))`; then
    `match_points(points, scenes, dates=points["date"])` takes the pair nearest to each.
    """
    n, seed = check_count(n), check_seed(seed)
    if isinstance(cycle_days, bool) or not isinstance(cycle_days, int | np.integer) or cycle_days < 1:
        raise InputError(f"cycle_days={cycle_days!r} is not a number of days; give 1 or more, such as cycle_days=12.")
    first, last = _day("start", start), _day("end", end)
    whole = ((last - first).days + 1) // int(cycle_days)
    if whole < 1:
        raise InputError(
            f"From {first:%Y-%m-%d} to {last:%Y-%m-%d} there is no whole cycle of {cycle_days} days; give a longer"
            " period, or fewer cycle_days."
        )
    if cycles is None:
        cycles = whole
    if isinstance(cycles, bool) or not isinstance(cycles, int | np.integer) or not 1 <= cycles <= whole:
        raise InputError(
            f"cycles={cycles!r}: from {first:%Y-%m-%d} to {last:%Y-%m-%d} there are 1 to {whole} whole cycles of"
            f" {cycle_days} days."
        )
    rng = np.random.default_rng([seed, 12])
    taken = np.round(np.linspace(0, whole - 1, int(cycles))).astype("int64") if cycles > 1 else np.array([whole // 2])
    cycle = taken[rng.permutation(n) % int(cycles)]
    days = cycle * int(cycle_days) + rng.integers(0, int(cycle_days), n)
    return pd.DatetimeIndex(first + pd.to_timedelta(days, unit="D"), name="date")


def _day(name: str, value: Any) -> pd.Timestamp:
    try:
        day = pd.Timestamp(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}={value!r} is not a date; write it as {name}='2018-05-01'.") from error
    if pd.isna(day):
        raise InputError(f"{name}={value!r} is not a date; write it as {name}='2018-05-01'.")
    day = day.tz_localize("UTC") if day.tz is None else day.tz_convert("UTC")
    return day.normalize()
