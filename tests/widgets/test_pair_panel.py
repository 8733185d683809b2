"""The pair inspector, driven from Python: what it shows, what a click finds, and that nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from pyproj import Transformer
from widget_kit import Bench

import deepsentinel as ds
from deepsentinel.errors import NothingFoundError, StoppedError
from deepsentinel.figures.overlays import Overlay
from deepsentinel.grids import grid_of
from deepsentinel.widgets.pair_words import pixel_words, told
from deepsentinel.widgets.pairs import NONE_READ, ONLY_S1, ONLY_S2, SWIPE, PairPanel


class Pair(Bench):
    """A panel of pairs."""

    def __init__(self) -> None:
        super().__init__(PairPanel)

    def shown(self, key: str) -> Overlay:
        return self.state[f"view_{key}"]


@pytest.fixture
def bench() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    made = make_patch((96, 96))
    made["SCL"].to_numpy()[:10] = 9
    return made


def place_of(patch: xr.Dataset, row: int, col: int) -> tuple[float, float]:
    to = Transformer.from_crs(str(grid_of(patch).crs), 4326, always_xy=True)
    lon, lat = to.transform(float(patch.x[col]), float(patch.y[row]))
    return float(lon), float(lat)


def test_both_sensors_are_laid_and_parted_by_a_handle(bench: Pair, patch: xr.Dataset) -> None:
    assert bench.panel.facts.value == NONE_READ
    assert bench.panel._shown.layout.display == "none"
    bench.state.put("patch", patch, "mine")
    assert set(bench.canvas.pictures) == {"s1", "s2"}
    assert bench.canvas.swiped("s2", "s1")
    assert bench.panel.facts.value == told(patch)
    assert "7.0 hours after" in bench.panel.facts.value
    assert patch.attrs["orbit"] in bench.panel.facts.value
    assert (bench.shown("s2").panel.name, bench.shown("s1").panel.name) == ("natural", "s1")
    assert bench.canvas.pictures["s2"].url == bench.shown("s2").url


def test_one_sensor_alone(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    for view, seen in ((ONLY_S1, {"s1": 1, "s2": 0}), (ONLY_S2, {"s1": 0, "s2": 1}), (SWIPE, {"s1": 1, "s2": 1})):
        bench.panel.views.value = view
        assert {key: layer.opacity for key, layer in bench.canvas.pictures.items()} == seen
        assert bench.canvas.swiped("s2", "s1") == (view == SWIPE)


def test_a_pair_that_is_read_beside_the_kernel_is_painted(bench: Pair, patch: xr.Dataset) -> None:
    """Its pictures are drawn on threads that ask the state, while the one that read it tells of it."""

    class Reader:
        def read(self) -> xr.Dataset:
            return patch

    bench.state.put("src", Reader(), "theirs")
    bench.panel.run("patch", "src.read()", text="Reading")
    assert bench.jobs.wait(10)
    assert set(bench.canvas.pictures) == {"s1", "s2"}
    assert bench.panel.line.kind == "news"


def test_the_handle_comes_back_with_the_tab(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    bench.panel.front = False
    bench.canvas.unswipe()
    bench.canvas.fade("s1", 0.0)
    bench.panel.front = True
    assert bench.canvas.swiped("s2", "s1")
    assert bench.canvas.pictures["s1"].opacity == 1


def test_composites_and_bands_are_chosen(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    names = [name for _, name in bench.panel.choices["s2"].options]
    assert names[:3] == ["natural", "false", "swir"]
    assert {"B8A", "SCL"} <= set(names)
    assert [name for _, name in bench.panel.choices["s1"].options] == ["s1", "VV", "VH"]
    layers = dict(bench.canvas.pictures)
    for key, name in (("s2", "false"), ("s2", "B11"), ("s1", "VH"), ("s2", "SCL")):
        bench.panel.choices[key].value = name
        assert bench.shown(key).panel.name == name
        assert np.array_equal(bench.shown(key).image, ds.overlay(patch, name).image)
        assert bench.canvas.swiped("s2", "s1")
        # The layer stays and its picture changes: one that comes and goes flickers.
        assert bench.canvas.pictures == layers
        assert bench.canvas.pictures[key].url == bench.shown(key).url
    assert bench.panel.stretches["s2"].channels == []
    assert bench.panel.automatic["s2"].disabled


def test_a_stretch_is_that_of_the_line_and_goes_back(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    suits = bench.shown("s2").image
    stretch = bench.panel.stretches["s2"]
    assert [channel["name"] for channel in stretch.channels] == ["B04 red", "B03 green", "B02 blue"]
    stretch.limits = [[0.0, 0.6]] * 3
    dark = bench.shown("s2")
    assert dark.image[..., :3].mean() < 0.8 * suits[..., :3].mean()
    assert bench.canvas.pictures["s2"].url == dark.url
    assert "limits=[(0.0, 0.6), (0.0, 0.6), (0.0, 0.6)]" in bench.state.code("view_s2")
    bench.panel.automatic["s2"].click()
    assert np.array_equal(bench.shown("s2").image, suits)
    assert "limits" not in bench.state.code("view_s2")


def test_what_was_chosen_stays_for_the_next_pair(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    bench.panel.choices["s2"].value = "swir"
    bench.state.put("patch", make_patch((64, 64), seed=3), "another")
    assert bench.panel.choices["s2"].value == "swir"
    assert bench.shown("s2").image.shape[0] < 70


@pytest.mark.parametrize(("sensors", "view"), [(("S1",), ONLY_S1), (("S2",), ONLY_S2)])
def test_a_patch_of_one_sensor(bench: Pair, sensors: tuple[str, ...], view: str) -> None:
    bench.state.put("patch", make_patch((48, 48), sensors=sensors), "mine")
    assert bench.panel.views.options == (view,)
    (layer,) = bench.canvas.pictures.values()
    assert layer.opacity == 1
    assert bench.panel.line.kind != "error", bench.panel.line.text


def test_clouds_are_marked_on_demand(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    assert "clouds" not in bench.canvas.pictures
    bench.panel.clouds.value = True
    assert 0 < bench.canvas.pictures["clouds"].opacity < 1
    assert [row["name"] for row in bench.panel.cloud_legend.rows] == ["cloud, high"]
    assert bench.panel.cloud_legend.rows[0]["color"] == "#d55e00"
    share = (patch["SCL"].isin([3, 8, 9, 10]).sum() / (patch["SCL"] != 0).sum()).item()
    assert f"{100 * share:.0f} %" in bench.panel.cloud_legend.title
    bench.panel.clouds.value = False
    assert "clouds" not in bench.canvas.pictures
    assert bench.panel.cloud_legend.rows == []


def test_a_patch_that_is_gone_takes_its_pictures(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    bench.panel.clouds.value = True
    bench.state.drop("patch")
    assert bench.canvas.pictures == {}
    assert bench.panel.facts.value == NONE_READ


class Slow:
    """A source whose points arrive one date after another, when they are let through."""

    name = "slow"

    def __init__(self) -> None:
        self.go, self.asked = threading.Semaphore(0), []


def fake_point(dates: int) -> xr.Dataset:
    times = np.array(["2018-03-01T10:57", "2018-05-01T10:57", "2018-07-01T10:57"][:dates], "datetime64[ns]")
    variables = {
        "B04": (("s2_time",), np.full(dates, 500, "uint16")),
        "B08": (("s2_time",), np.full(dates, 3500, "uint16")),
        "clear": (("s2_time",), np.arange(dates) != 1),
    }
    return xr.Dataset(variables, {"s2_time": times})


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    source = Slow()

    def read_point(
        src: Slow, at: Any, start: str, end: str, *, max_dates: Any, like: Any, on_read: Any, stop: Any
    ) -> Any:
        src.asked.append((at, start, end, max_dates))
        for number in (1, 2, 3):
            src.go.acquire()
            if stop():
                break
            on_read(fake_point(number))
        return fake_point(number)

    monkeypatch.setattr(ds, "read_point", read_point)
    return source


def test_a_click_shows_the_spectrum_at_once_and_then_the_year(bench: Pair, patch: xr.Dataset, slow: Slow) -> None:
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    lon, lat = place_of(patch, 30, 40)
    bench.click_at(lon, lat)
    (line,) = bench.panel.charts.spectra
    assert line["text"] == "This pair, 2018-07-04"
    drawn = {band: share for band, _, share in line["points"]}
    assert set(drawn) == set(patch.data_vars) - {"VV", "VH", "SCL", "B09"}
    assert all(share == patch[band].to_numpy()[30, 40] / 10_000 for band, share in drawn.items())
    assert pixel_words(bench.state["pixel"]) in bench.panel.charts.text
    assert "pixel" in bench.canvas.shapes
    assert bench.panel.line.kind == "busy"
    slow.go.release(2)
    until(lambda: len(bench.panel.charts.year["s2"]) == 2)
    assert "point" not in bench.state
    slow.go.release(1)
    assert bench.jobs.wait(5)
    assert [each["clear"] for each in bench.panel.charts.year["s2"]] == [True, False, True]
    assert bench.state["point"].identical(fake_point(3))
    assert slow.asked == [((round(lon, 6), round(lat, 6)), "2018-01-01", "2018-12-31", 12)]
    bench.panel.charts.picked = "2018-05-01T10:57"
    assert bench.panel.charts.spectra[1] == {
        "text": "2018-05-01 10:57 UTC", "points": [("B04", 665.0, 0.05), ("B08", 842.0, 0.35)]
    }  # fmt: skip


def until(true: Any, seconds: float = 5) -> None:
    ends = threading.Event()
    for _ in range(int(seconds * 100)):
        if true():
            return
        ends.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_a_second_click_stops_the_first(bench: Pair, patch: xr.Dataset, slow: Slow) -> None:
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    bench.click_at(*place_of(patch, 30, 40))
    bench.click_at(*place_of(patch, 60, 20))
    slow.go.release(4)
    assert bench.jobs.wait(5)
    until(lambda: not [each for each in threading.enumerate() if each.name == "deepsentinel point"])
    assert f"{round(place_of(patch, 60, 20)[1], 6)}" in bench.state.code("point")
    assert bench.panel.line.kind == "news"


@pytest.mark.parametrize("ending", ["a part", "nothing", "an error"])
@pytest.mark.parametrize("where", ["outside", "without its year"])
def test_nobody_hears_of_a_year_that_a_click_has_ended(
    bench: Pair, patch: xr.Dataset, slow: Slow, monkeypatch: pytest.MonkeyPatch, ending: str, where: str
) -> None:
    read = ds.read_point

    def ended(*args: Any, **options: Any) -> Any:
        point = read(*args, **options)
        if options["stop"]() and ending != "a part":
            raise StoppedError("stopped") if ending == "nothing" else NothingFoundError("None of 3 dates has data.")
        return point

    monkeypatch.setattr(ds, "read_point", ended)
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    bench.click_at(*place_of(patch, 30, 40))
    slow.go.release(2)
    until(lambda: len(bench.panel.charts.year["s2"]) == 2)
    if where == "outside":
        bench.click_at(50.0, 10.0)
    else:
        bench.panel.whole_year.value = False
        bench.click_at(*place_of(patch, 60, 20))
    text = bench.panel.charts.text
    slow.go.release(1)
    assert bench.jobs.wait(5)
    assert "point" not in bench.state
    assert bench.panel.charts.year == {"s2": [], "s1": []}
    assert (bench.panel.line.kind, bench.panel.line.text, bench.panel.charts.text) == ("news", "", text)


def test_the_year_of_a_pixel_goes_with_the_next_click(bench: Pair, patch: xr.Dataset, slow: Slow) -> None:
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    bench.click_at(*place_of(patch, 30, 40))
    slow.go.release(3)
    assert bench.jobs.wait(5)
    assert "point" in bench.state
    bench.panel.whole_year.value = False
    bench.click_at(*place_of(patch, 60, 20))
    assert "point" not in bench.state


def test_a_click_elsewhere_asks_nobody(bench: Pair, patch: xr.Dataset, slow: Slow) -> None:
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    bench.click_at(50.0, 10.0)
    assert "outside of the pair" in bench.panel.charts.text
    bench.panel.inspect.value = False
    bench.click_at(*place_of(patch, 30, 40))
    bench.panel.inspect.value, bench.panel.front = True, False
    bench.click_at(*place_of(patch, 30, 40))
    assert bench.panel.charts.spectra == []
    bench.panel.front, bench.panel.whole_year.value = True, False
    bench.click_at(*place_of(patch, 30, 40))
    assert len(bench.panel.charts.spectra) == 1
    assert slow.asked == []


def test_what_goes_wrong_is_said(bench: Pair, patch: xr.Dataset) -> None:
    bench.state.put("patch", patch, "mine")
    bench.click_at(*place_of(patch, 30, 40))
    assert bench.panel.line.kind == "error"
    assert "source is not open" in bench.panel.line.text
    bench.state.put("src", object(), "nothing")
    bench.click_at(*place_of(patch, 30, 40))
    assert bench.jobs.wait(5)
    assert bench.panel.line.kind == "error"
    assert "search" in bench.panel.line.text


def test_a_figure_to_take_away(bench: Pair, patch: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench.state.put("patch", patch, "mine")
    bench.panel.choices["s2"].value = "false"
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        bench.panel.kind.value = kind
        bench.panel.figure.click()
        assert bench.jobs.wait(60)
        file = tmp_path / f"pair_2018-07-04.{kind}"
        assert file.read_bytes().startswith(begins)
        assert f'download="{file.name}"' in bench.panel.link.value
        assert str(tmp_path) in bench.panel.link.value
    assert "ds.show(patch, panels=['false', 's1'])" in bench.state.code("figure_file")


def test_a_figure_of_an_earlier_day_is_not_written_over(
    bench: Pair, patch: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    earlier = Path("pair_2018-07-04.png")
    earlier.write_bytes(b"of an earlier day")
    bench.state.put("patch", patch, "mine")
    for view in (ONLY_S1, ONLY_S2):
        bench.panel.views.value = view
        bench.panel.figure.click()
        bench.settle()
        assert "pair_2018-07-04.png was there already, and stays as it is" in bench.panel.line.text
        assert 'download="pair_2018-07-04-2.png"' in bench.panel.link.value
        assert bench.state.line("figure_file") == "ds.save_figure(figure, 'pair_2018-07-04-2.png')"
    # What it wrote itself is written again.
    assert sorted(path.name for path in Path().iterdir()) == ["pair_2018-07-04-2.png", earlier.name]
    assert earlier.read_bytes() == b"of an earlier day"
    bench.panel.kind.value = "svg"
    for _ in range(2):
        bench.panel.figure.click()
        bench.settle()
        assert 'download="pair_2018-07-04.svg"' in bench.panel.link.value
        assert bench.panel.line.text == ""


def test_the_cell_makes_the_same(bench: Pair) -> None:
    """With a real source: what was clicked together is what its lines give when somebody runs them."""
    src = ds.open_source("demo", size_px=256)
    state = bench.state
    state.put("src", src, "ds.open_source('demo', size_px=256)")
    state.do("aoi", "src.area")
    state.do("scenes", "src.search(aoi, {start}, {end})", start="2018-06-01", end="2018-06-30")
    state.do("pairs", "ds.pair(scenes, aoi=aoi, max_days=3)")
    state.do("grid", "ds.geobox(aoi)")
    state.do("patch", "src.read(pairs.iloc[{row}], grid)", row=0)
    bench.panel.dates.value = "8"
    bench.panel.choices["s2"].value = "false"
    bench.panel.stretches["s1"].limits = [[-20.0, 0.0], [-25.0, -8.0], [0.0, 12.0]]
    bench.panel.clouds.value = True
    bench.click_at(*src.area.geometry.centroid.coords[0])
    assert bench.jobs.wait(120)
    assert bench.panel.line.kind == "news", bench.panel.line.text
    made: dict[str, Any] = {}
    exec(state.code(), made)
    assert made["patch"].identical(state["patch"])
    assert made["point"].identical(state["point"])
    assert made["pixel"] == state["pixel"]
    for name in ("view_s1", "view_s2", "view_clouds"):
        assert np.array_equal(made[name].image, state[name].image), name
    assert len(bench.panel.charts.year["s1"]) == state["point"].sizes["s1_time"] == 8


def test_closing_leaves_nothing(patch: xr.Dataset, slow: Slow) -> None:
    before, threads = len(_instances), threading.active_count()
    bench = Pair()
    bench.state.put("src", slow, "theirs")
    bench.state.put("patch", patch, "mine")
    bench.panel.clouds.value = True
    bench.click_at(*place_of(patch, 30, 40))
    bench.close()
    assert len(_instances) == before
    slow.go.release(3)
    until(lambda: threading.active_count() == threads)
    bench.state.put("patch", patch, "mine")
    assert bench.canvas.pictures == {}
