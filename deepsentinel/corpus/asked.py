"""What `plan_corpus` was asked for, checked; and what to ask for instead where nothing can be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import shapely

from deepsentinel.bands import sensor_of
from deepsentinel.errors import InputError
from deepsentinel.footprints import check_number
from deepsentinel.land.regions import land
from deepsentinel.sources import SOURCES
from deepsentinel.sources.arguments import check_bands
from deepsentinel.sources.query import check_sensors

from .tiling import check_resolution, check_size

if TYPE_CHECKING:
    import geopandas as gpd

    from deepsentinel.sources import Source

    from .matched import Matched, Wanted

Choose = Literal["best", "random"]
# The outline of the land is right to about ten kilometres.
NEAR_LAND_DEG = 0.2


def sources_asked(src: Any) -> tuple[Source, ...]:
    """The sources of `src=`, each with a name of its own."""
    sources = tuple(src) if isinstance(src, list | tuple) else (src,)
    for one in sources:
        if not (hasattr(one, "search") and hasattr(one, "read_many")):
            raise InputError(f"src= is a {type(one).__name__}, not a source; open one with ds.open_source(...).")
    if not sources:
        raise InputError("src= is an empty list; give a source, as ds.open_source(...) opens it.")
    names = [one.name for one in sources]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        # Catalogs may be called anything; a service and the demo world are called what they are.
        todo = (
            "Leave out all but one of them, or plan a corpus from each."
            if twice[0] in SOURCES
            else "Open each under a name of its own: ds.open_source(..., name='mine')."
        )
        raise InputError(f"{names.count(twice[0])} sources are called {twice[0]!r}, and samples name theirs. {todo}")
    return sources


def bands_asked(
    bands: Sequence[str] | None, sensors: Sequence[str] | str | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The bands, None for all usual ones, and the sensors they are of.

    >>> bands_asked(["B04"], None), bands_asked(None, "S1"), bands_asked(None, None)
    ((('B04',), ('S2',)), (None, ('S1',)), (None, ('S1', 'S2')))
    """
    asked = check_bands(bands)
    wanted = ("S1", "S2") if sensors is None else tuple(sorted(check_sensors(sensors)))
    if asked is None:
        return None, wanted
    held = tuple(sensor for sensor in ("S1", "S2") if any(sensor_of(name) == sensor for name in asked))
    if sensors is not None and held != wanted:
        raise InputError(
            f"sensors= names {' and '.join(wanted)}, and bands= has bands of {' and '.join(held)}. Give bands= alone:"
            " it says which sensors are meant."
        )
    return asked, held


def dates_asked(
    places: gpd.GeoDataFrame, dates: Any, settings: Mapping[str, Any], sensors: tuple[str, ...]
) -> pd.Series | None:
    """The date of each place, if it has one."""
    if dates is None:
        if "date" not in places.columns or settings["choose"] != "best" or settings["series"] or len(sensors) < 2:
            return None
        dates = places["date"]
    elif settings["series"] or len(sensors) < 2 or settings["choose"] != "best":
        raise InputError("dates= chooses among pairs: leave out series= and choose=, and take both sensors.")
    found = pd.Series(pd.to_datetime(list(dates), utc=True))
    if len(found) != len(places) or found.isna().any():
        raise InputError(f"dates= holds {found.notna().sum()} dates for {len(places)} places; each needs one.")
    return found


def checked(**given: Any) -> dict[str, Any]:
    """The settings of a plan, or an error that says how to write the one that is wrong."""
    check_size(given["size_px"])
    check_resolution(given["resolution"])
    check_number("max_days", given["max_days"], highest=36_500, example="max_days=3")
    if given["max_cloud"] is not None:
        check_number("max_cloud", given["max_cloud"], highest=100, example="max_cloud=60")
    for name, lowest in (("per_place", 1), ("samples_per_shard", 1), ("seed", 0)):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
            raise InputError(f"{name}={value!r}: give a whole number from {lowest} up.")
    if given["choose"] not in get_args(Choose):
        raise InputError(f"choose={given['choose']!r}: it is 'best' or 'random'.")
    if given["series"] and given["per_place"] != 1:
        raise InputError("A series is one sample a place: leave out per_place=.")
    if given["native"] and given["resolution"] != 10:
        raise InputError("native=True keeps the pixels of the products: leave out resolution=.")
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}


def check_alike(kinds: pd.DataFrame, *, mixed: bool) -> None:
    """Refuse a corpus in which one band would be two quantities, unless that is meant."""
    for what, held in kinds.groupby("what"):
        if len(set(held["kind"])) > 1 and not mixed:
            told = "; ".join(f"{kind} from {_listed(each['source'])}" for kind, each in held.groupby("kind"))
            raise InputError(
                f"The samples would be of more than one {what}: {told}. The same ground has other numbers in each, and "
                "nothing in the pixels tells which. Plan one corpus for each, or pass mixed=True: the table of samples "
                "then says which it is."
            )


def _listed(names: pd.Series) -> str:
    return ", ".join(repr(name) for name in names.unique())


def why_nothing(matched: Matched, wanted: Wanted, sources: Sequence[Source]) -> str:
    """Why no place gives a sample, and what would help."""
    reasons = matched.unmatched["reason"].value_counts()
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
    return (
        f"None of the {len(matched.unmatched)} places gives a sample between {wanted.start} and {wanted.end}: {told}."
        f" {_what_helps(matched.unmatched, wanted, sources)}"
    )


def _what_helps(unmatched: pd.DataFrame, wanted: Wanted, sources: Sequence[Source]) -> str:
    lon, lat = unmatched["lon"].to_numpy(float), unmatched["lat"].to_numpy(float)
    worlds = [one for one in sources if hasattr(one, "area")]
    if worlds and len(worlds) == len(sources):  # of these all is known
        whole = "extent" if all(hasattr(one, "extent") for one in worlds) else "area"
        grounds = [getattr(one, whole).geometry for one in worlds]
        if not any(shapely.intersects_xy(ground, lon, lat).any() for ground in grounds):
            name = worlds[0].name
            return f"They all lie outside {name!r}, which is src.{whole}: ds.sample_land({len(lon)}, src.{whole})."
    elif not _near_land(lon, lat).any():
        return "They all lie in the sea, of most of which there are no scenes: ds.sample_land draws places on land."
    more = ["start= and end="] + ["max_cloud="] * (wanted.max_cloud is not None)
    more += ["max_days="] if len(wanted.sensors) == 2 and not wanted.series else []
    return f"Widen {', '.join(more[:-1])}{' or ' if more[1:] else ''}{more[-1]}."


def _near_land(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Which points lie on land, or so near that the outline of it may be wrong."""
    shores = np.asarray(land(exclude_antarctica=False).parts, dtype=object)
    tree = shapely.STRtree(shores)
    found = np.zeros(len(lon), dtype=bool)
    found[tree.query(shapely.points(lon, lat), predicate="dwithin", distance=NEAR_LAND_DEG)[0]] = True
    return found
