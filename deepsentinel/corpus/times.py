"""Splits by time: whole periods, and whoever lies across a cut belongs to none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def by_time(
    corpus: xr.Dataset, unit: np.ndarray, wanted: np.ndarray, cuts: Sequence[Any] | None, gap_days: float
) -> np.ndarray:
    """The period of each sample; -1 for one that lies across a cut, or in the gap after it."""
    import pandas as pd

    names = [name for name in ("s2_time", "s1_time") if name in corpus.coords]
    if not names:
        raise InputError("These samples have no dates, so they cannot be split by time; split by='space'.")
    times = [corpus[name].to_numpy().reshape(len(unit), -1).astype("datetime64[ns]") for name in names]
    joined = np.concatenate(times, axis=1)
    if np.isnat(joined).all(axis=1).any():
        raise InputError("Some samples have no date, so they cannot be split by time; leave them out with isel.")
    table = pd.DataFrame({"from": np.nanmin(_real(joined), axis=1), "to": np.nanmax(_real(joined), axis=1)})
    # Twins of one place and date go the same way.
    twin = pd.factorize(corpus["id"].to_numpy())[0] if "id" in corpus.coords else np.arange(len(unit))
    spans = table.groupby(twin).agg({"from": "min", "to": "max"}).to_numpy()[twin]
    if cuts is None:
        # By whole days, so that no cut falls between two passes of one day.
        ordered = np.sort(spans[:, 0])
        at = np.minimum(np.round(np.cumsum(wanted)[:-1] * len(ordered)).astype(int), len(ordered) - 1)
        edges = ordered[at].astype("int64").astype("datetime64[ns]").astype("datetime64[D]").astype("datetime64[ns]")
    else:
        edges = np.array([_date(cut) for cut in cuts], "datetime64[ns]")
        if len(edges) != len(wanted) - 1 or (np.diff(edges) <= np.timedelta64(0)).any():
            raise InputError(
                f"cuts={list(cuts)!r} do not part {len(wanted)} splits; give {len(wanted) - 1} rising date(s)."
            )
    limits = edges.astype("int64").astype("float64")
    begins = np.searchsorted(limits, spans[:, 0], side="right")
    ends = np.searchsorted(limits, spans[:, 1], side="right")
    after = spans[:, 0] - np.concatenate([[-np.inf], limits])[begins]
    return np.where((begins == ends) & (after >= gap_days * 86_400e9), begins, -1)


def _real(times: np.ndarray) -> np.ndarray:
    return np.where(np.isnat(times), np.nan, times.astype("int64").astype("float64"))


def _date(given: Any) -> np.datetime64:
    import pandas as pd

    try:
        return np.datetime64(pd.Timestamp(given), "ns")
    except (ValueError, TypeError) as error:
        raise InputError(f"cuts= holds {given!r}, which is not a date; write '2018-07-01'.") from error
