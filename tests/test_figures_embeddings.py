"""Figures of embeddings, of results of a query and of probes: the pictures against the numbers they show."""

from __future__ import annotations

import factories
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from pyproj import Transformer
from test_figures import outside_or_overlapping, panels, texts

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures import slides
from deepsentinel.figures.embeddings import MARKED, as_layers, map_panel
from deepsentinel.figures.probes import GUESSES
from deepsentinel.grids import grid_coords
from deepsentinel.similarity import ProbeReport, cluster, embedding_change, knn, pca_rgb, similarity_index

TOLD = {"encoder": "galileo-nano", "sensors": "both", "source": "demo", "seed": 3}


def make_z(shape=(12, 12), *, features=16, cell_m=80.0, seed=0, missing=False, **told) -> xr.DataArray:
    """A dense embedding of two kinds of ground: the left half and the right half."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(2, features))
    side = (np.arange(shape[1]) >= shape[1] // 2).astype(int)
    values = kinds[np.broadcast_to(side, shape)] + 0.1 * rng.normal(size=(*shape, features))
    if missing:
        values[0, :3] = np.nan
    grid = factories.grid(shape, resolution_m=cell_m)
    dims = ("y", "x", "feature")
    return xr.DataArray(values.astype("float32"), grid_coords(grid), dims, "embedding", {**TOLD, **told})


def lonlat(x: float, y: float) -> tuple[float, float]:
    return Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(x, y)


def results(places: list[tuple[float, float]]) -> pd.DataFrame:
    lon, lat = np.array([lonlat(*place) for place in places]).T
    score = np.linspace(0.99, 0.5, len(places))
    return pd.DataFrame({"score": score, "part": 0, "key": np.arange(len(places)), "lon": lon, "lat": lat})


# -- maps --------------------------------------------------------------------------------------------------------------


def test_an_embedding_is_shown_in_the_colours_of_its_components():
    z = make_z(missing=True)
    picture = map_panel(as_layers(z), "pca_rgb")
    colours = pca_rgb(z).to_numpy()
    np.testing.assert_array_equal(picture.known, np.isfinite(z.values).all(axis=-1))
    assert not picture.known[0, :3].any()
    np.testing.assert_allclose(picture.image[picture.known] / 255, colours[picture.known], atol=0.5 / 255 + 1e-6)
    assert abs(picture.image[:, 6:].mean(axis=(0, 1)) - picture.image[1:, :6].mean(axis=(0, 1))).max() > 100
    assert [name.split(",")[0] for name in picture.channels] == ["1st", "2nd", "3rd"]


def test_a_page_tells_encoder_sensors_and_whose_data_it_was():
    fig = ds.show(make_z(missing=True, sensors="s1"))
    shown = " | ".join(texts(fig))
    assert "The ground as seen by galileo-nano on S1" in shown
    assert "Imaginary demo world (seed 3)" in shown
    assert "EPSG:32631" in shown
    assert outside_or_overlapping(fig) == []


def test_the_brighter_the_more_alike_and_the_more_changed():
    z = make_z()
    likeness = similarity_index(z).score_map(z[5, 2])
    bright = map_panel(as_layers(likeness), "similarity").image.astype(int).sum(axis=-1)
    assert bright[:, :6].min() > bright[:, 6:].max()
    after = z.copy()
    after[4:6, 8:10] = z[0, 0]
    picture = map_panel(as_layers(embedding_change(z, after)), "change")
    changed = np.zeros(z.shape[:2], bool)
    changed[4:6, 8:10] = True
    light = picture.image.astype(int).sum(axis=-1)
    assert light[changed].min() > light[~changed].max()
    assert (light[~changed] == light[~changed].min()).all()
    assert picture.bar is not None
    assert picture.bar[0] == 0


def test_no_change_at_all_is_drawn_too():
    z = make_z()
    picture = map_panel(as_layers(embedding_change(z, z)), "change")
    assert len(np.unique(picture.image)) <= 3
    assert outside_or_overlapping(ds.show(embedding_change(z, z))) == []


def test_maps_stand_beside_the_patch_they_were_made_of():
    patch, z = factories.make_patch((96, 96)), make_z()
    fig = ds.show([patch, z, cluster(z, 2), embedding_change(z, make_z(seed=1))])
    assert [picture.shape[:2] for _, picture in panels(fig)][:4] == [(96, 96), (12, 12), (12, 12), (12, 12)]
    shown = texts(fig)
    assert {"galileo-nano", "Groups by galileo-nano"} <= set(shown)
    assert outside_or_overlapping(fig) == []


def test_groups_have_a_headline_of_their_own_and_classes_do_not():
    groups = cluster(make_z(), 2)
    assert "2 groups of ground that look alike to galileo-nano on S1 and S2" in texts(ds.show(groups))
    groups.attrs = {}
    assert not any("look alike" in text for text in texts(ds.show(groups)))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (make_z().mean(("y", "x"), keep_attrs=True), "dense=True"),
        (make_z()[..., 0].rename("ndvi"), "does not know what .* 'ndvi' is"),
        (make_z().drop_vars("spatial_ref"), "no spatial_ref"),
    ],
)
def test_what_has_no_place_or_no_name_is_refused_with_advice(wrong, told):
    with pytest.raises(InputError, match=told):
        ds.show(wrong)


# -- results of a query ------------------------------------------------------------------------------------------------


def marked_patch(side: int, row: int, col: int) -> xr.Dataset:
    """Dark ground with one very bright square of 4 pixels around a corner of pixels."""
    patch = factories.make_patch((side, side), sensors=("S2",), scl=False)
    for band in ("B02", "B03", "B04"):
        patch[band][:] = np.random.default_rng(0).integers(300, 400, (side, side))
        patch[band][row - 2 : row + 2, col - 2 : col + 2] = 2500
    return patch


@pytest.mark.parametrize("side", [96, 2100])  # the larger one is drawn with fewer pixels than it has
def test_marks_and_cut_outs_are_where_the_results_are(side):
    row, col = side // 3, side * 3 // 4
    patch = marked_patch(side, row, col)
    grid = factories.grid((side, side))
    x, y = grid.affine @ (col, row)
    fig = ds.show([patch, results([(x, y)])])
    (ground, _), (_, piece) = panels(fig)
    dots = [line.get_xydata()[0] for line in ground.lines]
    np.testing.assert_allclose(dots, [(col / side, 1 - row / side)], atol=1e-3)
    light = piece[..., :3].astype(int).sum(axis=-1)
    centre = np.array(light.shape) // 2
    found = np.argwhere(light > 0.7 * light.max()).mean(axis=0) + 0.5
    np.testing.assert_allclose(found, centre, atol=1.01)
    assert outside_or_overlapping(fig) == []


def test_a_piece_at_the_edge_is_hatched_where_the_picture_ends():
    patch = factories.make_patch((96, 96))
    fig = ds.show([patch, results([(575_005, 5_459_995)])])
    piece = panels(fig)[1][1]
    half = piece.shape[0] // 2
    assert not piece[: half - 1, :, 3].any()
    assert piece[half + 1 :, half + 1 :, 3].all()


def test_only_the_best_are_marked_and_those_elsewhere_left_out():
    patch, z = factories.make_patch((96, 96)), make_z()
    inside = [(575_040 + 70 * n, 5_459_500) for n in range(12)]
    found = results([(600_000, 5_459_500), *inside])
    fig = ds.show([patch, similarity_index(z).score_map(z[0, 0]), found], title="Fields")
    pieces = panels(fig)[2:]
    assert len(pieces) == MARKED
    scores = [f"{score:.3f}" for score in found.score[1 : MARKED + 1]]
    assert set(scores) <= set(texts(fig))
    assert f"{found.score[0]:.3f}" not in texts(fig)
    assert "Fields" in texts(fig)
    assert outside_or_overlapping(fig) == []


def test_results_of_a_real_query_are_drawn():
    patch, z = factories.make_patch((96, 96)), make_z()
    found = similarity_index(z).query(z[5, 2], k=5)
    fig = ds.show([patch, z, found])
    assert "The 5 places that are most alike" in texts(fig)
    assert all(line.get_xdata()[0] < 0.5 for line in panels(fig)[1][0].lines)  # the left half is one kind of ground


def test_results_need_their_ground():
    found = results([(575_100, 5_459_900)])
    with pytest.raises(InputError, match=r"ds.show\(\[patch, results\]\)"):
        ds.show(found)
    with pytest.raises(InputError, match="with the patch"):
        ds.show([found])
    with pytest.raises(InputError, match="lies on the picture"):
        ds.show([factories.make_patch(), results([(600_000, 5_459_900)])])


# -- probes ------------------------------------------------------------------------------------------------------------


def make_report(shares=(1.0,), classes=2, names=("galileo-nano", "image-statistics")) -> ProbeReport:
    """What `knn` makes of ground in stripes; the first embedding knows them, the second one hardly."""
    rng = np.random.default_rng(0)
    kind = np.broadcast_to(np.arange(24) % classes, (24, 24))
    centres = 3 * rng.normal(size=(classes, 16))
    place = grid_coords(factories.grid((24, 24), resolution_m=80))
    cells = {}
    for strength, name in zip((1.0, 0.15, 0.1, 0.05), names, strict=False):
        values = strength * centres[kind] + rng.normal(size=(24, 24, 16))
        cells[name] = xr.DataArray(values.astype("float32"), place, ("y", "x", "feature"))
    long = ["Land principally occupied by agriculture, with significant areas of natural vegetation", "Water"]
    labels = np.array([*long, *(f"class {n}" for n in range(classes))])[:classes][kind]
    return knn(cells, xr.DataArray(labels, {key: place[key] for key in ("y", "x")}, ("y", "x")), shares=shares, folds=3)


def test_bars_are_as_long_as_the_scores_and_controls_look_like_controls():
    report = make_report()
    fig = ds.show(report)
    bars = next(axes for axes in fig.axes if len(axes.patches) == len(report.table))
    lengths = [bar.get_width() for bar in bars.patches]
    np.testing.assert_allclose(lengths, 100 * report.table.balanced_accuracy)
    colours = dict(zip(report.table.embedding, (bar.get_facecolor()[:3] for bar in bars.patches), strict=True))
    assert {colours[name] for name in GUESSES} == {to_rgb(slides.GREY)}
    assert colours["galileo-nano"] == to_rgb(slides.BLUE)
    assert colours["image-statistics"] == to_rgb(slides.SKY)
    for row, name in enumerate(report.table.embedding):
        folds = report.folds[report.folds.embedding == name].balanced_accuracy
        np.testing.assert_allclose(np.sort(bars.lines[row].get_xdata()), np.sort(100 * folds))


def test_each_class_tells_how_much_of_it_was_found():
    report = make_report(classes=3)
    fig = ds.show(report)
    table = next(picture for axes, picture in panels(fig))
    each = report.classes[report.classes.embedding == "galileo-nano"].sort_values("support", ascending=False)
    np.testing.assert_allclose(table[:, 0], 100 * each.recall)
    best = 100 * report.table.balanced_accuracy[0]
    assert f"galileo-nano tells 3 classes apart: {best:.0f} % found" in " ".join(texts(fig))
    assert f"blocks of {report.block_m:,.0f} m" in " ".join(texts(fig))


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 0.3, 0.1)])
def test_many_classes_and_long_names_stay_apart(shares):
    names = ("galileo-nano, S1 and S2", "galileo-nano, S1", "image-statistics", "galileo-nano-random, S1 and S2")
    report = make_report(shares, classes=12, names=names)
    assert outside_or_overlapping(ds.show(report)) == []


def test_fewer_labels_are_a_line_of_their_own():
    report = make_report((1.0, 0.3, 0.1))
    fig = ds.show(report)
    chart = next(axes for axes in fig.axes if axes.get_xscale() == "log")
    own = report.table[report.table.embedding == "galileo-nano"].sort_values("share")
    np.testing.assert_allclose(chart.lines[0].get_xydata(), 100 * own[["share", "balanced_accuracy"]].to_numpy())
    bars = next(axes for axes in fig.axes if len(axes.patches) == 4)
    assert bars.patches[0].get_width() == pytest.approx(100 * own.balanced_accuracy.iloc[-1])


def test_a_probe_counts_the_classes_there_are():
    # The most frequent class is learnt elsewhere, and may be the wrong one: how often it is right says nothing.
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 40)
    lon = np.where(kind == 1, 2.0, 9.0) + rng.uniform(0, 0.01, 80)
    place = {"lon": ("sample", lon), "lat": ("sample", 48 + rng.uniform(0, 0.01, 80))}
    z = xr.DataArray(kind[:, None] + rng.normal(size=(80, 4)), place, ("sample", "feature"))
    report = knn(z, np.array(["field", "wood"])[kind], folds=2, block_m=100_000)
    assert report.table.set_index("embedding").balanced_accuracy["majority"] < 0.1
    assert any("tells 2 classes apart" in text for text in texts(ds.show(report)))


@pytest.mark.parametrize("what", ["alone", "beside a patch", "colours"])
def test_where_an_encoder_saw_nothing_there_is_no_data(what):
    z = make_z(missing=True)
    shown = {"alone": z, "beside a patch": [factories.make_patch((96, 96)), z], "colours": pca_rgb(z)}[what]
    told = texts(ds.show(shown))
    assert "no data" in told
    assert "no label" not in told


@pytest.mark.parametrize("name", ["z.zarr", "z.tif"])
def test_an_embedding_that_was_written_is_shown_again(tmp_path, name):
    from deepsentinel.export_embedding import embedding_to_geotiff

    z = make_z()
    if name == "z.zarr":
        z.to_dataset().to_zarr(tmp_path / name, zarr_format=2)
        opened = xr.open_zarr(tmp_path / name, chunks=None)
    else:
        import rioxarray

        embedding_to_geotiff(z, tmp_path / name)
        opened = rioxarray.open_rasterio(tmp_path / name)
    for shown in (opened, [factories.make_patch((96, 96)), opened]):
        assert "galileo-nano" in " ".join(texts(ds.show(shown)))
    bare = xr.DataArray(
        np.zeros((3, 12, 12)), {k: v for k, v in z.coords.items() if k != "feature"}, ("band", "y", "x")
    )
    with pytest.raises(InputError, match=r"rename\(band='feature'\)"):
        ds.show(bare)


def test_fractions_that_were_written_are_shown_again(tmp_path):
    place = grid_coords(factories.grid((6, 6)))
    shares = xr.DataArray(np.full((2, 6, 6), 0.5), {"class": [7, 9], **place}, ("class", "y", "x"))
    shares.to_dataset(name="class_fraction").to_zarr(tmp_path / "f.zarr", zarr_format=2)
    fig = ds.show(xr.open_zarr(tmp_path / "f.zarr", chunks=None))
    assert any("50 % of the ground" in text for text in texts(fig))
