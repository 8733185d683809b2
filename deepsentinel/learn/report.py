"""What an evaluation found, beside its controls and with its spread: a report that a person can read.

No score counts by itself. Beside it stand four controls that learnt nothing before (statistics of the image, random
convolutions, the same encoder frozen with random weights, and the same model trained from scratch), and it is repeated
with a second seed. Where one of these is missing, the report begins with saying so, and its score is provisional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError

from .intervals import Interval
from .mistakes import ERROR, Example
from .report_words import as_text, few_as_text, few_shot_title, number, standing, words

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.figure import Figure

MODEL = "model"
CONTROLS = ("image statistics", "random convolutions", "frozen random", "from scratch")
AS_LONG = "controls as long as the model"
SENSORS = {"both": "both sensors", "s1": "radar alone (S1)", "s2": "optical alone (S2)"}
ALL = "all"
COLUMNS = {
    "what": "str", "sensors": "str", "cloud": "str", "seed": "int64", "metric": "str", "class": "str",
    "value": "float64", "low": "float64", "high": "float64", "n": "int64",
}  # fmt: skip
KEYS = ["what", "sensors", "cloud", "metric", "class"]
# Which score a task is told by, if it was measured, and what it is called class by class.
HEADLINES = {
    "segmentation": ("mean_iou",),
    "classification": ("macro_f1", "balanced_accuracy"),
    "detection": ("map_50", "map"),
    "instances": ("mean_pq", "map_50"),
    "fractions": ("rmse",),
    "regression": ("rmse",),
}
BY_CLASS = {
    "mean_iou": "iou", "macro_f1": "f1", "balanced_accuracy": "recall", "mean_pq": "pq",
    "map_50": "average_precision_50", "map": "average_precision",
}  # fmt: skip
LOWER_IS_BETTER = {"rmse", "mae", "log_loss", "calibration_error"}
# Columns of a table of few_shot that a report cannot do without.
FEW_SHOT = ("what", "probe", "shots", "mean", "low", "high", "classes", "n")


def score_rows(
    interval: Interval,
    metric: str,
    *,
    n: int | Sequence[int],
    what: str = MODEL,
    sensors: str = "both",
    cloud: str = ALL,
    seed: int = 0,
    classes: Sequence[str] = ("",),
) -> list[dict[str, Any]]:
    """Rows of a report from a score with its interval; `classes` where it has one value a class, `n` of each or of all.

    >>> half = Interval(np.array(0.5), np.array(0.4), np.array(0.6), blocks=20)
    >>> score_rows(half, "mean_iou", n=1000)[0]["high"]
    0.6
    """
    parts = [np.ravel(part).astype("float64").tolist() for part in (interval.value, interval.low, interval.high)]
    if len(parts[0]) != len(classes):
        raise InputError(f"{metric} has {len(parts[0])} values, and there are {len(classes)} classes.")
    head = {"what": what, "sensors": sensors, "cloud": cloud, "seed": seed, "metric": metric}
    counts = [n] * len(classes) if isinstance(n, int) else n
    return [
        {**head, "class": name, "value": value, "low": low, "high": high, "n": count}
        for name, value, low, high, count in zip(classes, *parts, counts, strict=True)
    ]


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """How good a model is, beside its controls.

    >>> row = {"what": "model", "sensors": "both", "cloud": "all", "seed": 0, "metric": "mean_iou", "class": "",
    ...        "value": 0.5, "low": 0.4, "high": 0.6, "n": 900}
    >>> report = Report("segmentation", ("field", "wood"), pd.DataFrame([row]))
    >>> report.missing[-1]
    'a second seed of the model'
    >>> print(report)
    PROVISIONAL, for it lacks the control 'image statistics'; ...
    """

    task: str
    """What was asked of the model: "segmentation", "classification" and so on."""
    classes: tuple[str, ...]
    """What the classes are called, in their order."""
    rows: pd.DataFrame
    """One row a score: `what` (the model or a control), `sensors`, `cloud` ("all" or a step of cloud cover), `seed`,
    `metric`, `class` ("" for what is not of one class), `value`, `low` and `high` (the ends of its interval), and `n`,
    how many pixels, samples or objects were scored, of a class those that are truly of it."""
    confusion: pd.DataFrame | None = None
    """How often each class (rows) was taken by the model for which (columns), over all seeds, both sensors seen."""
    reliability: pd.DataFrame | None = None
    """`confidence`, `accuracy` and `share` of the model's answers, in bins of equal mass."""
    notes: tuple[str, ...] = ()
    """What should be known before the scores are believed."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What was evaluated on what: the encoder, the test set, the side of the blocks."""
    places: gpd.GeoDataFrame | None = None
    """A point for each sample of the test with the model's `score` there, see `deepsentinel.learn.mistakes`."""
    worst: tuple[Example, ...] = ()
    """The worst samples: their pixels, the truth and what the model said."""
    few_shot: pd.DataFrame | None = None
    """What `ds.few_shot` found of classes that were never seen."""
    lacking: tuple[str, ...] = ()
    """What else is missing before the score counts, beside what `rows` tell: controls that learnt as long."""

    gained: tuple[float, float] | None = None
    """The interval of `gain()`, from blocks of the same ground; None where nobody knows it."""

    def __post_init__(self) -> None:
        if lost := [name for name in COLUMNS if name not in self.rows.columns]:
            raise InputError(f"Rows of a report lack the column(s) {', '.join(lost)}.")
        if strange := [str(name) for name in self.rows.columns if name not in COLUMNS]:
            raise InputError(
                f"Rows of a report have no column(s) {', '.join(strange)}; they have {', '.join(COLUMNS)}."
            )
        if self.rows.empty:
            raise InputError("A report needs at least one score.")
        rows = self.rows[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
        if (twice := rows.duplicated([*KEYS, "seed"])).any():
            told = ", ".join(str(value) for value in rows.loc[twice, [*KEYS, "seed"]].iloc[0] if value != "")
            raise InputError(f"One score is told twice: {told}. Give each run a seed of its own.")
        if strange := sorted(set(rows["what"]) - {MODEL, *CONTROLS}):
            raise InputError(f"{strange[0]!r} is neither {MODEL!r} nor one of the controls: {', '.join(CONTROLS)}.")
        if strange := sorted(set(rows["sensors"]) - set(SENSORS)):
            raise InputError(f"sensors={strange[0]!r} is none of {', '.join(SENSORS)}.")
        if MODEL not in set(rows["what"]):
            raise InputError("A report is about a model, and there are only scores of controls.")
        if len(set(self.classes)) < len(self.classes):
            raise InputError("Two classes have the same name.")
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "lacking", tuple(self.lacking))

    def with_few_shot(self, table: pd.DataFrame) -> Report:
        """The same report with a table of `ds.few_shot`: how well classes are known that the model never saw.

        ```python
        train, val, test, new = ds.split(corpus, new_classes=0.2, labels="corine")
        report = report.with_few_shot(ds.few_shot(model, new))
        ```
        """
        if lost := [name for name in FEW_SHOT if name not in getattr(table, "columns", ())]:
            raise InputError(f"A table of ds.few_shot has the columns {', '.join(FEW_SHOT)}; this lacks {lost[0]}.")
        return replace(self, few_shot=table)

    # -- tables --------------------------------------------------------------------------------------------------------

    @property
    def headline(self) -> str:
        """The score that the report is told by."""
        of_model = self.rows[self.rows["what"] == MODEL].sort_values("class", kind="stable")
        known = list(dict.fromkeys(of_model["metric"]))
        return next((name for name in HEADLINES.get(self.task, ()) if name in known), known[0])

    def table(self) -> pd.DataFrame:
        """All scores, over seeds: their mean, the spread between the lowest and the highest seed, the mean interval.

        An interval is about the ground that was tested on, the spread about the luck of training: they do not add up.
        """
        groups = self.rows.groupby(KEYS, sort=False, dropna=False)
        found = groups.agg(
            mean=("value", "mean"), spread=("value", "max"), lowest=("value", "min"), low=("low", "mean"),
            high=("high", "mean"), seeds=("seed", "nunique"), n=("n", "max"),
        )  # fmt: skip
        found["spread"] = (found["spread"] - found.pop("lowest")).where(found["seeds"] > 1)
        return found.reset_index()

    def scores(self, metric: str, *, sensors: str = "both", cloud: str = ALL, by_class: bool = False) -> pd.DataFrame:
        """One score of the model and of each control, a row each; a row for each class too where asked."""
        table = self.table()
        here = table[(table["metric"] == metric) & (table["sensors"] == sensors) & (table["cloud"] == cloud)]
        here = here[(here["class"] != "") == by_class]
        if here.empty:
            some = table[(table["class"] != "") == by_class]
            known = "; ".join(
                f"{name}: {', '.join(dict.fromkeys(some[name]))}" for name in ("metric", "sensors", "cloud")
            )
            kind = "by class" if by_class else "over all classes"
            raise InputError(
                f"No score {metric!r} {kind} for sensors={sensors!r}, cloud={cloud!r}. There is {known or 'none'}."
            )
        order: dict[str, dict[str, int]] = {
            "what": {name: at for at, name in enumerate((MODEL, *CONTROLS))},
            "class": {name: at for at, name in enumerate(self.classes)},
        }
        here = here.sort_values(["what", "class"], key=lambda names: names.map(order[str(names.name)]), kind="stable")
        return here.set_index(["what", "class"] if by_class else "what")[
            ["mean", "low", "high", "spread", "seeds", "n"]
        ]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is missing before the score counts: controls, and a second seed, by what was seen; steps of controls."""
        main = self.rows[(self.rows["metric"] == self.headline) & (self.rows["class"] == "")]
        model = main[main["what"] == MODEL]
        settings = list(model[["sensors", "cloud"]].drop_duplicates().itertuples(index=False, name=None))
        seeds = main.groupby(["sensors", "cloud", "what"])["seed"].nunique().to_dict()
        lacks = {f"the control {name!r}": [at for at in settings if (*at, name) not in seeds] for name in CONTROLS}
        lacks["a second seed of the model"] = [at for at in settings if seeds[(*at, MODEL)] < 2]
        return (*(name + _where(lost, settings) for name, lost in lacks.items() if lost), *self.lacking)

    @property
    def measured(self) -> list[str]:
        """Which sensors the model was measured with, over all clouds."""
        rows = self.rows
        main = rows[(rows["what"] == MODEL) & (rows["metric"] == self.headline) & (rows["class"] == "")]
        return [name for name in SENSORS if name in set(main.loc[main["cloud"] == ALL, "sensors"])]

    def gain(self) -> tuple[float, str] | None:
        """By how much the model is better than the best control, and which that is; None without any.

        With both sensors, or with the one that it was measured with.
        """
        if not self.measured:
            return None
        here = self.scores(self.headline, sensors=self.measured[0])["mean"]
        controls = here.drop(MODEL, errors="ignore").dropna()
        if controls.empty:
            return None
        sign = -1 if self.headline in LOWER_IS_BETTER else 1
        best = str((sign * controls).idxmax())
        return float(sign * (here[MODEL] - controls[best])), best

    def standing(self) -> str:
        """How the model stands beside its best control, in words; nothing where there is none."""
        gained = self.gain()
        return standing(*gained, self.gained) if gained else ""

    # -- words ---------------------------------------------------------------------------------------------------------

    def _warning(self) -> str:
        if not self.missing:
            return ""
        return f"PROVISIONAL, for it lacks {'; '.join(self.missing)}. Without them a score says little."

    def _title(self) -> str:
        kind = f"{self.task}" + (f" of {len(self.classes)} classes" if self.classes else "")
        provisional = "provisional " if self.missing else ""
        lower = " (the lower the better)" if self.headline in LOWER_IS_BETTER else ""
        return f"{kind}: {provisional}{words(self.headline)}{lower}"

    def _shown(self) -> dict[str, pd.DataFrame]:
        """The tables that a person is shown, by their titles, all of it as text."""
        table = self.table()
        main = table[table["class"] == ""]
        of_all = main[main["cloud"] == ALL]
        found = {}
        for sensors in self.measured:
            found[SENSORS[sensors]] = as_text(self.scores(self.headline, sensors=sensors).reset_index())
        clouds = main[(main["what"] == MODEL) & (main["metric"] == self.headline) & (main["cloud"] != ALL)]
        if len(clouds):
            of_each = self.classes and self.headline in BY_CLASS
            other = " (each step is other ground: its mean is over the classes that occur there)" if of_each else ""
            found[f"the model by cloud{other}"] = as_text(clouds, ["sensors", "cloud"])
        others = of_all[(of_all["what"] == MODEL) & (of_all["metric"] != self.headline)]
        if len(others):
            found["other scores of the model"] = as_text(
                others.assign(score=others["metric"].map(words)), ["sensors", "score"]
            )
        each = table[(table["what"] == MODEL) & (table["class"] != "") & (table["cloud"] == ALL)]
        each = each[
            (each["metric"] == BY_CLASS.get(self.headline, self.headline)) & each["sensors"].isin(self.measured[:1])
        ]
        if len(each):
            found[f"{words(str(each['metric'].iloc[0]))} by class"] = as_text(each, ["class"])
        if self.few_shot is not None:
            found[few_shot_title(self.few_shot)] = few_as_text(self.few_shot)
        return found

    def _hints(self) -> list[str]:
        """Where to read on: sample by sample, and classes never seen."""
        found = []
        if self.places is not None and len(judged := self.places.dropna(subset="score")):
            larger = self.places.attrs["score"] == ERROR
            at = judged["score"].idxmax() if larger else judged["score"].idxmin()
            found.append(
                f"sample by sample, {self.places.attrs['words']}: {number(float(judged['score'].median()))} in the "
                f"middle, {number(float(judged['score'][at]))} in the worst (number {judged['sample'][at]}); "
                f"report.places and ds.show(report, panels={self.pages[-1]!r}) tell where"
            )
        if self.few_shot is None and self.classes:
            found.append(
                "classes that it never saw: report.with_few_shot(ds.few_shot(model, new)), where new is the last part "
                "of ds.split(corpus, new_classes=0.2)"
            )
        return found

    def __repr__(self) -> str:
        lines = [line for line in (self._warning(), self._title()) if line]
        lines += [f"{name}: {value}" for name, value in self.about.items()]
        lines += [told] if (told := self.standing()) else []
        for title, shown in self._shown().items():
            lines += ["", title, shown.to_string(index=False)]
        lines += ["", *self._hints()] if self._hints() else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        parts = []
        if warning := self._warning():
            parts.append(f"<p style='border-left:4px solid #d55e00;padding-left:0.6em'>{escape(warning)}</p>")
        parts.append(f"<b>{escape(self._title())}</b>")
        parts += [f"<br>{escape(str(name))}: {escape(str(value))}" for name, value in self.about.items()]
        shown = self._shown()
        parts += [f"<br>{escape(told)}"] if (told := self.standing()) else []
        for title, table in shown.items():
            parts.append(f"<p><i>{escape(title)}</i></p>{table.to_html(index=False, border=0)}")
        below = [*self._hints(), *(f"note: {note}" for note in self.notes)]
        return "".join(parts) + "".join(f"<br>{escape(each)}" for each in below)

    # -- files ---------------------------------------------------------------------------------------------------------

    @property
    def figures(self) -> dict[str, Figure]:
        """Each page of the report drawn: "report", and "places" and "worst" where they were kept.

        The same as `ds.show(report, panels="worst")`.
        """
        from deepsentinel import show

        return {name: show(self, panels=name) for name in self.pages}

    @property
    def pages(self) -> tuple[str, ...]:
        """What there is to be drawn."""
        judged = self.places is not None and bool(self.places["score"].notna().any())
        return ("report", *(("places",) if judged else ()), *(("worst",) if self.worst else ()))

    def save(self, folder: str | Path, *, figures: bool = True, replace: bool = False) -> Path:
        """Write everything into a folder, all of it or nothing; returns the folder.

        It takes the place of a report that is there; of one with all its controls by a provisional one only with
        `replace`.

        report.json, scores.csv and confusion.csv hold the numbers, few_shot.csv those of classes never seen,
        places.geojson the score of each sample where it lies, worst.npz the worst of them; and with `figures` a PNG of
        each page.
        """
        from .report_files import save_report

        return save_report(self, Path(folder), figures=figures, replace=replace)


def load_report(folder: str | Path) -> Report:
    """Read a report that `Report.save` wrote.

    >>> import tempfile
    >>> row = {"what": "model", "sensors": "s1", "cloud": "all", "seed": 0, "metric": "rmse", "class": "",
    ...        "value": 1.5, "low": 1.0, "high": np.nan, "n": 9}
    >>> saved = Report("regression", (), pd.DataFrame([row])).save(tempfile.mkdtemp(), figures=False)
    >>> load_report(saved).rows["value"].tolist()
    [1.5]
    """
    from .report_files import read_report

    return read_report(Path(folder))


def _where(lost: list[tuple[str, str]], settings: list[tuple[str, str]]) -> str:
    """Where something is missing, in as few words as it takes; nothing where it is missing everywhere."""
    if set(lost) == set(settings):
        return ""
    named = []
    for sensors in dict.fromkeys(name for name, _ in lost):
        clouds = [cloud for name, cloud in lost if name == sensors]
        every = len(clouds) == sum(name == sensors for name, _ in settings)
        some = " and ".join("all of it" if cloud == ALL else f"{cloud} cloud" for cloud in clouds)
        named.append(SENSORS[sensors] + ("" if every else f" under {some}"))
    return f" ({', '.join(named)})"
