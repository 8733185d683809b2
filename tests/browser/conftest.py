"""JupyterLab under a URL prefix and Chromium, shared by all tests here; every request to another machine is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import BROWSERS, Notebook, Tabs, browsing, find_chromium, lab

# What every notebook of a test begins with; small, so that it is there soon.
BEGIN = """
import time, json
import deepsentinel as ds
src = ds.open_source("demo", size_px=256)
"""
# A test may have restarted the kernel.
END = """
for each in list(globals().values()):
    if "ds" in globals() and isinstance(each, ds.Map):
        each.close()
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser."""
    if (path := find_chromium()) is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS)}): install Chromium to run the browser tests")
    return path


# Of this folder, not of the session: while a browser is open, nobody else in this process may run an event loop.
@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Tabs]:
    """One browser for all."""
    with browsing(chromium) as made:
        yield made


@pytest.fixture
def tabs(browser: Tabs) -> Iterator[Tabs]:
    """The browser, for a test that fails if anything asked for a thing outside this machine, or threw in a page."""
    browser.forget()
    yield browser
    assert browser.outside == []
    assert browser.broken == []


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of a JupyterLab."""
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    with lab(root, home) as base:
        yield base, root


@pytest.fixture
def notebook(jupyter: tuple[str, Path], tabs: Tabs, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Call it with the sources of cells: a `Notebook` of its own with its kernel up and nothing run."""
    base, root = jupyter
    made: list[Notebook] = []

    def opened(*cells: str, **size: int) -> Notebook:
        made.append(Notebook(tabs, base, root, f"{request.node.name}-{len(made)}.ipynb", *cells, **size))
        return made[-1]

    yield opened
    for each in made:
        each.end()


@pytest.fixture(scope="package")
def shared_notebook(jupyter: tuple[str, Path], browser: Tabs) -> Iterator[Notebook]:
    """One page and one kernel for all tests that leave them as they were."""
    base, root = jupyter
    made = Notebook(browser, base, root, "shared.ipynb")
    yield made
    made.end()


class Desk:
    """The shared notebook, for one test."""

    def __init__(self, book: Notebook) -> None:
        self.book = book
        self.page = book.page

    def open(self, *cells: str, width: int = 1400, height: int = 1000) -> Any:
        """The page, once these cells have run."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.book.tell(BEGIN)
        self.book.run_all(*cells)
        return self.page

    def ask(self, expression: str) -> Any:
        """What an expression is worth in the kernel."""
        return self.book.ask(expression)


@pytest.fixture
def desk(shared_notebook: Notebook, tabs: Tabs) -> Iterator[Desk]:
    yield Desk(shared_notebook)
    assert tabs.broken == []
    shared_notebook.tell(END)
    shared_notebook.write("")
    # Of what is taken out of a page, JupyterLab says that it is not there.
    shared_notebook.page.wait_for_timeout(200)
    tabs.broken.clear()
