"""How fast a map is made beside the bare encoder, and how much memory it takes as the area grows.

    python tests/bench/bench_embedding.py speed [side in pixels, 2048] [rounds, 3] [overlap, 0.5]
    python tests/bench/bench_embedding.py memory [folder for some gigabytes of pixels] [encoder, galileo-nano]

Speed: the map is made of rows of 256 px, one after another in turn with the bare encoder on as many windows that lie
ready as tensors, and the ratio is that of windows a second, wall clock and processor time. Memory: pixels lie on disk
as GeoTIFFs and are opened lazily, the map goes to a zarr store, and each side is a process of its own.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))
from factories import grid, make_patch, with_grid

from deepsentinel.embedding import embed
from deepsentinel.encoders import load_encoder

BANDS = ("VV", "VH", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
ROWS_PX, BATCH = 256, 32
SIDES = (2048, 8192)


def clock() -> tuple[float, float]:
    return perf_counter(), process_time()


def speed(side: int, rounds: int, overlap: float) -> None:
    encoder = load_encoder("galileo-nano", "random")
    patch = make_patch((side, side), scl=False).assign_attrs(level="L1C", backscatter="sigma0")
    s1, s2 = torch.randn(BATCH, 2, 64, 64) * 5 - 15, torch.rand(BATCH, 10, 64, 64) * 4000
    month, latlon = torch.full((BATCH, 1), 6), torch.zeros(BATCH, 2)
    count = [0]
    encoder.register_forward_pre_hook(
        lambda _, args, given: count.__setitem__(0, count[0] + len(given["s1"])), with_kwargs=True
    )
    ratios: list[tuple[float, float]] = []
    whole = [0.0, 0.0, 0.0]
    for turn in range(rounds):
        for top in range(0, side, ROWS_PX):
            count[0] = 0
            # What positions have in common is found once a map, with 64 windows; here a map is many.
            start = clock()
            embed(
                patch.isel(y=slice(top, top + ROWS_PX)),
                encoder,
                dense=True,
                overlap=overlap,
                device="cpu",
                keep_positions=True,
            )
            middle = clock()
            windows, batches = count[0], -(-count[0] // BATCH)
            with torch.inference_mode():
                for _ in range(batches):
                    encoder(s1=s1, s2=s2, month=month, latlon=latlon, patch_px=8)
            end = clock()
            if turn == 0 and top == 0:
                continue  # warms up
            ours, bare = (
                [b - a for a, b in zip(start, middle, strict=True)],
                [b - a for a, b in zip(middle, end, strict=True)],
            )
            shares = [b / (batches * BATCH) / (o / windows) for o, b in zip(ours, bare, strict=True)]
            ratios.append((shares[0], shares[1]))
            whole = [whole[0] + windows, whole[1] + ours[0], whole[2] + bare[0] * windows / (batches * BATCH)]
    wall, processor = (statistics.median(one) for one in zip(*ratios, strict=True))
    print(f"galileo-nano, {side} px, windows of 64 px, overlap {overlap:g}: {whole[0]:.0f} windows in {whole[1]:.0f} s")
    print(
        f"  map / bare encoder, windows a second: {wall:.3f} by the clock, {processor:.3f} of the processor (want 0.9)"
    )
    print(f"  over all: {whole[2] / whole[1]:.3f}, lowest and highest {min(ratios)[0]:.2f} {max(ratios)[0]:.2f}")


def write_pixels(folder: Path, side: int) -> None:
    import rasterio

    tile = make_patch((512, 512), scl=False)
    for band in BANDS:
        values = tile[band].to_numpy()
        profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": values.dtype}
        place = {"crs": "EPSG:32631", "transform": grid((side, side)).affine}
        tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd"}
        with rasterio.open(folder / f"{band}.tif", "w", **profile, **place, **tiled) as file:
            for top in range(0, side, 512):
                for left in range(0, side, 512):
                    file.write(values, 1, window=rasterio.windows.Window(left, top, 512, 512))


def peak(folder: Path, side: int, name: str) -> None:
    import rioxarray

    bands = {
        band: rioxarray.open_rasterio(folder / f"{band}.tif", cache=False).squeeze("band", drop=True) for band in BANDS
    }
    patch = with_grid({}, grid((side, side))).assign(bands).assign_attrs(level="L1C", backscatter="sigma0")
    patch = patch.assign_coords(y=with_grid({}, grid((side, side)))["y"], x=with_grid({}, grid((side, side)))["x"])
    began = perf_counter()
    z: xr.DataArray = embed(
        patch, load_encoder(name, "random"), dense=True, overlap=0, out=folder / "z.zarr", device="cpu"
    )
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{side} {taken:.0f} {perf_counter() - began:.0f} {z.shape}", flush=True)


def memory(folder: Path | None, name: str) -> None:
    peaks = {}
    for side in SIDES:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            write_pixels(Path(place), side)
            command = [sys.executable, __file__, "peak", place, str(side), name]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks[side] = float(told[1])
        print(f"{name}, {side} px from GeoTIFFs to zarr: peak {told[1]} MiB, {told[2]} s", flush=True)
    ratio = peaks[SIDES[1]] / peaks[SIDES[0]]
    print(
        f"peak at {SIDES[1]} / at {SIDES[0]}: {ratio:.2f} (at most 1.2 {'reached' if ratio <= 1.2 else 'NOT REACHED'})"
    )


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["speed"]
    if what == "speed":
        given = [*rest, *("2048", "3", "0.5")[len(rest) :]]
        speed(int(given[0]), int(given[1]), float(given[2]))
    elif what == "memory":
        memory(Path(rest[0]) if rest else None, rest[1] if len(rest) > 1 else "galileo-nano")
    elif what == "peak":
        peak(Path(rest[0]), int(rest[1]), rest[2])
