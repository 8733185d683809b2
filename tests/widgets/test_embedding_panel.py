"""The embedding explorer, driven from Python: making vectors, colours and groups, likeness, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from widget_kit import Bench, cells_of

import deepsentinel as ds
from deepsentinel.widgets.embeddings import CLICK, COLOURS, GROUPS, LIKE, MATCHES, NOTHING, UNLIKE, EmbeddingPanel


def vectors_of(patch: xr.Dataset, seed: int = 0) -> xr.DataArray:
    """Vectors that know the left from the right, and little else."""

    def values(shape: tuple[int, int]) -> np.ndarray:
        made = np.random.default_rng(seed).normal(size=(*shape, 12)) * 0.2
        made[:, shape[1] // 2 :, 0] += 3
        made[:, : shape[1] // 2, 1] += 3
        return made

    return cells_of(patch, values, "sides")


def bench_of() -> Bench:
    return Bench(EmbeddingPanel)


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return make_patch((96, 96))


@pytest.fixture
def bench(patch: xr.Dataset) -> Iterator[Bench]:
    made = bench_of()
    made.state.put("patch", patch, "mine")
    made.state.put("z", vectors_of(patch), "theirs")
    made.settle()
    yield made
    made.close()


def test_only_encoders_that_are_here_are_offered(bench: Bench) -> None:
    offered = list(bench.panel.encoder.options)
    assert offered[0] == "fusion-nano"
    assert {"image-statistics", "random-convolutions"} <= set(offered)
    assert "croma-base" not in offered
    assert list(bench.panel.sensors.options) == ["S1 and S2", "Sentinel-1", "Sentinel-2"]
    assert [text for text, _ in bench.panel.cells.options] == ["80 m", "40 m", "20 m"]


def test_sensors_are_those_of_the_pair() -> None:
    bench = bench_of()
    assert bench.panel.make.disabled
    bench.state.put("patch", make_patch((48, 48), sensors=("S1",)), "mine")
    assert list(bench.panel.sensors.options) == ["Sentinel-1"]
    assert not bench.panel.make.disabled
    bench.close()


def test_the_button_runs_the_line_that_is_shown(patch: xr.Dataset) -> None:
    bench = bench_of()
    bench.state.put("patch", patch, "mine")
    bench.panel.encoder.value = "image-statistics"
    bench.panel.sensors.value = "Sentinel-2"
    bench.panel.make.click()
    bench.settle()
    lines = bench.state.code("z").splitlines()
    assert lines[-1] == "z = ds.embed(patch, 'image-statistics', sensors='s2', dense=True)"
    made: dict[str, Any] = {"mine": patch}
    exec(bench.state.code("z"), made)
    assert made["z"].identical(bench.state["z"])
    assert "image-statistics" in bench.panel.facts.value
    assert bench.canvas.pictures["embedding"].url == bench.state["view_z"].url
    bench.close()


def test_colours_groups_and_nothing(bench: Bench) -> None:
    panel = bench.panel
    assert "24 × 24 cells of 40 m" in panel.facts.value
    assert np.array_equal(bench.state["view_z"].image, ds.overlay(bench.state["z"]).image)
    assert panel.groups.layout.display == "none"
    panel.show_as.value = GROUPS
    bench.settle()
    assert len(panel.legend.rows) == 6
    panel.groups.value = 2
    bench.settle()
    assert [row["share"] for row in panel.legend.rows] == ["50 %", "50 %"]
    assert bench.state["groups"].identical(ds.cluster(bench.state["z"], k=2))
    assert bench.canvas.pictures["embedding"].url == bench.state["view_groups"].url
    panel.opacity.value = 30
    assert bench.canvas.pictures["embedding"].opacity == pytest.approx(0.3)
    panel.show_as.value = NOTHING
    assert "embedding" not in bench.canvas.pictures
    panel.show_as.value = COLOURS
    assert bench.canvas.pictures["embedding"].url == bench.state["view_z"].url
    assert panel.legend.rows == []


def test_a_click_lights_up_what_is_alike(bench: Bench) -> None:
    bench.click(10, 4)
    likeness = bench.state["likeness"].to_numpy()
    assert likeness[:, :12].min() > likeness[:, 12:].max()
    assert bench.canvas.pictures["likeness"].url == bench.state["view_likeness"].url
    assert bench.canvas.pictures["embedding"].opacity == 0
    matches = bench.state["matches"]
    assert len(matches) == len(bench.panel.strip.pieces) == MATCHES
    assert (matches["col"] < 12).all()
    # Not all of them beside the click.
    assert np.hypot(matches["row"] - 10, matches["col"] - 4).min() >= 3
    assert len(bench.canvas.shapes["matches"].data["features"]) == MATCHES
    assert bench.panel.strip.pieces[0]["text"] == f"{matches['score'].iloc[0]:.3f}"


def test_negatives_push_away(bench: Bench) -> None:
    bench.click(10, 4)
    before = bench.state["likeness"].to_numpy()
    bench.panel.clicks.value = UNLIKE
    bench.click(10, 20)
    after = bench.state["likeness"].to_numpy()
    gap = lambda map: map[:, :12].mean() - map[:, 12:].mean()  # noqa: E731
    assert gap(after) > 1.5 * gap(before)
    assert "1 place to be like, 1 not" in bench.panel.told.value
    fills = [each["properties"]["style"]["fillColor"] for each in bench.canvas.shapes["asked"].data["features"]]
    assert len(set(fills)) == 2
    assert "negatives=[" in bench.state.code("likeness")
    bench.panel.clear.click()
    assert bench.panel.told.value == CLICK
    assert "likeness" not in bench.canvas.pictures
    assert bench.canvas.shapes == {}
    assert bench.panel.strip.pieces == []
    assert bench.canvas.pictures["embedding"].opacity == pytest.approx(0.8)


def test_a_click_elsewhere_is_told_and_not_remembered(bench: Bench) -> None:
    bench.click_at(9.0, 9.0)
    assert "outside of the index" in bench.panel.line.text
    bench.click(10, 4)
    assert len(bench.canvas.shapes["asked"].data["features"]) == 1
    bench.panel.front = False
    bench.click(3, 20)
    bench.panel.front = True
    assert len(bench.canvas.shapes["asked"].data["features"]) == 1


def test_other_tabs_see_nothing_of_it(bench: Bench) -> None:
    bench.click(10, 4)
    bench.panel.front = False
    assert {layer.opacity for layer in bench.canvas.pictures.values()} == {0}
    assert bench.canvas.shapes == {}
    bench.state.put("z", bench.state["z"] + 0, "others")
    bench.settle()
    assert bench.canvas.pictures["embedding"].opacity == 0
    bench.panel.front = True
    assert bench.canvas.pictures["embedding"].opacity == pytest.approx(0.8)
    bench.click(10, 4)
    bench.panel.front = False
    bench.panel.front = True
    assert bench.canvas.pictures["likeness"].opacity == pytest.approx(0.8)
    assert set(bench.canvas.shapes) == {"asked", "matches"}


def test_a_match_is_shown_on_the_map(bench: Bench) -> None:
    bench.click(10, 4)
    bench.panel.strip.picked = 2
    match = bench.state["matches"].iloc[2]
    assert bench.canvas.map.center == [match["lat"], match["lon"]]
    (square,) = bench.canvas.shapes["match"].data["features"]
    ring = np.array(square["geometry"]["coordinates"][0])
    assert (ring.min(axis=0) < [match["lon"], match["lat"]]).all()
    assert (ring.max(axis=0) > [match["lon"], match["lat"]]).all()


def test_the_cell_makes_the_same(bench: Bench, patch: xr.Dataset) -> None:
    bench.click(10, 4)
    bench.panel.clicks.value = UNLIKE
    bench.click(3, 21)
    made: dict[str, Any] = {"mine": patch, "theirs": bench.state["z"]}
    exec(bench.state.code(), made)
    assert made["likeness"].identical(bench.state["likeness"])
    assert made["matches"].equals(bench.state["matches"])
    assert np.array_equal(made["thumbnails"][3].image, bench.state["thumbnails"][3].image)


def test_another_patch_takes_all_of_it_away(bench: Bench) -> None:
    bench.click(10, 4)
    bench.state.put("patch", make_patch((64, 64), seed=2), "another")
    # Vectors that nobody made of the patch stay; those that were go with it.
    bench.state.drop("z")
    assert bench.canvas.pictures == {}
    assert bench.canvas.shapes == {}
    assert bench.panel._shown.layout.display == "none"


def test_a_click_before_the_index_is_ready_keeps_what_it_found(
    patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, make = threading.Event(), ds.similarity_index

    def late(z: xr.DataArray) -> Any:
        if threading.current_thread() is not threading.main_thread():
            assert go.wait(20)
        return make(z)

    monkeypatch.setattr(ds, "similarity_index", late)
    bench = bench_of()
    bench.state.put("patch", patch, "mine")
    bench.state.put("z", vectors_of(patch), "theirs")
    bench.click(10, 4)
    names = ("index", "likeness", "matches", "thumbnails")
    found = [bench.state[name] for name in names]
    go.set()
    bench.settle()
    assert all(bench.state[name] is each is not None for name, each in zip(names, found, strict=True))
    bench.panel.strip.picked = 2
    assert "match" in bench.canvas.shapes
    bench.close()


def test_what_was_chosen_last_stays_in_front(bench: Bench) -> None:
    """Of colours and heat map one is seen, whatever is moved and whichever tab one comes back from."""
    panel = bench.panel

    def seen() -> dict[str, float]:
        return {key: layer.opacity for key, layer in bench.canvas.pictures.items() if layer.opacity}

    bench.click(10, 4)
    panel.opacity.value = 30
    assert seen() == {"likeness": pytest.approx(0.8)}
    panel.show_as.value = GROUPS
    bench.settle()
    panel.show_as.value = COLOURS
    assert seen() == {"embedding": pytest.approx(0.3)}
    panel.front = False
    assert seen() == {}
    panel.front = True
    assert seen() == {"embedding": pytest.approx(0.3)}
    # Who moves the heat map's own opacity wants to see it.
    panel.heat.value = 60
    assert seen() == {"likeness": pytest.approx(0.6)}
    panel.clear.click()
    assert seen() == {"embedding": pytest.approx(0.3)}
    panel.heat.value = 70
    assert seen() == {"embedding": pytest.approx(0.3)}


def test_closing_leaves_nothing(patch: xr.Dataset) -> None:
    before, threads = len(_instances), threading.active_count()
    bench = bench_of()
    bench.state.put("patch", patch, "mine")
    bench.state.put("z", vectors_of(patch), "theirs")
    bench.settle()
    bench.click(10, 4)
    bench.panel.clicks.value = LIKE
    bench.close()
    assert len(_instances) == before
    assert threading.active_count() == threads
    bench.state.drop("z")
