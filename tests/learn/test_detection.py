"""Objects one by one: boxes as they are burnt and turned, a detector that learns, and the way back to the ground."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
import xarray as xr
from odc.geo.geobox import GeoBox

import deepsentinel as ds
from deepsentinel.corpus.build import build_corpus
from deepsentinel.corpus.recipes import labelled
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_coords
from deepsentinel.learn.batches import Batch, Feed, bands_of
from deepsentinel.learn.crops import Cut
from deepsentinel.learn.detection import detect_boxes, object_arrays, objects_in, pasted, true_boxes
from deepsentinel.learn.labels import Classes
from deepsentinel.learn.locating import once
from deepsentinel.learn.matching_objects import Detections, overlaps
from deepsentinel.learn.model import Model, Question, load_model
from deepsentinel.learn.tasks import IGNORE

S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
FIELDS = Classes("f_class_map", (5,), ("field",), ("#00ff00",), (1.0,), conflict="f_conflict")
SIDE = 32


def polygons() -> gpd.GeoDataFrame:
    """Objects of whole pixels on a grid of 24 x 24 pixels of 10 m; the last has two parts."""
    parts = shapely.MultiPolygon([shapely.box(20, 20, 40, 40), shapely.box(60, 20, 100, 30)])
    shapes = [shapely.box(30, 150, 110, 220), shapely.box(150, 100, 200, 240), shapely.box(120, 10, 160, 50), parts]
    table = {"ground_truth": [1, 2, 2, 1], "id": [11, 4, 29, 7]}
    return gpd.GeoDataFrame(table, geometry=shapes, crs="EPSG:32631")


def burnt() -> tuple[GeoBox, Any, Any]:
    grid = GeoBox.from_bbox((0, 0, 240, 240), "EPSG:32631", resolution=10)
    masks = ds.rasterize(polygons(), grid, layers=("class_map", "parcel_id"))
    classes = torch.from_numpy(masks["class_map"].values.astype("int64"))
    return grid, torch.from_numpy(masks["parcel_id"].values), torch.where(classes > 0, classes - 1, IGNORE)


def test_boxes_are_those_of_the_polygons() -> None:
    grid, numbers, classes = burnt()
    wanted = ds.boxes(polygons(), grid)
    found = objects_in(numbers, classes, 2, masks=True)
    order = np.argsort(wanted.ids)
    assert found["numbers"].tolist() == sorted(wanted.ids)
    assert np.array_equal(found["boxes"].numpy(), wanted.boxes[order])
    assert np.array_equal(found["labels"].numpy(), wanted.target()["labels"][order])
    assert np.array_equal(found["masks"].numpy(), wanted.masks()[order])
    assert found["area_px"].tolist() == pytest.approx(wanted.area_px[order])


@pytest.mark.parametrize("way", range(8))
def test_boxes_turn_with_the_pixels(way: int) -> None:
    _, numbers, classes = burnt()
    flags = [torch.tensor([bool(way & 1 << bit)]) for bit in range(3)]
    cut = Cut(torch.tensor([3]), torch.tensor([2]), flags[0], 19, (flags[1], flags[2]))
    # Where each pixel of the crop was before.
    rows, columns = (cut(torch.from_numpy(index)[None])[0] for index in np.indices(numbers.shape))
    found = objects_in(cut(numbers[None])[0], cut(classes[None])[0], 2, least_px=1)
    for number, box, label in zip(found["numbers"], found["boxes"], found["labels"], strict=True):
        at = torch.nonzero((numbers == number)[rows, columns])
        low, high = at.amin(0), at.amax(0) + 1
        assert box.tolist() == [low[1], low[0], high[1], high[0]]
        assert int(label) == int(classes[numbers == number][0]) + 1
    assert set(found["numbers"].tolist()) == set(numbers[rows, columns].unique().tolist()) - {0}


def test_what_is_small_cut_or_of_no_class_is_left_out() -> None:
    numbers, classes = torch.zeros(20, 20, dtype=torch.int32), torch.full((20, 20), IGNORE)
    for number, (top, left, height, width), known in (
        (1, (5, 5, 3, 3), 9),  # large enough
        (2, (10, 10, 2, 3), 6),  # too small
        (3, (0, 12, 3, 5), 15),  # at the edge, too little of it
        (4, (15, 0, 4, 4), 16),  # at the edge, enough of it
        (5, (14, 14, 4, 4), 7),  # most of it of no class
    ):
        numbers[top : top + height, left : left + width] = number
        inside = torch.zeros(height * width, dtype=torch.int64)
        inside[known:] = IGNORE
        classes[top : top + height, left : left + width] = inside.view(height, width)
    found = objects_in(numbers, classes, 1)
    assert found["kept"].tolist() == [True, False, False, True, False]
    assert found["labels"].tolist() == [1, 1, 1, 1, 0]
    assert objects_in(numbers, classes, 1, least_px=0)["kept"].tolist() == [True, True, True, True, False]


def test_finer_masks_give_boxes_between_pixels_and_no_object_is_without_a_pixel() -> None:
    numbers = torch.zeros(16, 16, dtype=torch.int32)
    numbers[1:6, 3:9], numbers[11, 12] = 1, 2
    found = objects_in(numbers, torch.zeros(16, 16, dtype=torch.int64), 1, finer=2, masks=True, least_px=0)
    assert found["boxes"].tolist() == [[1.5, 0.5, 4.5, 3.0], [6.0, 5.5, 6.5, 6.0]]
    assert found["area_px"].tolist() == [7.5, 0.25]
    assert found["masks"].sum(dim=(1, 2)).tolist() == [10, 1]
    assert found["masks"][1, 5, 6] == 1


def test_nothing_in_an_image_is_empty_but_well_formed() -> None:
    found = objects_in(torch.zeros(9, 9, dtype=torch.int32), torch.full((9, 9), IGNORE), 3, masks=True)
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 9, 9)
    assert found["labels"].dtype == torch.int64


def test_masks_come_back_from_boxes_as_they_went_in() -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

    rng = np.random.default_rng(0)
    masks, boxes = torch.zeros(30, 40, 40), torch.zeros(30, 4)
    for place in range(30):
        top, left = rng.integers(2, 24, 2)
        height, width = rng.integers(2, 12, 2)
        masks[place, top : top + height, left : left + width] = 1
        boxes[place] = torch.tensor([left, top, left + width, top + height])
    small = project_masks_on_boxes(masks, boxes, torch.arange(30), 28)[:, None]
    own, usual = pasted(small, boxes, (40, 40)), paste_masks_in_image(small, boxes, (40, 40))[:, 0]
    fit = [np.diag(overlaps((each > 0.5).numpy(), masks.numpy() > 0)).mean() for each in (own, usual)]
    assert fit[0] > 0.97 > fit[1] + 0.15


def scene(seed: int, side: int = SIDE, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Noisy ground with bright fields apart from each other: (10, side, side) reflectance, and their numbers."""
    rng = np.random.default_rng([7, seed])
    numbers = np.zeros((side, side), "int32")
    for number in range(1, count + 1):
        for _ in range(50):
            height, width = rng.integers(4, 12, 2)
            top, left = rng.integers(1, side - height - 1), rng.integers(1, side - width - 1)
            if not numbers[top - 1 : top + height + 1, left - 1 : left + width + 1].any():
                numbers[top : top + height, left : left + width] = number
                break
    ground = rng.normal(1200, 150, (len(S2), side, side))
    return np.where(numbers > 0, ground + 2500, ground).astype("float32"), numbers


def batch_of(seeds: range, counts: tuple[int, ...] = (3, 2, 3, 0)) -> Batch:
    """Four images, one of them without any field."""
    made = [scene(seed, count=counts[place % len(counts)]) for place, seed in enumerate(seeds)]
    numbers = torch.from_numpy(np.stack([each for _, each in made]))
    return Batch(
        s1=None,
        s2=torch.from_numpy(np.stack([each for each, _ in made])),
        s1_mask=None,
        s2_mask=torch.ones(len(made), SIDE, SIDE, dtype=torch.bool),
        s1_bands=(),
        s2_bands=S2,
        month=torch.full((len(made),), 5),
        latlon=None,
        labels={
            "f_class_map": torch.where(numbers > 0, 5, 0).to(torch.uint8),
            "f_conflict": torch.zeros_like(numbers, dtype=torch.uint8),
            "f_parcel_id": numbers,
        },
        sample=torch.arange(len(made)),
        generator=torch.Generator(),
    )


def new_model(encoder: str, task: str) -> Model:
    torch.manual_seed(0)
    question = Question(task, FIELDS, "s2", array="f_parcel_id")
    return Model(ds.load_encoder(encoder, "random", seed=0), question, size=16)


def score(model: Model, by: str = "boxes") -> float:
    """mAP at a half on images that were not learnt from."""
    detections = Detections(1, by=by)
    batch = batch_of(range(900, 908))
    for found, there in zip(detect_boxes(model, batch), true_boxes(model, batch), strict=True):
        detections.update(found, there)
    return detections.scores()["map_50"]


def learn(model: Model, steps: int, lr: float = 2e-3) -> list[float]:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        loss = sum(model.train().loss(batch_of(range(4 * step, 4 * step + 4))).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


@cache
def taught() -> tuple[Model, float]:
    """A model that has learnt to outline fields, and how good it was before."""
    model = new_model("fusion-nano", "instances")
    before = score(model)
    learn(model, 45, lr=3e-3)
    return model, before


@pytest.mark.long
def test_fields_are_learnt_and_found_where_they_were_never_seen() -> None:
    model, before = taught()
    assert before < 0.1
    assert score(model) > 0.7
    assert score(model, "masks") > 0.7
    batch = batch_of(range(950, 954))
    found = detect_boxes(model, batch)
    # The last has no field.
    assert not len(found[3]["scores"]) or found[3]["scores"].max() < 0.5 < found[0]["scores"].max()
    assert found[0]["labels"].unique().tolist() == [0]
    assert found[0]["masks"].shape == (len(found[0]["boxes"]), SIDE, SIDE)


@pytest.mark.long
def test_a_backbone_learns_boxes_too() -> None:
    model = new_model("convnext-atto", "detection")
    losses = learn(model, 25)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    assert score(model) > 0.5
    assert "masks" not in detect_boxes(model, batch_of(range(2)))[0]


def test_images_without_any_object_train_and_say_nothing_strange() -> None:
    model = new_model("fusion-nano", "instances")
    batch = batch_of(range(2), counts=(0, 0))
    losses = model.train().loss(batch)
    assert set(losses) == {"classifier", "box_reg", "mask", "objectness", "rpn_box_reg"}
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    assert losses["mask"] == 0
    assert [len(each["boxes"]) for each in true_boxes(model, batch)] == [0, 0]


@pytest.mark.long
def test_losses_can_be_looked_at_after_training_and_in_half_precision() -> None:
    model, batch = taught()[0].eval(), batch_of(range(960, 964))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = sum(model.loss(batch).values())
        found = detect_boxes(model, batch)
    assert half.isfinite()
    assert not any(part.training for part in model.modules())
    # Coordinates keep all their digits: those of bfloat16 end at a quarter of a pixel here.
    boxes = torch.cat([each["boxes"] for each in found])
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_what_was_left_out_need_not_be_found() -> None:
    model, batch = new_model("fusion-nano", "detection"), batch_of(range(4))
    batch.labels["f_parcel_id"] = batch.labels["f_parcel_id"].clone()
    batch.labels["f_parcel_id"][0, 0, 0] = 99
    batch.labels["f_conflict"][1][batch.labels["f_parcel_id"][1] == 1] = 2
    there = true_boxes(model, batch)
    assert there[0]["boxes"][there[0]["ignore"]].tolist() == [[0, 0, 1, 1]]
    assert there[1]["ignore"].sum() == 1
    detections = Detections(1)
    for each in there:
        kept = ~each["ignore"]
        detections.update({**{name: each[name][kept] for name in each}, "scores": kept[kept].float()}, each)
    assert detections.scores()["map"] == pytest.approx(1)


def patch_of(numbers: np.ndarray, pixels: np.ndarray) -> tuple[xr.Dataset, gpd.GeoSeries]:
    """A patch in UTM, and the outlines of its fields on the ground."""
    height, width = numbers.shape
    grid = GeoBox.from_bbox(
        (500_000, 4_000_000, 500_000 + 10 * width, 4_000_000 + 10 * height), "EPSG:32631", resolution=10
    )
    data = {name: (("y", "x"), values) for name, values in zip(S2, pixels, strict=True)}
    shapes = []
    for number in range(1, numbers.max() + 1):
        rows, columns = np.nonzero(numbers == number)
        left, top = 500_000 + 10 * columns.min(), 4_000_000 + 10 * (height - rows.min())
        shapes.append(shapely.box(left, top - 10 * (np.ptp(rows) + 1), left + 10 * (np.ptp(columns) + 1), top))
    times = {"s2_time": np.datetime64("2018-06-01", "ns")}
    return xr.Dataset(data, {**grid_coords(grid), **times}), gpd.GeoSeries(shapes, crs="EPSG:32631")


@pytest.mark.long
def test_objects_of_a_patch_lie_on_its_objects_and_are_told_once() -> None:
    model, _ = taught()
    pixels, numbers = scene(3, side=72, count=16)
    patch, truth = patch_of(numbers[:, :60], np.round(pixels[:, :, :60]).astype("uint16"))
    found = ds.predict(model, patch, window_px=SIDE, device="cpu")
    assert found.crs == truth.crs
    assert set(found["ground_truth"]) == {5}
    assert set(found["name"]) == {"field"}
    assert found["score"].is_monotonic_decreasing
    fits = np.array(
        [[one.intersection(other).area / one.union(other).area for other in truth] for one in found.geometry]
    )
    assert (fits.max(axis=0) > 0.5).mean() > 0.75
    assert (fits.max(axis=1) > 0.5).mean() > 0.75
    assert (fits > 0.5).sum(axis=0).max() == 1
    # Borders of pixels, not boxes around them.
    assert all(np.allclose(np.asarray(shape.bounds) % 10, 0) for shape in found.geometry)


@pytest.mark.long
def test_a_patch_without_objects_gives_an_empty_table() -> None:
    patch, _ = patch_of(np.zeros((32, 40), "int32"), np.full((len(S2), 32, 40), 1200, "uint16"))
    found = ds.predict(taught()[0], patch, least_score=1.0, device="cpu")
    assert len(found) == 0
    assert list(found.columns) == ["ground_truth", "name", "score", "geometry"]
    assert found.crs == "EPSG:32631"


def test_pieces_give_way_to_what_is_whole() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 30, 10], [50, 0, 60, 10], [50, 0, 60, 10]], float)
    labels, scores = np.array([0, 0, 0, 0, 1]), np.array([0.9, 0.8, 0.6, 0.7, 0.5])
    assert once(boxes, labels, scores, np.array([True, True, False, False, False])).tolist() == [3, 2, 4]
    assert once(boxes, labels, scores, np.zeros(5, bool)).tolist() == [0, 3, 2, 4]
    # Of two halves that are both cut neither lies in the other.
    halves = np.array([[0, 0, 20, 10], [12, 0, 32, 10]], float)
    assert once(halves, labels[:2], scores[:2], np.ones(2, bool)).tolist() == [0, 1]


@cache
def corpus() -> xr.Dataset:
    """Four samples with parcels and OpenStreetMap, and the numbers of their objects."""
    src = ds.open_source("demo", size_px=256)
    plan = labelled(src, n=4, size_px=48, start="2018-05-01", end="2018-08-31", samples_per_shard=4).plan
    layers = ("class_map", "parcel_id", "conflict")
    folder = Path(tempfile.mkdtemp()) / "corpus.zarr"
    labels = {
        "parcels": {"labels": src.labels["parcels_2018"], "layers": layers},
        "osm": {"labels": src.labels["osm"], "layers": layers},
        "corine": src.labels["corine"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels have the usual flaws
        build_corpus(plan, folder, labels, progress=False)
    return ds.open_corpus(folder)


@pytest.mark.parametrize(
    ("encoder", "task", "labels", "options"),
    [
        ("fusion-nano", "detection", "osm", {"least_px": 1, "sensors": "any"}),
        ("resnet18", "instances", "parcels", {"sensors": "both"}),
        ("galileo-nano", "detection", "parcels", {"sensors": "s1", "frozen": True}),
    ],
)
def test_models_of_objects_come_back_from_their_files(
    tmp_path: Path, encoder: str, task: str, labels: str, options: dict[str, Any]
) -> None:
    quick = {"steps": 2, "batch_size": 2, "crop_px": 40, "log_every": 1, "size": 8, "weights": "random"}
    model = ds.finetune(corpus(), encoder, task, labels, out=tmp_path, device="cpu", **{**quick, **options})
    assert model.question.arrays == (f"{labels}_class_map", f"{labels}_conflict", f"{labels}_parcel_id")
    assert {"classifier", "objectness"} < set(model.history.columns)
    bands = bands_of(model.encoder.spec, corpus())
    batch = Feed(corpus(), batch_size=2, crop_px=40, bands=bands, labels=model.question.arrays)(1)
    assert sum(len(each["boxes"]) for each in true_boxes(model, batch))
    again = load_model(tmp_path / "model.safetensors")
    assert again.question == model.question
    for one, other in zip(detect_boxes(model, batch), detect_boxes(again, batch), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert one["boxes"].isfinite().all()


def test_classes_of_objects_are_those_of_the_ground_they_are_on() -> None:
    held = corpus()
    classes, array = object_arrays([held], "parcels")
    assert 0 not in classes.codes
    assert sum(classes.shares) == pytest.approx(1)
    values, numbers = held["parcels_class_map"].values, held[array].values
    assert set(np.unique(values[numbers > 0])) - {0} == set(classes.codes)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(InputError, match="parcel_id"):
        ds.finetune(corpus(), "fusion-nano", "detection", "corine", steps=1)
    model = new_model("fusion-nano", "detection")
    for ask in (model.probabilities, model.truth):
        with pytest.raises(InputError, match="detect_boxes"):
            ask(batch_of(range(1)))
    other = Model(ds.load_encoder("fusion-nano", "random"), Question("regression", None, array="h"))
    with pytest.raises(InputError, match="trained for regression"):
        detect_boxes(other, batch_of(range(1)))
    patch, _ = patch_of(np.zeros((16, 16), "int32"), np.full((len(S2), 16, 16), 1200, "uint16"))
    with pytest.raises(InputError, match="least_score"):
        ds.predict(model, patch, least_score=50)
    with pytest.raises(InputError, match="window_px=20"):
        ds.predict(model, patch, window_px=20)
