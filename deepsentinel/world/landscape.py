"""The ground of the demo world: what lies where, how high, and which field is whose."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely

from deepsentinel.errors import InputError
from deepsentinel.files import atomic_path

from .grid import MasterGrid

__all__ = ["Landscape", "build_landscape"]

Feature = tuple[Any, dict[str, str]]
"""A shapely geometry on the world plane and its tags."""

_HEIGHT_STEP_M = 0.05
_TABLE = ("parcel", "crop_2018", "crop_2019", "sow_shift_days", "vigour", "row_angle_deg")


@dataclass(frozen=True, eq=False)
class Landscape:
    """One imaginary piece of Earth as rasters, parcels and features on the world plane."""

    seed: int
    """Which Earth."""
    size_px: int
    """Width of each of the two tiles, in 10 m pixels."""
    origin_x: float
    """West edge of the rasters on the world plane, metres."""
    origin_y: float
    """North edge, metres."""
    resolution_m: float
    """Cell size, metres."""
    shape: tuple[int, int]
    """Rows and columns of every raster."""
    cover: np.ndarray
    """uint8, codes of `Cover`."""
    parcel: np.ndarray
    """int32, 0 where there is none, else the number of the parcel: its position in `parcels` plus one."""
    height: np.ndarray
    """float32, metres above the sea in steps of 5 cm; the bed of the sea is below 0, inland water is at its surface."""
    tree: np.ndarray
    """float32 0..1, age and density of woody stands."""
    moisture: np.ndarray
    """float32 0..1, dry to wet ground by position in the relief."""
    parcels: pd.DataFrame
    """One row a parcel: parcel, crop_2018, crop_2019, sow_shift_days, vigour, row_angle_deg, geometry (world plane)."""
    features: dict[str, list[Feature]]
    """What maps draw, by kind: roads, railway, streams, buildings, places, pois, power, sites."""
    home: Path | None = None
    """The folder it was loaded from; None where it was made."""

    @property
    def grid(self) -> MasterGrid:
        """The lattice of the rasters."""
        return MasterGrid(self.origin_x, self.origin_y, self.resolution_m, self.shape)

    def crop_table(self, year: int) -> np.ndarray:
        """`Crop` code of each parcel in that year, in the order of `parcels`."""
        column = f"crop_{year}"
        if column not in self.parcels:
            raise InputError(f"The demo world has crops for 2018 and 2019, not for {year}: ask for one of these years.")
        return self.parcels[column].to_numpy()

    def crop_raster(self, year: int) -> np.ndarray:
        """`Crop` code of each cell in that year, 0 outside parcels."""
        return self.crop_raster_at(year, 1)

    def crop_raster_at(self, year: int, step: int) -> np.ndarray:
        """`crop_raster` of the middle cell of every `step` x `step` cells, without making the rest."""
        table = np.concatenate([[0], self.crop_table(year)]).astype(np.uint8)
        return table[self.parcel[step // 2 :: step, step // 2 :: step]]

    def save(self, path: str | Path) -> None:
        """Write everything to one npz; `Landscape.load` gives back an identical one."""
        arrays: dict[str, np.ndarray] = {
            "cover": self.cover,
            "parcel": self.parcel.astype(np.uint16 if len(self.parcels) < 65535 else np.int32),
            "height": np.round(self.height / _HEIGHT_STEP_M).astype(np.int16),
            "tree": np.round(self.tree * 255).astype(np.uint8),
            "moisture": np.round(self.moisture * 255).astype(np.uint8),
            "outline": _pack(list(self.parcels["geometry"])),
        }
        arrays |= {f"table_{name}": self.parcels[name].to_numpy() for name in _TABLE}
        meta = {name: getattr(self, name) for name in ("seed", "size_px", "origin_x", "origin_y", "resolution_m")}
        tags = {}
        for kind, members in self.features.items():
            arrays[f"features_{kind}"] = _pack([geometry for geometry, _ in members])
            tags[kind] = [tag for _, tag in members]
        text = json.dumps({"meta": meta, "tags": tags})
        arrays["text"] = np.frombuffer(text.encode(), dtype=np.uint8)
        # Not np.savez, which stamps the clock into the file; not compressed, which takes seconds to save 15 MB.
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)

    @classmethod
    def load(cls, path: str | Path) -> Landscape:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            text = json.loads(archive["text"].tobytes())
            table = pd.DataFrame({name: archive[f"table_{name}"] for name in _TABLE})
            table["geometry"] = _unpack(archive["outline"])
            features = {
                kind: list(zip(_unpack(archive[f"features_{kind}"]), tags, strict=True))
                for kind, tags in text["tags"].items()
            }
            return cls(
                shape=archive["cover"].shape,
                cover=archive["cover"],
                parcel=archive["parcel"].astype(np.int32),
                height=archive["height"].astype(np.float32) * np.float32(_HEIGHT_STEP_M),
                tree=archive["tree"].astype(np.float32) / np.float32(255),
                moisture=archive["moisture"].astype(np.float32) / np.float32(255),
                parcels=table,
                features=features,
                home=Path(path).parent,
                **text["meta"],
            )


def _pack(geometries: list[Any]) -> np.ndarray:
    blobs = [bytes(blob) for blob in shapely.to_wkb(np.array(geometries, dtype=object))] if geometries else []
    head = np.array([len(blobs), *(len(b) for b in blobs)], dtype="<i8").tobytes()
    return np.frombuffer(head + b"".join(blobs), dtype=np.uint8)


def _unpack(packed: np.ndarray) -> list[Any]:
    data = packed.tobytes()
    count = int(np.frombuffer(data[:8], "<i8")[0])
    sizes = np.frombuffer(data[8 : 8 + 8 * count], "<i8")
    ends = 8 + 8 * count + np.cumsum(sizes)
    return list(shapely.from_wkb([data[end - size : end] for size, end in zip(sizes, ends, strict=True)]))


def build_landscape(seed: int, size_px: int = 1024) -> Landscape:
    """The landscape of one seed; the same call gives the same bytes.

    >>> land = build_landscape(0, size_px=256)
    >>> land.cover.shape == land.shape
    True
    """
    from .build import assemble

    return Landscape(seed=int(seed), size_px=int(size_px), **assemble(int(seed), int(size_px)))
