"""The commands of corpora, one after the other as in a shell, and splits that are kept in a file."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
from corpus_examples import lattice

import deepsentinel as ds
from deepsentinel import cli
from deepsentinel.corpus.split_files import load_splits, save_splits
from deepsentinel.errors import InputError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Points, a plan and a corpus, made by the commands."""
    folder = tmp_path_factory.mktemp("shell")
    source = ds.open_source("demo", size_px=256)
    bbox = [str(value) for value in source.area.geometry.bounds]
    option = ["--option", "size_px=256"]
    points, plan, corpus = folder / "points.gpkg", folder / "plan", folder / "corpus.zarr"
    assert cli.main(["sample", "6", "--bbox", *bbox, "--seed", "4", "--out", str(points)]) == 0
    span = ["--start", "2018-05-01", "--end", "2018-08-31", "--size-px", "32"]
    assert cli.main(["plan", str(points), "--out", str(plan), *option, *span, "--samples-per-shard", "2"]) == 0
    labels = f"corine={source.labels['corine']}"
    command = ["build", str(plan), str(corpus), "--source", "demo", *option, "--labels", labels]
    assert cli.main(command) == 0
    return folder


def test_the_plan_has_a_picture_beside_it(built):
    from PIL import Image

    for folder in (built, built / "corpus.zarr"):
        assert Image.open(folder / "plan" / "plan.png").size[0] > 1000


def test_bands_in_their_own_pixels_and_one_sensor_alone(built):
    from deepsentinel.corpus.plan import load_plan

    words = [
        "plan",
        str(built / "points.gpkg"),
        "--option",
        "size_px=256",
        "--start",
        "2018-05-01",
        "--end",
        "2018-08-31",
    ]
    assert cli.main([*words, "--size-px", "36", "--native", "--sensors", "S2", "--out", str(built / "native")]) == 0
    settings = load_plan(built / "native").settings
    assert (settings["native"], settings["sensors"], settings["bands"]) == (True, ["S2"], None)


def test_points_are_those_of_the_verb(built):
    bounds = ds.open_source("demo", size_px=256).area.geometry.bounds
    points = gpd.read_file(built / "points.gpkg")
    same = ds.sample_land(6, bounds, 4)
    assert points.geometry.geom_equals_exact(same.geometry, 1e-9).all()


def test_what_the_commands_built_opens_and_is_labelled(built):
    corpus = ds.open_corpus(built / "corpus.zarr")
    assert set(corpus["status"].values) == {"ok"}
    assert corpus["corine_class_map"].isel(sample=0).values.any()
    ds.check_patch(ds.patch_of(corpus, 0))


def test_a_second_build_has_nothing_to_do(built, capsys):
    before = {path: path.stat().st_mtime_ns for path in (built / "corpus.zarr" / "s2").rglob("*") if path.is_file()}
    labels = f"corine={ds.open_source('demo', size_px=256).labels['corine']}"
    plan, corpus = str(built / "plan"), str(built / "corpus.zarr")
    assert cli.main(["build", plan, corpus, "--source", "demo", "--option", "size_px=256", "--labels", labels]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "a second" not in capsys.readouterr().out


def test_the_card_and_a_copy(built, tmp_path, capsys):
    assert cli.main(["describe", str(built / "corpus.zarr")]) == 0
    assert "corine" in capsys.readouterr().out.lower()
    assert cli.main(["publish", str(built / "corpus.zarr"), str(tmp_path / "copy.zarr")]) == 0
    mine, copy = ds.open_corpus(built / "corpus.zarr"), ds.open_corpus(tmp_path / "copy.zarr")
    assert np.array_equal(mine["s2"].values, copy["s2"].values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "nowhere.gpkg", "--start", "2018", "--end", "2019"], "nowhere.gpkg"),
        (["build", "nowhere", "a.zarr"], "nowhere"),
        (["build", "nowhere", "a.zarr", "--option", "seed=3"], "--source"),
        (["build", "nowhere", "a.zarr", "--labels", "corine"], "NAME=FILE"),
        (["describe", "nowhere.zarr"], "nowhere.zarr"),
        (["sample", "5", "--region", "Atlantis"], "Atlantis"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_notes_of_ours_are_printed_plainly(built, capsys, tmp_path):
    middle = ds.open_source("demo", size_px=256).area.geometry.centroid
    far = gpd.GeoDataFrame(geometry=gpd.points_from_xy([middle.x, 30], [middle.y, 10]), crs="EPSG:4326")
    points = tmp_path / "far.gpkg"
    far.to_file(points)
    span = ["--start", "2018-05-01", "--end", "2018-08-31", "--size-px", "32", "--option", "size_px=256"]
    assert cli.main(["plan", str(points), "--out", str(tmp_path / "plan"), *span]) == 0
    said = capsys.readouterr().err
    assert said.startswith("note: 1 of 2 places")
    assert "Warning" not in said


def test_splits_come_back_as_they_were(tmp_path):
    corpus = lattice(12, 12).assign_attrs(plan="this one")
    parts = ds.split(corpus, buffer_m=3000, seed=2)
    path = save_splits(tmp_path / "splits.parquet", parts)
    again = load_splits(corpus, path)
    assert [part.attrs["split"]["name"] for part in again] == ["train", "val", "test"]
    for part, same in zip(parts, again, strict=True):
        assert part["sample"].values.tolist() == same["sample"].values.tolist()
    ds.audit_splits(again, 3000)
    with pytest.raises(InputError, match="another corpus"):
        load_splits(corpus.assign_attrs(plan="that one"), path)
    with pytest.raises(InputError, match="whole corpus"):
        load_splits(corpus.isel(sample=slice(0, 9)), path)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read"):
        load_splits(corpus, tmp_path / "no.parquet")
