"""What is saved in the notebooks is what they show when they run, and exercises keep their answers folded away."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tidy_notebooks import WIDGET, faults_of, is_solution, tidied

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("0*.ipynb"))
EXERCISES = 3


def loaded(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_saved_as_it_ran(path: Path) -> None:
    assert list(faults_of(loaded(path), bytes_saved=path.stat().st_size)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_exercises_with_a_place_for_the_answer_before_each_solution(path: Path) -> None:
    cells = loaded(path)["cells"]
    solutions = [number for number, cell in enumerate(cells) if is_solution(cell)]
    assert len(solutions) == EXERCISES
    for count, number in enumerate(solutions, start=1):
        assert f"**{count}.**" in "".join(cells[number - 2]["source"])
        assert "".join(cells[number - 1]["source"]) == "# your answer"


def small() -> dict[str, Any]:
    """A notebook that is as it has to be."""
    printed = {"output_type": "stream", "name": "stdout", "text": ["3\n"]}
    code = {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": ["print(3)"], "outputs": [printed]}
    hidden = {"tags": ["solution"], "jupyter": {"source_hidden": True, "outputs_hidden": True}}
    solution = {**code, "metadata": hidden, "source": ["assert 1 + 1 == 2"], "outputs": [], "execution_count": None}
    return tidied({"metadata": {}, "cells": [code, solution, {**copy.deepcopy(code), "execution_count": 2}]})


def no_output(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["outputs"] = []


def an_error(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["outputs"].append({"output_type": "error", "ename": "E", "evalue": "", "traceback": []})


def out_of_order(notebook: dict[str, Any]) -> None:
    notebook["cells"][2]["execution_count"] = 7


def another_code(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["source"] = ["print(4)"]


def a_path(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["outputs"][0]["text"] = ["/home/somebody/corpus.zarr"]


def a_widget(notebook: dict[str, Any]) -> None:
    view = {"output_type": "display_data", "data": {WIDGET: {"model_id": "1"}}, "metadata": {}}
    notebook["cells"][0]["outputs"].append(view)


def widget_state(notebook: dict[str, Any]) -> None:
    notebook["metadata"]["widgets"] = {}


def an_answer(notebook: dict[str, Any]) -> None:
    notebook["cells"][1]["execution_count"] = 2


def an_open_solution(notebook: dict[str, Any]) -> None:
    notebook["cells"][1]["metadata"].pop("jupyter")


def no_assert(notebook: dict[str, Any]) -> None:
    notebook["cells"][1]["source"] = ["1 + 1"]


def a_large_picture(notebook: dict[str, Any]) -> None:
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 600_000}, "metadata": {}}
    notebook["cells"][0]["outputs"].append(picture)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_output, "nothing was saved"),
        (an_error, "ended in an error"),
        (out_of_order, "ran as number 7, and not as 2"),
        (another_code, "its code has changed"),
        (a_path, "'/home/somebody' in it"),
        (a_widget, "view of a widget"),
        (widget_state, "state of widgets"),
        (an_answer, "shows its answer"),
        (an_open_solution, "not folded away"),
        (no_assert, "asserts nothing"),
        (a_large_picture, "a picture of 450,000 bytes"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_wrong_is_found(change: Callable[[dict[str, Any]], None], words: str) -> None:
    notebook = small()
    assert list(faults_of(notebook)) == []
    change(notebook)
    assert any(words in fault for fault in faults_of(notebook)), list(faults_of(notebook))


def test_tidying_takes_away_what_must_not_be_saved() -> None:
    notebook = small()
    for change in (an_answer, a_widget, widget_state):
        change(notebook)
    notebook["cells"][0]["metadata"]["execution"] = {"iopub.status.idle": "2026-01-01"}
    warned = {"output_type": "stream", "name": "stderr", "text": ["/tmp/ipykernel_3/77.py:2: Warning: ice\n"]}
    notebook["cells"][2]["outputs"] = [warned]
    notebook["cells"][2]["execution_count"] = 9
    tidy = tidied(notebook)
    assert list(faults_of(tidy)) == []
    assert tidy["cells"][2]["outputs"][0]["text"] == ["Warning: ice\n"]
