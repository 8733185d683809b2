"""Scores of objects: cases worked out on paper, a plain reckoning beside ours, and what must hold whatever is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torchvision.ops import box_iou

from deepsentinel.errors import InputError
from deepsentinel.learn.intervals import drawn_interval
from deepsentinel.learn.matching_objects import OVERLAPS, PANOPTIC, Detections, PanopticQuality, overlaps

VOID = 255


# -- boxes and masks ---------------------------------------------------------------------------------------------------


def some_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.hstack([corner, corner + rng.uniform(4, 25, (count, 2))])


def picture(seed: int, classes: int = 3) -> tuple[dict, dict]:
    """Some objects are found nearly, some not at all, and some are found where there are none."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 9))
    truth = {"boxes": some_boxes(rng, count), "labels": rng.integers(0, classes, count)}
    near = np.flatnonzero(rng.random(count) < 0.8)
    near = np.append(near, near[: len(near) // 3])  # some of them twice
    extra = int(rng.integers(0, 5))
    boxes = np.vstack([truth["boxes"][near] + rng.normal(0, 1.5, (len(near), 4)), some_boxes(rng, extra)])
    labels = np.append(truth["labels"][near], rng.integers(0, classes, extra)).astype(int)
    # Few different scores, so that some are equal only by chance of a million.
    return {"boxes": boxes, "labels": labels, "scores": rng.random(len(labels))}, truth


def plain_average_precision(pictures: list[tuple[dict, dict]], label: int, least: float) -> float:
    """The textbook's way, one object after another over all pictures, with torchvision's overlaps."""
    there = sum(int((truth["labels"] == label).sum()) for _, truth in pictures)
    if not there:
        return float("nan")
    queue = [
        (score, n, box)
        for n, (found, _) in enumerate(pictures)
        for box, kind, score in zip(found["boxes"], found["labels"], found["scores"], strict=True)
        if kind == label
    ]
    taken: set[tuple[int, int]] = set()
    hits, points = 0, []
    for seen, (_, n, box) in enumerate(sorted(queue, key=lambda entry: -entry[0]), start=1):
        best, chosen = least, None
        for j, (other, kind) in enumerate(zip(pictures[n][1]["boxes"], pictures[n][1]["labels"], strict=True)):
            if kind != label or (n, j) in taken:
                continue
            overlap = float(box_iou(torch.tensor(box)[None], torch.tensor(other)[None]))
            if overlap >= best:
                best, chosen = overlap, (n, j)
        if chosen:
            taken.add(chosen)
            hits += 1
        points.append((hits / there, hits / seen))
    total = 0.0
    for recall in np.linspace(0, 1, 101):
        total += max((p for r, p in points if r >= recall), default=0.0)
    return total / 101


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_the_plain_way(seed):
    pictures = [picture(100 * seed + n) for n in range(12)]
    objects = Detections(3)
    for found, truth in pictures:
        objects.update(found, truth)
    got = objects.average_precision()
    for t in (0, 4, 9):
        for label in range(3):
            assert got[t, label] == pytest.approx(plain_average_precision(pictures, label, OVERLAPS[t]), abs=1e-9)
    assert objects.scores()["map_50"] == pytest.approx(got[0].mean())
    assert objects.scores()["map"] == pytest.approx(got.mean())
    assert (np.diff(got, axis=0) <= 1e-12).all()


def as_masks(objects: dict, side: int = 90) -> dict:
    y, x = np.mgrid[:side, :side]
    boxes = np.round(objects["boxes"])
    masks = [(x >= a) & (x < c) & (y >= b) & (y < d) for a, b, c, d in boxes]
    return {**objects, "boxes": boxes, "masks": np.array(masks).reshape(-1, side, side)}


def test_masks_of_boxes_score_as_the_boxes_do():
    boxes, masks = Detections(3), Detections(3, by="masks")
    for n in range(12):
        found, truth = (as_masks(each) for each in picture(n))
        boxes.update(found, truth)
        masks.update(found, truth)
    np.testing.assert_allclose(boxes.average_precision(), masks.average_precision())
    assert 0.2 < boxes.scores()["map_50"] < 0.9


def test_overlaps_are_those_of_others():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 20), some_boxes(rng, 30)
    np.testing.assert_allclose(overlaps(a, b), box_iou(torch.tensor(a), torch.tensor(b)).numpy())
    one, two = rng.random((2, 1, 9, 9)) < 0.5
    assert overlaps(one, two)[0, 0] == pytest.approx(jaccard_score(two.ravel(), one.ravel()))
    shared = overlaps(one, two, of="found")[0, 0]
    assert shared == pytest.approx((one & two).sum() / one.sum())
    assert overlaps(np.zeros((0, 1, 1), bool), two).shape == (0, 1)


def test_what_is_found_twice_counts_once():
    box = [[0, 0, 10, 10]]
    truth = {"boxes": box, "labels": [0]}
    once, twice, wrong_first = Detections(1), Detections(1), Detections(1)
    once.update({"boxes": box, "labels": [0], "scores": [0.9]}, truth)
    twice.update({"boxes": box * 2, "labels": [0, 0], "scores": [0.9, 0.8]}, truth)
    wrong_first.update({"boxes": [[30, 30, 40, 40], *box], "labels": [0, 0], "scores": [0.9, 0.8]}, truth)
    # A second find after all are found costs nothing, as with COCO; a wrong one before halves the precision.
    assert once.scores()["map"] == twice.scores()["map"] == 1
    assert wrong_first.scores()["map"] == pytest.approx(0.5)
    # Twice the one and then the other of two: precision 1 up to a recall of a half (51 of 101 points), then 2/3.
    other = [[30, 30, 40, 40]]
    both = Detections(1)
    both.update(
        {"boxes": box * 2 + other, "labels": [0] * 3, "scores": [0.9, 0.8, 0.7]},
        {"boxes": box + other, "labels": [0] * 2},
    )
    assert both.scores()["map"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_what_need_not_be_found_neither_helps_nor_costs():
    here, cut, nowhere = [0, 0, 10, 10], [50, 0, 80, 10], [30, 30, 40, 40]
    truth = {"boxes": [here, cut], "labels": [0, 0], "ignore": [False, True]}
    inside = {"boxes": [[52, 1, 70, 9], here], "labels": [0, 0], "scores": [0.9, 0.8]}
    outside = {"boxes": [nowhere, here], "labels": [0, 0], "scores": [0.9, 0.8]}
    for found, want in ((inside, 1.0), (outside, 0.5)):
        objects = Detections(1)
        objects.update(found, truth)
        assert objects.scores()["map_50"] == pytest.approx(want)


def test_pictures_without_objects_cost_what_is_found_there():
    none = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    found = {"boxes": [[0, 0, 9, 9]], "labels": [0], "scores": [0.7]}
    objects = Detections(2)
    objects.update(found, {"boxes": [[0, 0, 9, 9]], "labels": [0]})
    objects.update(none, none)
    assert objects.scores()["map"] == 1
    objects.update({**found, "scores": [0.8]}, none)
    assert objects.scores()["map"] == pytest.approx(0.5)
    # The second class is nowhere.
    assert np.isnan(objects.average_precision()[:, 1]).all()
    assert np.isnan(Detections(2).scores()["map"])


def test_a_block_drawn_twice_counts_as_if_its_pictures_were_there_twice():
    once, twice = Detections(3), Detections(3)
    for n in range(9):
        found, truth = picture(n)
        once.update(found, truth, block=n // 3)
        for _ in range([2, 0, 1][n // 3]):
            twice.update(found, truth)
    got = once.score_of_draws(np.array([[1, 1, 1], [2, 0, 1]]))
    np.testing.assert_allclose(got[0], list(once.scores().values()))
    np.testing.assert_allclose(got[1], list(twice.scores().values()))
    found = drawn_interval(once.score_of_draws, 3, draws=50)
    assert (found.low < found.high).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"labels": [7]}, "from 0"), ({"scores": [np.nan]}, "finite"), ({"scores": []}, "needs a shape")],
)
def test_objects_that_cannot_be_are_refused(change, said):
    found = {"boxes": [[0, 0, 9, 9]], "labels": [0], "scores": [0.7]}
    with pytest.raises(InputError, match=said):
        Detections(2).update({**found, **change}, found)
    with pytest.raises(InputError, match="'masks' here"):
        Detections(2, by="masks").update(found, found)


# -- panoptic quality --------------------------------------------------------------------------------------------------


def quality(found: tuple, truth: tuple, classes: int = 3) -> np.ndarray:
    tally = PanopticQuality(classes, void=VOID)
    tally.update(*found, *truth)
    return tally.total()


def test_a_case_on_paper():
    """Class 0: one field of 8 found with 6 (IoU 6/8), one of 4 missed, one found where there is none.
    Class 1: exactly right. Class 2: nowhere."""
    truth = np.zeros((4, 6), int), np.zeros((4, 6), int)
    truth[0][2:] = 1
    truth[1][:2, :4], truth[1][:2, 4:] = 1, 2
    found = truth[0].copy(), np.zeros((4, 6), int)
    found[1][:2, :3] = 5  # six of the eight
    found[1][:2, 3] = 6  # the other two pixels: nothing of its own
    found[1][:2, 4], found[1][:2, 5] = 7, 8  # the field of four, cut in halves: IoU 1/2 is not more than a half
    table = quality(found, truth)
    np.testing.assert_allclose(table[0], [6 / 8, 1, 3, 1])
    np.testing.assert_allclose(table[1], [1, 1, 0, 0])
    np.testing.assert_allclose(PANOPTIC["pq"](table), [0.75 / 3, 1, np.nan])
    np.testing.assert_allclose(PANOPTIC["sq"](table), [0.75, 1, np.nan])
    np.testing.assert_allclose(PANOPTIC["rq"](table), [1 / 3, 1, np.nan])


def test_void_is_not_counted():
    truth = np.zeros((4, 4), int), np.zeros((4, 4), int)
    truth[0][:, 2:] = VOID
    found = np.zeros((4, 4), int), np.zeros((4, 4), int)
    # Found twice as wide, and all that is too much lies where nobody knows: a perfect fit.
    np.testing.assert_allclose(quality(found, truth)[0], [1, 1, 0, 0])
    # Something wholly there is no mistake; mostly outside it is.
    found[1][:, 2:] = 1
    np.testing.assert_allclose(quality(found, truth)[0], [1, 1, 0, 0])
    truth[0][:, 2:] = [[0, 0], [0, 0], [0, VOID], [0, VOID]]
    truth[1][:, 2:] = 9
    found[0][:, 2:] = 1
    np.testing.assert_allclose(quality(found, truth), [[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds, numbers = rng.integers(0, 3, (5, 5)), rng.integers(0, 6, (5, 5))
    kinds, numbers = (np.kron(each, np.ones((4, 4), int)) for each in (kinds, numbers))
    kinds[rng.random(kinds.shape) < 0.1] = VOID
    return kinds, numbers


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_what_holds_for_any_maps(seed):
    truth, other = scene(seed), scene(seed + 1)
    mixed = tuple(np.where(np.arange(20)[:, None] < 13, a, b) for a, b in zip(truth, other, strict=True))
    table = quality(mixed, truth)
    pq, sq, rq = (PANOPTIC[name](table) for name in ("pq", "sq", "rq"))
    np.testing.assert_allclose(pq, sq * rq)
    assert ((table[:, 0] <= table[:, 1]) & (table[:, 0] >= 0.5 * table[:, 1])).all()
    # Names of segments mean nothing.
    rng = np.random.default_rng(seed)
    renamed = mixed[0], rng.permutation(100)[mixed[1]]
    np.testing.assert_allclose(quality(renamed, truth), table)
    # Turned over, what is seen is the same.
    np.testing.assert_allclose(
        quality(tuple(each[::-1].T for each in mixed), tuple(each[::-1].T for each in truth)), table
    )
    # The truth itself is perfect.
    perfect = PANOPTIC["pq"](quality(truth, truth))
    assert (perfect[np.isfinite(perfect)] == 1).all()


def plain_panoptic(found: tuple, truth: tuple, label: int) -> float:
    """Segment by segment, in sets of pixels."""

    def segments(maps: tuple) -> list[set[int]]:
        kinds, numbers = (each.ravel() for each in maps)
        here = np.flatnonzero(kinds == label)
        return [set(here[numbers[here] == n].tolist()) for n in np.unique(numbers[here])]

    void = set(np.flatnonzero(truth[0].ravel() == VOID).tolist())
    left, total, hits = segments(truth), 0.0, 0
    theirs = len(left)
    wrong = 0
    for own in segments(found):
        fits = [len(own & other) / len((own - void) | other) for other in left]
        if fits and max(fits) > 0.5:
            total, hits = total + max(fits), hits + 1
            left.pop(int(np.argmax(fits)))
        elif len(own & void) <= len(own) / 2:
            wrong += 1
    return total / (hits + wrong / 2 + (theirs - hits) / 2) if theirs + hits + wrong else float("nan")


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_is_that_of_the_plain_way(seed):
    truth, other = scene(seed), scene(seed + 50)
    mixed = tuple(np.where(np.arange(20) < 15, a, b) for a, b in zip(truth, other, strict=True))
    got = PANOPTIC["pq"](quality(mixed, truth))
    np.testing.assert_allclose(got, [plain_panoptic(mixed, truth, label) for label in range(3)])


def test_pictures_add_up_by_block():
    tally = PanopticQuality(3, void=VOID)
    for n in range(4):
        tally.update(*scene(n + 1), *scene(n), {"block": n // 2})
    names, tables = tally.by("block")
    assert names == [0, 1]
    np.testing.assert_allclose(tables.sum(0), sum(quality(scene(n + 1), scene(n)) for n in range(4)))
    with pytest.raises(InputError, match="void"):
        tally.update(*scene(0), np.full((20, 20), 8), scene(0)[1], {"block": 0})
