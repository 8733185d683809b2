"""A report says what its scores lack, comes back from disk as it was, and is drawn as it reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from report_kit import CLASSES, LEVELS, made_report, made_rows
from test_figures import outside_or_overlapping, texts

from deepsentinel import show
from deepsentinel.errors import InputError, SourceError
from deepsentinel.figures import learning, slides
from deepsentinel.figures.learning import LISTED, figure_of_history, report_of_learning
from deepsentinel.learn.intervals import blocked_interval
from deepsentinel.learn.metrics import iou
from deepsentinel.learn.report import CONTROLS, MODEL, Report, load_report, score_rows


def without(rows: pd.DataFrame, **wanted) -> pd.DataFrame:
    gone = np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])
    return rows[~gone]


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_a_whole_report_is_not_provisional():
    report = made_report()
    assert report.missing == ()
    for text in (repr(report), report._repr_html_()):
        assert "provisional" not in text.lower()
        for name in (MODEL, *CONTROLS, *CLASSES, *report.notes, "both sensors", "0-10 %"):
            assert name in text


@pytest.mark.parametrize("control", CONTROLS)
def test_a_missing_control_is_told_first_and_the_score_is_provisional(control):
    report = made_report(controls=[name for name in CONTROLS if name != control])
    assert report.missing == (f"the control {control!r}",)
    first, second = repr(report).splitlines()[:2]
    assert first.startswith("PROVISIONAL")
    assert f"'{control}'" in first
    assert "provisional mean IoU" in second
    html = report._repr_html_()
    assert html.index("PROVISIONAL") < html.index("<b>")


def test_a_single_seed_is_provisional():
    report = made_report(seeds=1)
    assert report.missing == ("a second seed of the model",)
    assert "one seed" in repr(report)


def test_what_is_missing_is_told_where_it_is_missing():
    rows = without(made_rows(), what="from scratch", sensors="s1")
    rows = without(rows, what="frozen random", sensors="s2", cloud="0-10 %")
    rows = without(rows, what=MODEL, sensors="s2", cloud="all", seed=1)
    assert Report("segmentation", CLASSES, rows).missing == (
        "the control 'frozen random' (optical alone (S2) under 0-10 % cloud)",
        "the control 'from scratch' (radar alone (S1))",
        "a second seed of the model (optical alone (S2) under all of it)",
    )
    # What the model was not measured on needs no control.
    assert Report("segmentation", CLASSES, without(rows, what=MODEL, sensors="s1")).missing[1:] == (
        "a second seed of the model (optical alone (S2) under all of it)",
    )


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_scores_are_means_over_seeds_with_their_spread():
    rows = made_rows(seeds=3)
    report = Report("segmentation", CLASSES, rows.sample(frac=1, random_state=0))
    found = report.scores("mean_iou", sensors="s1", cloud="0-10 %")
    assert list(found.index) == [MODEL, *CONTROLS]
    for what, row in found.iterrows():
        single = rows[
            (rows["what"] == what) & (rows["sensors"] == "s1") & (rows["cloud"] == "0-10 %")
            & (rows["metric"] == "mean_iou")
        ]  # fmt: skip
        assert len(single) == row["seeds"] == 3
        assert row["mean"] == pytest.approx(single["value"].mean())
        assert row["spread"] == pytest.approx(single["value"].max() - single["value"].min())
        assert row["low"] == pytest.approx(single["low"].mean())
    gain, best = report.gain()
    assert best == max(CONTROLS, key=LEVELS.get) == "from scratch"
    both = report.scores("mean_iou")["mean"]
    assert gain == pytest.approx(both[MODEL] - both["from scratch"])
    each = report.scores("iou", by_class=True)
    assert list(each.loc[MODEL].index) == list(CLASSES)
    assert np.isnan(each.loc[(MODEL, "settlement"), "mean"])


def test_lower_is_better_for_errors():
    rows = made_rows(metric="rmse", by_class="rmse")
    report = Report("regression", (), rows[rows["class"] == ""])
    assert report.headline == "rmse"
    gain, best = report.gain()
    assert best == min(CONTROLS, key=LEVELS.get)
    assert gain < 0
    assert "worse than the best control" in repr(report)
    assert "WORSE" in repr(replace(report, gained=(-0.2, -0.1)))
    assert "the lower the better" in repr(report)


@pytest.mark.parametrize(
    ("ends", "said", "headline"),
    [
        ((0.02, 0.12), "0.070 better than the best control (from scratch), interval 0.020 to 0.120", "better than"),
        ((-0.01, 0.15), "no difference from the best control (from scratch) that this test can show", "no sure diff"),
        ((np.nan, np.nan), "better than the best control (from scratch), with no interval", "better than"),
        (None, "better than the best control (from scratch), with no interval", "better than"),
    ],
)
def test_a_difference_is_told_as_far_as_its_interval_goes(ends, said, headline, tmp_path):
    rows = made_rows()
    rows["value"] = rows["what"].map(LEVELS)
    report = Report("segmentation", CLASSES, rows, gained=ends)
    assert report.gain()[0] == pytest.approx(0.07)
    back = load_report(report.save(tmp_path / "report", figures=False))
    for each in (report, back):
        assert said in repr(each)
        assert said in each._repr_html_()
        assert "WORSE" not in repr(each)
        assert headline in report_of_learning(each).texts[0].get_text()


def test_a_report_with_its_controls_is_not_lost_to_one_without(tmp_path):
    full, provisional = made_report(), made_report(seeds=1)
    provisional.save(tmp_path / "r", figures=False)
    full.save(tmp_path / "r", figures=False)
    with pytest.raises(InputError, match="replace=True"):
        provisional.save(tmp_path / "r", figures=False)
    assert load_report(tmp_path / "r").missing == ()
    full.save(tmp_path / "r", figures=False)  # a full one for a full one
    provisional.save(tmp_path / "r", figures=False, replace=True)
    assert load_report(tmp_path / "r").missing == provisional.missing


def test_a_score_that_is_not_there_names_those_that_are():
    report = made_report()
    with pytest.raises(InputError, match=r"'f1'.*mean_iou, accuracy.*60-100 %"):
        report.scores("f1")
    with pytest.raises(InputError, match=r"by class.*iou"):
        report.scores("mean_iou", by_class=True)


def test_rows_come_from_intervals():
    tables = np.random.default_rng(0).integers(1, 50, (30, 3, 3))
    found = blocked_interval(tables, iou, draws=50)
    rows = pd.DataFrame(score_rows(found, "iou", n=int(tables.sum()), classes=("a", "b", "c"), what=CONTROLS[0]))
    np.testing.assert_array_equal(rows["high"], found.high)
    assert list(rows["class"]) == ["a", "b", "c"]
    with pytest.raises(InputError, match="3 values"):
        score_rows(found, "iou", n=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="low"), "low"),
        (lambda rows: rows.assign(weight=1), "weight"),
        (lambda rows: rows[:0], "at least one"),
        (lambda rows: pd.concat([rows, rows[:1]]), "twice: model, both, all"),
        (lambda rows: rows.replace({"what": {MODEL: "mine"}}), "'mine'"),
        (lambda rows: rows[rows["what"] != MODEL], "only scores of controls"),
        (lambda rows: rows.replace({"sensors": {"s1": "S1"}}), "'S1'"),
    ],
)
def test_rows_that_are_none_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        Report("segmentation", CLASSES, change(made_rows()))
    with pytest.raises(InputError, match="same name"):
        Report("segmentation", ("a", "a"), made_rows())


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_report_comes_back_as_it_was(tmp_path):
    report = made_report()
    for _ in range(2):  # the second one takes the place of the first
        folder = report.save(tmp_path / "report", figures=False)
    assert sorted(path.name for path in folder.iterdir()) == ["confusion.csv", "report.json", "scores.csv"]
    back = load_report(folder)
    pd.testing.assert_frame_equal(back.rows, report.rows, check_exact=True)
    np.testing.assert_array_equal(back.confusion.to_numpy(), report.confusion.to_numpy())
    assert list(back.confusion.index) == list(back.confusion.columns) == list(CLASSES)
    pd.testing.assert_frame_equal(back.reliability, report.reliability, check_exact=True)
    assert repr(back) == repr(report)
    assert (back.classes, back.notes, back.about) == (report.classes, report.notes, dict(report.about))


def test_saving_destroys_nothing_that_is_not_a_report(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(InputError, match=r"precious\.txt"):
        made_report().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_what_is_no_report_is_told_so(tmp_path):
    with pytest.raises(SourceError, match="cannot be read as a report"):
        load_report(tmp_path)
    folder = made_report().save(tmp_path / "report")
    text = (folder / "report.json").read_text()
    (folder / "report.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(SourceError, match="format 99"):
        load_report(folder)
    (folder / "report.json").write_text(text[:50])
    with pytest.raises(SourceError, match="cannot be read as a report"):
        load_report(folder)


# -- figures -----------------------------------------------------------------------------------------------------------


def bars(fig, colour: str) -> list[float]:
    """Lengths of the bars of one colour, in the order of the page."""
    return [p.get_width() for axes in fig.axes for p in axes.patches if p.get_facecolor() == to_rgba(colour)]


def large_report(count: int = 30) -> Report:
    names = tuple(f"a class whose name is long, number {at}" for at in range(count))
    rows = made_rows()
    rows = rows[rows["class"] == ""]
    each = rows[(rows["metric"] == "mean_iou") & (rows["cloud"] == "all")]
    more = [each.assign(metric="iou", **{"class": name}) for name in names]
    table = pd.DataFrame(np.arange(1, count + 1)[:, None] * np.ones((1, count), int), names, names)
    curve = pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.4, 0.95], "share": [0.5, 0.5]})
    return Report("segmentation", names, pd.concat([rows, *more]), table, curve)


@pytest.mark.parametrize("kind", ["whole", "provisional", "large", "bare", "radar"])
def test_a_page_of_a_report_has_nothing_on_top_of_anything(kind):
    rows = made_rows()
    report = {
        "whole": made_report,
        "provisional": lambda: made_report(seeds=1, controls=CONTROLS[:1]),
        "large": large_report,
        "bare": lambda: Report("segmentation", (), rows[rows["metric"] == "mean_iou"]),
        "radar": lambda: Report("segmentation", CLASSES, rows[(rows["sensors"] == "s1")]),
    }[kind]()
    fig = report_of_learning(report)
    assert outside_or_overlapping(fig) == []
    assert fig.texts[0].get_text().startswith("Provisional") == (kind == "provisional")
    model = [report.scores("mean_iou", sensors=name).loc[MODEL, "mean"] for name in report.measured]
    controls = [v for s in report.measured for v in report.scores("mean_iou", sensors=s)["mean"].drop(MODEL)]
    np.testing.assert_allclose(bars(fig, slides.SKY), controls)
    drawn = bars(fig, slides.BLUE)
    np.testing.assert_allclose(drawn[: len(model)], model)
    assert len(drawn) - len(model) == {"large": LISTED, "bare": 0}.get(kind, 6)


def test_the_matrix_shows_shares_of_the_true_class():
    report = large_report()
    fig = report_of_learning(report)
    (picture,) = [image.get_array() for axes in fig.axes for image in axes.images]
    assert picture.shape == (LISTED, LISTED + 1)
    np.testing.assert_allclose(picture.sum(axis=1), 100)
    np.testing.assert_allclose(picture[:, :LISTED], 100 / 30)


def history(steps: int, *, fall: float) -> pd.DataFrame:
    step = np.arange(1, steps + 1)
    parts = {name: np.exp(-fall * step / steps) * (1 + at) for at, name in enumerate(("masked", "contrastive"))}
    return pd.DataFrame({"step": step, "loss": sum(parts.values()), **parts, "learning_rate": 1e-3 / step})


@pytest.mark.parametrize(("steps", "fall", "scale"), [(25, 0.5, "linear"), (1500, 6, "log"), (1500, 12, "log")])
def test_a_history_is_drawn_part_by_part(steps, fall, scale):
    table = history(steps, fall=fall)
    fig = figure_of_history(table)
    assert outside_or_overlapping(fig) == []
    assert fig.axes[0].get_yscale() == scale
    assert {"masked", "contrastive", "loss"} <= {text.split("  ")[0] for text in texts(fig)}
    # A list of rows is the same page.
    same = figure_of_history(table.to_dict("records"))
    assert outside_or_overlapping(same) == []
    assert texts(same) == texts(fig)
    rate = fig.axes[1].lines[0]
    np.testing.assert_allclose(rate.get_ydata(), table["learning_rate"])
    # A running mean of what only falls only falls.
    assert (np.diff(fig.axes[0].lines[-1].get_ydata()) <= 1e-12).all()


def test_a_loss_of_one_part_is_one_line():
    table = history(40, fall=2)
    alone = table.assign(log=table["loss"])[["step", "loss", "log", "learning_rate"]]
    assert len(figure_of_history(alone).axes[0].lines) == 1
    other = alone.assign(log=0.5 * alone["loss"])
    assert len(figure_of_history(other).axes[0].lines) == 2


def few_shot_table(names: tuple[str, ...]) -> pd.DataFrame:
    head = {"low": 0.3, "high": 0.8, "seeds": 20, "classes": len(names), "n": 90}
    table = pd.DataFrame(
        [
            {**head, "what": what, "probe": probe, "shots": shots, "mean": 0.4 + 0.02 * shots}
            for what, probe in ((MODEL, "logistic"), (MODEL, "nearest mean"), (CONTROLS[0], "logistic"), ("chance", ""))
            for shots in (1, 5)
        ]
    )
    table.attrs = {"held_out": list(names)}
    return table


@pytest.mark.parametrize(
    "names", [("a", "b"), tuple(f"a class whose name is rather long, number {n}" for n in range(9))]
)
def test_classes_never_seen_are_told_within_the_page(names):
    table = few_shot_table(names)
    report = made_report().with_few_shot(table)
    for fig in (report_of_learning(report), show(table)):
        assert outside_or_overlapping(fig) == []
        assert any(text.startswith(", ".join(names)[:40]) for text in texts(fig))
    assert show(table).texts[0].get_text().startswith(f"{len(names)} classes never seen: balanced accuracy 0.500")


def objects_report(sensors: tuple[str, ...]) -> Report:
    rows = made_rows(metric="map_50", by_class="average_precision_50")
    rows = rows[rows["sensors"].isin(sensors) & rows["class"].isin(("", *CLASSES[:4]))]
    return Report("detection", CLASSES[:4], rows)


@pytest.mark.parametrize("sensors", [("both",), ("both", "s1", "s2")])
def test_pages_of_few_sensors_have_nothing_on_top_of_anything(sensors):
    whole = made_report()
    part = replace(whole, rows=whole.rows[whole.rows["sensors"].isin(sensors)])
    for report in (part, objects_report(sensors)):
        fig = report_of_learning(report)
        assert outside_or_overlapping(fig) == []


def test_names_of_classes_are_as_long_as_there_is_room():
    name = "discontinuous urban fabric"
    rows = made_rows()
    rows["class"] = rows["class"].replace({CLASSES[0]: name})
    classes = (name, *CLASSES[1:])
    for report in (Report("segmentation", classes, rows), replace(objects_report(("both",)), classes=classes)):
        drawn = texts(report_of_learning(replace(report, rows=report.rows.replace({CLASSES[0]: name}))))
        assert name in drawn


def test_a_loss_that_broke_is_drawn_up_to_there_and_no_history_is_refused():
    table = history(40, fall=2)
    table.loc[30:, "loss"] = np.nan
    assert "0.0" not in figure_of_history(table).texts[0].get_text()
    for nothing in ([], [{"step": 1}]):
        with pytest.raises(InputError, match="history"):
            figure_of_history(nothing)


def test_lines_that_end_together_are_named_apart():
    table = pd.DataFrame({"loss": [2.0, 1.0], **{f"part_{at}": [2.0, 0.1] for at in range(9)}})
    fig = figure_of_history(table)
    assert outside_or_overlapping(fig) == []
    assert len({line.get_color() for line in fig.axes[0].lines}) == 1 + len(learning.PARTS)
