"""Fill the cache: a demo world with the scenes that the notebooks read first, real samples, weights of an encoder.

python binder/fill_cache.py
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, SourceError


def say(text: str) -> None:
    """A line for the log of the image."""
    sys.stdout.write(f"{text}\n")


def build_the_demo_world() -> None:
    """The world, and a pair of each kind: the clearest, and the cloudiest."""
    src = ds.open_source("demo")
    scenes = src.search(src.area, "2018-05-01", "2018-08-31")
    pairs = ds.pair(scenes, aoi=src.area, max_days=3).sort_values("cloud_cover", kind="stable")
    for row in (0, -1):
        src.read(pairs.iloc[row], ds.geobox(src.area))


def fetch_the_samples() -> None:
    """Two real places."""
    samples = ds.open_source("samples")
    say(f"samples: {len(samples.search(samples.area))} scenes over the first of two places")


def fetch_the_weights() -> None:
    """Those of the smallest encoder that has seen the real Earth."""
    say(f"weights: {ds.load_encoder('galileo-nano').spec.name}")


def main() -> None:
    """Each in turn; what is fetched may fail: the notebook that wants it then tries again, or does without."""
    warnings.simplefilter("ignore", DeepSentinelWarning)
    build_the_demo_world()
    wanted: tuple[Callable[[], None], ...] = (fetch_the_samples, fetch_the_weights)
    for fetch in wanted:
        try:
            fetch()
        except SourceError as error:
            say(f"{fetch.__name__.replace('_', ' ')}: not now. {error}")


if __name__ == "__main__":
    main()
