"""The card of a corpus: its numbers are those of the pixels and the table, and its figures say what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from corpus_examples import CLASSES, corpus_at, lattice, scattered, stored

from deepsentinel.corpus.describe import corpus_card
from deepsentinel.corpus.splits import split
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError
from deepsentinel.figures.corpus import (
    card_figure,
    corpus_figure,
    describe,
    drawer_of,
    examples_figure,
    plan_figure,
    splits_figure,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return open_corpus(stored(tmp_path_factory.mktemp("made") / "one.zarr", 14, failed=(4, 9)))


def texts(fig: Any) -> str:
    return "\n".join([text.get_text() for text in fig.texts] + [text.get_text() for a in fig.axes for text in a.texts])


def test_statistics_are_those_of_numpy(corpus: xr.Dataset) -> None:
    card = corpus_card(corpus, progress=False)
    good = corpus.isel(sample=corpus.status.to_numpy() == "ok")
    table = card.channels.set_index("band")
    for at, band in enumerate(("B02", "B03", "B04", "B08")):
        values = good.s2.to_numpy()[:, at]
        values = values[values != 0]
        check(table.loc[band], values.astype("float64"))
    for at, band in enumerate(("VV", "VH")):
        values = good.s1.to_numpy()[:, at].astype("float64")
        check(table.loc[band], np.round(values[np.isfinite(values)], 2))
    assert (table["known"] == 1).all()
    assert table["unit"].to_dict()["VV"] == "dB"


def check(row: Any, values: np.ndarray) -> None:
    assert row["mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert row["std"] == pytest.approx(values.std(), rel=1e-6)
    for share in (1, 5, 25, 50, 75, 95, 99):
        assert row[f"p{share}"] == pytest.approx(np.percentile(values, share, method="inverted_cdf"), abs=1e-6)


def test_a_sample_of_samples_is_said_and_is_the_same_each_time(corpus: xr.Dataset) -> None:
    one, two = (corpus_card(corpus, max_samples=5, seed=3, progress=False) for _ in range(2))
    assert one.channels.equals(two.channels)
    assert not one.channels.equals(corpus_card(corpus, max_samples=5, seed=4, progress=False).channels)
    assert one.basis == "counted over 5 of 12 samples, drawn with seed 3"
    assert corpus_card(corpus, max_samples=None, progress=False).basis == "counted over all 12 samples"
    assert one.basis in one.to_markdown()
    assert one.basis in one._repr_html_()


def test_classes_and_counts_are_those_of_the_corpus(corpus: xr.Dataset) -> None:
    card = corpus_card(corpus, progress=False)
    masks = corpus.mine_class_map.to_numpy()[corpus.status.to_numpy() == "ok"]
    table = card.classes["mine"].set_index("code")
    for code, name in CLASSES.items():
        assert table.loc[code, "name"] == name
        assert table.loc[code, "share"] == pytest.approx((masks == code).sum() / (masks != 0).sum(), abs=1e-6)
        assert table.loc[code, "samples"] == (masks == code).any(axis=(1, 2)).sum()
    assert table["share"].sum() == pytest.approx(1)
    facts = card.facts
    assert (facts["samples"], facts["failed"], facts["places"]) == (14, 2, 12)
    assert card.failed.to_dict("records") == [{"reason": "the file S2_X is not there", "samples": 2}]
    assert facts["ground, km2"] == pytest.approx(12 * 0.32**2, abs=0.06)
    assert sum(card.clouds) == sum(card.gaps) == sum(card.months["Sentinel-2"]) == 12
    assert card.gaps[1] == 12  # six hours are not under six


def test_months_are_months() -> None:
    corpus = corpus_at([3.0], [50.0], dates=31)  # every twelve days from January 5, 2018
    months = corpus_card(corpus, progress=False).months["Sentinel-2"]
    times = corpus.s2_time.to_numpy().astype("datetime64[M]").astype(int) % 12
    assert months == [int((times == month).sum()) for month in range(12)]


def test_twins_count_once() -> None:
    facts = corpus_card(scattered(20, twins=2), progress=False).facts
    assert facts["seen by several sources"] == 20
    assert facts["places"] == 20
    assert facts["samples"] == 40


def test_the_card_is_written_as_a_page_with_figures_and_as_numbers(corpus: xr.Dataset, tmp_path: Path) -> None:
    from PIL import Image

    parts = split(corpus, fractions=(0.5, 0.5), buffer_m=300)
    card = describe(corpus, tmp_path / "card", splits=parts, progress=False)
    names = sorted(path.name for path in (tmp_path / "card").iterdir())
    assert names == ["README.md", "card.json", "examples.png", "overview.png", "splits.png"]
    page = (tmp_path / "card" / "README.md").read_text()
    for name in ("overview.png", "examples.png", "splits.png"):
        assert f"]({name})" in page
        assert Image.open(tmp_path / "card" / name).width > 1000
    told = json.loads((tmp_path / "card" / "card.json").read_text())
    assert told["facts"]["samples"] == 14
    assert told["splits"][0]["split"] == "train"
    assert [row["band"] for row in told["channels"]] == card.channels["band"].tolist()
    assert "| Town |" in page or "Town" in page
    assert "Imaginary demo world" in page


def test_ground_that_samples_share_counts_once() -> None:
    side_km2 = 2.56**2  # of a window of 256 pixels
    half = corpus_at(np.array([3.0, 3.0, 3.0]), np.array([0.0, 1280 / 110_574, 1.0]))
    for part, windows in ((half, 2.5), (half.isel(sample=[0, 1]), 1.5), (half.isel(sample=[0, 2]), 2.0)):
        assert corpus_card(part, progress=False).facts["ground, km2"] == pytest.approx(windows * side_km2, rel=0.01)
    # Neither the date line nor a second date of one place makes more of it.
    across = corpus_at(np.array([179.999, -179.999, 180.0]), np.zeros(3))
    shared = side_km2 * (1 + 2 * 111.3 * 0.001 / 2.56)
    assert corpus_card(across, progress=False).facts["ground, km2"] == pytest.approx(shared, rel=0.02)


@pytest.mark.parametrize("name", ["README.md", "card.json"])
def test_a_card_replaces_a_card_and_nothing_else(corpus: xr.Dataset, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my thesis")
    with pytest.raises(InputError, match=f"holds a {name} that is not a card's"):
        describe(corpus, tmp_path, progress=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "my thesis")]
    (tmp_path / name).unlink()
    for samples in (4, 5):
        describe(corpus, tmp_path, max_samples=samples, progress=False)
        assert f"counted over {samples} of 12" in (tmp_path / "README.md").read_text()


def test_a_corpus_is_drawn_with_all_it_says(corpus: xr.Dataset) -> None:
    words = texts(corpus_figure(corpus))
    for text in (
        "Made up: 12 samples, 2 failed",
        "Samples by month",
        "Cloud cover",
        "Classes of mine",
        "Values of each",
    ):
        assert text in words
    assert "Imaginary demo world" in words
    assert "sample 0" in words
    assert "sample 0" not in texts(card_figure(corpus_card(corpus, progress=False)))
    assert "classes of mine" in texts(examples_figure(corpus))


def test_examples_are_the_pixels(corpus: xr.Dataset) -> None:
    fig = examples_figure(corpus)
    pictures = [axes.images[0].get_array() for axes in fig.axes if axes.images]
    assert len(pictures) == 18
    masks = pictures[2::3]
    first = corpus.mine_class_map.to_numpy()[0]
    assert np.array_equal(masks[0][..., 3] == 0, first == 0)


@pytest.mark.parametrize("make", [lambda: lattice(20, 20), lambda: scattered(300)], ids=["a region", "the world"])
def test_splits_are_drawn_each_in_its_colour(make: Any) -> None:
    parts = split(make())
    words = texts(splits_figure(parts))
    for part, name in zip(parts, ("train", "val", "test"), strict=True):
        assert name in words
        assert f"{part.sizes['sample']:,} sample" in words
    assert "apart at the closest" in words


def test_a_plan_is_drawn_with_its_cost() -> None:
    import geopandas as gpd
    import shapely

    from deepsentinel.corpus.plan import plan_corpus
    from deepsentinel.sources import open_source

    source = open_source("demo", size_px=256)
    where = gpd.GeoDataFrame(geometry=[shapely.centroid(source.area.geometry)], crs=4326)
    plan = plan_corpus(where, source, start="2018-05-01", end="2018-06-30", size_px=32)
    words = texts(plan_figure(plan))
    assert "A plan for 1 sample" in words
    assert "to read" in words
    assert plan.fingerprint in words
    assert drawer_of(plan) is plan_figure


def test_each_kind_of_thing_has_its_drawer(corpus: xr.Dataset) -> None:
    assert drawer_of(corpus) is corpus_figure
    assert drawer_of([corpus, corpus]) is splits_figure
    assert drawer_of(corpus_card(corpus, progress=False)) is card_figure
    patch = xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2), "float32"))})
    assert all(drawer_of(other) is None for other in (patch, [patch, patch], [1, 2, 3, 4], "word", None))


def test_nonsense_is_refused(corpus: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus"):
        describe(xr.Dataset())
    with pytest.raises(InputError, match="max_samples"):
        describe(corpus, max_samples=0)
    with pytest.raises(InputError, match="None of these samples was built"):
        describe(corpus.isel(sample=[4, 9]))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        describe(corpus, tmp_path / "file", progress=False)
