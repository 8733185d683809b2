"""Which bands of a scene are read, and how each of them goes onto a grid that its pixels do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deepsentinel.bands import S1_BANDS, S2_L1C_BANDS, S2_L2A_BANDS, sensor_of
from deepsentinel.errors import ReadError

from . import items as facts
from .arguments import CODES

if TYPE_CHECKING:
    from .assets import AssetRef, Item
    from .harmonise import Quantity

# Radar without a method asked for: interpolated, or averaged where the grid is coarse (see `method_of`).
AUTO = "auto"
ABSENT = "deepsentinel:absent"
"""Item property: bands whose file should be there and is not -> what that file is called."""


def method_of(name: str, resampling: dict[str, str] | str | None, quantity: Quantity | None = None) -> str:
    """How a band goes onto a grid that its pixels do not fit.

    Optical pixels stay what they are (nearest). Radar is interpolated, in power: its neighbours differ by speckle, and
    the nearest of them is as random as any; on a grid of 20 m and more it is averaged, which is what takes speckle
    away. Amplitude and packed decibels are the exception, because the engine cannot average them as power.

    >>> method_of("B05", None), method_of("VV", None, "power"), method_of("SCL", "bilinear")
    ('nearest', 'auto', 'nearest')
    """
    if isinstance(resampling, Mapping) and name in resampling:
        return resampling[name]
    if name in CODES:
        return "nearest"
    if isinstance(resampling, str):
        return resampling
    if name in S1_BANDS and quantity in ("power", "db"):
        return AUTO
    return "bilinear" if name == "angle" else "nearest"


def choose_bands(item: Item, sensor: str, held: Mapping[str, AssetRef], asked: tuple[str, ...] | None) -> list[str]:
    """The bands to read of one scene: those asked for, which must all be there, or the usual ones that are."""
    if asked is None:
        if sensor == "S2":
            usual = [*(S2_L1C_BANDS if facts.level(item) == "L1C" else S2_L2A_BANDS), "SCL"]
        else:
            usual = ["VV", "VH"] if "VV" in held or "VH" in held else ["HH", "HV"]
            usual.append("angle")
        chosen = [name for name in usual if name in held]
        if not any(name in held for name in usual if name not in ("SCL", "angle")):
            raise ReadError(
                f"Scene {item['id']} has no asset that is a band. It has "
                f"{', '.join(item.get('assets') or {}) or 'no assets'}; if one of them is, name it: "
                "open_source(..., assets={'B04': '<asset>'})."
            )
        return chosen
    chosen = [name for name in asked if sensor_of(name) == sensor]
    missing = [name for name in chosen if name not in held]
    absent = item.get("properties", {}).get(ABSENT) or {}
    if lost := {name: absent[name] for name in missing if name in absent}:
        raise ReadError(
            f"Scene {item['id']} has no {', '.join(lost)}: its metadata lists {', '.join(lost.values())}, and what was "
            "downloaded lacks it, or holds it empty. Download the product again, or ask for other bands."
        )
    if missing:
        what = (
            f"its polarisations are {facts.polarisations(held)}"
            if sensor == "S1"
            else f"it has {', '.join(sorted(held))}"
        )
        raise ReadError(
            f"Scene {item['id']} has no {', '.join(missing)}: {what or 'nothing'}. Ask for other bands, choose "
            "another scene, or name the asset: open_source(..., assets={...})."
        )
    return chosen
