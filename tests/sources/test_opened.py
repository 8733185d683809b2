"""A source says by which line it is opened again, wherever it came from; secrets are no part of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import deepsentinel as ds
from deepsentinel.sources.opened import line_of, remembered
from deepsentinel.widgets import map as module
from deepsentinel.widgets.map import Map, code_of


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of items: those of the demo world."""
    src = ds.open_source("demo", size_px=256)
    items = [json.loads(path.read_text()) for path in sorted(src.folder.rglob("*.json"))]
    features = [item for item in items if item.get("type") == "Feature"]
    found = [each for item in items if item.get("type") == "FeatureCollection" for each in item["features"]]
    path = tmp_path_factory.mktemp("catalog") / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": (features or found)[:20]}))
    return path


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("kind", [str, Path])
def test_a_catalog_of_ones_own_is_opened_by_the_line_that_is_shown(catalog: Path, kind: type) -> None:
    src = ds.open_source(kind(catalog), assets={"B02": "B02"})
    made = Map(src)
    try:
        again = run(made.code("src"))["src"]
    finally:
        made.close()
    assert type(again) is type(src)
    assert (again.name, again.opened) == (src.name, src.opened)
    assert again.opened == f"ds.open_source({str(catalog)!r}, assets={{'B02': 'B02'}})"


def test_one_that_the_map_opens_itself_too(catalog: Path) -> None:
    made = Map(str(catalog))
    try:
        assert made.wait(30)
        again = run(made.code("src"))["src"]
        assert made.src.opened == again.opened == f"ds.open_source({str(catalog)!r})"
    finally:
        made.close()


def test_items_in_memory_are_shown_whole_or_by_their_name(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = json.loads(catalog.read_text())
    made = Map(items)
    try:
        assert made.wait(30)
        assert run(made.code("src"))["src"].name == made.src.name
    finally:
        made.close()
    src = ds.open_source(items, name="mine")
    assert src.opened == ""
    shell = type("Shell", (), {"user_ns": {"_": src, "fields": src, "other": 1}})()
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    assert code_of(src) == "fields"
    assert module.name_of(items) == ""


def test_a_demo_world_says_its_size_and_seed() -> None:
    assert ds.open_source("demo", size_px=256).opened == "ds.open_source('demo', size_px=256)"
    assert code_of(type(ds.open_source("demo", size_px=256))(0, 256)) == "ds.open_source('demo', size_px=256)"


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        (
            "x",
            {"collections": ["a", "b"], "s2_offset": -1000},
            "ds.open_source('x', collections=['a', 'b'], s2_offset=-1000)",
        ),
        ("x", {"credentials": object(), "project": "p"}, "ds.open_source('x', project='p')"),
        ("x", {"api_key": "S3CRET", "Token": "S3CRET", "password": "S3CRET"}, "ds.open_source('x')"),
        ("https://me:S3CRET@example.org/stac", {}, ""),
        ("https://example.org/stac?sig=S3CRET", {}, ""),
        ("x", {"assets": {"B02": "https://example.org/b.tif?sig=S3CRET"}}, ""),
        ("x", {"cache": Path("scenes")}, "ds.open_source('x', cache='scenes')"),
        ({"type": "FeatureCollection"}, {}, ""),
        ("x", {"session": object()}, ""),
    ],
)
def test_nothing_secret_is_in_a_line(name: Any, options: dict[str, Any], line: str) -> None:
    assert line_of(name, options) == line
    assert "S3CRET" not in line


def test_a_source_that_is_sent_to_others_takes_no_secret_along() -> None:
    import pickle

    class Source:
        pass

    @remembered
    def opening(name: str, **options: Any) -> Source:
        return Source()

    source = opening("x", token="S3CRET", cache=os.fspath("scenes"))
    assert b"S3CRET" not in pickle.dumps(vars(source))
    assert source.opened == "ds.open_source('x', cache='scenes')"  # type: ignore[attr-defined]
