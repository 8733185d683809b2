"""Cards: what a notebook shows of our objects, and that all other objects look as they always did."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import make_patch
from IPython.core.interactiveshell import InteractiveShell
from test_figures_masks import make_masks

import deepsentinel as ds
from deepsentinel.displays import KINDS, install
from deepsentinel.figures import cards
from deepsentinel.figures.cards import card, card_or_own
from deepsentinel.learn.report import Report


class Reading(HTMLParser):
    """What a page says: its text, its pictures with their words, its facts; and whether all tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[tuple[str, np.ndarray]] = []
        self.facts: dict[str, str] = {}
        self.text = ""
        self._name = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "img":
            from PIL import Image

            data = base64.b64decode(str(told["src"]).split(",")[1])
            self.pictures.append((str(told["alt"]), np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))))
        elif tag not in ("br", "input", "meta", "use", "circle", "path", "rect", "ellipse", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "path", "rect", "use", "ellipse", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1:] == ["dt"]:
            self._name = data
        if self.open[-1:] == ["dd"]:
            self.facts[self._name] = data


def read(obj: object) -> Reading:
    page = card(obj)
    assert page is not None
    return Reading(re.sub(r"<details.*</details>", "", page, flags=re.S))


@cache
def tables() -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    src = ds.open_source("demo", size_px=256)
    scenes = src.search(src.area, "2018-05-01", "2018-06-30")
    return scenes, ds.pair(scenes, aoi=src.area, max_days=3)


def test_a_patch_has_a_picture_of_each_sensor_its_facts_and_the_dataset_below() -> None:
    patch = make_patch((60, 90))
    told = read(patch)
    assert [words for words, _ in told.pictures] == ["natural colour", "VV"]
    assert "4 July 2018" in told.text
    assert told.facts["Size"].startswith("90 × 60 px of 10 m")
    assert "EPSG:32631" in told.facts["Where"]
    assert told.facts["Bands"].split(", ")[-2:] == ["VV", "VH"]
    page = str(card(patch))
    assert "<details" in page
    assert "<details open" not in page
    assert "xr-wrap" in page.split("<details", 1)[1]
    # The picture is of these pixels: what is bright there is bright here.
    colour = told.pictures[0][1][..., :3].mean(axis=-1)
    brightness = patch[["B02", "B03", "B04"]].to_array().mean("variable").to_numpy()
    assert colour.shape == brightness.shape
    assert np.corrcoef(colour.ravel(), brightness.ravel())[0, 1] > 0.8


def test_where_nothing_was_seen_the_picture_is_clear() -> None:
    patch = make_patch((40, 40))
    for name in patch.data_vars:
        patch[name][:, :20] = np.nan if patch[name].dtype.kind == "f" else 0
    for _, image in read(patch).pictures:
        assert (image[:, :18, 3] == 0).all()
        assert (image[:, 22:, 3] == 255).all()


def test_masks_have_their_classes_in_their_colours() -> None:
    masks = make_masks((48, 48))
    told = read(masks)
    assert told.pictures[0][0] == "Classes"
    legend = cards.class_shares(masks)
    for each in legend[:3]:
        assert each.name in told.text
        assert f"{100 * each.share:.0f} %" in told.text
        assert each.color in str(card(masks))
    # Colours mean classes: compression leaves them as they are.
    colours = {tuple(int(each.color[at : at + 2], 16) for at in (1, 3, 5)) for each in legend}
    image = told.pictures[0][1]
    assert {tuple(pixel) for pixel in image[image[..., 3] > 0][:, :3].tolist()} <= colours
    both = read(make_patch((48, 48)).merge(masks, compat="override"))
    assert [words for words, _ in both.pictures][:3] == ["natural colour", "VV", "Classes"]


def test_pairs_and_scenes_are_told_and_their_rows_stay_in_sight() -> None:
    scenes, pairs = tables()
    told = read(pairs)
    assert told.text.startswith(f"{len(pairs)} pairs")
    assert str(card(pairs)).count("<circle") == len(pairs)
    assert told.facts["Clouds"] == f"{pairs.cloud_cover.min():.0f} to {pairs.cloud_cover.max():.0f} %"
    assert "<details open" in str(card(pairs))
    assert "<table" in str(card(pairs))
    told = read(scenes)
    assert told.facts["Sentinel-1"] == f"{int((scenes.sensor == 'S1').sum())} scenes"
    assert str(card(scenes)).count("<circle") == int((scenes.sensor == "S2").sum())
    # A single pair, and clouds that nobody measured.
    assert "1 pair" in read(pairs.iloc[:1].assign(cloud_cover=np.nan)).text
    assert read(pairs.assign(cloud_cover=np.nan)).facts["Clouds"] == "not told"


def test_a_clearer_pair_stands_higher() -> None:
    _, pairs = tables()
    two = pairs.iloc[:2].assign(cloud_cover=[5.0, 95.0])
    heights = [float(y) for y in re.findall(r"<circle cx='[^']*' cy='([^']*)'", str(card(two)))]
    assert heights[0] < heights[1]


def test_a_corpus_has_some_of_its_samples_and_none_is_read_from_afar(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = ds.open_source("demo", size_px=256)
    points = gpd.GeoDataFrame(geometry=[src.area.geometry.centroid] * 2, crs=4326)
    plan = ds.plan_corpus(points, src, start="2018-06-01", end="2018-06-30", size_px=32)
    ds.build_corpus(plan, f"{tmp_path}/corpus.zarr", {"corine": src.labels["corine"]}, progress=False)
    corpus = ds.open_corpus(f"{tmp_path}/corpus.zarr")
    told = read(corpus)
    assert told.facts["Samples"] == "2 ready"
    assert told.facts["Labels"] == "corine"
    assert told.facts["Size"] == "32 × 32 px of 10 m"
    assert len(told.pictures) == 2
    monkeypatch.setattr(cards, "pictures_of", lambda *_: pytest.fail("pixels were read"))
    assert read(corpus.assign_attrs(path="s3://bucket/corpus.zarr")).pictures == []


def test_a_report_says_first_what_it_lacks_and_draws_the_controls() -> None:
    row = {"sensors": "both", "cloud": "all", "seed": 0, "metric": "mean_iou", "class": "", "n": 9}
    rows = [
        {**row, "what": what, "value": value, "low": value - 0.1, "high": value + 0.1}
        for what, value in (("model", 0.6), ("from scratch", 0.3))
    ]
    page = str(card(Report("segmentation", (), pd.DataFrame(rows))))
    assert "PROVISIONAL" in page.split("<svg")[0]
    widths = [float(each) for each in re.findall(r"<rect [^>]*width='([^']*)'", page)]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.01)
    assert "0.300 better than the best control (from scratch)" in page
    assert Reading(page).open == []


def test_text_of_others_is_never_read_as_html() -> None:
    patch = make_patch((8, 8)).assign_attrs(level="<script>alert(1)</script>")
    assert "<script>alert" not in str(card(patch)).split("<details")[0]


def test_pixels_on_dask_are_not_computed_for_a_card() -> None:
    pytest.importorskip("dask")
    told = read(make_patch((8, 8)).chunk())
    assert told.pictures == []
    assert told.facts["Pixels"] == "not read for this card"


@pytest.mark.parametrize(
    "obj",
    [
        xr.Dataset({"a": ("x", [1, 2])}),
        xr.Dataset(),
        xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2)))}),
        gpd.GeoDataFrame({"a": [1]}, geometry=gpd.points_from_xy([0], [0])),
    ],
)
def test_what_is_none_of_ours_looks_as_it_did(obj: object) -> None:
    assert card(obj) is None
    # xarray numbers its sections anew each time.
    own, shown = (re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", page) for page in (obj._repr_html_(), card_or_own(obj)))  # type: ignore
    assert shown == own


def test_a_card_that_fails_leaves_the_object_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = make_patch((8, 8))
    monkeypatch.setattr(cards, "thin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        card(patch)
    assert "xr-wrap" in str(card_or_own(patch))
    assert "ds-card" not in str(card_or_own(patch))


def test_ipython_shows_cards_and_whoever_came_first_stays() -> None:
    for module, name in KINDS:
        # Libraries move their classes now and then; the card would silently be gone.
        kinds = {"Dataset": xr.Dataset, "GeoDataFrame": gpd.GeoDataFrame, "Report": Report}
        assert (kinds[name].__module__, kinds[name].__name__) == (module, name)
    shell = InteractiveShell()
    formatter = shell.display_formatter.formatters["text/html"]
    install(shell)
    patch = make_patch((8, 8))
    assert "ds-card" in formatter(patch)
    assert "ds-card" not in formatter(xr.Dataset({"a": 1}))
    formatter.for_type(xr.Dataset, lambda _: "mine")
    install(shell)
    assert formatter(patch) == "mine"
    other = InteractiveShell()
    formatter = other.display_formatter.formatters["text/html"]
    formatter.for_type_by_name("xarray.core.dataset", "Dataset", lambda _: "mine, by name")
    install(other)
    assert formatter(patch) == "mine, by name"


def test_importing_registers_in_ipython_only_and_costs_nothing() -> None:
    code = """
import json, sys
{}
import deepsentinel
html = shell.display_formatter.formatters["text/html"].deferred_printers if "IPython" in sys.modules else {{}}
kinds = ("xarray", "matplotlib", "geopandas")
print(json.dumps([("geopandas.geodataframe", "GeoDataFrame") in html, *(name in sys.modules for name in kinds)]))
"""
    inside = "from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()"
    for before, wanted in (("", False), (inside, True)):
        done = subprocess.run([sys.executable, "-c", code.format(before)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.strip().splitlines()[-1]) == [wanted, False, False, False]
