"""What all tabs stand on: a state that keeps only what still holds, panels that tell errors, ends without rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

from deepsentinel.errors import InputError
from deepsentinel.widgets.canvas import Canvas, pane_of, view_of
from deepsentinel.widgets.cells import end_former
from deepsentinel.widgets.closing import close_all
from deepsentinel.widgets.controls import Slider
from deepsentinel.widgets.jobs import Jobs
from deepsentinel.widgets.panel import Panel
from deepsentinel.widgets.state import ANY, State


@pytest.fixture
def panel() -> Iterator[Panel]:
    state, canvas, jobs = State(), Canvas(), Jobs()
    made = Panel(state, canvas, jobs)
    yield made
    jobs.close()
    made.close()
    canvas.close()


# -- the state ---------------------------------------------------------------------------------------------------------


def test_what_was_computed_of_another_thing_of_the_same_name_is_not_kept() -> None:
    state = State()
    state.put("aoi", 1)
    result, made = state.compute("aoi + 1")
    state.put("aoi", 10)
    assert result == 2
    assert not state.keep("grid", made)
    assert "grid" not in state
    fresh, made = state.compute("aoi + 1")
    assert state.keep("grid", made)
    assert state["grid"] == fresh == 11


def test_the_line_of_a_thing_is_that_of_its_cell() -> None:
    state = State()
    state.put("aoi", 1)
    state.do("grid", "aoi + {more}", more=2)
    assert (state.line("aoi"), state.line("grid"), state.line("patch")) == ("1", "aoi + 2", "")
    state.drop("aoi")
    assert state.line("grid") == ""


def test_what_is_not_there_yet_is_named() -> None:
    with pytest.raises(InputError, match="There is no grid yet"):
        State().compute("src.read(grid)")


def test_values_and_own_words_of_a_line_are_not_taken_for_missing_things() -> None:
    state = State()
    assert state.do("x", "[each * {by} for each in range(3)]", by=2) == [0, 2, 4]
    assert state.code("x").endswith("x = [each * 2 for each in range(3)]")


def test_who_is_told_may_wait_for_another_thread_that_asks_the_state() -> None:
    state, answers = State(), []

    def told(_: Any) -> None:
        other = threading.Thread(target=lambda: answers.append("b" in state and state.code("b")), daemon=True)
        other.start()
        other.join(5)
        answers.append(other.is_alive())

    state.put("a", 1)
    state.watch("b", told)
    _, made = state.compute("a + 1")
    thread = threading.Thread(target=lambda: state.keep("b", made), daemon=True)
    thread.start()
    thread.join(8)
    assert answers == ["import deepsentinel as ds\n\na = 1\nb = a + 1", False]


def test_whoever_watches_everything_hears_of_each_thing_and_each_loss() -> None:
    state, heard = State(), []
    end = state.watch(ANY, heard.append)
    state.put("a", 1)
    state.do("b", "a + 1")
    state.drop("a")
    end()
    state.put("a", 3)
    assert heard[:2] == [1, 2]
    assert heard[2:] == [None, None]


def test_a_job_can_be_waited_for_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, heard, start, about = Jobs(), [], threading.Thread.start, threading.Event()

    def slowly(thread: threading.Thread) -> None:
        if thread.name == "deepsentinel sum":
            about.set()
            time.sleep(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    other = threading.Thread(target=lambda: jobs.start("sum", lambda stop: 2, done=heard.append, failed=heard.append))
    other.start()
    assert about.wait(5)
    assert jobs.wait(5)
    assert heard == [2]
    other.join()


# -- panels ------------------------------------------------------------------------------------------------------------


def test_what_a_callback_raises_is_told_in_its_own_words(panel: Panel) -> None:
    def wrong(_: Any) -> None:
        raise InputError("Give a number, not <b>that</b>.")

    slider = Slider(value=1, max=10)
    panel.listen(slider, wrong)
    slider.value = 2
    assert (panel.line.kind, panel.line.text) == ("error", "Give a number, not <b>that</b>.")
    close_all(slider)


def test_an_error_that_is_not_ours_says_what_it_is(panel: Panel) -> None:
    panel.complain(ZeroDivisionError("division by zero"))
    assert panel.line.text == "ZeroDivisionError: division by zero"
    panel.complain(KeyError())
    assert panel.line.text == "KeyError"


def test_a_button_calls_and_tells(panel: Panel) -> None:
    pressed: list[int] = []
    button = panel.button("Go", lambda: pressed.append(1), main=True)
    button.click()
    assert pressed == [1]
    panel.button("Break", lambda: 1 / 0).click()
    assert panel.line.kind == "error"


def test_long_work_is_said_and_kept_and_passed_on(panel: Panel) -> None:
    go, got = threading.Event(), []
    panel.state.put("wait", go.wait)
    panel.run("there", "wait({seconds})", text="Waiting", then=got.append, seconds=5)
    limit = time.monotonic() + 5
    while panel.line.kind != "busy" and time.monotonic() < limit:
        time.sleep(0.005)
    assert panel.line.text == "Waiting"
    assert "there" not in panel.state
    go.set()
    assert panel.jobs.wait(5)
    assert got == [True]
    assert panel.state["there"] is True
    assert (panel.line.kind, panel.line.text) == ("news", "")


def test_long_work_that_fails_is_told(panel: Panel) -> None:
    panel.run("there", "1 / {by}", text="Dividing", by=0)
    assert panel.jobs.wait(5)
    assert (panel.line.kind, panel.line.text) == ("error", "ZeroDivisionError: division by zero")
    # Another try clears it.
    panel.run("there", "1 / {by}", text="Dividing", by=2)
    assert panel.jobs.wait(5)
    assert (panel.line.kind, panel.state["there"]) == ("news", 0.5)


def test_nobody_hears_of_long_work_whose_ground_has_changed(panel: Panel) -> None:
    go, got = threading.Event(), []
    panel.state.put("wait", go.wait)
    panel.state.put("aoi", 1)
    panel.run("there", "[wait(5), aoi]", text="Waiting", then=got.append)
    panel.state.put("aoi", 2)
    go.set()
    assert panel.jobs.wait(5)
    assert (got, "there" in panel.state) == ([], False)


def test_two_jobs_at_once_leave_the_line_of_the_one_that_still_runs(panel: Panel) -> None:
    with panel.busy("Reading"):
        with panel.busy("Searching"):
            assert panel.line.text == "Searching"
        assert (panel.line.kind, panel.line.text) == ("busy", "Reading")
    assert panel.line.text == ""


def test_an_error_is_not_wiped_off_by_the_end_of_the_work(panel: Panel) -> None:
    with panel.busy("Reading"):
        panel.complain("No.")
    assert panel.line.text == "No."


def test_a_closed_panel_leaves_no_widget_no_thread_and_hears_nothing() -> None:
    before, threads = set(_instances), threading.active_count()
    state, canvas, jobs, heard = State(), Canvas(), Jobs(), []
    panel = Panel(state, canvas, jobs)
    slider = Slider()
    panel.body.children = (panel.row(panel.button("Go", panel.say), panel.control(ipywidgets.Checkbox, "Also")), slider)
    panel.listen(slider, heard.append)
    panel.watch("aoi", heard.append)
    panel.at_end(canvas.on_click(lambda lon, lat: heard.append((lon, lat))))
    panel.run("x", "1 + 1", text="Adding")
    assert jobs.wait(5)
    panel.close()
    panel.close()
    state.put("aoi", 1)
    canvas._interaction(type="click", coordinates=(48.0, 2.0))
    slider.value = 1
    panel.say("still there?")
    canvas.close()
    assert heard == []
    assert set(_instances) == before
    assert threading.active_count() == threads


# -- the canvas --------------------------------------------------------------------------------------------------------


def test_a_layer_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="no layer 'base map'"):
        pane_of("base map")


def test_pictures_lie_in_their_panes_and_a_new_one_takes_the_place_of_the_old() -> None:
    before = set(_instances)
    canvas = Canvas()
    bounds = ((48.0, 2.0), (48.1, 2.1))
    canvas.lay_url("s2", "data:,a", bounds)
    first = canvas.pictures["s2"]
    canvas.lay_url("s2", "data:,b", bounds, opacity=0.5)
    assert canvas.pictures["s2"] is first
    assert (first.url, first.opacity, first.pane) == ("data:,b", 0.5, pane_of("s2"))
    canvas.lay_url("s2", "data:,c", ((48.0, 2.0), (48.2, 2.1)))
    assert canvas.pictures["s2"] is not first
    assert canvas.map.layers == (canvas.pictures["s2"],)
    canvas.tiles("https://example.org/{z}/{x}/{y}.png", "example")
    assert len(canvas.map.layers) == 2
    canvas.tiles(None)
    assert len(canvas.map.layers) == 1
    canvas.close()
    assert set(_instances) == before


def test_a_map_asks_nobody_for_tiles_unless_somebody_wants_them() -> None:
    canvas = Canvas()
    assert canvas.map.layers == ()
    canvas.close()


@pytest.mark.parametrize("size", [(560, 480), (300, 700), (1200, 400)])
@pytest.mark.parametrize(
    "bounds",
    [
        ((48.0, 2.0), (48.1, 2.1)),
        ((-34.0, 18.0), (-33.0, 22.0)),
        ((60.0, 5.0), (75.0, 6.0)),
        ((-1.0, 179.0), (1.0, 182.0)),
    ],
)
def test_the_view_shows_the_ground_whole_and_no_smaller_than_need_be(
    bounds: tuple[tuple[float, float], tuple[float, float]], size: tuple[int, int]
) -> None:
    from pyproj import Transformer

    (lat, lon), zoom = view_of(bounds, size)
    to_metres = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    px_per_m = 256 * 2**zoom / (2 * 20_037_508.34)
    x0, y0 = to_metres.transform(lon - 180, lat)
    shares = []
    for corner_lat, corner_lon in bounds:
        x, y = to_metres.transform(corner_lon - 180, corner_lat)
        shares += [abs(x - x0) * px_per_m / (size[0] / 2), abs(y - y0) * px_per_m / (size[1] / 2)]
    assert 0.45 < max(shares) <= 1.0


def test_clicks_while_something_is_drawn_are_corners_and_nothing_else() -> None:
    canvas, heard = Canvas(), []
    canvas.on_click(lambda lon, lat: heard.append((lon, lat)))
    canvas._interaction(type="click", coordinates=(48.0, 362.0))
    canvas.drawing.sketching._handle_custom_msg({"active": True}, [])
    canvas._interaction(type="click", coordinates=(48.0, 3.0))
    canvas.drawing.sketching._handle_custom_msg({"active": False}, [])
    canvas._interaction(type="mousemove", coordinates=(48.0, 3.0))
    assert heard == [(2.0, 48.0)]
    canvas.close()


# -- cells that run again ----------------------------------------------------------------------------------------------


class Thing:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_cell_that_runs_again_closes_what_it_made_and_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.widgets import cells

    now = ["cell a", "run 1"]
    monkeypatch.setattr(cells, "here", lambda: tuple(now))
    monkeypatch.setattr(cells, "_MADE", {})
    first, second, third, fourth = Thing(), Thing(), Thing(), Thing()
    end_former(first)
    end_former(second)
    now[:] = ["cell b", "run 2"]
    end_former(third)
    assert [each.closed for each in (first, second, third)] == [False] * 3
    now[:] = ["cell a", "run 3"]
    end_former(fourth)
    assert (first.closed, second.closed, third.closed, fourth.closed) == (True, True, False, False)


def test_outside_a_notebook_nothing_is_closed() -> None:
    first, second = Thing(), Thing()
    end_former(first)
    end_former(second)
    assert not first.closed
