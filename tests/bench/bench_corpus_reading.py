"""Reading random samples of a corpus through the torch dataset, against the ways of keeping patches that people use.

240 samples of 256 px and 14 bands (12 of Sentinel-2, VV and VH) cut at random from clear, hazy and cloudy pairs of the
demo world, each kept as a chunk of a corpus, as a GeoTIFF (deflate, predictor 2; both tiled with bands apart and, as
GDAL does unasked, in strips with bands together) and as compressed npz; all hold the same integers and all give two
torch tensors. They are read in one process, from the page cache, in turn and each in an order of its own. The floor is
the codec alone: chunks that are already in memory, decompressed into arrays that are already there, with one thread
or with as many as Blosc likes, whichever is faster.

What is printed are ratios of the median time a sample, of each round and their median.

`python tests/bench/bench_corpus_reading.py [rounds] [folder]`
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from numcodecs import blosc

import deepsentinel as ds
from deepsentinel.bands import S2_L2A_BANDS
from deepsentinel.corpus.chunks import Chunks
from deepsentinel.corpus.layout import ArraySpec, Layout, create_store, shard_path
from deepsentinel.corpus.shards import encode, write_shard
from deepsentinel.corpus.store import open_corpus
from deepsentinel.tensors import PatchDataset, loader

SAMPLES, SIZE, SLOTS, PAIRS, MARGIN = 240, 256, 64, 8, 320
S2 = ArraySpec("s2", "uint16", ("sample", "s2_band", "y", "x"), (12, SIZE, SIZE), 0)
S1 = ArraySpec(
    "s1",
    "int16",
    ("sample", "s1_band", "y", "x"),
    (2, SIZE, SIZE),
    -32768,
    {"scale_factor": 0.01, "_FillValue": -32768},
)
TIFFS = {"tiled": {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"}, "striped": {}}


def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels of the demo world as a corpus holds them."""
    src = ds.open_source("demo")
    pairs = ds.pair(src.search(src.area, "2018-04-01", "2018-10-31"), aoi=src.area, max_days=3)
    pairs = pairs.sort_values("cloud_cover").drop_duplicates("s2_id")
    chosen = pairs.iloc[np.linspace(0, len(pairs) * 0.7, PAIRS).astype(int)]
    grid = ds.geobox(src.area).pad(MARGIN)
    rng = np.random.default_rng(0)
    found = []
    for _, row in chosen.iterrows():
        patch = src.read(row, grid)
        optical = np.stack([patch[name].values for name in S2_L2A_BANDS])
        radar = np.stack([patch[name].values for name in ("VV", "VH")])
        packed = np.where(np.isnan(radar), S1.fill, np.round(radar * 100)).astype("int16")
        for y, x in rng.integers(0, [grid.height - SIZE, grid.width - SIZE], (SAMPLES // PAIRS, 2)):
            window = np.s_[:, y : y + SIZE, x : x + SIZE]
            found.append((np.ascontiguousarray(optical[window]), np.ascontiguousarray(packed[window])))
    return found


def write_all(folder: Path) -> None:
    pixels = samples()
    coords = {"s2_band": list(S2_L2A_BANDS), "s1_band": ["VV", "VH"]}
    layout = Layout(len(pixels), SLOTS, (S2, S1), coords, {"title": "bench"})
    store = folder / "corpus.zarr"
    create_store(store, layout)
    for shard in range(layout.shards):
        for spec, which in ((S2, 0), (S1, 1)):
            chunks = [encode(pixels[number][which], spec) for number in layout.members(shard)]
            write_shard(shard_path(store, spec, shard), chunks, slots=SLOTS)
    import pandas as pd

    table = pd.DataFrame({"sample": np.arange(len(pixels)), "status": "ok", "lon": 0.0, "lat": 49.0})
    table.to_parquet(store / "samples.parquet")
    profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": 14, "dtype": "int16", "crs": "EPSG:32630"}
    profile |= {"compress": "deflate", "predictor": 2, "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    for number, (optical, radar) in enumerate(pixels):
        together = np.concatenate([optical.astype("int16"), radar])
        assert (together[:12] == optical).all(), "reflectance beyond int16 would make the GeoTIFF larger"
        for name, layout_options in TIFFS.items():
            (folder / name).mkdir(exist_ok=True)
            with rasterio.open(folder / name / f"{number}.tif", "w", **profile, **layout_options) as file:
                file.write(together)
        (folder / "npz").mkdir(exist_ok=True)
        np.savez_compressed(folder / "npz" / f"{number}.npz", s2=optical, s1=radar)


def readers(folder: Path) -> dict[str, Callable[[int], object]]:
    data = PatchDataset(open_corpus(folder / "corpus.zarr"))
    floats = PatchDataset(open_corpus(folder / "corpus.zarr"), values="physical")
    chunks = Chunks(folder / "corpus.zarr")
    encoded = {
        spec.name: [encode(chunks.read(spec.name, number), spec)[:-4] for number in range(SAMPLES)] for spec in (S2, S1)
    }
    ready = {spec.name: np.empty(spec.shape, spec.dtype) for spec in (S2, S1)}

    def tiff(kind: str) -> Callable[[int], object]:
        def read(number: int) -> object:
            with rasterio.open(folder / kind / f"{number}.tif") as file:
                both = torch.from_numpy(file.read())
            return both[:12], both[12:]

        return read

    def npz(number: int) -> object:
        with np.load(folder / "npz" / f"{number}.npz") as file:
            return torch.from_numpy(file["s2"]), torch.from_numpy(file["s1"])

    def codec(threads: bool) -> Callable[[int], object]:
        def decompress(number: int) -> object:
            blosc.use_threads = threads
            for name, array in ready.items():
                blosc.decompress(encoded[name][number], array)
            blosc.use_threads = None
            return ready

        return decompress

    return {
        "corpus": lambda number: data[number],
        "corpus, physical": lambda number: floats[number],
        "tiled": tiff("tiled"),
        "striped": tiff("striped"),
        "npz": npz,
        "codec": codec(False),
        "codec, its threads": codec(True),
    }


def check(read: dict[str, Callable[[int], object]]) -> None:
    """All of them give the same pixels."""
    for number in range(0, SAMPLES, 37):
        ours = read["corpus"](number)
        for name in ("tiled", "striped", "npz"):
            optical, radar = read[name](number)
            assert (ours["s2"].int() == optical.int()).all(), name
            assert (ours["s1"].int() == radar.int()).all(), name


def measure(rounds: int, folder: Path) -> None:
    if not (folder / "npz" / f"{SAMPLES - 1}.npz").exists():
        write_all(folder)
    sizes = {
        name: sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file()) / SAMPLES / 1e6
        for name in ("corpus.zarr", *TIFFS, "npz")
    }
    print("MB a sample:", ", ".join(f"{name} {size:.2f}" for name, size in sizes.items()))
    read = readers(folder)
    check(read)
    rng = np.random.default_rng(0)
    for reader in read.values():  # into the page cache
        for number in range(SAMPLES):
            reader(number)
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        spent: dict[str, list[float]] = {name: [] for name in read}
        orders = {name: rng.permutation(SAMPLES) for name in read}
        for step in range(0, SAMPLES, 24):
            for name, reader in read.items():
                for number in orders[name][step : step + 24].tolist():
                    began = time.perf_counter()
                    reader(number)
                    spent[name].append(time.perf_counter() - began)
        took = {name: float(np.median(times)) for name, times in spent.items()}
        tiff = min(took["tiled"], took["striped"])
        alone = min(took["codec"], took["codec, its threads"])
        round_ratios = {
            "GeoTIFF / corpus (target 2.5)": tiff / took["corpus"],
            "npz / corpus (target 5)": took["npz"] / took["corpus"],
            "codec / corpus (target 0.45)": alone / took["corpus"],
            "codec / corpus as floats": alone / took["corpus, physical"],
            "GeoTIFF / corpus as floats": tiff / took["corpus, physical"],
        }
        for name, ratio in round_ratios.items():
            ratios.setdefault(name, []).append(ratio)
        print(", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in took.items()))
    for name, values in ratios.items():
        print(f"{name}: {np.median(values):.2f} (rounds {min(values):.2f} to {max(values):.2f})")
    data, passes = PatchDataset(open_corpus(folder / "corpus.zarr")), []
    for epoch in range(rounds):
        began = time.perf_counter()
        held = sum(len(batch["sample"]) for batch in loader(data, 32, epoch=epoch))
        passes.append((time.perf_counter() - began) / held)
    print(f"in batches of 32: {1000 * float(np.median(passes)):.2f} ms a sample")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    if len(sys.argv) > 2:
        Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
        measure(rounds, Path(sys.argv[2]))
    else:
        folder = Path(tempfile.mkdtemp())
        try:
            measure(rounds, folder)
        finally:
            shutil.rmtree(folder)
