"""Which product a scene is: catalogs call the same one by many names, and only its makers' name can be downloaded.

`S2B_33UXP_20250302_0_L2A`, `20250302T100029_20250302T100031_T33UXP` and
`S2B_MSIL2A_20250302T100029_R122_T33UXP_20250302T140126` are one datatake over one tile, of which there may be several
products: another for each baseline that it was processed with. So a scene is turned into what its product must agree
with, and from the products that a provider has there, the one is taken that was processed most alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepsentinel.errors import InputError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

S2_PRODUCT = re.compile(
    r"(?P<platform>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<start>\d{8}T\d{6})(?:_N(?P<baseline>\d{4}))?_R\d{3}"
    r"_T(?P<tile>\d{2}[A-Z]{3})_(?P<made>\d{8}T\d{6})"
)
S2_BY_TILE = re.compile(
    r"(?P<platform>S2[A-D])_T?(?P<tile>\d{1,2}[A-Z]{3})_(?P<day>\d{8})(?:T\d{6})?(?:_\d+)?_(?P<level>L1C|L2A)"
)
S2_GRANULE = re.compile(r"(?P<start>\d{8}T\d{6})_(?P<made>\d{8}T\d{6})_T(?P<tile>\d{2}[A-Z]{3})")
S1_PRODUCT = re.compile(
    r"(?P<scene>(?P<platform>S1[A-D])_(?:IW|EW|S[1-6]|WV)_GRD[FHM_]_1S(?:SH|SV|DH|DV)_(?P<start>\d{8}T\d{6})"
    r"_\d{8}T\d{6}_\d{6}_[0-9A-F]{6})(?:_(?P<crc>[0-9A-F]{4}))?(?=_|\.|$)"
)
DATATAKE = re.compile(r"GS(?P<platform>2[A-D])_(?P<start>\d{8}T\d{6})_\d+_N(?P<baseline>\d{2}\.?\d{2})")

# A datatake of Sentinel-2 lasts up to a quarter of an hour, and catalogs state its start or when a tile was seen. The
# same satellite is over the same tile again after 100 minutes at the earliest, near the poles.
NEAR_S2 = pd.Timedelta(minutes=30)
NEAR_S1 = pd.Timedelta(minutes=1)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the product of one scene must agree with."""

    scene_id: str
    """What the scene is called in the table."""
    sensor: str
    """ "S1" or "S2"."""
    level: str
    """ "L1C", "L2A" or "GRD"."""
    time: pd.Timestamp
    """When it was sensed."""
    geometry: BaseGeometry
    """Ground that it shows, in degrees."""
    said: Mapping[str, str]
    """What its id says: platform, tile, start, baseline, made, scene, crc; those that it says."""

    @property
    def near(self) -> pd.Timedelta:
        """How far from `time` the product may be dated."""
        return NEAR_S2 if self.sensor == "S2" else NEAR_S1

    def fits(self, name: str) -> bool:
        """Whether a product of this name shows the scene, whatever it was processed with."""
        about = product(name)
        if about is None or about["level"] != self.level:
            return False
        keys = ("platform", "tile", "start") if self.sensor == "S2" else ("scene",)
        if any(key in self.said and self.said[key] != about[key] for key in keys):
            return False
        return abs(moment(about["start"]) - self.time) <= self.near


def product(name: str) -> dict[str, str] | None:
    """What the name of a product says; None for what is no name of a Sentinel-1 GRD or Sentinel-2 product.

    >>> product("S2A_MSIL2A_20230602T100601_N0509_R022_T32TPS_20230602T162001.SAFE")["tile"]
    '32TPS'
    >>> product("S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8")["level"]
    'GRD'
    """
    name = name.removesuffix(".SAFE")
    # The whole of it: nothing may follow that would lead a path elsewhere, and the twins that end in "_COG" hold other
    # files.
    if match := S2_PRODUCT.fullmatch(name):
        return {key: value for key, value in match.groupdict().items() if value}
    if match := S1_PRODUCT.fullmatch(name):
        return {**{key: value for key, value in match.groupdict().items() if value}, "level": "GRD"}
    return None


def moment(stamp: str) -> pd.Timestamp:
    """The time in a product's name.

    >>> moment("20230602T100601")
    Timestamp('2023-06-02 10:06:01+0000', tz='UTC')
    """
    return pd.to_datetime(stamp, format="%Y%m%dT%H%M%S", utc=True)


@dataclass(frozen=True)
class Candidate:
    """A product that a provider has near a scene."""

    name: str
    """Of its makers, without an ending."""
    covered: float = 0.0
    """How much of the scene it shows, 0 to 1."""
    published: str = ""
    """When it was, as text that sorts by time."""


def choose(wanted: Wanted, candidates: Iterable[Candidate]) -> Candidate | None:
    """The product that shows a scene, of those at hand; None where none does.

    First by its very name, then by the baseline that the scene was processed with, then the newest. Of a tile that was
    cut in two products, the one that has more of the scene.
    """
    fitting = [one for one in candidates if wanted.fits(one.name)]

    def likeness(one: Candidate) -> tuple[Any, ...]:
        about = product(one.name) or {}
        said = wanted.said
        return (
            "crc" in said and about.get("crc") == said["crc"],
            "baseline" in said and about.get("baseline") == said["baseline"],
            # Footprints of one granule differ by some percent between processings.
            round(10 * one.covered),
            "made" in said and about.get("made") == said["made"],
            about.get("baseline", ""),
            about.get("made", ""),
            one.published,
            one.name,
        )

    return max(fitting, key=likeness, default=None)


def remark(wanted: Wanted, name: str) -> str:
    """What is different about a product that was taken for a scene; empty if nothing is.

    >>> import shapely
    >>> scene = Wanted("a", "S2", "L2A", moment("20230602T100601"), shapely.Point(), {"baseline": "0301"})
    >>> remark(scene, "S2A_MSIL2A_20230602T100601_N0509_R022_T32TPS_20230602T162001")
    'processed with baseline 05.09, the scene with 03.01'
    """
    had, has = wanted.said.get("baseline"), (product(name) or {}).get("baseline")
    if had and has and had != has:
        return f"processed with baseline {has[:2]}.{has[2:]}, the scene with {had[:2]}.{had[2:]}"
    return ""


# -- tables ------------------------------------------------------------------------------------------------------------


def wanted_from(what: Any, sensors: Sequence[str]) -> list[Wanted]:
    """Each scene of a table of scenes or pairs once, in the order in which they come."""
    found: dict[str, Wanted] = {}
    for row in _rows(what):
        for one in _of_row(row, sensors):
            found.setdefault(one.scene_id, one)
    return list(found.values())


def _rows(what: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(what, pd.Series):
        what = what.to_frame().T
    elif isinstance(what, Mapping):
        what = pd.DataFrame([dict(what)])
    if not isinstance(what, pd.DataFrame):
        raise InputError(
            f"A {type(what).__name__} cannot be downloaded; give scenes (src.search, ds.select) or pairs (ds.pair), or "
            "rows of them."
        )
    scenes, pairs = {"id", "time", "geometry"}, {"s1_id", "s2_id", "s1_time", "s2_time", "geometry"}
    if not scenes <= set(what.columns) and not pairs <= set(what.columns):
        raise InputError(
            f"This table has neither the columns of scenes ({', '.join(sorted(scenes))}) nor those of pairs "
            f"({', '.join(sorted(pairs))}). Give what src.search, ds.select or ds.pair returned."
        )
    columns = list(what.columns)
    return (dict(zip(columns, values, strict=True)) for values in what.itertuples(index=False, name=None))


def _of_row(row: Mapping[str, Any], sensors: Sequence[str]) -> Iterable[Wanted]:
    if "s1_id" in row:
        for key in ("s2", "s1"):
            if key.upper() in sensors:
                yield _wanted({**row, "id": row[f"{key}_id"], "time": row[f"{key}_time"], "sensor": key.upper()})
    else:
        one = _wanted(row)
        if one.sensor in sensors:
            yield one


def _wanted(row: Mapping[str, Any]) -> Wanted:
    scene = str(row["id"])
    said: dict[str, str] = {}
    for pattern in (S2_PRODUCT, S1_PRODUCT, S2_BY_TILE, S2_GRANULE):
        if match := pattern.search(scene):
            said = {key: value for key, value in match.groupdict().items() if value}
            break
    if match := DATATAKE.fullmatch(str(row.get("datatake") or "")):
        said.setdefault("platform", f"S{match['platform']}")
        said.setdefault("start", match["start"])
    # Earth Engine's ids leave out which satellite it was.
    if match := re.fullmatch(r"sentinel[ _-]?([12][a-d])", str(row.get("platform") or "").lower()):
        said.setdefault("platform", f"S{match[1].upper()}")
    if isinstance(row.get("baseline"), str):
        said.setdefault("baseline", row["baseline"].replace(".", ""))
    if isinstance(row.get("tile"), str):
        said.setdefault("tile", row["tile"])
    if "tile" in said:
        said["tile"] = said["tile"].zfill(5)
    sensor = str(row.get("sensor") or ("S1" if "scene" in said else "S2"))
    level = "GRD" if sensor == "S1" else said.pop("level", None) or row.get("level")
    geometry = row.get("geometry")
    enough = "scene" in said if sensor == "S1" else "tile" in said
    if not enough or geometry is None or geometry.is_empty:
        raise InputError(
            f"It cannot be told which product {scene!r} is: neither by its name nor by its row. Only scenes of real "
            "satellites can be downloaded, found in a catalog that keeps the products' names or states tiles."
        )
    time = pd.Timestamp(row["time"])
    return Wanted(
        scene_id=scene,
        sensor=sensor,
        level=str(level) if isinstance(level, str) else "L2A",
        # What the name says is when the product starts; catalogs give the middle of radar scenes.
        time=moment(said["start"]) if "start" in said else time.tz_localize("UTC") if time.tz is None else time,
        geometry=geometry,
        said=said,
    )
