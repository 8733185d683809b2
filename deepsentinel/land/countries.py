"""Countries by their ISO codes, from Natural Earth, which is fetched once and kept."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import cache_dir, write_bytes
from deepsentinel.footprints import polygonal

# Map units and not countries: there French Guiana is GF and not FR, Svalbard SJ and not NO, as ISO 3166 has it.
FILE = "ne_50m_admin_0_map_units.geojson"
COMMIT = "ca96624a56bd078437bca8184e78163e5039ad19"
HOME = f"https://raw.githubusercontent.com/nvkelso/natural-earth-vector/{COMMIT}/geojson"
CREDIT = "Made with Natural Earth (public domain)."
# What comes instead of the world (a page of a proxy, a file cut short) has fewer rows than this.
MIN_ROWS = 150
# In this order; all scales and both kinds of file will do, where somebody put one there by hand.
BY_HAND = ("ne_*_admin_0_map_units", "ne_*_admin_0_countries")
SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".zip", ".fgb")

_EU = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE"
_EEA_ONLY = "IS LI NO"
_CLC_ONLY = "CH TR AL BA XK ME MK RS"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "EU27": tuple(_EU.split()),
    "EEA30": tuple(f"{_EU} {_EEA_ONLY}".split()),
    "EFTA": tuple(f"{_EEA_ONLY} CH".split()),
    # Members and cooperating countries of the European Environment Agency: the ground of CORINE Land Cover.
    "EEA38": tuple(f"{_EU} {_EEA_ONLY} {_CLC_ONLY}".split()),
    "EEA39": tuple(f"{_EU} {_EEA_ONLY} {_CLC_ONLY} GB".split()),
    "BENELUX": ("BE", "NL", "LU"),
    "NORDIC": ("DK", "FI", "IS", "NO", "SE"),
}
"""Names that stand for several countries."""
# Codes that are in use and not in ISO 3166.
ALIASES: Mapping[str, str] = {"UK": "GB", "EL": "GR", "XKX": "XK", "KOS": "XK", "EU": "EU27"}
# In older files these have no ISO code, only Natural Earth's own.
_OWN_CODES: Mapping[str, str] = {"FR": "FRA", "NO": "NOR", "XK": "KOS"}

_CODE = re.compile(r"[A-Za-z]{2,3}")
_NAME = re.compile(r"[^\W\d_](?:[\w '.’&-]|\+)*", re.UNICODE)


def is_country_text(text: str) -> bool:
    """Whether a text is made of codes and groups.

    >>> is_country_text("EU27+GB"), is_country_text("de + fr"), is_country_text("parcels.gpkg")
    (True, True, False)
    """
    tokens = [token.strip() for token in text.split("+")]
    return all(_CODE.fullmatch(token) or token.upper() in GROUPS for token in tokens)


def looks_like_a_name(text: str) -> bool:
    """Whether a text is words, and so rather a country's name than a path, WKT or GeoJSON.

    >>> looks_like_a_name("Germany"), looks_like_a_name("POINT (1 2)"), looks_like_a_name("a/b.gpkg")
    (True, False, False)
    """
    return bool(_NAME.fullmatch(text.strip())) and not Path(text).suffix


def country_parts(text: str) -> tuple[np.ndarray, str]:
    """The polygons of countries and groups joined with "+", and how that is written in one way."""
    tokens = list(dict.fromkeys(token.strip().upper() for token in text.split("+")))
    tokens = [ALIASES.get(token, token) for token in tokens]
    table = natural_earth()
    rows: list[np.ndarray] = []
    for token in tokens:
        for code in GROUPS.get(token, (token,)):
            found = _rows_of(table, code)
            if not found.any():
                raise unknown_country(code)
            rows.append(found)
    chosen = table.geometry.to_numpy()[np.logical_or.reduce(rows)]
    return shapely.get_parts(chosen), "+".join(tokens)


def unknown_country(text: str) -> InputError:
    """The error for a code or a name that is none, with those that are near it."""
    given = text.strip()
    try:
        table = natural_earth(fetch=False)
    except SourceError:
        known: dict[str, str] = {}
    else:
        codes = np.where(table["code2"] != "", table["code2"], table["code3"])
        known = {str(code): str(name) for code, name in zip(codes, table["name"], strict=True) if code}
    by_name = {name.lower(): code for code, name in known.items()}
    near = [by_name[name] for name in difflib.get_close_matches(given.lower(), by_name, n=3, cutoff=0.6)]
    near += difflib.get_close_matches(given.upper(), [*known, *GROUPS], n=4, cutoff=0.5)
    listed = ", ".join(f"{code!r} ({known[code]})" if code in known else repr(code) for code in dict.fromkeys(near))
    return InputError(
        f"There is no country or group {given!r}. {f'Near it: {listed}. ' if listed else ''}Regions are ISO 3166 codes"
        f" of two or three letters, the groups {', '.join(GROUPS)}, and sums of them such as 'EU27+GB'."
    )


def natural_earth(*, fetch: bool = True) -> gpd.GeoDataFrame:
    """The world's countries: `code2`, `code3`, `name` and their outlines; fetched on first use (3 MB)."""
    folder = cache_dir("naturalearth")
    path = _in_cache(folder)
    if path is None:
        path = folder / FILE
        if not fetch:
            raise SourceError(f"{path} is not there")
        _fetch(path, f"{HOME}/{FILE}")
    return _read(str(path), path.stat().st_mtime_ns)


def _in_cache(folder: Path) -> Path | None:
    if (folder / FILE).is_file():
        return folder / FILE
    for pattern in BY_HAND:
        # Of several the finest, which has the lowest number: 10m, 50m, 110m.
        found = [path for suffix in SUFFIXES for path in folder.glob(f"{pattern}{suffix}")]
        if found:
            return min(found, key=lambda path: (int(re.sub(r"\D", "", path.name.split("_")[1]) or 999), path.name))
    return None


def _fetch(path: Path, url: str) -> None:
    from deepsentinel.sources.web import get_bytes

    by_hand = (
        f"Fetch {url} where there is a network (or ne_10m_admin_0_countries.zip from naturalearthdata.com) and put it,"
        f" as it is, into {path.parent}; or give polygons instead of codes, such as region='borders.gpkg'."
    )
    sys.stderr.write(f"Fetching the world's countries (3 MB, once) from {url}\n{CREDIT}\n")
    try:
        data = get_bytes(url, tries=3)
    except SourceError as error:
        raise SourceError(f"The outlines of countries could not be fetched: {error} {by_hand}") from error
    if problem := _problem(data):
        raise SourceError(
            f"{url} is not the file that was expected ({problem}): a proxy may have answered in its place. Nothing was"
            f" kept. {by_hand}"
        )
    write_bytes(path, data)


def _problem(data: bytes) -> str:
    """What is wrong with what was fetched; nothing where it is the world."""
    import json

    try:
        features = json.loads(data)["features"]
        keys = {str(key).upper() for key in features[0]["properties"]}
    except (ValueError, TypeError, KeyError, IndexError):
        return "it is no GeoJSON with features"
    if len(features) < MIN_ROWS:
        return f"it has {len(features)} features, and the world has more than {MIN_ROWS} countries"
    return "" if {"ISO_A2", "NAME"} <= keys else "its features have no ISO_A2 and NAME"


@lru_cache(maxsize=2)
def _read(path: str, _changed_ns: int) -> gpd.GeoDataFrame:
    try:
        raw = gpd.read_file(path)
    except Exception as error:  # GDAL's errors have no common class
        raise SourceError(f"{path} cannot be read ({error}); delete it, and it is fetched anew.") from error
    raw.columns = [str(name).upper() if name != raw.geometry.name else name for name in raw.columns]
    if "ISO_A2" not in raw or "NAME" not in raw:
        raise SourceError(f"{path} has no columns ISO_A2 and NAME, so it is no Natural Earth admin-0 file; delete it.")
    if raw.crs is not None and raw.crs.to_epsg() != 4326:
        raw = raw.to_crs("EPSG:4326")
    own = _codes(raw, "ADM0_A3")
    two = _first(_codes(raw, "ISO_A2_EH"), _codes(raw, "ISO_A2"))
    three = _first(_codes(raw, "ISO_A3_EH"), _codes(raw, "ISO_A3"))
    for code, natural in _OWN_CODES.items():
        two = np.where((two == "") & (own == natural), code, two)
    shapes = raw.geometry.to_numpy().copy()
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = polygonal(shapely.make_valid(shapes[broken]))
    columns = {"code2": two, "code3": _first(three, own), "own": own, "name": raw["NAME"].astype(str).to_numpy()}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


def _codes(raw: gpd.GeoDataFrame, column: str) -> np.ndarray:
    """A column of codes; Natural Earth writes -99 where there is none."""
    values: Any = raw[column].astype(str) if column in raw else np.full(len(raw), "")
    texts = np.char.strip(np.asarray(values, dtype=str))
    return np.asarray(np.where(np.char.isalpha(texts), np.char.upper(texts), ""), dtype=str)


def _first(codes: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(codes != "", codes, otherwise), dtype=str)


def _rows_of(table: gpd.GeoDataFrame, code: str) -> np.ndarray:
    if len(code) == 2:
        return np.asarray(table["code2"] == code)
    found = np.asarray(table["code3"] == code)
    # Natural Earth's own codes last: FRA there is also French Guiana.
    return found if found.any() else np.asarray(table["own"] == code)
