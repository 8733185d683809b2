"""What an exact query costs beside the bare product of the same matrix and the same vector, which it cannot do without.

    python tests/bench/bench_similarity.py [vectors, 1000000] [features, 128]

Ratios are medians over rounds in which both run in turn. The bare product gives a million numbers; the query gives a
table of the 20 best with their places, settled in float64.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import xarray as xr

from deepsentinel.similarity import similarity_index

ROUNDS = 15
K = 20


def in_turn(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """The median of ours / theirs over rounds in which both run, and the median of each in seconds."""
    times = []
    for turn in range(ROUNDS):
        pair = {}
        for name, run in (("ours", ours), ("theirs", theirs))[:: 1 if turn % 2 else -1]:
            start = perf_counter()
            run()
            pair[name] = perf_counter() - start
        times.append((pair["ours"], pair["theirs"]))
    return statistics.median(a / b for a, b in times), *(
        statistics.median(column) for column in zip(*times, strict=True)
    )


def main(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    # Like the vectors of an encoder: all within one cone, in clusters.
    centres = rng.normal(size=(50, width)).astype("float32") + 2
    values = centres[rng.integers(0, 50, count)] + 0.3 * rng.standard_normal((count, width), dtype="float32")
    lon, lat = rng.uniform(0, 10, count), rng.uniform(45, 55, count)
    z = xr.DataArray(values, {"lon": ("sample", lon), "lat": ("sample", lat)}, ("sample", "feature"))
    wanted = values[count // 2]

    def report(what: str, ours: Callable[[], object]) -> None:
        ratio, own_s, their_s = in_turn(ours, lambda: values @ wanted)
        print(f"{what:42} / bare product: {ratio:5.2f}   ({1000 * own_s:.0f} ms / {1000 * their_s:.0f} ms)")

    print(f"{count:,} vectors of {width} features")
    index = similarity_index(z)
    cosine = values @ wanted / np.linalg.norm(values, axis=1)
    assert set(index.query(wanted, K)["key"]) == set(np.argsort(-cosine)[:K])
    report("cosine, float32", lambda: index.query(wanted, K))
    report("cosine, 5 positives and 3 negatives", lambda: index.query(values[:5], K, negatives=values[5:8]))
    report("the same, combine='nearest'", lambda: index.query(values[:5], K, negatives=values[5:8], combine="nearest"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.safetensors"
        start = perf_counter()
        index.save(path)
        saved = perf_counter()
        mapped = similarity_index(path)
        opened = perf_counter()
        print(f"saved in {saved - start:.2f} s, opened in {1000 * (opened - saved):.1f} ms")
        report("cosine, float32, mapped from a file", lambda index=mapped: index.query(wanted, K))
        del mapped
    del index
    index = similarity_index(z, metric="euclidean")
    report("euclidean, float32", lambda: index.query(wanted, K))
    del index
    index = similarity_index(z, dtype="float16")
    report("cosine, float16", lambda: index.query(wanted, K))


if __name__ == "__main__":
    main(*(int(given) for given in [*sys.argv[1:], *("1000000", "128")[len(sys.argv) - 1 :]]))
