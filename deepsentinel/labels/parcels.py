"""Farmers' declarations: parcels with the crop of one year, each country in its own columns and codes.

========== ============================================ ======================== ==================
kind       what it is                                   crop                     id
========== ============================================ ======================== ==================
rpg        France, Registre Parcellaire Graphique       CODE_CULTU               ID_PARCEL
invekos    Austria, INVEKOS Schläge                     SNAR_CODE                GEO_ID
brp        the Netherlands, Basisregistratie Percelen   gewascode                from the outline
flanders   Belgium, Landbouwgebruikspercelen            GWSCOD_H (main crop)     REF_ID
fusion     Germany, the AI4EO fusion data set           crop_id                  fid
fiboa      any country, fiboa 0.2 and 0.3               hcat:code, or crop:code  id
eurocrops  any country, EuroCrops                       EC_hcat_c                the country's own
========== ============================================ ======================== ==================

`ground_truth` is a class of `deepsentinel.legend.crops()` at the finest level, or at the `level` asked for. The crop is
the main one of the declared year, which is what stands in the field when it is harvested: a label is valid through that
calendar year, although winter crops are sown the autumn before and catch crops follow. The year is that of the row, of
the file's or its layer's name, or `year=`; where none is told the validity is open, and a note says so. (When an
outline was drawn, INVEKOS' GEOM_DATE_CREATED, is not when it was true.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from deepsentinel.errors import InputError, warn
from deepsentinel.legend import Legend, crops, source_codes

from .apart import without
from .codes import code_texts, each_once
from .common import Format, LabelFile, Layer, Options, check_level, finish, lookup, year_span
from .crops import Classified, hcat_classes, national_classes, year_in
from .ids import geometry_ids
from .opening import concat

__all__ = ["FORMATS"]

NO_CODE = "no crop code is written"


@dataclass(frozen=True)
class Declaration:
    """How one country writes its declarations. Columns are alternatives, the first that a file has is used."""

    name: str
    """What `kind=` calls it."""
    nation: str
    """Its column in the table of crops."""
    code: tuple[str, ...]
    """The crop."""
    known_by: tuple[tuple[str, ...], ...]
    """Columns that mark a file as this one: all of any of these."""
    looks_for: str
    """The same in words."""
    id: tuple[str, ...] = ()
    """The parcel's number; without one it is made from the outline."""
    year: tuple[str, ...] = ()
    """Where the row tells its year."""
    year_pattern: str = r"(\d{4})"
    """How the year is written there."""
    group: tuple[str, ...] = ()
    """The declaration's own groups, for codes that the table lacks."""
    of_group: Mapping[str, int] | None = None
    """Class of each group; None: the table's column `<nation>_group`."""
    not_fields: Mapping[tuple[str, ...], Mapping[str, str]] = field(default_factory=dict)
    """Values, by column, of rows that are no fields, and what they are."""


# What a group says of a crop that its code does not: the class for all of it that is not told apart.
BRP_CATEGORIES = {"Grasland": 2101, "Bouwland": 1999, "Natuurterrein": 2102, "Braak": 1801}
FLEMISH_GROUPS = {
    "Grasland": 2101, "Granen, zaden en peulvruchten": 1999, "Maïs": 1999, "Aardappelen": 1301, "Suikerbieten": 1302,
    "Voedergewassen": 1799, "Groenten, kruiden en sierplanten": 1599, "Fruit en noten": 3199, "Vlas en hennep": 1499,
    "Houtachtige gewassen": 5102, "Landbouwinfrastructuur": 7104,
}  # fmt: skip
DECLARATIONS = (
    Declaration(
        "rpg",
        "fr",
        code=("code_cultu",),
        known_by=(("code_cultu",),),
        looks_for="a column CODE_CULTU (France)",
        id=("id_parcel",),
        group=("code_group",),
    ),
    Declaration(
        "invekos",
        "at",
        code=("snar_code",),
        known_by=(("snar_code",),),
        looks_for="a column SNAR_CODE (Austria)",
        id=("geo_id",),
        year=("inspire_id", "gml_identifier"),
        year_pattern=r"/MFA-(\d{4})$",
    ),
    Declaration(
        "brp",
        "nl",
        code=("gewascode", "gws_gewascode", "gws_gewasc"),
        known_by=(("gewascode",), ("gws_gewascode",), ("gws_gewasc",)),
        looks_for="a column gewascode (the Netherlands)",
        year=("jaar",),
        group=("category", "cat_gewascategorie", "cat_gewasc"),
        of_group=BRP_CATEGORIES,
        not_fields={
            ("category", "cat_gewascategorie", "cat_gewasc"): {
                "Landschapselement": "a landscape element, not a field",
                "Sloot": "a ditch, not a field",
            }
        },
    ),
    Declaration(
        "flanders",
        "vlg",
        code=("gwscod_h", "hfdtlt"),
        known_by=(("gwscod_h",), ("hfdtlt", "lblhfdtlt")),
        looks_for="a column GWSCOD_H (Flanders)",
        id=("ref_id", "alvid"),
        group=("gwsgrph_lb", "gewasgroep"),
        of_group=FLEMISH_GROUPS,
        not_fields={("gwscod_h", "hfdtlt"): dict.fromkeys(("11", "12", "13", "14", "15", "16"), "a building")},
    ),
    Declaration(
        "fusion",
        "de",
        code=("crop_id",),
        known_by=(("crop_id", "crop_name"),),
        looks_for="columns crop_id and crop_name (Germany)",
        id=("fid",),
    ),
)
NATIONAL_IDS = tuple(name for entry in DECLARATIONS for name in entry.id)

FIBOA_COLUMNS = (
    "crop:code", "crop:name", "hcat:code", "determination:datetime", "determination_datetime", "determination:method",
    "determination_method", "metrics:area",
)  # fmt: skip
# A list of codes is told by its address, such as https://fiboa.org/code/nl/nl.csv or .../be/vlg.csv.
_NATION_OF_LIST = re.compile(r"(?<![a-z])(at|fr|nl|vlg)(?![a-z])")


def _read_declaration(how: Declaration, file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    table, named = _read(file, layers)
    codes = table[_needed(table, *how.code)]
    groups = _column(table, *how.group)
    of_group = source_codes("crops", f"{how.nation}_group") if how.of_group is None and how.group else how.of_group
    found = national_classes(codes, how.nation, groups=groups, of_group=of_group)
    years, pattern = _column(table, *how.year), re.compile(how.year_pattern)
    written = None if years is None else each_once(years, partial(_year_of, pattern), "int64")
    reasons = np.where(found.missing, NO_CODE, "").astype(object)
    for columns, meanings in how.not_fields.items():
        if (values := _column(table, *columns)) is not None:
            texts = code_texts(values)
            for value, meaning in meanings.items():
                reasons[texts == value] = meaning
    return _finish(table, how.name, file, options, found, _id(table, *how.id), named, written, reasons=reasons)


def _read_eurocrops(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    table, named = _read(file, layers)
    found = hcat_classes(table[_needed(table, "ec_hcat_c")])
    return _finish(table, "eurocrops", file, options, found, _id(table, *NATIONAL_IDS), named)


def _read_fiboa(file: LabelFile, layers: Sequence[Layer], options: Options) -> gpd.GeoDataFrame:
    """Classes by HCAT, else by a country's list of codes that we know, else by the names; else all are fields."""
    table, named = _read(file, layers)
    hcat, code, name = (_column(table, column) for column in ("hcat:code", "crop:code", "crop:name"))
    legend: Legend | None = None
    if hcat is not None:
        found = hcat_classes(hcat)
        if (nation := _nation(table)) and code is not None and found.missing.any():
            own = national_classes(np.where(found.missing, code_texts(code), ""), nation)
            classes = np.where(found.missing, own.classes, found.classes)
            found = Classified(classes, found.missing & own.missing, found.notes + own.notes)
    elif code is not None and (nation := _nation(table)):
        found = national_classes(code, nation)
    elif name is not None or code is not None:
        texts = code_texts(table["crop:code"] if name is None else name)
        called = "crop:name" if name is not None else "crop:code"
        # Of the whole file, also outside of the area, so that every part of it has the same numbers.
        spelled = [(layer, lookup(layer.columns, called)) for layer in layers if file.area is not None]
        whole = [code_texts(file.column(layer, column)) for layer, column in spelled if column is not None]
        legend = Legend.of_texts([text for part in (texts, *whole) for text in part if text], name="fiboa_crops")
        classes = np.array([legend.numbers.get(text, 0) for text in texts], dtype="int64")
        note = "neither HCAT codes nor a list of codes that we know: the crops are numbered by their names"
        found = Classified(classes, texts == "", [note])
    else:
        legend = Legend.of_texts(["Field"], name="fields")
        found = Classified(
            np.ones(len(table), dtype="int64"), np.zeros(len(table), dtype=bool), ["no crops: all are fields"]
        )
    dates = _column(table, "determination:datetime", "determination_datetime")
    written = (
        None if dates is None else pd.to_datetime(dates, utc=True, errors="coerce").dt.year.fillna(0).to_numpy(int)
    )
    units = {"metrics:area": "m2 (fiboa 0.3)", "area": "ha (fiboa 0.2)"}
    area = lookup(table.columns, *units)
    notes = [] if area is None else [f"the column {area!r} is in {units[area]}"]
    return _finish(table, "fiboa", file, options, found, _id(table, "id"), named, written, legend=legend, notes=notes)


def _finish(
    table: gpd.GeoDataFrame,
    kind: str,
    file: LabelFile,
    options: Options,
    found: Classified,
    ids: Any,
    named_years: np.ndarray,
    written_years: np.ndarray | None = None,
    *,
    reasons: np.ndarray | None = None,
    legend: Legend | None = None,
    notes: Sequence[str] = (),
) -> gpd.GeoDataFrame:
    """The canonical table, with what was not understood said aloud."""
    reasons = np.where(found.missing, NO_CODE, "").astype(object) if reasons is None else reasons
    years, year_notes = _years(named_years, written_years, options.year)
    legend = crops() if legend is None else legend
    classes = found.classes
    if options.level is not None:
        level = check_level(options.level, range(1, legend.level + 1), legend.name)
        classes, legend = legend.up(classes, level), legend.at(level)
    asked = np.ones(len(table), dtype=bool)
    if options.year is not None and written_years is not None:
        asked = years == options.year
        if len(table) and not asked.any():
            told = ", ".join(str(year) for year in np.unique(years[years > 0])) or "none"
            raise InputError(f"{file.path.name} holds no parcels of {options.year}; its years are: {told}.")
        if others := int((~asked).sum()):
            notes = [*notes, f"left out as of another year, or of none: {others} of {len(table)} rows"]
        table, reasons, classes, years = table[asked], reasons[asked], classes[asked], years[asked]
        ids = None if ids is None else pd.Series(ids)[asked]
    for sentence in found.notes if legend.name == "crops" else ():
        warn(f"{file.path.name}: {sentence}.")
    present, where = np.unique(years, return_inverse=True)
    spans = [year_span(int(year) if year > 0 else None) for year in present]
    starts, ends = (pd.DatetimeIndex([span[end] for span in spans])[where] for end in (0, 1))
    ids = geometry_ids(table) if ids is None else np.asarray(ids)
    if made := _repeated(ids):
        notes = [*notes, made]

    keep = reasons == ""
    return finish(
        without(table, reasons, ids),
        kind=kind,
        file=file,
        ground_truth=classes[keep],
        id=ids[keep],
        valid_from=starts[keep],
        valid_to=ends[keep],
        legend=legend,
        notes=[*found.notes, *year_notes, *notes],
    )


def _years(named: np.ndarray, written: np.ndarray | None, asked: int | None) -> tuple[np.ndarray, list[str]]:
    """The year of each row, 0 where nobody tells, and what to say of it."""
    if written is not None and (written.any() or not len(written)):
        silent = int((written == 0).sum())
        return written, [f"{silent} of {len(written)} rows tell no year, their validity is open"] if silent else []
    if asked is not None:
        return np.full(len(named), asked), []
    if named.all():
        told = ", ".join(map(str, np.unique(named)))
        return named, [f"the year {told} is from the name of the file or its layer"] if told else []
    return named, ["no year is told, so the validity is open; year=.. says which it is"]


def _read(file: LabelFile, layers: Sequence[Layer]) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    """The rows of all layers, and the year that the name of its layer or file tells of each, 0 for none."""
    tables = [file.read(layer) for layer in layers]
    years = [year_in(layer.name, Path(layer.source).name, file.path.name) or 0 for layer in layers]
    return concat(tables), np.repeat(years, [len(table) for table in tables])


def _column(table: pd.DataFrame, *names: str) -> pd.Series | None:
    name = lookup(table.columns, *names) if names else None
    return None if name is None else table[name]


def _needed(table: pd.DataFrame, *names: str) -> str:
    name = lookup(table.columns, *names)
    assert name is not None, f"recognised without {names}"
    return name


def _id(table: pd.DataFrame, *names: str) -> pd.Series | None:
    """The column of ids, unless some are missing: then the outline serves for all, so that they stay of one kind."""
    column = _column(table, *names)
    return None if column is None or column.isna().any() else column


def _repeated(ids: np.ndarray) -> str | None:
    count = int(pd.Series(ids).duplicated().sum())
    return f"{count} ids occur more than once" if count else None


def _year_of(pattern: re.Pattern[str], text: Any) -> int:
    found = pattern.search(str(text))
    return int(found[1]) if found else 0


def _nation(table: pd.DataFrame) -> str | None:
    """The country whose codes `crop:code` are, by the address of the list; None where there is none we know, or two."""
    lists = _column(table, "crop:code_list")
    if lists is None:
        return None
    found = {_nation_of_list(str(text)) for text in lists.dropna().unique()}
    return found.pop() if len(found) == 1 else None


def _nation_of_list(address: str) -> str | None:
    nations = set(_NATION_OF_LIST.findall(address.lower()))
    return nations.pop() if len(nations) == 1 else None


def _recognises(how: Declaration, layer: Layer, file: LabelFile) -> bool:
    # A EuroCrops or fiboa file may keep the country's own columns beside its own.
    return any(layer.has(*columns) for columns in how.known_by)


def _format(
    name: str, looks_for: str, recognises: Callable[[Layer, LabelFile], bool], read: Callable[..., gpd.GeoDataFrame]
) -> Format:
    return Format(name, looks_for, recognises, read, frozenset({"level", "year"}))


FORMATS = [
    _format("eurocrops", "a column EC_hcat_c", lambda layer, file: layer.has("ec_hcat_c"), _read_eurocrops),
    _format(
        "fiboa",
        "columns such as crop:code, hcat:code, determination:datetime",
        lambda layer, file: any(layer.has(name) for name in FIBOA_COLUMNS),
        _read_fiboa,
    ),
    *(
        _format(entry.name, entry.looks_for, partial(_recognises, entry), partial(_read_declaration, entry))
        for entry in DECLARATIONS
    ),
]
"""One a kind, those that hold many countries first, as they may keep a country's own columns too."""
