"""Pages of mistakes show what is wrong to every eye, and reports with all they hold come back from disk."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from evaluation_kit import SAMPLES, Says, always, made, only, question
from matplotlib.colors import to_rgb
from mistakes_kit import judged, of_fields, places
from object_kit import Knows, objects
from report_kit import made_report
from test_figures import outside_or_overlapping, texts

from deepsentinel.errors import InputError, SourceError
from deepsentinel.figures import show, slides, worst
from deepsentinel.figures.mistakes import tones
from deepsentinel.learn import fewshot
from deepsentinel.learn.model import Model
from deepsentinel.learn.report import load_report
from deepsentinel.learn.tasks import IGNORE

# -- pages -------------------------------------------------------------------------------------------------------------


def images(fig: Any) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in fig.axes for image in axes.images]


def test_the_page_of_the_worst_shows_what_is_there_what_was_said_and_what_is_wrong() -> None:
    report = of_fields()
    fig = show(report, panels="worst")
    assert outside_or_overlapping(fig) == []
    shown = set(texts(fig))
    assert {"picture", "truth", "model", "mistakes", "right", "wrong", "no truth"} <= shown
    assert {"field", "wood"} <= shown
    pictures = [image for image in images(fig) if image.ndim == 3 and image.shape[-1] == 4]
    assert len(pictures) == 4 * len(report.worst)
    wrong = (255 * np.array(to_rgb(slides.VERMILION))).round()
    colours = {name: to_rgb(colour) for colour, name in worst._entries(worst._page(report, report.worst), report.worst)}
    for at, each in enumerate(report.worst):
        _, truth, said, off = pictures[4 * at : 4 * at + 4]
        scored = each.truth != IGNORE
        assert ((truth[..., 3] > 0) == scored).all()
        assert ((off[..., :3] == wrong).all(axis=-1)[scored] == (each.truth != 0)[scored]).all()
        assert (said[..., :3] == (255 * np.array(colours["field"])).round()).all()
        field = (truth[..., :3] == (255 * np.array(colours["field"])).round()).all(axis=-1)
        assert (field[scored] == (each.truth == 0)[scored]).all()
        # What is told of a sample stands above it.
        assert f"{at + 1}   {100 * each.score:.0f} % right" in shown


def test_the_map_shows_the_worst_on_top_and_darkest() -> None:
    report = of_fields()
    fig = show(report, panels="places")
    assert outside_or_overlapping(fig) == []
    (dots,) = [each for axes in fig.axes for each in axes.collections if len(each.get_offsets()) == SAMPLES]
    light = dots.get_facecolors()[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) <= 1e-6).all(), "from right to wrong"
    east = np.argsort(np.argsort(dots.get_offsets()[:, 0]))
    assert east.tolist() == np.argsort(-places(report)["score"], kind="stable").tolist()
    counts = [int(text) for text in texts(fig) if text.isdecimal()]
    assert sum(counts) >= SAMPLES
    for each in report.worst:
        assert f"sample {each.sample}" in texts(fig)
    grey = tones(np.array([0.2, np.nan]))
    assert grey[1] == pytest.approx(to_rgb(slides.GREY))


@pytest.mark.parametrize("task", ["classification", "fractions", "regression", "instances"])
def test_pages_of_every_task_have_nothing_on_top_of_anything(task: str) -> None:
    model: Model = Says(question(task), always(1.0) if task == "regression" else always(3.0, -2.0, 0.0, 1.0))
    if task == "instances":
        model = Knows(task, lambda at, sensors: [(0, (1.0, 1.0, 9.0, 9.0), 0.9)])
    report = judged(model, objects() if task == "instances" else None)
    for page in ("places", "worst"):
        assert outside_or_overlapping(show(report, panels=page)) == []
    with pytest.raises(InputError, match="report, places, worst"):
        show(report, panels="best")


@pytest.mark.parametrize("count", [1, 2, 6])
def test_long_names_of_many_classes_fit(count: int) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"a class whose name is rather long, and whose number is {at}" for at in range(30))
    some = [
        replace(
            each,
            truth=rng.integers(0, 30, (40, 24)).astype("uint8"),
            said=rng.integers(0, 30, (40, 24)).astype("uint8"),
            pixels={"VV": np.full((40, 24), -9.0, "float32")},
        )
        for each in of_fields().worst[:count]
    ]
    report = replace(of_fields(), classes=names, worst=tuple(some))
    fig = show(report, panels="worst")
    assert outside_or_overlapping(fig) == []
    assert f"{30 - len(worst.CLASSES)} other classes" in texts(fig)


def test_colours_are_told_apart_by_every_eye() -> None:
    # Machado, Oliveira and Fernandes (2009): what those see who lack one kind of cone.
    eyes = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(colour: str, eye: Any) -> np.ndarray:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = to_xyz @ np.clip(np.array(eye) @ linear, 0, 1) / [0.9505, 1, 1.089]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for eye in eyes:
        for group in ((*worst.CLASSES, worst.OTHER), (worst.RIGHT, slides.VERMILION)):
            seen = [lab(colour, eye) for colour in group]
            nearest = min(np.linalg.norm(a - b) for at, a in enumerate(seen) for b in seen[:at])
            assert nearest > 12


# -- files -------------------------------------------------------------------------------------------------------------


@cache
def few() -> pd.DataFrame:
    held = made()[0]
    asked = question()
    assert asked.classes is not None
    model = Says(replace(asked, classes=only(asked.classes, 30, 40)), always(1.0, 0.0))
    return fewshot.few_shot(model, held, shots=(1, 5), seeds=range(3), block_m=5000, device="cpu")


def test_everything_is_kept_and_comes_back(tmp_path: Path) -> None:
    report = of_fields().with_few_shot(few())
    folder = report.save(tmp_path / "report", figures=False)
    assert not list(folder.glob("*.png"))
    assert report.save(tmp_path / "report") == folder, "the second one takes the place of the first"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "report.json", "scores.csv", "confusion.csv", "few_shot.csv", "places.geojson", "worst.npz", "report.png",
        "places.png", "worst.png",
    }  # fmt: skip
    for name in ("report", "places", "worst"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (folder / f"{name}.png").stat().st_size > 20_000
    back = load_report(folder)
    assert repr(back) == repr(report)
    assert back.places is not None
    assert back.places.attrs == places(report).attrs
    pd.testing.assert_frame_equal(
        pd.DataFrame(back.places.drop(columns="geometry")),
        pd.DataFrame(places(report).drop(columns="geometry")),
        check_exact=True,
    )
    assert back.places.geometry.geom_equals_exact(places(report).geometry, 1e-9).all()
    assert back.few_shot is not None
    pd.testing.assert_frame_equal(back.few_shot, few(), check_exact=True)
    assert back.few_shot.attrs == few().attrs == {"held_out": ["field", "wood"], "of": "cells", "sensors": "both"}
    assert len(back.worst) == len(report.worst)
    for one, other in zip(back.worst, report.worst, strict=True):
        assert (one.sample, one.score, one.lon, one.lat, one.told) == (
            other.sample, other.score, other.lon, other.lat, other.told,
        )  # fmt: skip
        assert (one.truth == other.truth).all()
        assert (one.said == other.said).all()
        assert all((one.pixels[name] == values).all() for name, values in other.pixels.items())
    # Any GIS reads the places.
    read = gpd.read_file(folder / "places.geojson")
    assert read["score"].tolist() == pytest.approx(places(report)["score"].tolist())
    (folder / "worst.npz").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(SourceError, match="cannot be read as a report"):
        load_report(folder)


def test_samples_without_a_score_come_back_without_one(tmp_path: Path) -> None:
    table = places(of_fields()).copy()
    table.loc[3, "score"] = np.nan
    table.attrs = places(of_fields()).attrs
    report = replace(of_fields(), places=table)
    back = load_report(report.save(tmp_path / "report", figures=False))
    assert back.places is not None
    assert back.places["score"].isna().tolist() == [at == 3 for at in range(SAMPLES)]
    fig = show(back, panels="places")
    assert "grey: 1 sample with nothing to judge" in texts(fig)
    assert outside_or_overlapping(fig) == []


def test_classes_never_seen_are_in_the_page_and_until_then_it_tells_how() -> None:
    report = of_fields()
    for text in (repr(report), report._repr_html_()):
        assert "report.with_few_shot(ds.few_shot(model, new))" in text
    told = report.with_few_shot(few())
    assert report.few_shot is None, "a report is never changed"
    for text in (repr(told), told._repr_html_()):
        assert "with_few_shot" not in text
        assert "2 classes never seen (field, wood)" in text
    wide = few().pivot_table(index=["what", "probe"], columns="shots", values="mean")
    line = next(line for line in repr(told).splitlines() if "model" in line and "logistic" in line)
    assert line.split()[-2:] == [f"{value:.3f}" for value in wide.loc[("model", "logistic")]]
    fig = show(told)
    assert outside_or_overlapping(fig) == []
    curves = [line for axes in fig.axes for line in axes.lines if len(line.get_ydata()) == 2]
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in curves}
    assert {tuple(np.round(values, 9)) for values in wide.to_numpy()} <= drawn
    assert fig.get_figheight() > show(report).get_figheight() + 2
    assert outside_or_overlapping(show(made_report().with_few_shot(few()))) == []
    with pytest.raises(InputError, match="few_shot has the columns"):
        report.with_few_shot(few().drop(columns="probe"))
    with pytest.raises(InputError, match="few_shot has the columns"):
        report.with_few_shot({"a": 1})  # type: ignore[arg-type]


def test_a_report_of_numbers_speaks_of_no_classes() -> None:
    report = judged(Says(question("regression"), always(0.0)), worst=2)
    assert "few_shot" not in repr(report)
    assert "mean error of its pixels" in repr(report)
    assert report.pages == ("report", "places", "worst")
