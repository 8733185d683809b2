"""Real ground: what the encoder that comes with the package tells apart there, beside statistics and Galileo-nano.

    python tests/bench/probe_real.py [--real ../shared/real] [--weights FILE] [--keep FILE]

Two places of TerraMesh (S1 RTC, S2 L2A, land use) and one farm landscape of WorldCereal (12 clear dates with radar
within three days, crop types). Cells are told apart by their vectors alone, by five nearest neighbours and by a linear
probe, on other blocks of ground than what these learnt from; ten ways to deal the blocks out. Balanced accuracy. The
encoder was trained on an imaginary world; this says how far that carries. The series needs `pip install h5netcdf`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray
import xarray as xr
from affine import Affine
from figure_cloud import probe
from odc.geo.geobox import GeoBox
from probe_shipped import CONTROLS, nearest

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.similarity.folds import make_folds

sys.path.insert(0, str(Path(__file__).parents[1]))
from factories import terramind, with_grid

PLACES = ("637U_59R_1_3", "282D_485L_3_3")
DEALS, FOLDS, DATES, MAX_DAYS = 10, 4, 12, 3
ANGLES = ("sunAzimuthAngles", "sunZenithAngles", "viewAzimuthMean", "viewZenithMean")
CLEAR = (2, 4, 5, 6, 7)
TEN, TWENTY = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")


def cells_of(labels: xr.DataArray, cells: xr.DataArray, cell_m: float) -> np.ndarray:
    """The commonest label within each cell, 0 where none is known."""
    found = np.zeros(cells.shape[:2], "int64")
    for row, y in enumerate(cells["y"].to_numpy()):
        inside_y = np.abs(labels["y"].to_numpy() - y) < cell_m / 2
        for column, x in enumerate(cells["x"].to_numpy()):
            part = labels.to_numpy()[np.ix_(inside_y, np.abs(labels["x"].to_numpy() - x) < cell_m / 2)]
            codes, counts = np.unique(part[part > 0], return_counts=True)
            if len(codes):
                found[row, column] = codes[counts.argmax()]
    return found


def series(real: Path) -> Iterator[tuple[xr.Dataset, xr.DataArray]]:
    """Clear dates of the farm landscape, each with the radar nearest in time, and crop types."""
    folder = next((real / "series").glob("worldcereal_*"))

    def opened(start: str) -> xr.Dataset:
        held = xr.open_dataset(next(folder.glob(f"{start}*.nc")), engine="h5netcdf", mask_and_scale=False)
        # Bytes with a fill value cannot be masked, and need not be: 0 is no class that counts as clear.
        codes = {"SCL": held["SCL"].load()} if "SCL" in held else {}
        return xr.decode_cf(held.drop_vars([*codes, *ANGLES], errors="ignore")).load().assign(codes)

    fine, coarse, radar, truth = (opened(name) for name in ("S2_L2A_10m", "S2_L2A_20m", "S1_GRD", "OUTPUT"))
    clear = np.isin(coarse["SCL"].to_numpy(), CLEAR).mean(axis=(1, 2))
    gap = np.abs(radar["timestamp"].to_numpy()[None] - fine["timestamp"].to_numpy()[:, None])
    good = np.flatnonzero((clear == 1) & (gap.min(axis=1) <= np.timedelta64(MAX_DAYS, "D")))
    west, north = float(fine["x"][0]) - 5, float(fine["y"][0]) + 5
    geobox = GeoBox(fine["B02"].shape[1:], Affine(10, 0, west, 0, -10, north), fine.attrs["crs"].split("=")[-1])
    labels = xr.DataArray(
        np.nan_to_num(truth["CT"].to_numpy()).astype("int64"), {"y": truth["y"], "x": truth["x"]}, ("y", "x")
    )
    for at in good[np.linspace(0, len(good) - 1, DATES).round().astype(int)]:
        other = gap[at].argmin()

        def wide(values: xr.DataArray) -> np.ndarray:
            return values.to_numpy().repeat(2, axis=0).repeat(2, axis=1)

        bands: dict[str, Any] = {b: (("y", "x"), digital(fine[b][at].to_numpy())) for b in TEN}
        bands |= {b: (("y", "x"), digital(wide(coarse[b][at]))) for b in TWENTY}
        bands |= {b: (("y", "x"), wide(radar[b][other]).astype("float32")) for b in ("VV", "VH")}
        patch = with_grid(bands, geobox, s2_time=fine["timestamp"].to_numpy()[at],
                          s1_time=radar["timestamp"].to_numpy()[other])  # fmt: skip
        yield patch.assign_attrs(level="L2A", backscatter="sigma0"), labels


def digital(reflectance: np.ndarray) -> np.ndarray:
    """Reflectance as a Patch has it."""
    return np.asarray((reflectance * 10_000).round().clip(1), "uint16")


def score(patch: xr.Dataset, labels: xr.DataArray, cell_m: int, fewest: int, encoders: dict[str, Any]) -> Iterator[Any]:
    """(encoder, sensors, probe, score), each the mean over ways to deal out the blocks."""
    keep = truth = folds = None
    for name, encoder in encoders.items():
        for sensors in ("both", "s1", "s2"):
            seen: Any = sensors
            cells = ds.embed(patch, encoder, sensors=seen, dense=True, overlap=0, resolution_m=cell_m)
            if truth is None:
                codes = cells_of(labels, cells, cell_m).ravel()
                _, every, counts = np.unique(codes, return_inverse=True, return_counts=True)
                keep = (codes != 0) & (counts[every] >= fewest)
                truth = np.unique(every[keep], return_inverse=True)[1]
                y, x = np.meshgrid(cells["y"], cells["x"], indexing="ij")
                metres = np.column_stack([x.ravel(), y.ravel()])[keep]
                folds = [
                    make_folds(metres, truth, count=FOLDS, block_m=4 * cell_m, buffer_m=0, seed=seed).fold
                    for seed in range(DEALS)
                ]
                yield "guessing", "", "", 1 / len(np.unique(truth))
            values = cells.to_numpy().reshape(-1, cells.sizes["feature"])[keep]
            values = np.where(np.isfinite(values).all(axis=1)[:, None], values, 0)
            spread = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
            near = spread if name in ("image-statistics", "random-convolutions") else values
            yield name, sensors, "kNN", np.mean([nearest(near, truth, fold) for fold in folds])
            yield name, sensors, "linear", np.mean([probe(values, values, truth, fold) for fold in folds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=Path(__file__).parents[3] / "shared" / "real")
    parser.add_argument("--weights", type=Path, help="of fusion-nano, in place of those that come with the package")
    parser.add_argument("--keep", type=Path, help="a JSON file for the numbers")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeepSentinelWarning)
    encoders: dict[str, Any] = {"fusion-nano": ds.load_encoder("fusion-nano", given.weights)}
    encoders |= {name: ds.load_encoder(name) for name in CONTROLS}
    encoders["galileo-nano"] = ds.load_encoder("galileo-nano", given.real / "weights" / "galileo-nano" / "encoder.pt")
    rows: list[dict[str, Any]] = []

    def told(place: str, *args: Any) -> None:
        for name, sensors, what, value in score(*args, encoders):
            rows.append({"place": place, "encoder": name, "sensors": sensors, "probe": what, "score": float(value)})

    for name in PLACES:
        patch = terramind(given.real, name)
        labels = rioxarray.open_rasterio(given.real / "terramind" / "LULC" / f"{name}.tif").squeeze()
        for cell_m in (80, 40):
            told(f"{name} {cell_m} m", patch, labels.assign_coords(x=patch["x"], y=patch["y"]), cell_m, 20)
    for patch, labels in series(given.real):
        told("crops 40 m", patch, labels, 40, 12)
    if given.keep:
        given.keep.write_text(json.dumps(rows))
    print("\n" + " " * 44 + " ".join(f"{s}-{p}".rjust(11) for s in ("both", "s1", "s2") for p in ("kNN", "linear")))
    for place in dict.fromkeys(row["place"] for row in rows):
        for name in (*encoders, "guessing"):
            mine = [row for row in rows if (row["place"], row["encoder"]) == (place, name)]
            wanted = (
                [("", "")] if name == "guessing" else [(s, p) for s in ("both", "s1", "s2") for p in ("kNN", "linear")]
            )
            means = [np.mean([r["score"] for r in mine if (r["sensors"], r["probe"]) == each]) for each in wanted]
            print(f"{place:22} {name:21} " + " ".join(f"{mean:11.3f}" for mean in means))


if __name__ == "__main__":
    main()
