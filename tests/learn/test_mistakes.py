"""Where a model is wrong: every sample is judged by itself, and the worst are kept as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import torch
import xarray as xr
from evaluation_kit import SAMPLES, Says, always, known, made, only, question, the_truth
from mistakes_kit import FIELD, judged, of_fields, places
from object_kit import Knows, all_of_it, objects, things
from test_figures import outside_or_overlapping

from deepsentinel.errors import InputError
from deepsentinel.figures import show
from deepsentinel.learn import fewshot, mistakes
from deepsentinel.learn.batches import Batch
from deepsentinel.learn.ground import Ground
from deepsentinel.learn.mistakes import PICTURE_PX, thinned, worst_places
from deepsentinel.learn.model import Model
from deepsentinel.learn.tasks import IGNORE

# -- scores ------------------------------------------------------------------------------------------------------------


def test_each_sample_has_the_share_of_its_pixels_that_are_right() -> None:
    found, truth = places(of_fields()), known(made()[1])
    expected = [(one == 0).sum() / (one != IGNORE).sum() for one in truth]
    assert found["score"].tolist() == pytest.approx(expected)
    assert found["n"].tolist() == [(one != IGNORE).sum() for one in truth]
    assert found["sample"].tolist() == found["position"].tolist() == list(range(SAMPLES))
    held = made()[0]
    assert found.geometry.x.to_numpy() == pytest.approx(held["lon"].to_numpy(), abs=1e-5)
    assert found.geometry.y.to_numpy() == pytest.approx(held["lat"].to_numpy(), abs=1e-5)
    assert found.crs == "EPSG:4326"
    assert found.attrs["score"] == "accuracy"
    assert found.attrs["size_m"] == pytest.approx(160, rel=0.02)
    # All samples together are what the report says of them.
    rows = of_fields().rows
    accuracy = rows[(rows["metric"] == "accuracy") & (rows["cloud"] == "all")]["value"].item()
    assert np.average(found["score"], weights=found["n"]) == pytest.approx(accuracy)


def test_batches_corpora_and_the_order_of_samples_change_no_score() -> None:
    held = made()[0]
    turned = held.isel(sample=np.arange(SAMPLES)[::-1])
    parts = [turned.isel(sample=slice(0, 9)), turned.isel(sample=slice(9, None))]
    found = places(judged(Says(question(), FIELD), parts, batch_size=4))
    assert found["corpus"].tolist() == [0] * 9 + [1] * (SAMPLES - 9)
    for row in found.itertuples():
        assert int(parts[row.corpus]["sample"][row.position]) == row.sample
    expected = places(of_fields()).set_index("sample")["score"]
    assert found.set_index("sample")["score"].sort_index().tolist() == pytest.approx(expected.tolist())


def test_labels_shares_and_numbers_are_judged_in_their_own_way() -> None:
    truth = known(made()[1])
    shares = np.stack([[(one == at).sum() / (one != IGNORE).sum() for at in range(4)] for one in truth])
    found = places(judged(Says(question("classification", least_share=0.2), always(3.0, -3.0, 3.0, -3.0))))
    assert found["score"].tolist() == pytest.approx(((shares >= 0.2) == [True, False, True, False]).mean(axis=1))
    assert set(found["n"]) == {4}
    found = places(judged(Says(question("fractions"), always(0.0, 0.0, 0.0, 0.0))))
    assert found["score"].tolist() == pytest.approx(np.abs(shares - 0.25).mean(axis=1), rel=1e-4)
    assert found.attrs["score"] == "error"
    found = places(judged(Says(question("regression"), always(0.0))))
    expected = [np.nanmean(np.abs(one - 16)) for one in made()[1]["m_distance"]]
    assert found["score"].tolist() == pytest.approx(expected, rel=1e-4)


def test_what_nobody_knows_has_no_score_and_is_never_the_worst() -> None:
    asked = question()
    assert asked.classes is not None
    rare = replace(asked, classes=only(asked.classes, 30, 40))
    report = judged(Says(rare, always(0.0, 30.0)))
    found = places(report)
    counts = np.array([(one[one != IGNORE] >= 2).sum() for one in known(made()[1])])
    empty = np.flatnonzero(counts == 0).tolist()
    assert empty
    assert found.index[found["score"].isna()].tolist() == empty
    assert found["n"].tolist() == counts.tolist()
    least = counts.max() / 4
    assert report.worst
    assert all(counts[each.sample] >= least for each in report.worst)
    assert any(0 < count < least for count in counts), "some are known too little"


def test_places_are_of_the_model_with_all_it_can_be_shown() -> None:
    def right_with_both(model: Any, batch: Batch) -> torch.Tensor:
        return the_truth(model, batch) * (1 if model.seen[-1] == "both" else -1)

    report = judged(Says(question(sensors="any"), right_with_both))
    assert set(places(report)["score"]) == {1.0}
    assert places(report).attrs["sensors"] == "both"
    assert report.worst == (), "all is right"
    assert report.pages == ("report", "places")
    with pytest.raises(InputError, match="where anything is wrong"):
        show(report, panels="worst")
    assert judged(Says(question(), FIELD), worst=0).worst == ()
    for wrong in (-1, 2.5, True):
        with pytest.raises(InputError, match="worst="):
            judged(Says(question(), FIELD), worst=wrong)


def test_objects_are_judged_by_what_is_found_and_missed() -> None:
    def finds(at: int, sensors: str | None) -> list[Any]:
        # Of every third sample nothing is found; of every other something that is not there.
        wrong = [(0, (12.0, 12.0, 16.0, 16.0), 0.8)] if at % 2 else []
        return wrong if at % 3 == 0 else all_of_it(at, sensors) + wrong

    report = judged(Knows("detection", finds), objects())
    found = places(report)
    for row in found.itertuples():
        there, wrong = len(things()[row.sample]), row.sample % 2
        hits = 0 if row.sample % 3 == 0 else there
        whole = hits + (wrong + there - hits) / 2
        assert row.n == there + wrong
        assert row.score == pytest.approx(hits / whole) if whole else np.isnan(row.score)
    assert report.worst
    for each in report.worst:
        assert len(each.truth) == len(things()[each.sample])
        assert set(each.truth[:, 5]) <= {float(each.sample % 3 != 0)}
        boxes = np.array([box for _, box in things()[each.sample]]).reshape(-1, 4) / 16
        assert each.truth[:, :4] == pytest.approx(boxes)
    assert outside_or_overlapping(show(report, panels="worst")) == []


# -- the worst ---------------------------------------------------------------------------------------------------------


def test_the_worst_come_first_and_none_lies_on_another() -> None:
    score = np.array([0.5, 0.1, 0.2, 0.1, 1.0, np.nan, 0.05, 0.3])
    n = np.array([100, 50, 100, 90, 100, 0, 3, 100])
    lon = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.201])
    table = gpd.GeoDataFrame({"score": score, "n": n}, geometry=gpd.points_from_xy(lon, 0 * lon), crs="EPSG:4326")
    table.attrs = {"score": "accuracy", "size_m": 500.0}
    # 3 before 1, for more of it is known; 7 lies 111 m beside 2; 6 is hardly known; 4 is all right.
    assert worst_places(table, 6).index.tolist() == [3, 1, 2, 0]
    assert worst_places(table, 2).index.tolist() == [3, 1]
    assert len(worst_places(table, 0)) == 0
    table.attrs["size_m"] = 50.0
    assert worst_places(table, 6).index.tolist() == [3, 1, 2, 7, 0]
    table.attrs["score"] = "error"
    assert worst_places(table, 3).index.tolist() == [4, 0, 7]


@pytest.mark.parametrize("apart", [False, True])
def test_the_worst_are_kept_as_they_are(apart: bool) -> None:
    def of_columns(model: Model, batch: Batch) -> torch.Tensor:
        said = torch.zeros(len(batch), 4, 16, 16)
        said[:, 0, :, :8] = said[:, 1, :, 8:] = 5.0
        return said

    held, data = made()
    order = np.random.default_rng(0).permutation(SAMPLES)
    test: Any = held
    if apart:
        mixed = held.isel(sample=order)
        test = [mixed.isel(sample=slice(0, 5)), mixed.isel(sample=slice(5, None))]
    report = judged(Says(question(), of_columns), test, worst=4)
    found = places(report).set_index("sample")["score"]
    # Of samples that are as wrong as each other any may come first.
    assert [each.score for each in report.worst] == pytest.approx(sorted(found)[:4])
    truth = known(data)
    for each in report.worst:
        assert found[each.sample] == each.score
        assert (each.truth == truth[each.sample]).all()
        assert (each.said[:, :8] == 0).all()
        assert (each.said[:, 8:] == 1).all()
        assert float((each.truth == each.said)[each.truth != IGNORE].mean()) == pytest.approx(each.score)
        assert (each.lon, each.lat) == pytest.approx((float(held.lon[each.sample]), 45.0), abs=1e-5)
        assert set(each.pixels) == {"VV", "VH"}, "there is no B04 to make a picture of"
        assert each.pixels["VV"] == pytest.approx(data["s1"][each.sample, 0] / 100, rel=1e-5)
        assert each.told["time"].startswith("2018-05")


def test_maps_are_thinned_and_none_is_lost() -> None:
    for shape in ((16, 16), (400, 300), (1, 900), (3, 5, 385)):
        small = thinned(np.arange(np.prod(shape)).reshape(shape))
        assert max(small.shape[-2:]) <= PICTURE_PX
        assert min(small.shape) >= 1
        assert small.shape[:-2] == shape[:-2]
    values = np.arange(400 * 400).reshape(400, 400)
    # Every third row and column, from the middle of the first three.
    assert (thinned(values) == values[1::3, 1::3]).all()


# -- clouds ------------------------------------------------------------------------------------------------------------


def by_what_is_seen(model: Model, batch: Batch) -> torch.Tensor:
    """Field where Sentinel-2 is usable, wood elsewhere."""
    seen = batch.s2_mask[:, :16, :16]
    return torch.stack([seen, ~seen, 0 * seen, 0 * seen], dim=1).float() * 9


def test_clouds_are_hidden_from_a_model_as_they_were_when_it_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Says(question(), by_what_is_seen)
    hidden, shown = (places(judged(model, clouds=clouds))["score"].tolist() for clouds in (True, False))
    assert hidden != shown
    assert places(judged(model))["score"].tolist() == hidden
    model.story = {"clouds": False}
    assert places(judged(model))["score"].tolist() == shown
    assert places(judged(model, clouds=True))["score"].tolist() == hidden
    seen: list[bool] = []
    start = Ground.__init__

    def noted(self: Ground, corpora: Any, **how: Any) -> None:
        seen.append(how["clouds"])
        start(self, corpora, **how)

    monkeypatch.setattr(Ground, "__init__", noted)
    held: xr.Dataset = made()[0]
    asked: dict[str, Any] = {"labels": "m", "shots": 1, "seeds": range(1), "block_m": 5000, "device": "cpu"}
    asked["held_out"] = ["field", "wood"]
    model.question = replace(question(), classes=only(question().classes, 30, 40))
    fewshot.few_shot(model, held, **asked)
    fewshot.few_shot(model.encoder, held, **asked)
    fewshot.few_shot(model, held, clouds=True, **asked)
    assert seen == [False, True, True]


@pytest.mark.parametrize(
    ("blind", "kept"),
    [(False, {"B04", "B03", "B02", "SCL"}), (True, {"VV", "VH"}), (None, {"B08", "B04", "B03", "SCL"})],
)
def test_samples_are_drawn_from_what_was_seen_and_reads_best(
    monkeypatch: pytest.MonkeyPatch, blind: bool | None, kept: set[str]
) -> None:
    level = np.full((200, 200), 0 if blind else 1200, "uint16")
    bands = {name: (("y", "x"), level) for name in ("B02", "B03", "B04", "B08") if blind is not None or name != "B02"}
    bands |= {name: (("y", "x"), np.full((200, 200), -9, "float32")) for name in ("VV", "VH", "angle")}
    bands["SCL"] = (("y", "x"), np.full((200, 200), 4, "uint8"))
    times = {f"{sensor}_time": np.datetime64(f"2018-0{at}-01T05:30", "ns") for at, sensor in ((5, "s1"), (6, "s2"))}
    patch = xr.Dataset(bands, times, {"source": "demo", "seed": 3, "level": "L2A", "tile": "31UDQ"})
    monkeypatch.setattr(mistakes, "patch_of", lambda *_, **__: patch)
    pixels, told = mistakes.pictured(patch, 0)
    assert set(pixels) == kept
    assert {each.shape for each in pixels.values()} == {(100, 100)}
    assert told == {"source": "demo", "level": "L2A", "seed": "3", "time": f"2018-0{5 if blind else 6}-01T05:30"}
