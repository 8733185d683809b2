"""Notebooks as lessons: solutions are folded away and checked, and what is saved shows neither answers nor errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tidy_notebooks import tidied

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def cells(name: str) -> list[dict[str, Any]]:
    return list(json.loads((NOTEBOOKS / name).read_text())["cells"])


def test_solutions_of_the_first_lesson_are_folded_and_check_themselves() -> None:
    held = cells("00_start_here.ipynb")
    solutions = [at for at, cell in enumerate(held) if "solution" in cell["metadata"].get("tags", [])]
    assert len(solutions) == 3
    for at in solutions:
        cell = held[at]
        assert cell["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
        # JupyterLab shows the first line of what is folded, and GitHub shows all outputs.
        assert cell["source"][0].startswith("#")
        assert cell["outputs"] == []
        assert any(line.startswith("assert") for line in cell["source"])
        assert "".join(held[at - 1]["source"]) == "# your answer"
        assert held[at - 2]["cell_type"] == "markdown"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_no_saved_view_of_a_widget_and_no_error(path: Path) -> None:
    # A view whose kernel is gone is shown as an error, and the state of a map is megabytes.
    notebook = json.loads(path.read_text())
    assert "widgets" not in notebook["metadata"]
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert WIDGET not in output.get("data", {})


def test_tidying_takes_away_these_and_nothing_else() -> None:
    view = {"output_type": "display_data", "data": {WIDGET: {}}, "metadata": {}}
    text = {"output_type": "stream", "name": "stdout", "text": ["1"]}
    code = {"cell_type": "code", "metadata": {"execution": {"a": 1}}, "outputs": [view, text], "execution_count": 3}
    code["source"] = ["1"]
    answer = {**code, "metadata": {"tags": ["solution"]}}
    words = {"cell_type": "markdown", "metadata": {}, "source": ["a"]}
    found = tidied({"cells": [words, code, answer], "metadata": {"widgets": {}, "kernelspec": {}}})
    assert found["metadata"].pop("deepsentinel").keys() == {"ran"}
    assert found["metadata"] == {"kernelspec": {}}
    assert [cell.get("outputs") for cell in found["cells"]] == [None, [text], []]
    assert [cell.get("execution_count") for cell in found["cells"]] == [None, 1, None]
    assert found["cells"][1]["metadata"] == {}


def test_the_explorer_is_a_map_and_little_else() -> None:
    code = ["".join(cell["source"]) for cell in cells("explorer.ipynb") if cell["cell_type"] == "code"]
    assert code == ['import deepsentinel as ds\n\nm = ds.Map("demo")\nm']
