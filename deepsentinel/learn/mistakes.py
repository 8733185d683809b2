"""Where on the ground a model is wrong: a score for each sample of a test, and the worst samples with what was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.corpus.ground import ground_of
from deepsentinel.corpus.patches import patch_of
from deepsentinel.errors import InputError

from .matching_objects import HALF, Detections, overlaps
from .tallies import as_array, ratio
from .tasks import IGNORE, OBJECT_TASKS

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from .ground import Ground
    from .model import Model

# By what a sample is judged, and what that is called.
ACCURACY, ERROR, F1 = "accuracy", "error", "f1"
OF_MAPS, OF_LABELS, OF_SHARES, OF_NUMBERS, OF_OBJECTS = (
    (ACCURACY, "share of its pixels that are right"),
    (ACCURACY, "share of its labels that are right"),
    (ERROR, "mean error of its shares"),
    (ERROR, "mean error of its pixels"),
    (F1, "F1 of its objects"),
)
JUDGED = {
    "segmentation": OF_MAPS, "classification": OF_LABELS, "fractions": OF_SHARES, "regression": OF_NUMBERS,
    "detection": OF_OBJECTS, "instances": OF_OBJECTS,
}  # fmt: skip
# Of samples of which much less is known than of others, the score tells little.
LEAST_KNOWN = 0.25
DEGREE_M = 111_195.0
# Pictures of samples are kept no larger than this.
PICTURE_PX = 192
# What a person reads best, in this order.
PICTURES = (("B04", "B03", "B02"), ("B08", "B04", "B03"), ("VV", "VH"), ("HH", "HV"), ("VV",), ("HH",))


class SampleScores:
    """How right a model is, sample by sample: a score, and of how many pixels, labels or objects (there or found).

    >>> from types import SimpleNamespace
    >>> each = SampleScores(SimpleNamespace(task="segmentation"), 2)
    >>> each.add([1], np.array([[[[0.9, 0.2]], [[0.1, 0.8]]]]), np.array([[[0, 0]]]))
    >>> each.score.tolist(), each.n.tolist()
    ([nan, 0.5], [0, 2])
    """

    def __init__(self, model: Model | Any, count: int) -> None:
        self.task: str = model.task
        self.score, self.n = np.full(count, np.nan), np.zeros(count, "int64")
        self._classes = len(model.classes) if self.task in OBJECT_TASKS else 0

    def add(self, positions: Any, said: Any, truth: Any) -> None:
        """Judge some of the samples, by their positions, from what was said of them and what is true."""
        if self.task in OBJECT_TASKS:
            counts = np.array([self._matched(one, other) for one, other in zip(said, truth, strict=True)])
            counts = counts.reshape(-1, 3)
            self.score[positions] = ratio(counts[:, 0], counts[:, 0] + (counts[:, 1] + counts[:, 2]) / 2)
            self.n[positions] = counts.sum(axis=1)
            return
        off, known = mistakes(self.task, said, truth)
        sums, n = (values.reshape(len(values), -1).sum(axis=1) for values in (np.where(known, off, 0), known))
        wrong = ratio(sums, n)
        self.score[positions] = wrong if JUDGED[self.task][0] == ERROR else 1 - wrong
        self.n[positions] = n

    def _matched(self, found: Any, there: Any) -> tuple[int, int, int]:
        """Hits, wrong finds and misses in one picture."""
        one = Detections(self._classes, by="masks" if self.task == "instances" else "boxes")
        one.update(found, there)
        hits, wrong, missed = one.matched().sum(axis=(0, 1)).astype(int).tolist()
        return hits, wrong, missed


def mistakes(task: str, said: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """How wrong each answer is (1: wrong, 0: right; or by how much), and where the truth is known at all.

    >>> off, known = mistakes("classification", np.array([[0.9, 0.2]]), np.array([[1.0, np.nan]]))
    >>> off.tolist(), known.tolist()
    ([[0.0, 0.0]], [[True, False]])
    """
    answer, right = as_array(said), as_array(truth)
    if task == "segmentation":
        return (answer.argmax(axis=1) != right).astype("float64"), right != IGNORE
    known = np.isfinite(right)
    right = np.nan_to_num(right.astype("float64"))
    if task == "classification":
        return ((answer >= HALF) != (right > HALF)).astype("float64") * known, known
    return np.abs((answer if task == "fractions" else answer[:, 0]) - right), known


def places_of(ground: Ground, each: SampleScores, sensors: str) -> gpd.GeoDataFrame:
    """A point for each sample, with its score and what was judged of it; its place in the corpus is in `position`.

    `attrs` say what the score is ("accuracy", "error", "f1"), in `words` too, which `sensors` the model was shown, and
    how wide a sample is (`size_m`).
    """
    import geopandas as gpd

    corners = ground_of(ground.corpora[0].isel(sample=ground.place[ground.corpus == 0][:1000])).corners
    places = gpd.GeoDataFrame(
        {
            "corpus": ground.corpus,
            "sample": ground.sample,
            "position": ground.place,
            "score": each.score,
            "n": each.n,
            "block": ground.block,
            "cloud": ground.cloud,
        },
        geometry=gpd.points_from_xy(ground.lon, ground.lat),
        crs="EPSG:4326",
    )
    name, told = JUDGED[each.task]
    size_m = float(np.median(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)))
    places.attrs = {"score": name, "words": told, "sensors": sensors, "size_m": round(size_m, 3)}
    return places


def worst_places(places: gpd.GeoDataFrame, count: int) -> gpd.GeoDataFrame:
    """The samples with the worst scores, the worst first, none on the ground of another; none where all is right.

    Samples of which much less is known than of others are left out.

    >>> import geopandas as gpd
    >>> where = gpd.points_from_xy([0, 1, 2], [0, 0, 0])
    >>> three = gpd.GeoDataFrame({"score": [0.9, 0.1, 1.0], "n": [9, 9, 9]}, geometry=where)
    >>> worst_places(three, 6).index.tolist()
    [1, 0]
    """
    larger = places.attrs.get("score") == ERROR
    kept = places[places["score"].notna() & (places["n"] >= LEAST_KNOWN * places["n"].max())]
    kept = kept[kept["score"] != (0.0 if larger else 1.0)]
    # Of samples that are all wrong those with more to be wrong about come first.
    kept = kept.sort_values(["score", "n"], ascending=[not larger, False], kind="stable")
    lon, lat = kept.geometry.x.to_numpy(), kept.geometry.y.to_numpy()
    chosen: list[int] = []
    for at in range(len(kept)):
        if len(chosen) >= count:
            break
        # Good enough within a few samples: a degree of longitude is shorter the farther from the equator.
        east, north = (lon[chosen] - lon[at]) * np.cos(np.radians(lat[at])), lat[chosen] - lat[at]
        if (np.hypot(east, north) * DEGREE_M > max(1.0, places.attrs.get("size_m", 0.0))).all():
            chosen.append(at)
    return kept.iloc[chosen]


@dataclass(frozen=True, eq=False)
class Example:
    """One sample, what is there, and what was said of it; arrays are small, and only there to be drawn."""

    sample: int
    """Its number in its corpus."""
    score: float
    """By what it is judged, see `Report.places`."""
    lon: float
    """Where it lies."""
    lat: float
    """Where it lies."""
    size_m: float
    """How wide it is."""
    pixels: dict[str, np.ndarray]
    """Bands to draw it from: (y, x), as in a Patch."""
    truth: np.ndarray
    """Numbers of classes (y, x), 255 where not known; shares or labels (classes,); numbers (y, x); or boxes (n, 6)."""
    said: np.ndarray
    """The same of what the model said. Boxes are left, top, right, bottom, class, and whether they are in the other."""
    told: dict[str, str] = field(default_factory=dict)
    """Which pixels: the source, the date."""


def worst_of(model: Model, ground: Ground, places: gpd.GeoDataFrame, count: int) -> tuple[Example, ...]:
    """The worst samples with what is in them: they are read and asked about once more."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
        raise InputError(f"worst={count!r}: how many samples are shown, a whole number, is meant.")
    chosen = worst_places(places, count)
    if not len(chosen):
        return ()
    rows = chosen.index.to_numpy()
    some = ground.of(rows)
    asked = some.answered(model, places.attrs["sensors"])
    found = {}
    for position, (said, truth, side) in asked.items():
        key = int(some.sample[position]), float(some.lon[position]), float(some.lat[position])
        at, corpus = int(some.place[position]), some.corpora[some.corpus[position]]
        found[key] = drawn(model.task, said, truth, side), *pictured(corpus, at)
    done = []
    for row in rows:
        lon, lat = float(ground.lon[row]), float(ground.lat[row])
        (right, answer), pixels, told = found[int(ground.sample[row]), lon, lat]
        score, size_m = float(places["score"][row]), float(places.attrs["size_m"])
        done.append(Example(int(ground.sample[row]), score, lon, lat, size_m, pixels, right, answer, told))
    return tuple(done)


def drawn(task: str, said: Any, truth: Any, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and answer of one sample as they are kept: maps thinned to `PICTURE_PX`, boxes in shares of its width.

    >>> right, answer = drawn("segmentation", np.array([[[0.9]], [[0.1]]]), np.array([[255]]), 1)
    >>> right.tolist(), answer.tolist()
    ([[255]], [[0]])
    """
    if task in OBJECT_TASKS:
        sure = as_array(said["scores"]) >= HALF
        parts = [(as_array(truth["boxes"]), as_array(truth["labels"]))]
        parts.append((as_array(said["boxes"])[sure], as_array(said["labels"])[sure]))
        if "ignore" in truth:
            keep = ~as_array(truth["ignore"]).astype(bool)
            parts[0] = parts[0][0][keep], parts[0][1][keep]
        shared = overlaps(parts[0][0].reshape(-1, 4), parts[1][0].reshape(-1, 4))
        hits = (shared >= HALF) & (parts[0][1][:, None] == parts[1][1][None])
        right, answer = (
            np.column_stack([boxes.reshape(-1, 4) / side, labels, hits.any(axis=axis)]).astype("float32")
            for axis, (boxes, labels) in zip((1, 0), parts, strict=True)
        )
        return right, answer
    answer, right = as_array(said), as_array(truth)
    if task == "segmentation":
        return thinned(right).astype("uint8"), thinned(answer.argmax(axis=0)).astype("uint8")
    if task == "regression":
        return thinned(right).astype("float32"), thinned(answer[0]).astype("float32")
    return right.astype("float32"), answer.astype("float32")


def thinned(values: np.ndarray) -> np.ndarray:
    """A map with no more than `PICTURE_PX` pixels a side: each the middle of those that it stands for.

    >>> thinned(np.arange(400).reshape(1, 400)).shape
    (1, 133)
    """
    step = -(-max(values.shape[-2:]) // PICTURE_PX)
    down, across = (slice(min(step // 2, side - 1), None, step) for side in values.shape[-2:])
    return values[..., down, across]


def pictured(corpus: xr.Dataset, at: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The bands that a sample is best drawn from, with its clouds, and what they are."""
    patch = patch_of(corpus, at, labels=False)
    flat = {str(name): values for name, values in patch.data_vars.items() if values.ndim == 2}
    known = [bands for bands in PICTURES if set(bands) <= set(flat)]
    # What the optical sensor did not see at all is better drawn from radar.
    seen = [bands for bands in known if bands[0][0] != "B" or bool((flat[bands[0]].values != 0).any())]
    bands = next(iter(seen or known), tuple(name for name in flat if name not in ("SCL", "angle"))[:1])
    wanted = (*bands, *(("SCL",) if "SCL" in flat and bands[:1] and bands[0][0] == "B" else ()))
    sensor = "s2" if bands and bands[0].startswith("B") else "s1"
    told = {name: str(patch.attrs[name]) for name in ("source", "level", "seed") if name in patch.attrs}
    if f"{sensor}_time" in patch.coords:
        told["time"] = str(patch[f"{sensor}_time"].values.astype("datetime64[m]"))
    return {name: thinned(flat[name].values) for name in wanted}, told
