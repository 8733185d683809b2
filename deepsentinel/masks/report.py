"""What is wrong with a table of labels before it becomes masks: how many rows, which ones, and where.

The masks themselves only show the consequences (a conflict here, a parcel that is missing there). The report names the
rows, so that they can be mended at their source.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely

from deepsentinel.geometries import Cleaned, SetAside, clean, kinds
from deepsentinel.grids import bounds_of, grid_of, refined

from .classes import checked
from .onto_grid import onto_grid

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

__all__ = ["PROBLEMS", "REMARKS", "LabelReport", "label_report"]

# Short enough for pandas to print the table of counts whole, on 80 letters a line.
PROBLEMS: dict[str, str] = {
    "set aside": "no shape, no class, or no label at all",
    "invalid": "repaired: crosses itself, or is mixed",
    "duplicated": "the same outline as another row",
    "overlapping": "shares over 0.001 pixels with another",
    "smaller than a pixel": "a remark: less area than one pixel",
    "outside": "a remark: no part is on the grid",
    "out of date": "valid at none of the scene's times",
}
"""What is looked for, in the order of the tables, and what each means."""
REMARKS = ("smaller than a pixel", "outside")
"""What is no fault of a label: it says how the grid suits the labels."""
# Less than this part of a pixel is the noise of coordinates, not an error of anyone's.
OVERLAP_PX = 1e-3
_OVERLAP = "2********"  # DE-9IM: the interiors share an area


@dataclass(frozen=True, repr=False)
class LabelReport:
    """How sound a table of labels is, for one grid."""

    rows: int
    """How many rows were looked at, those included that the reader had set aside."""

    counts: pd.DataFrame
    """Index `problem` (see `PROBLEMS`), columns `rows`, `share` and `meaning`; NA where nothing could be checked."""

    where: gpd.GeoDataFrame
    """One line a finding, in the grid's CRS: `problem, row, id, detail, other_row, area_px, geometry`. `row` is the
    position in the table, <NA> for a row the reader had taken out. An overlap is one line a pair, with the shared
    ground as its geometry."""

    outlines: gpd.GeoSeries
    """All rows that can be burnt, repaired and in the grid's CRS, indexed by their position in the table."""

    grid: GeoBox
    """The grid they were held against."""

    alike: tuple[tuple[str, ...], ...] = ()
    """Classes that differ in upper and lower case or in blanks only: in a mask they are several all the same."""

    nowhere: str = ""
    """Where none of the labels lies on the grid: how far off they are, and whether x and y are exchanged."""

    @property
    def faulty(self) -> int:
        """How many rows have a problem; to be small for the grid, or outside of it, is none of theirs."""
        wrong = self.where[~self.where["problem"].isin(REMARKS)]
        named = pd.concat([wrong["row"], wrong["other_row"]]).dropna()
        return int(named.nunique() + wrong["row"].isna().sum())

    @property
    def outside(self) -> int:
        """How many rows do not reach the grid."""
        return int((self.where["problem"] == "outside").sum())

    @property
    def small(self) -> int:
        """How many rows are smaller than a pixel; they are in a mask all the same, where they win one."""
        return int((self.where["problem"] == "smaller than a pixel").sum())

    def __repr__(self) -> str:
        remarks = f"{self.small} smaller than a pixel, {self.outside} outside of the grid"
        lines = [f"{self.rows} labels: {self.faulty} with a problem; {remarks}"]
        for problem, found in self.counts.iterrows():
            number = "not checked" if pd.isna(found["rows"]) else str(found["rows"])
            lines.append(f"  {problem:<21}{number:>11}  {found['meaning']}")
        if self.nowhere:
            lines.append(f"  {self.nowhere}")
        if self.alike:
            lines.append(
                f"  classes spelled alike: {'; '.join(' and '.join(map(repr, names)) for names in self.alike)}"
            )
        return "\n".join(lines)


def label_report(
    labels: gpd.GeoDataFrame, like: Any, *, value: str | None = "ground_truth", resolution: float | None = None
) -> LabelReport:
    """How many labels are invalid, duplicated, overlapping, too small, outside or out of date; and where.

    `like` is what `rasterize` takes: a patch, a DataArray or a GeoBox; a patch's times tell which labels are out of
    date. A label holds from its `valid_from` on, and no longer at its `valid_to`. `resolution` is the size of the
    mask's pixels where it is not that of `like`. Overlaps are looked for among the labels that reach the grid. Nothing
    is changed; what a reader has already repaired or set aside is counted too, from what it noted in `labels.attrs`.

        >>> from deepsentinel import geobox
        >>> grid = geobox((2.0, 48.0, 2.01, 48.01))
        >>> left, bottom, right, top = grid.boundingbox
        >>> field = shapely.box(left, bottom, left + 200, bottom + 200)
        >>> labels = gpd.GeoDataFrame({"ground_truth": [1, 2]}, geometry=[field, field.reverse()], crs=str(grid.crs))
        >>> label_report(labels, grid).counts["rows"].to_dict()["duplicated"]
        2
    """
    if value is not None:
        labels = checked(labels, value)
    cleaned = clean(labels, value=value)
    grid, times = refined(grid_of(like), resolution), _times(like)
    pixel = abs(float(grid.resolution.x * grid.resolution.y))
    table, positions = cleaned.table, cleaned.positions
    own = np.asarray(table.geometry.array, dtype=object)
    shapes = np.asarray(table.geometry.to_crs(str(grid.crs)).array, dtype=object)
    projected = _finite(shapes)
    is_polygon = kinds(own) == "polygon"
    area = np.where(projected, shapely.area(shapes), np.nan)
    groups, copies = _outlines(own)
    ids = labels["id"].to_numpy() if "id" in labels.columns else None
    found = _Findings(ids)
    _add_notes(found, cleaned, labels, shapes)
    for row in np.flatnonzero(copies[groups] > 1).tolist():
        found.add("duplicated", positions[row], shapes[row], f"{copies[groups[row]]} rows with this outline")
    on_grid = _on_grid(shapes, projected, grid)
    first, second, shared = overlaps(own, is_polygon & on_grid, groups)
    shared = np.asarray(gpd.GeoSeries(shared, crs=table.crs).to_crs(str(grid.crs)).array, dtype=object)
    shared_area = shapely.area(shared)
    real = shared_area > OVERLAP_PX * pixel
    for a, b, ground, size in zip(first[real], second[real], shared[real], shared_area[real], strict=True):
        share = f"{100 * size / min(area[a], area[b]):.2g} % of the smaller one"
        found.add("overlapping", positions[a], ground, share, other=positions[b], area_px=size / pixel)
    area_px = area / pixel
    for row in np.flatnonzero(is_polygon & (area_px < 1)).tolist():
        words = f"{area_px[row]:.2g} pixels"
        found.add("smaller than a pixel", positions[row], shapes[row], words, area_px=area_px[row])
    for row in np.flatnonzero(~on_grid).tolist():
        found.add("outside", positions[row], shapes[row] if projected[row] else None)
    dated = {"valid_from", "valid_to"} & set(table.columns) if times.size else set()
    if dated:
        for row, why in _out_of_date(table, times):
            found.add("out of date", positions[row], shapes[row], why)
    where = found.table(str(grid.crs))
    total = len(labels) + len(_gone(labels))
    rows = {problem: int((where["problem"] == problem).sum()) for problem in PROBLEMS}
    # An outline that several rows have overlaps in each of them, though its pairs are listed once.
    rows["overlapping"] = int((np.isin(groups, groups[np.concatenate([first[real], second[real]])]) & on_grid).sum())
    outlines = gpd.GeoSeries(shapes, index=positions, crs=str(grid.crs))
    counts = _counts(rows, total, unknown=() if dated else ("out of date",))
    # A reader's codes are of texts that it has put beside them.
    told = value if value is None or value != "ground_truth" or "class_name" not in table.columns else "class_name"
    alike = () if told is None else _alike(table[told])
    return LabelReport(total, counts, where, outlines, grid, alike, _nowhere(table, on_grid, grid))


def _nowhere(table: gpd.GeoDataFrame, on_grid: np.ndarray, grid: GeoBox) -> str:
    if on_grid.any():
        return ""
    if not len(table):
        return "There are no labels, so every pixel is background: check the file and the area they were read for."
    crs = pyproj.CRS.from_user_input(table.crs)
    shapes = np.asarray(table.geometry.array, dtype=object)
    return onto_grid(shapes, crs, grid)[1].how_far(shapes, crs)


def overlaps(
    polygons: np.ndarray, usable: np.ndarray, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of polygons that share ground: positions of the one, of the other, and the shared ground itself.

    The polygons stay in the CRS in which they were drawn: there, and only there, do neighbours abut exactly. Polygons
    of one of the `groups` count as one.

    >>> squares = np.array([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2), shapely.box(2, 0, 4, 2)])
    >>> first, second, shared = overlaps(squares, np.ones(3, bool))
    >>> list(zip(first.tolist(), second.tolist(), shapely.area(shared).tolist()))
    [(0, 1, 2.0), (1, 2, 2.0)]
    """
    rows = np.flatnonzero(usable)
    if groups is not None:  # a thousand copies of one outline would make half a million pairs
        rows = rows[np.unique(groups[rows], return_index=True)[1]]
    shapes = polygons[rows]
    first, second = shapely.STRtree(shapes).query(shapes)
    first, second = first[first < second], second[first < second]
    meet = shapely.relate_pattern(shapes[first], shapes[second], _OVERLAP)
    first, second = first[meet], second[meet]
    shared = shapely.intersection(shapes[first], shapes[second])
    for at in np.flatnonzero(kinds(shared) == "collection"):  # where they also touch, there are lines and points
        parts = shapely.get_parts(shared[at])
        shared[at] = shapely.union_all(parts[kinds(parts) == "polygon"])
    order = np.lexsort((second, first))
    return rows[first[order]], rows[second[order]], shared[order]


def _counts(rows: dict[str, int], total: int, *, unknown: Collection[str]) -> pd.DataFrame:
    numbers = pd.array([pd.NA if problem in unknown else rows[problem] for problem in PROBLEMS], dtype="Int64")
    counts = pd.DataFrame({"rows": numbers}, index=pd.Index(PROBLEMS, name="problem"))
    return counts.assign(share=counts["rows"] / max(total, 1), meaning=list(PROBLEMS.values()))


def _outlines(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which outline each row has, numbered, and how many rows have it; where a ring begins does not matter."""
    keys = shapely.to_wkb(shapely.normalize(shapes))
    groups, _ = pd.factorize(np.asarray(keys, dtype=object))
    return groups, np.bincount(groups, minlength=1)


class _Findings:
    """Findings as they come, and the table they make."""

    def __init__(self, ids: np.ndarray | None) -> None:
        self.ids = ids
        self.rows: list[tuple[Any, ...]] = []

    def add(
        self, problem: str, row: int | None, shape: Any, detail: str = "", *, other: int | None = None,
        area_px: float = np.nan, name: Any = None,
    ) -> None:  # fmt: skip
        if self.ids is not None and row is not None:
            name = self.ids[row]
        self.rows.append((problem, row, name, detail, other, area_px, shape))

    def table(self, crs: str) -> gpd.GeoDataFrame:
        columns = ["problem", "row", "id", "detail", "other_row", "area_px", "geometry"]
        frame = pd.DataFrame(self.rows, columns=columns)
        frame = frame.astype({"row": "Int64", "other_row": "Int64", "area_px": "float64"})
        frame["problem"] = pd.Categorical(frame["problem"], categories=list(PROBLEMS))
        frame = frame.sort_values(["problem", "row", "other_row"], kind="stable", ignore_index=True)
        return gpd.GeoDataFrame(frame.assign(problem=frame["problem"].astype(str)), geometry="geometry", crs=crs)


def _add_notes(found: _Findings, cleaned: Cleaned, labels: gpd.GeoDataFrame, shapes: np.ndarray) -> None:
    """What was set aside or repaired, here and now or already by the reader."""
    at = {int(position): number for number, position in enumerate(cleaned.positions)}
    for entry in cleaned.set_aside:
        found.add("set aside", entry["row"], None, entry["reason"])
    for entry in cleaned.repairs:
        found.add("invalid", entry["row"], shapes[at[entry["row"]]], entry["what"])
    for name, reason in _gone(labels):
        found.add("set aside", None, None, reason, name=name)
    repaired = labels.attrs.get("repairs") or []
    if repaired and found.ids is not None:
        # The reader counted the rows of the file, of which this table may be a part: only the id still tells.
        lines = pd.Series(np.arange(len(found.ids)), index=found.ids)
        lines = lines[~lines.index.duplicated(keep=False)]
    for entry in repaired:
        known = found.ids is not None and entry["id"] is not None and entry["id"] in lines.index
        row = int(lines[entry["id"]]) if known else None
        shape = shapes[at[row]] if row in at else None
        found.add("invalid", row, shape, entry["what"], name=entry["id"])


def _gone(labels: gpd.GeoDataFrame) -> list[tuple[Any, str]]:
    """Id and reason of the rows that the reader set aside: of all where it kept them, else of those it lists."""
    entries = labels.attrs.get("set_aside") or []
    if isinstance(entries, SetAside) and entries.rows:
        return [pair for rows in entries.rows for pair in zip(rows["id"], rows["reason"], strict=True)]
    return [(entry["id"], entry["reason"]) for entry in entries]


def _alike(classes: pd.Series) -> tuple[tuple[str, ...], ...]:
    """Texts that are one to a person and several to a computer."""
    spelled: dict[str, list[str]] = {}
    for text in sorted({entry for entry in pd.unique(classes.dropna()) if isinstance(entry, str)}):
        spelled.setdefault("".join(text.split()).casefold(), []).append(text)
    return tuple(tuple(texts) for texts in spelled.values() if len(texts) > 1)


def _on_grid(shapes: np.ndarray, projected: np.ndarray, grid: GeoBox) -> np.ndarray:
    extent = shapely.box(*bounds_of(grid))
    shapely.prepare(extent)
    on = np.zeros(len(shapes), dtype=bool)
    on[projected] = shapely.intersects(extent, shapes[projected]) & ~shapely.touches(extent, shapes[projected])
    return on


def _out_of_date(table: gpd.GeoDataFrame, times: np.ndarray) -> list[tuple[int, str]]:
    """Rows that hold at none of the times: a label holds from the moment it begins up to, not at, that of its end."""
    begin, end = (_naive(table[name]) if name in table else None for name in ("valid_from", "valid_to"))
    holds = np.zeros(len(table), dtype=bool)
    for time in times:
        # A missing bound is an open one, and every comparison with NaT is false.
        starts = ~(begin > time) if begin is not None else True
        ends = ~(end <= time) if end is not None else True
        holds |= starts & ends
    said = []
    for row in np.flatnonzero(~holds).tolist():
        if end is not None and end[row] <= times[0]:
            said.append((row, f"valid until {end[row].astype('datetime64[D]')}"))
        elif begin is not None:
            said.append((row, f"valid from {begin[row].astype('datetime64[D]')}"))
    return said


def _naive(column: pd.Series) -> np.ndarray:
    """Times in UTC as numpy has them, without a zone."""
    found = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    return found.to_numpy(dtype="datetime64[ns]")


def _times(like: Any) -> np.ndarray:
    coords = getattr(like, "coords", {})
    found = [np.atleast_1d(coords[name].to_numpy()) for name in ("s1_time", "s2_time") if name in coords]
    return np.sort(np.concatenate(found).astype("datetime64[ns]")) if found else np.array([], dtype="datetime64[ns]")


def _finite(shapes: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(shapely.bounds(shapes)).all(axis=1))
