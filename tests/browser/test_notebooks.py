"""The notebooks in a real browser against a real JupyterLab under a URL prefix, with the rest of the world blocked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_kit import STATUS, TOKEN, Tabs

ROOT = Path(__file__).parents[2]

# `make test` runs their cells too, without a browser.
pytestmark = [pytest.mark.browser, pytest.mark.long]

# The explorer is a map and nothing else; test_explorer.py opens it.
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))


@contextmanager
def closing_kernel(page: Any) -> Iterator[None]:
    """A kernel outlives its page otherwise."""
    yield
    page.evaluate("()=>{window.jupyterapp.shell.currentWidget.sessionContext.shutdown();return 1}")
    page.wait_for_timeout(300)
    page.context.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_in_a_browser_and_asks_nobody_outside(name: str, jupyter: tuple[str, Path], tabs: Tabs) -> None:
    base, root = jupyter
    shutil.copy(ROOT / "notebooks" / name, root)
    page = tabs.opened(f"{base}lab/tree/{name}?token={TOKEN}&reset")
    with closing_kernel(page):
        page.wait_for_function(f"({STATUS})()==='idle'", timeout=90_000)
        # What the repository saved must not pass for what this run drew.
        page.evaluate("()=>{window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');return 1}")
        # `return 1`: otherwise evaluate waits for every cell.
        page.evaluate("()=>{window.jupyterapp.commands.execute('notebook:run-all-cells');return 1}")
        cells = """()=>{
          const all = [...window.jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.toJSON());
          const code = all.filter(cell => cell.cell_type === 'code');
          return {
            code: code.length,
            done: code.filter(cell => cell.execution_count > 0).length,
            errors: code.flatMap(cell => cell.outputs.filter(o => o.output_type === 'error').map(o => o.evalue)),
            pictures: code.flatMap(cell => cell.outputs)
              .filter(o => o.data && (o.data['image/png'] || o.data['image/jpeg'])).length,
          }}"""
        deadline = time.monotonic() + 240
        while True:
            state = page.evaluate(cells)
            if state["errors"] or state["done"] == state["code"] or time.monotonic() > deadline:
                break
            page.wait_for_timeout(500)
        page.wait_for_timeout(1000)
    assert state["errors"] == []
    assert state["done"] == state["code"] > 5
    assert state["pictures"] >= 3
