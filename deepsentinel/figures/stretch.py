"""From reflectance and decibels to something a screen can show: the one place where a Patch becomes colours.

Every picture in the package (figures, maps, cards) takes its colours from here, so a scene looks the same everywhere.

The stretches are *bounded* percentiles. Percentiles alone show every scene at full contrast: a dark lake becomes a
bright noisy one, and two dates cannot be compared. Fixed limits alone leave forests black and deserts white. So the
percentile decides within physical bounds, and a scene outside them looks as dark or as bright as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from deepsentinel.bands import REFLECTANCE_SCALE, S1_BANDS, S2_BANDS, S2_NODATA, SCL_CLOUDY
from deepsentinel.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    Array = np.ndarray

# Percentiles are taken of a thinned array: 200,000 pixels give them to a fraction of a percent.
SAMPLE_PX = 200_000
GAMMA_S2 = 1.4
# The last part of the scale is left to what is brighter than any ground, so that clouds keep their shapes.
SHOULDER = 0.07
VISIBLE = frozenset({"B01", "B02", "B03", "B04", "B05"})
SHORT_WAVE = frozenset({"B11", "B12"})
# Where black and white may come to lie, in reflectance: (lowest black, highest black), (lowest white, highest white).
# White stays under 0.30 in the visible, so that the ground between clouds keeps its contrast.
S2_BOUNDS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {
        "visible": ((0.0, 0.08), (0.10, 0.30)),
        "near infrared": ((0.0, 0.08), (0.25, 0.55)),
        "short wave": ((0.0, 0.08), (0.20, 0.45)),
    }
)
# The same for decibels. Thermal noise lies near -25 dB in VV and lower in VH; towns and ships reach 0 and more.
DB_BOUNDS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {
        "co": ((-25.0, -14.0), (-8.0, 0.0)),
        "cross": ((-32.0, -20.0), (-15.0, -6.0)),
        "ratio": ((0.0, 4.0), (10.0, 16.0)),
    }
)
# Near to ESA's colours of the scene classification, but told apart by lightness besides hue.
SCL_COLOURS: Mapping[int, tuple[int, int, int]] = MappingProxyType(
    {
        0: (0, 0, 0),
        1: (213, 94, 0),
        2: (64, 64, 64),
        3: (120, 80, 50),
        4: (0, 158, 115),
        5: (240, 228, 66),
        6: (0, 80, 178),
        7: (128, 128, 128),
        8: (192, 192, 192),
        9: (255, 255, 255),
        10: (125, 205, 250),
        11: (255, 150, 235),
    }
)


@dataclass(frozen=True)
class View:
    """One way to look at a patch in colour."""

    name: str
    """What `to_rgb` and `show` call it."""
    title: str
    """What stands above the picture."""
    sensor: Literal["S1", "S2"]
    """The sensor it needs."""
    channels: tuple[str, str, str]
    """What red, green and blue show, in words for the legend."""
    bands: tuple[str, ...]
    """The bands it is made of, for S2 in the order red, green, blue."""


VIEWS: Mapping[str, View] = MappingProxyType(
    {
        view.name: view
        for view in (
            View("natural", "natural colour", "S2", ("B04 red", "B03 green", "B02 blue"), ("B04", "B03", "B02")),
            View("false", "false colour", "S2", ("B08 near infrared", "B04 red", "B03 green"), ("B08", "B04", "B03")),
            View("swir", "short-wave infrared", "S2", ("B12 SWIR", "B8A NIR", "B04 red"), ("B12", "B8A", "B04")),
            View("s1", "composite", "S1", ("VV", "VH", "VV/VH"), ("VV", "VH")),
        )
    }
)


def to_rgb(patch: xr.Dataset, view: str = "natural", *, limits: Sequence[tuple[float, float]] | None = None) -> Array:
    """A patch (or one date of a series) in colour: uint8, shape (rows, cols, 3), black where there is no data.

    Views: "natural", "false" (near infrared, red, green), "swir", "s1" (co-, cross-polarisation and their ratio).
    `limits` (black and white of each channel, see `limits_of`) keep several dates comparable.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({name: (("y", "x"), np.full((2, 2), 900, "uint16")) for name in ("B02", "B03", "B04")})
    >>> to_rgb(patch, "natural").shape
    (2, 2, 3)
    """
    if view not in VIEWS:
        raise InputError(f"There is no view {view!r}; there are {', '.join(map(repr, VIEWS))}.")
    if view == "s1":
        return stretch_s1(patch, limits=limits)
    return stretch_s2(patch, VIEWS[view].bands, limits=limits)


def limits_of(patch: xr.Dataset, name: str) -> list[tuple[float, float]]:
    """Black and white of each channel of a view, or of one band: reflectance for S2, dB for S1.

    >>> import numpy as np, xarray as xr
    >>> limits_of(xr.Dataset({"VV": (("y", "x"), np.full((2, 2), -40, "float32"))}), "VV")
    [(-25.0, -8.0)]
    """
    if name == "s1":
        return [_limits_db(values, kind) for kind, values in _layers(patch).items()]
    if name in S1_BANDS:
        return [_limits_db(_values(patch, name), "co" if name in ("VV", "HH") else "cross")]
    if name not in VIEWS and name not in S2_BANDS:
        raise InputError(f"{name!r} is neither a view ({', '.join(map(repr, VIEWS))}) nor a band.")
    return limits_s2(patch, VIEWS[name].bands if name in VIEWS else [name])


def has_data(patch: xr.Dataset, bands: Sequence[str]) -> Array:
    """Where every one of `bands` was measured: bool, shape (rows, cols).

    >>> import numpy as np, xarray as xr
    >>> has_data(xr.Dataset({"B02": (("y", "x"), np.array([[0, 7]], "uint16"))}), ["B02"]).tolist()
    [[False, True]]
    """
    known = None
    for name in bands:
        values = _values(patch, name)
        here = ~np.isnan(values) if name in S1_BANDS or name == "angle" else values != S2_NODATA
        known = here if known is None else known & here
    if known is None:
        raise InputError("has_data needs at least one band name.")
    return known


def limits_s2(patch: xr.Dataset, bands: Sequence[str]) -> list[tuple[float, float]]:
    """Black and white of each band in reflectance. Visible bands share theirs: their ratio is what colour is.

    What SCL calls cloud or shadow does not count, as long as something else is left.

    >>> import numpy as np, xarray as xr
    >>> limits_s2(xr.Dataset({"B02": (("y", "x"), np.full((2, 2), 9000, "uint16"))}), ["B02"])
    [(0.08, 0.3)]
    """
    cloudy = np.isin(_thin(patch["SCL"].values), SCL_CLOUDY) if "SCL" in patch.data_vars else None
    limits = []
    for name in bands:
        values = _thin(_values(patch, name))
        seen = values != S2_NODATA
        if cloudy is not None and cloudy.shape == values.shape and (seen & ~cloudy).any():
            seen &= ~cloudy
        low, high = _percentiles(values[seen] / REFLECTANCE_SCALE, 0.5, 98.5)
        kind = "visible" if name in VISIBLE else "short wave" if name in SHORT_WAVE else "near infrared"
        (black_min, black_max), (white_min, white_max) = S2_BOUNDS[kind]
        limits.append((_between(low, black_min, black_max), _between(high, white_min, white_max)))
    visible = [pair for name, pair in zip(bands, limits, strict=True) if name in VISIBLE]
    if not visible:
        return limits
    # The blue haze of an uncorrected scene is worth removing band by band; in a corrected one that would be a cast.
    black = None if patch.attrs.get("level") == "L1C" else min(low for low, _ in visible)
    white = max(high for _, high in visible)
    shared = [(low if black is None else black, white) for low, _ in limits]
    return [pair if name in VISIBLE else own for name, pair, own in zip(bands, shared, limits, strict=True)]


def stretch_s2(
    patch: xr.Dataset,
    bands: Sequence[str] = ("B04", "B03", "B02"),
    *,
    limits: Sequence[tuple[float, float]] | None = None,
    gamma: float = GAMMA_S2,
) -> Array:
    """Three S2 bands as red, green and blue: uint8, shape (rows, cols, 3), black where there is no data.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({"B08": (("y", "x"), np.array([[0, 1, 10_000]], "uint16"))})
    >>> stretch_s2(patch, ["B08"] * 3)[0, :, 0].tolist()
    [0, 0, 255]
    """
    if len(bands) != 3:
        raise InputError(f"A colour picture takes three bands (red, green, blue), got {len(bands)}: {list(bands)}.")
    limits = limits_s2(patch, bands) if limits is None else limits
    known = has_data(patch, bands)
    channels = []
    for name, (low, high) in zip(bands, limits, strict=True):
        reflectance = _values(patch, name).astype("float32") / REFLECTANCE_SCALE
        ground = _share(reflectance, low, high) ** (1 / gamma)
        channels.append((1 - SHOULDER) * ground + SHOULDER * _share(reflectance, high, 1.0))
    return _to_bytes(np.stack(channels, axis=-1), known)


def polarisations(patch: xr.Dataset) -> tuple[str, str | None]:
    """The co- and the cross-polarised band of a patch, such as ("VV", "VH"); None where there is no second one.

    >>> import numpy as np, xarray as xr
    >>> polarisations(xr.Dataset({"HH": (("y", "x"), np.zeros((2, 2), "float32"))}))
    ('HH', None)
    """
    for co, cross in (("VV", "VH"), ("HH", "HV")):
        if co in patch.data_vars:
            return co, cross if cross in patch.data_vars else None
    for lone in ("VH", "HV"):
        if lone in patch.data_vars:
            return lone, None
    raise InputError(f"There is no Sentinel-1 band in this patch; it holds {_held(patch)}.")


def stretch_s1(patch: xr.Dataset, *, limits: Sequence[tuple[float, float]] | None = None) -> Array:
    """Co-polarisation, cross-polarisation and their ratio as red, green and blue: uint8, shape (rows, cols, 3).

    Water comes out dark blue, woods and crops green to yellow, towns and ships bright pink to white. The ratio is taken
    over 3 x 3 pixels: its speckle is that of both bands together and would drown the other two colours.

    >>> import numpy as np, xarray as xr
    >>> grey = {"VV": (("y", "x"), np.full((2, 2), -9, "float32")), "VH": (("y", "x"), np.full((2, 2), -15, "float32"))}
    >>> stretch_s1(xr.Dataset(grey)).dtype
    dtype('uint8')
    """
    layers = _layers(patch)
    known = ~np.isnan(layers["co"]) & ~np.isnan(layers["cross"])
    limits = [_limits_db(values, kind) for kind, values in layers.items()] if limits is None else limits
    shares = [_share(values, *pair) for values, pair in zip(layers.values(), limits, strict=True)]
    return _to_bytes(np.stack(shares, axis=-1), known)


def _layers(patch: xr.Dataset) -> dict[str, Array]:
    co, cross = polarisations(patch)
    if cross is None:
        raise InputError(f"The S1 composite takes two polarisations and this patch has only {co}; show {co!r} in grey.")
    layers = {"co": _values(patch, co), "cross": _values(patch, cross)}
    layers["ratio"] = _smooth_db(layers["co"]) - _smooth_db(layers["cross"])  # of decibels, so a ratio of powers
    return layers


def coarsen(patch: xr.Dataset, max_px: int) -> xr.Dataset:
    """The patch with pixels averaged until neither side exceeds `max_px`; itself when it is small enough.

    Backscatter is averaged as power, never as dB: that is multilooking, and it is also what the eye expects. A class
    code cannot be averaged, so `SCL` and every passenger keep the value in the middle. A pixel survives if any part of
    it was measured, so that narrow strips do not vanish. Rows and columns that do not fill a last pixel are left out.

    >>> import numpy as np, xarray as xr
    >>> patch = xr.Dataset({"B02": (("y", "x"), np.array([[0, 100], [200, 300]], "uint16"))})
    >>> patch = patch.assign_coords(y=[3.0, 1.0], x=[1.0, 3.0])
    >>> coarsen(patch, 1)["B02"].item()
    200
    """
    factor = -(-max(patch.sizes["y"], patch.sizes["x"]) // max_px)
    # A side shorter than one output pixel would vanish.
    factor = min(factor, patch.sizes["y"], patch.sizes["x"])
    if factor <= 1:
        return patch
    rows, cols = (patch.sizes[axis] // factor for axis in ("y", "x"))
    middle = slice(factor // 2, None, factor)
    out = patch.isel(y=middle, x=middle).isel(y=slice(rows), x=slice(cols))
    cut = {"y": slice(rows * factor), "x": slice(cols * factor)}
    for axis in ("y", "x"):
        centres = patch[axis].isel({axis: cut[axis]}).values.reshape(-1, factor).mean(axis=1)
        out = out.assign_coords({axis: (axis, centres, patch[axis].attrs)})
    for name, variable in patch.data_vars.items():
        if name not in S1_BANDS and name not in S2_BANDS:
            continue
        values = variable.isel(cut).values
        cells = values.reshape(*values.shape[:-2], rows, factor, cols, factor)
        out[name] = (variable.dims, _mean_db(cells) if name in S1_BANDS else _mean_reflectance(cells), variable.attrs)
    return out


def _mean_db(cells: Array) -> Array:
    known = ~np.isnan(cells)
    count = known.sum(axis=(-3, -1))
    power = np.where(known, 10 ** (np.where(known, cells, 0) / 10), 0).sum(axis=(-3, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, 10 * np.log10(power / count), np.nan).astype("float32")


def _smooth_db(values: Array) -> Array:
    """The mean power over 3 x 3 pixels, in dB, of what was measured there."""
    known = ~np.isnan(values)
    # Each power is taken once and the sums are made side by side and then down: a map repaints with this.
    power = np.where(known, 10 ** (np.where(known, values, 0) / 10), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (10 * np.log10(_sum_3x3(power) / _sum_3x3(known.astype("uint8")))).astype("float32")


def _sum_3x3(values: Array) -> Array:
    framed = np.pad(values, 1)
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


def _mean_reflectance(cells: Array) -> Array:
    count = (cells != S2_NODATA).sum(axis=(-3, -1))
    total = cells.astype("float64").sum(axis=(-3, -1))
    return np.where(count > 0, np.maximum(total / np.maximum(count, 1), 1), S2_NODATA).astype("uint16")


def _values(patch: xr.Dataset, name: str) -> Array:
    if name not in patch.data_vars:
        raise InputError(
            f"There is no {name} in this patch; it holds {_held(patch)}. Read it with bands=[..., {name!r}]."
        )
    return np.asarray(patch[name].values)


def _held(patch: xr.Dataset) -> str:
    return ", ".join(map(str, patch.data_vars)) or "nothing"


def _thin(values: Array) -> Array:
    step = max(1, int(np.sqrt(values.size / SAMPLE_PX)))
    return values[..., ::step, ::step]


def _limits_db(values: Array, kind: str) -> tuple[float, float]:
    thinned = _thin(values)
    low, high = _percentiles(thinned[~np.isnan(thinned)], 1, 99)
    (black_min, black_max), (white_min, white_max) = DB_BOUNDS[kind]
    return _between(low, black_min, black_max), _between(high, white_min, white_max)


def _percentiles(known: Array, low: float, high: float) -> tuple[float, float]:
    """Two percentiles, or NaN twice where nothing was measured."""
    if known.size == 0:
        return float("nan"), float("nan")
    found = np.percentile(known, (low, high))
    return float(found[0]), float(found[1])


def _between(value: float, lowest: float, highest: float) -> float:
    """`value` moved into the bounds; the middle of them where there is no value."""
    if np.isnan(value):
        return (lowest + highest) / 2
    return min(max(value, lowest), highest)


def _share(values: Array, low: float, high: float) -> Array:
    """0 at `low`, 1 at `high`, cut off beyond; NaN stays NaN."""
    return np.clip((values - low) / (high - low), 0, 1)


def _to_bytes(shares: Array, known: Array) -> Array:
    # Measured black stays apart from missing only through `has_data`: both are 0 here.
    return np.where(known[..., None], np.nan_to_num(shares) * 255 + 0.5, 0).astype("uint8")
