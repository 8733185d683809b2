"""Selections: against trying every choice, and one property a test."""

from __future__ import annotations

from itertools import combinations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scene_tables import random_scenes, scene, shuffled, table

from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError
from deepsentinel.pairing import Weights, select

SQUARE = shapely.box(0, 49, 1, 50)
YEAR = ("2018-01-01", "2018-12-31")


def every_days(step: float, count: int, prefix: str = "S2", **known: object) -> list[dict]:
    start = pd.Timestamp("2018-01-01T10:50")
    return [scene(f"{prefix}_{i:03d}", start + pd.Timedelta(days=step * i), **known) for i in range(count)]


def objective(days: np.ndarray, quality: np.ndarray, period_days: float, spread: float) -> float:
    """The stated objective, term by term."""
    gap = period_days / len(days)
    edges = [0.0, *sorted(days), period_days]
    ideal = [gap / 2, *[gap] * (len(days) - 1), gap / 2]
    uneven = sum(((b - a - wanted) / gap) ** 2 for a, b, wanted in zip(edges[:-1], edges[1:], ideal, strict=True))
    return float(quality.sum() - spread * uneven)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 10),
    n=st.integers(1, 5),
    weights=st.builds(
        Weights, clear=st.floats(0, 3), overlap=st.floats(0, 3), full=st.floats(0, 3), spread=st.floats(0, 4)
    ),
)
def test_no_other_choice_is_better(seed: int, count: int, n: int, weights: Weights) -> None:
    scenes = random_scenes(0, count, seed=seed, days=100, around=(10, 60, 0.6))
    aoi = shapely.box(9.5, 59.5, 10.5, 60.5)
    every = select(scenes, aoi=aoi, n=count, weights=weights)
    n = min(n, count)
    best = select(scenes, aoi=aoi, n=n, weights=weights)
    days = ((every["time"] - every["time"].iloc[0]) / pd.Timedelta(days=1)).to_numpy()
    quality = every["quality"].to_numpy()
    values = [
        objective(days[list(rows)], quality[list(rows)], days[-1], weights.spread)
        for rows in combinations(range(count), n)
    ]
    terms = best.attrs["selection"]["S2"]
    assert terms["objective"] == pytest.approx(max(values), abs=1e-8)
    chosen = every.index[every["id"].isin(best["id"])]
    assert objective(days[chosen], quality[chosen], days[-1], weights.spread) == pytest.approx(max(values), abs=1e-8)
    assert terms["quality"] == pytest.approx(best["quality"].sum())
    assert terms["objective"] == pytest.approx(terms["quality"] - terms["spread_penalty"])
    assert len(best) == n


@pytest.mark.parametrize("spread", [0.0, 0.3, 20.0])
def test_many_dates_are_chosen_as_well_as_by_trying_every_predecessor(spread: float) -> None:
    scenes = random_scenes(0, 300, seed=2, days=700, around=(10, 60, 0.6))
    best = select(scenes, aoi=shapely.box(9.5, 59.5, 10.5, 60.5), n=30, weights=Weights(spread=spread))
    every = select(scenes, aoi=shapely.box(9.5, 59.5, 10.5, 60.5), n=300, weights=Weights(spread=spread))
    at = ((every["time"] - every["time"].iloc[0]) / (every["time"].iloc[-1] - every["time"].iloc[0])).to_numpy() * 30
    quality = every["quality"].to_numpy()
    value = [q - spread * (t - 0.5) ** 2 for q, t in zip(quality, at, strict=True)]
    for _ in range(29):
        value = [
            quality[j] + max((value[i] - spread * (at[j] - at[i] - 1) ** 2 for i in range(j)), default=-np.inf)
            for j in range(300)
        ]
    wanted = max(v - spread * (30 - t - 0.5) ** 2 for v, t in zip(value, at, strict=True))
    assert best.attrs["selection"]["S2"]["objective"] == pytest.approx(wanted, abs=1e-8)


def test_quality_is_the_weighted_product_of_what_the_columns_say() -> None:
    west_half = shapely.box(-1, 48, 0.5, 51)
    scenes = table(
        scene("S2", "2018-05-01", cloud_cover=30.0, nodata_share=0.2, geometry=west_half),
        scene("S2-unknown", "2018-05-02"),
        scene("S1", "2018-05-03", geometry=west_half),
    )
    scenes.loc[1, "cloud_cover"] = np.nan
    best = select(scenes, aoi=SQUARE, n=1, weights=Weights(spread=0), period=YEAR, sensor=None).set_index("id")
    assert list(best.index) == ["S2-unknown", "S1"]
    every = select(scenes, aoi=SQUARE, n=2, sensor="S2", weights=Weights(clear=2, overlap=3, full=0.5)).set_index("id")
    np.testing.assert_allclose(every.loc["S2", ["clear", "overlap", "full"]].astype(float), [0.7, 0.5, 0.8])
    assert every.loc["S2", "quality"] == pytest.approx(0.7**2 * 0.5**3 * 0.8**0.5)
    assert every.loc["S2-unknown", "quality"] == pytest.approx(0.5**2)
    assert best.loc["S1", "quality"] == pytest.approx(0.5)


def test_equally_good_scenes_are_spread_evenly_to_the_ends() -> None:
    best = select(table(*every_days(1, 365)), aoi=SQUARE, n=12)
    gaps = best["time"].diff().dropna() / pd.Timedelta(days=1)
    assert gaps.between(30, 31).all()
    assert best["time"].iloc[0] == pd.Timestamp("2018-01-16T10:50Z")


def test_dates_are_chosen_together() -> None:
    # Greedy takes the clearest (day 50 of 0..100) first and can then only sit beside it; two at a quarter and three
    # quarters of the period are worth more together.
    rows = every_days(25, 5, cloud_cover=2.0)
    rows[2]["cloud_cover"] = 0.0
    best = select(table(*rows), aoi=SQUARE, n=2)
    assert list(best["id"]) == ["S2_001", "S2_003"]


def test_the_weight_of_the_spread_trades_quality_for_even_dates() -> None:
    rng = np.random.default_rng(0)
    rows = [
        dict(row, cloud_cover=float(cloud))
        for row, cloud in zip(every_days(5, 73), rng.uniform(0, 100, 73), strict=True)
    ]
    scenes = table(*rows)
    greedy, fair, even = (select(scenes, aoi=SQUARE, n=8, weights=Weights(spread=spread)) for spread in (0, 0.5, 1e6))
    assert set(greedy["id"]) == set(scenes.nsmallest(8, "cloud_cover")["id"])
    clear = [chosen["clear"].mean() for chosen in (greedy, fair, even)]
    uneven = [chosen["time"].diff().std() for chosen in (greedy, fair, even)]
    assert clear[0] > clear[1] > clear[2]
    assert uneven[0] > uneven[1] > uneven[2]


def test_order_of_rows_does_not_matter() -> None:
    scenes = random_scenes(40, 60, seed=1, days=200, around=(10, 60, 0.6))
    scenes["datatake"] = (scenes.index // 2).astype(str)
    # Many scenes of the same worth, so that ties have to be broken.
    scenes["cloud_cover"] = scenes["cloud_cover"].round(-1)
    scenes["time"] = scenes["time"].dt.floor("5D")
    aoi = shapely.box(9.9, 59.9, 10.1, 60.1)
    wanted = select(scenes, aoi=aoi, n=7)
    for seed in range(4):
        assert_frame_equal(select(shuffled(scenes, seed), aoi=aoi, n=7), wanted)


def test_each_sensor_gets_its_own_n_and_rows_stay_as_they_were() -> None:
    radar = every_days(6, 40, "S1", relative_orbit=30, platform="sentinel-1a", polarisations="VV+VH")
    scenes = table(*every_days(5, 40), *radar)
    best = select(scenes, aoi=SQUARE, n=9)
    assert best["sensor"].value_counts().to_dict() == {"S1": 9, "S2": 9}
    assert best["time"].is_monotonic_increasing
    assert set(select(scenes, aoi=SQUARE, n=9, sensor="S1")["sensor"]) == {"S1"}
    rows = scenes.set_index("id").loc[best["id"]].reset_index()
    assert_frame_equal(gpd.GeoDataFrame(best[list(scenes.columns)]), gpd.GeoDataFrame(rows[list(scenes.columns)]))
    assert best.attrs["searched"] == scenes.attrs["searched"]
    assert best.crs == scenes.crs


def test_one_acquisition_is_chosen_once() -> None:
    rows = []
    for number, day in enumerate(pd.date_range("2018-01-01", periods=6, freq="60D")):
        for baseline in ("02.06", "05.00"):
            for tile in ("30UYV", "31UCQ"):
                datatake = f"GS2A_{day:%Y%m%d}T105031_{number:06d}_N{baseline}"
                id = f"S2A_{day:%Y%m%d}_{tile}_{baseline}"
                rows.append(scene(id, day, platform="sentinel-2a", tile=tile, baseline=baseline, datatake=datatake))
    best = select(table(*rows), aoi=SQUARE, n=6)
    assert len(best) == 6
    assert (best["baseline"] == "05.00").all()
    assert (best["tile"] == "31UCQ").all()


def test_the_period_may_be_given_and_includes_its_last_day() -> None:
    scenes = table(*every_days(1, 365))
    best = select(scenes, aoi=SQUARE, n=31, period=("2018-03-01", "2018-03-31"))
    assert list(best["time"].dt.strftime("%m-%d")) == [f"03-{day:02d}" for day in range(1, 32)]
    # A period longer than what there is pulls towards its ends.
    assert select(scenes, aoi=SQUARE, n=1, period=("2010-01-01", "2019-12-31"))["id"].item() == "S2_000"


def test_fewer_than_asked_for_are_all_returned_with_a_warning() -> None:
    with pytest.warns(DeepSentinelWarning, match="Only 4 Sentinel-2 dates touch the area where n=9 were asked for"):
        best = select(table(*every_days(10, 4)), aoi=SQUARE, n=9)
    assert len(best) == 4


def test_scenes_of_one_moment_do_not_break_the_arithmetic() -> None:
    best = select(table(*every_days(0, 3)), aoi=SQUARE, n=2)
    assert len(best) == 2
    assert np.isfinite(best.attrs["selection"]["S2"]["objective"])


def test_nothing_to_select_says_what_was_searched() -> None:
    scenes = table(*every_days(10, 4))
    with pytest.raises(NothingFoundError, match=r"None of the 4 scenes touches the area.*searched: S1 and S2 over"):
        select(scenes, aoi=shapely.box(5, 5, 6, 6), n=2)
    with pytest.raises(NothingFoundError, match="No Sentinel-1 scene touches the area"):
        select(scenes, aoi=SQUARE, n=2, sensor="S1")
    with pytest.raises(NothingFoundError, match="between 2019-01-01 and 2019-12-31"):
        select(scenes, aoi=SQUARE, n=2, period=("2019-01-01", "2019-12-31"))
    radar_elsewhere = scene("S1", "2018-01-05", geometry=shapely.box(5, 5, 6, 6))
    with pytest.raises(NothingFoundError, match="No Sentinel-1 scene touches the area"):
        select(table(*every_days(10, 4), radar_elsewhere), aoi=SQUARE, n=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 2.5},
        {"n": True},
        {"sensor": "S3"},
        {"aoi": None},
        {"period": ("2018-12-31", "2018-01-01")},
        {"period": "2018"},
        {"period": ("first", "last")},
        {"weights": {"clear": 2}},
    ],
)
def test_arguments_that_cannot_be_used_are_named(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        select(table(*every_days(10, 4)), **{"aoi": SQUARE, "n": 2, **wrong})


@pytest.mark.parametrize("wrong", [{"clear": -1}, {"spread": np.nan}, {"unknown_clear": 2}, {"full": "1"}])
def test_weights_that_cannot_be_used_are_named(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Weights(**wrong)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="clouds"):
        select(table(*every_days(10, 4)), aoi=SQUARE, n=2, clouds=3)
    with pytest.raises(TypeError, match="cloud"):
        Weights(cloud=3)
