"""Reports on disk: tables as CSV, what is known of places as GeoJSON, and pages as pictures."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import atomic_folder

from .mistakes import Example
from .report import COLUMNS, Report

if TYPE_CHECKING:
    import geopandas as gpd

FORMAT = 1
PAGES = ("report.png", "places.png", "worst.png")
FILES = ("report.json", "scores.csv", "confusion.csv", "few_shot.csv", "places.geojson", "worst.npz", *PAGES)
DPI = 150
ARRAYS = ("pixels", "truth", "said")
PLACE_TYPES = {
    "corpus": "int64", "sample": "int64", "position": "int64", "score": "float64", "n": "int64", "block": "int64",
}  # fmt: skip
FEW_TYPES = {"shots": "int64", "seeds": "int64", "classes": "int64", "n": "int64"}
FEW_TYPES_FLOAT = ("mean", "low", "high")
# Classes may be called "NA" or nothing at all, which are names here and not gaps.
AS_TEXT: dict[str, Any] = {"keep_default_na": False, "dtype": "str", "encoding": "utf-8"}


def keep_full(folder: Path) -> None:
    """Refuse a folder with a report that has its controls, where a provisional one is to be written."""
    if (folder / "report.json").is_file() and not read_report(folder).missing:
        raise InputError(
            f"{folder} holds a report with controls and a second seed, and this one is provisional: replace=True "
            "(--replace in a shell) writes over it, another folder keeps both."
        )


def save_report(report: Report, target: Path, *, figures: bool, replace: bool) -> Path:
    """What `Report.save` does."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; a report is saved into a folder.")
    if target.is_dir() and (others := {path.name for path in target.iterdir()} - set(FILES)):
        raise InputError(f"{target} holds other files ({sorted(others)[0]}); give a report a folder of its own.")
    if report.missing and not replace:
        keep_full(target)
    told: dict[str, Any] = {"format": FORMAT, "task": report.task, "classes": list(report.classes)}
    told |= {"notes": list(report.notes), "about": dict(report.about), "lacking": list(report.lacking)}
    if report.reliability is not None:
        told["reliability"] = {
            str(name): [None if np.isnan(value) else float(value) for value in values]
            for name, values in report.reliability.items()
        }
    if report.places is not None:
        told["places"] = dict(report.places.attrs)
    if report.few_shot is not None:
        told["few_shot"] = dict(report.few_shot.attrs)
    if report.gained is not None:
        told["gained"] = [None if np.isnan(end) else float(end) for end in report.gained]
    told["worst"] = [_plain(each) for each in report.worst]
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_folder(target, replace=True) as temporary:
        (temporary / "report.json").write_text(text + "\n", encoding="utf-8")
        report.rows.to_csv(temporary / "scores.csv", index=False)
        if report.confusion is not None:
            report.confusion.to_csv(temporary / "confusion.csv", index_label="truth")
        if report.few_shot is not None:
            report.few_shot.to_csv(temporary / "few_shot.csv", index=False)
        if report.places is not None:
            found = report.places.to_json(na="null", drop_id=True, to_wgs84=True)
            (temporary / "places.geojson").write_text(found + "\n", encoding="utf-8")
        if report.worst:
            arrays: dict[str, Any] = _arrays(report.worst)
            np.savez_compressed(temporary / "worst.npz", **arrays)
        if figures:
            for name, figure in report.figures.items():
                figure.savefig(temporary / f"{name}.png", dpi=DPI, format="png")
    return target


def read_report(source: Path) -> Report:
    """What `load_report` does."""
    try:
        told = json.loads((source / "report.json").read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise SourceError(f"{source} is a report of format {told['format']}, and this version reads {FORMAT}.")
        # Read as text and turned into numbers here, for not every pandas gives back the very number that was written.
        rows = _numbers(pd.read_csv(source / "scores.csv", **AS_TEXT), ("value", "low", "high")).astype(COLUMNS)
        confusion = few = None
        if (source / "confusion.csv").exists():
            confusion = pd.read_csv(source / "confusion.csv", **AS_TEXT).set_index("truth").astype("int64")
        if (source / "few_shot.csv").exists():
            few = _numbers(pd.read_csv(source / "few_shot.csv", **AS_TEXT), FEW_TYPES_FLOAT).astype(
                {**FEW_TYPES, **dict.fromkeys(FEW_TYPES_FLOAT, "float64")}
            )
            few.attrs = dict(told.get("few_shot", {}))
        curve = told.get("reliability")
        ends = [np.nan if end is None else float(end) for end in told.get("gained") or ()]
        return Report(
            told["task"],
            tuple(told["classes"]),
            rows,
            confusion,
            None if curve is None else pd.DataFrame(curve, dtype="float64"),
            tuple(told["notes"]),
            told["about"],
            _places(source, told["places"]) if "places" in told else None,
            _examples(source, told.get("worst", [])),
            few,
            tuple(told.get("lacking", ())),
            (ends[0], ends[1]) if ends else None,
        )
    except SourceError:
        raise
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(f"{source} cannot be read as a report: {error}. Save it again with report.save.") from error


def _numbers(table: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    return table.replace({name: {"": "nan"} for name in names})


def _places(source: Path, attrs: dict[str, Any]) -> gpd.GeoDataFrame:
    import geopandas as gpd

    read = json.loads((source / "places.geojson").read_text(encoding="utf-8"))
    rows = [each["properties"] for each in read["features"]]
    lon, lat = np.array([each["geometry"]["coordinates"] for each in read["features"]], "float64").T
    places = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=gpd.points_from_xy(lon, lat), crs="EPSG:4326")
    places = places.astype(PLACE_TYPES)
    places.attrs = dict(attrs)
    return places


def _plain(example: Example) -> dict[str, Any]:
    return {each.name: getattr(example, each.name) for each in fields(Example) if each.name not in ARRAYS}


def _arrays(examples: tuple[Example, ...]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for at, each in enumerate(examples):
        found |= {f"{at}/truth": each.truth, f"{at}/said": each.said}
        found |= {f"{at}/pixels/{name}": values for name, values in each.pixels.items()}
    return found


def _examples(source: Path, told: list[dict[str, Any]]) -> tuple[Example, ...]:
    if not told:
        return ()
    done = []
    with np.load(source / "worst.npz", allow_pickle=False) as held:
        for at, each in enumerate(told):
            before = f"{at}/pixels/"
            pixels = {name.removeprefix(before): held[name] for name in held.files if name.startswith(before)}
            done.append(Example(**each, pixels=pixels, truth=held[f"{at}/truth"], said=held[f"{at}/said"]))
    return tuple(done)
