"""Every action of the map has its function: the cell that the map shows makes the same, without any widget."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import ipywidgets
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from twin_actions import ACTIONS, HERE, LOOKS, STOP_ROW, STOPS, Action, Hand

import deepsentinel as ds
from deepsentinel.figures.overlays import Overlay
from deepsentinel.widgets import map as module
from deepsentinel.widgets.map import PANELS, Map
from deepsentinel.widgets.masks import told

README = Path(__file__).parents[2] / "README.md"
CALL = re.compile(r"\b(ds|src|index)\.(\w+)(?=\()")
pytestmark = pytest.mark.filterwarnings("ignore::deepsentinel.errors.DeepSentinelWarning")


class Story:
    """A session on one map, gone through as far as somebody asks; of each action what it made, and the cell for it."""

    def __init__(self, folder: Path) -> None:
        self.there, home = folder / "there", folder / "home"
        for each in (self.there, home):
            each.mkdir()
        self.folder, self.count = folder, 0
        self.hand: Hand | None = None
        self.home = home
        self.found: dict[str, tuple[dict[str, Any], str, Any]] = {}
        self.error: BaseException | None = None

    def upto(self, action: Action) -> tuple[dict[str, Any], str, Any]:
        before = Path.cwd()
        os.chdir(self.there)
        try:
            if self.hand is None:
                self.hand = Hand(Map(ds.open_source("demo", size_px=256)), self.home)
            while action.name not in self.found:
                assert self.error is None, f"an earlier action failed: {self.error}"
                self._go(ACTIONS[len(self.found)])
        finally:
            os.chdir(before)
        return self.found[action.name]

    def _go(self, action: Action) -> None:
        assert self.hand is not None
        m = self.hand.m
        try:
            action.do(self.hand)
            assert not [name for name in action.drops if name in m.state]
            made = {name: m.state[name] for name in action.makes}
            assert all(value is not None for value in made.values()), made
            said = None if action.says is None else action.says(m)
            code = m.code(*action.makes) if action.makes else m.code(*(("masks",) if action.twin else ()))
        except BaseException as error:
            self.error = error
            raise
        self.found[action.name] = made, code, said

    def fresh(self, code: str) -> Path:
        """An empty folder, in which a cell is to make its files anew; what it reads is there."""
        self.count += 1
        made = self.folder / f"fresh{self.count}"
        made.mkdir()
        for name, word in (("uploads", "uploads"), ("runs", "load_model")):
            if word in code:
                shutil.copytree(self.there / name, made / name)
        return made

    def close(self) -> None:
        if self.hand is not None:
            self.hand.m.close()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        # What lies under the map takes longer than all the rest, and has tests of its own.
        patch.setattr(module, "overview_of", lambda src: ("data:,", ((49.2, -0.1), (49.3, 0.1))))
        made = Story(tmp_path_factory.mktemp("story"))
        yield made
        made.close()


def run(code: str, folder: Path) -> dict[str, Any]:
    """What a cell makes, run where nothing else is."""
    from deepsentinel.learn.watching import one_core_free

    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        # As the panel trains: sums over other numbers of threads differ in the last digit.
        with one_core_free():
            exec(compile(code, "<cell>", "exec"), names)
    finally:
        os.chdir(before)
    return names


def check_same(one: Any, other: Any, there: Path, here: Path) -> None:
    """Arrays equal, tables equal, files equal."""
    assert type(one) is type(other)
    if isinstance(one, xr.Dataset | xr.DataArray):
        assert one.drop_attrs(deep=False).identical(other.drop_attrs(deep=False))
        # A corpus says where it lies, and one that was split how that was done.
        told, again = (
            {key: repr(value) for key, value in each.attrs.items() if key != "path"} for each in (one, other)
        )
        assert told == again
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
        assert getattr(one, "crs", None) == getattr(other, "crs", None)
    elif isinstance(one, Overlay):
        assert np.array_equal(one.image, other.image)
        assert (one.bounds, one.limits, one.panel.heading) == (other.bounds, other.limits, other.panel.heading)
    elif isinstance(one, Path):
        # As seen from where the cell ran.
        one, other = (Path(os.path.relpath(folder / each, folder)) for folder, each in ((there, one), (here, other)))
        assert one == other
        if one.suffix == ".gpkg":  # which holds the time at which it was written
            check_same(gpd.read_file(there / one), gpd.read_file(here / other), there, here)
        else:
            assert (there / one).read_bytes() == (here / other).read_bytes()
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            check_same(a, b, there, here)
    elif hasattr(one, "state_dict"):
        a, b = one.state_dict(), other.state_dict()
        assert a.keys() == b.keys()
        assert all(a[name].equal(b[name]) for name in a)
    elif hasattr(one, "fingerprint"):
        assert one.fingerprint == other.fingerprint
    elif hasattr(one, "reasons"):
        assert (one.ok, one.failed, one.built, one.reasons) == (other.ok, other.failed, other.built, other.reasons)
    elif hasattr(one, "savefig"):
        assert [axes.get_title() for axes in one.axes] == [axes.get_title() for axes in other.axes]
    elif hasattr(one, "predictions"):
        check_same(one.table, other.table, there, here)
    elif hasattr(one, "score_map"):
        assert repr(one) == repr(other)
        check_same(one.query(HERE, k=3), other.query(HERE, k=3), there, here)
    elif hasattr(one, "image"):
        assert np.array_equal(one.image, other.image)
        assert one.text == other.text
    elif hasattr(one, "geometry"):
        assert one.geometry.equals(other.geometry)
    else:
        assert one == other


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_the_cell_makes_the_same(story: Story, action: Action) -> None:
    made, code, said = story.upto(action)
    for name in action.drops:
        assert f"\n{name} = " not in code
    if action.drops:
        return
    folder = story.fresh(code)
    names = run(code, folder)
    for name, value in made.items():
        check_same(value, names[name], story.there, folder)
    if action.says is not None:
        assert said == told(eval(action.twin, names))


def test_the_whole_cell_makes_all_that_the_map_holds(story: Story) -> None:
    story.upto(ACTIONS[-1])
    assert story.hand is not None
    m = story.hand.m
    code = m.code()
    folder = story.fresh(code)
    names = run(code, folder)
    held = [line.split(" = ")[0] for line in code.splitlines()[2:]]
    assert {"src", "aoi", "pairs", "patch", "masks", "z", "examples", "label_map"} <= set(held)
    assert {"corpus", "model", "prediction"} <= set(held)
    for name in held:
        if name != "src":
            check_same(m.state[name], names[name], story.there, folder)


# -- nothing is missing ------------------------------------------------------------------------------------------------

CONTROLS = (
    ipywidgets.Button,
    ipywidgets.ValueWidget,
    ipywidgets.widgets.widget_selection._Selection,
    ipywidgets.widgets.widget_selection._MultipleSelection,
    ipywidgets.Accordion,
)
# What tells, and cannot be used.
TOLD = ("Label", "HTML", "Line")


def controls_of(name: str, held: Mapping[str, Any]) -> Iterator[str]:
    for key, value in held.items():
        if key.startswith("_") or key in ("state", "canvas", "jobs", "panel", "widget", "body"):
            continue
        if isinstance(value, dict):
            yield from controls_of(f"{name}.{key}", {str(each): one for each, one in value.items()})
        elif type(value).__name__ in TOLD:
            continue
        elif isinstance(value, CONTROLS) or type(value).__module__.startswith("deepsentinel.widgets"):
            if isinstance(value, ipywidgets.Widget):
                yield f"{name}.{key}"
            elif hasattr(value, "rows"):
                yield from controls_of(f"{name}.{key}", vars(value))


def test_every_control_belongs_to_an_action_or_only_changes_how_things_look() -> None:
    m = Map(ds.open_source("demo", size_px=256))
    try:
        found = [each for title in PANELS for each in controls_of(title, vars(m.open(title)))]
        m.wait(60)
    finally:
        m.close()
    told = {name for action in ACTIONS for name in action.controls} | set(STOPS) | LOOKS
    assert len(found) > 70
    assert sorted(set(found) - told) == []
    assert sorted(told - set(found)) == []


def rows_of_the_readme() -> dict[str, str]:
    text = README.read_text().split("## The map")[1].split("\n## ")[0]
    table = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.M)
    return {first: second for first, second in table if first not in ("on the map", "---") and "![" not in first}


def calls_in(code: str) -> set[str]:
    return {".".join(each) for each in CALL.findall(code)}


def test_the_readme_names_each_action_with_the_functions_it_calls(story: Story) -> None:
    rows = rows_of_the_readme()
    assert list(rows) == list(dict.fromkeys([*(action.row for action in ACTIONS), STOP_ROW]))
    calls: dict[str, set[str]] = {row: set() for row in rows}
    for action in ACTIONS:
        _, code, _ = story.upto(action)
        for line in code.splitlines()[2:]:
            name, made = line.split(" = ", 1)
            if name in action.makes:
                calls[action.row] |= calls_in(made)
        calls[action.row] |= calls_in(action.twin)
    calls[STOP_ROW] = set(STOPS.values())
    for row, cell in rows.items():
        assert calls_in(cell) == calls[row], row
        for part in re.findall(r"`([^`]+)`", cell):
            ast.parse(part)


def test_what_can_be_stopped_takes_stop() -> None:
    for name in STOPS.values():
        assert "stop" in inspect.signature(getattr(ds, name.removeprefix("ds."))).parameters
