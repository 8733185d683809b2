"""What other programs read of an export is what the corpus holds: our own STAC reader, rasterio, pystac, torchgeo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from corpus_examples import CLASSES, made_up, stored

import deepsentinel.export_corpus as module
from deepsentinel.corpus.patches import grid_of_sample, patch_of
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError
from deepsentinel.export_corpus import corpus_to_geotiffs, corpus_to_stac
from deepsentinel.sources import open_source

BANDS = ["B02", "B03", "B04", "B08"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return open_corpus(stored(tmp_path_factory.mktemp("made") / "one.zarr", 6, failed=(4,)))


@pytest.fixture(scope="module")
def catalog(corpus: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_to_stac(corpus, tmp_path_factory.mktemp("stac") / "catalog", progress=False).parent


@pytest.fixture(scope="module")
def tiles(corpus: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_to_geotiffs(corpus, tmp_path_factory.mktemp("tiles") / "tiles", progress=False)


def test_our_own_reader_finds_and_reads_every_sample_as_it_was(corpus: xr.Dataset, catalog: Path) -> None:
    import deepsentinel as ds

    source = open_source(str(catalog))
    whole = (9.0, 50.5, 9.1, 50.6)
    scenes = source.search(whole, "2018-01-01", "2019-12-31")
    assert scenes["sensor"].value_counts().to_dict() == {"S1": 5, "S2": 5}
    assert set(scenes.loc[scenes["sensor"] == "S2", "level"]) == {"L2A"}
    assert set(scenes.loc[scenes["sensor"] == "S1", "backscatter"]) == {"sigma0"}
    for at in (0, 2, 5):
        wanted = patch_of(corpus, at)
        grid = grid_of_sample({name: corpus[name].to_numpy()[at] for name in ("crs", "transform", "height", "width")})
        rows = scenes[scenes["id"].str.endswith(f"_{at:07d}")]
        pairs = ds.pair(rows, max_days=1)
        assert len(pairs) == 1
        found = source.read(pairs.iloc[0], grid)
        for name in (*BANDS, "SCL"):
            assert np.array_equal(found[name].to_numpy(), wanted[name].to_numpy()), name
        for name in ("VV", "VH"):
            assert np.allclose(found[name].to_numpy(), wanted[name].to_numpy(), atol=1e-4), name
        assert found.s2_time.to_numpy() == wanted.s2_time.to_numpy()


def test_it_is_stac(catalog: Path) -> None:
    pystac = pytest.importorskip("pystac")
    root = pystac.Catalog.from_file(str(catalog / "catalog.json"))
    items = list(root.get_items(recursive=True))
    assert {child.id for child in root.get_children()} == {"sentinel-1", "sentinel-2", "labels-mine"}
    assert len(items) == 15
    assert len({item.id for item in items}) == 15
    for item in items:
        assert item.datetime is not None
        west, south, east, north = item.bbox or ()
        assert 8.99 < west < east < 9.1
        assert 50.5 < south < north < 50.6
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href() or "").is_file()
        for link in item.links:
            assert Path(link.get_absolute_href() or "").is_file(), (item.id, link)
    label = next(item for item in items if item.collection_id == "labels-mine")
    assert label.properties["label:type"] == "raster"
    assert label.properties["label:properties"] is None
    assert label.properties["label:classes"][0]["classes"] == list(CLASSES.values())
    assert len([link for link in label.links if link.rel == "source"]) == 2


def test_the_core_of_every_document_keeps_to_the_schema(catalog: Path) -> None:
    """Against the schemas of STAC's core that pystac ships; those of extensions would have to be fetched."""
    pytest.importorskip("jsonschema")
    pystac = pytest.importorskip("pystac")
    from pystac.validation import RegisteredValidator

    validator = RegisteredValidator.get_validator()
    kinds = {"Feature": pystac.STACObjectType.ITEM, "Collection": pystac.STACObjectType.COLLECTION}
    kinds["Catalog"] = pystac.STACObjectType.CATALOG
    documents = [json.loads(path.read_text()) for path in catalog.rglob("*.json") if path.name != "corpus.json"]
    assert len(documents) == 19
    for document in documents:
        validator.validate_core(document, kinds[document["type"]], document["stac_version"])


def test_files_are_cogs_with_everything_a_gis_needs(catalog: Path) -> None:
    folder = catalog / "items" / "0000002"
    with rasterio.open(next(folder.glob("S2_*.tif"))) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert [text.split()[0] for text in file.descriptions] == BANDS
        assert file.scales == (1e-4,) * 4
        assert file.nodata == 0
        assert str(file.crs) == "EPSG:32632"
        assert np.array_equal(file.read(), made_up(2, 32)["s2"])
    with rasterio.open(folder / "mine.tif") as file:
        assert file.colormap(1)[3][:3] == (240, 150, 255)
        assert np.array_equal(file.read(1), made_up(2, 32)["mine_class_map"])


def test_tiles_hold_what_the_corpus_holds(corpus: xr.Dataset, tiles: Path) -> None:
    for at in (0, 3, 5):
        day = str(corpus.s2_time.to_numpy()[at].astype("datetime64[D]")).replace("-", "")
        stem = f"{at:07d}_{day}.tif"
        with rasterio.open(tiles / "s2" / stem) as file:
            assert np.array_equal(file.read(), made_up(at, 32)["s2"])
            assert file.transform.to_gdal()[0] == corpus.transform.to_numpy()[at][2]
        with rasterio.open(tiles / "mine" / stem) as file:
            assert np.array_equal(file.read(1), made_up(at, 32)["mine_class_map"])
        with rasterio.open(tiles / "s1" / stem) as file:
            assert np.allclose(file.read(), made_up(at, 32)["s1"] / 100, atol=1e-4)
    assert len(list((tiles / "s2").glob("*.tif"))) == 5  # the one that failed is not there
    assert not list(tiles.rglob(".partial*"))


@pytest.mark.filterwarnings("ignore")
def test_torchgeo_reads_them(corpus: xr.Dataset, tiles: Path) -> None:
    datasets = pytest.importorskip("torchgeo.datasets")

    class Images(datasets.RasterDataset):  # type: ignore[misc,name-defined]
        filename_glob = "*.tif"
        filename_regex = r"\d+_(?P<date>\d{8})"

    class Masks(Images):
        is_image = False

    images, masks = Images(tiles / "s2"), Masks(tiles / "mine")
    assert len(images) == len(masks) == 5
    both = images & masks
    assert len(both) == 5
    for at, row in enumerate(images.index.itertuples()):
        left, bottom, right, top = (
            row.geometry.bounds if hasattr(row, "geometry") else images.index.geometry.iloc[at].bounds
        )
        sample = both[slice(left, right), slice(bottom, top), slice(row.Index.left, row.Index.right)]
        number = int(Path(images.index.iloc[at]["filepath"]).name[:7])
        assert np.array_equal(sample["image"].numpy(), made_up(number, 32)["s2"].astype("float32"))
        assert np.array_equal(np.squeeze(sample["mask"].numpy()), made_up(number, 32)["mine_class_map"])


@pytest.mark.parametrize("export", [corpus_to_stac, corpus_to_geotiffs])
def test_after_a_stop_it_goes_on_and_ends_the_same(
    corpus: xr.Dataset, tmp_path: Path, export: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    read: list[int] = []
    real = module.patch_of

    def counting(given: xr.Dataset, at: int, **more: Any) -> xr.Dataset:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(at)
        return real(given, at, **more)

    monkeypatch.setattr(module, "patch_of", counting)
    with pytest.raises(KeyboardInterrupt):
        export(corpus, tmp_path / "out", threads=1, progress=False)
    assert not (tmp_path / "out" / "catalog.json").exists()
    monkeypatch.setattr(module, "patch_of", real)
    export(corpus, tmp_path / "out", progress=False)
    whole = request.getfixturevalue("catalog" if export is corpus_to_stac else "tiles")
    names = lambda folder: sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))  # noqa: E731
    assert names(tmp_path / "out") == names(whole)
    for name in names(whole):
        if (whole / name).is_file():
            assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to read")

    monkeypatch.setattr(module, "patch_of", never)
    export(corpus, tmp_path / "out", progress=False)


def test_a_selection_goes_out_alone_and_another_corpus_does_not_mix(corpus: xr.Dataset, tmp_path: Path) -> None:
    target = corpus_to_geotiffs(corpus.isel(sample=[1, 4]), tmp_path / "out", progress=False)
    assert [path.name[:7] for path in (target / "s2").glob("*.tif")] == ["0000001"]
    with pytest.raises(InputError, match="another corpus, split or set of labels, or another kind"):
        corpus_to_stac(corpus, target)
    with pytest.raises(InputError, match="another corpus"):
        corpus_to_geotiffs(corpus.assign_attrs(title="Another"), target)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("five years")
    with pytest.raises(InputError, match="not empty"):
        corpus_to_stac(corpus, tmp_path / "full")
    with pytest.raises(InputError, match="no corpus"):
        corpus_to_stac(xr.Dataset(), tmp_path / "none")
    with pytest.raises(InputError, match="threads"):
        corpus_to_stac(corpus, tmp_path / "none", threads=0)


def test_splits_sets_of_labels_and_joined_corpora_do_not_mix(corpus: xr.Dataset, tmp_path: Path) -> None:
    parts = [corpus.isel(sample=[at]).assign_attrs(split={"name": name}) for at, name in enumerate(("train", "test"))]
    target = corpus_to_geotiffs(parts[0], tmp_path / "out", progress=False)
    others = [parts[1], parts[0].assign_attrs(split={"name": "train", "seed": 1}), corpus]
    for other in (*others, parts[0].drop_vars("mine_class_map")):
        with pytest.raises(InputError, match="another corpus, split or set of labels"):
            corpus_to_geotiffs(other, target, progress=False)
    corpus_to_geotiffs(parts[0], target, progress=False)
    assert [path.name[:7] for path in (target / "s2").glob("*.tif")] == ["0000000"]
    with pytest.raises(InputError, match="Sample 0 is in this Dataset 2 times"):
        corpus_to_stac(xr.concat([parts[0], parts[0]], "sample"), tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_an_id_is_no_position(corpus: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"'p3' is no position; for an id give int\(np.flatnonzero"):
        patch_of(corpus, "p3")  # type: ignore[arg-type]
    assert patch_of(corpus, int(np.flatnonzero(corpus.id == "p3")[0])).attrs["sample_id"] == "p3"


def test_ids_of_products_are_no_paths(corpus: xr.Dataset, tmp_path: Path) -> None:
    one = corpus.isel(sample=[0])
    ids = ("sample", np.array(["../../../S2_evil"], object))
    corpus_to_stac(one.assign_coords(s2_id=ids), tmp_path / "a" / "b" / "catalog", progress=False)
    assert not [path for path in tmp_path.rglob("*evil*") if tmp_path / "a" / "b" / "catalog" not in path.parents]


@pytest.mark.parametrize("name", ["s2", "S1", "scl", "angle", "s2_landcover"])
def test_labels_are_not_called_as_pixels_are_whose_files_they_would_replace(name: str) -> None:
    from deepsentinel.corpus.masking import ready_masks

    with pytest.raises(InputError, match="pixels are called so"):
        ready_masks({name: "clc2018.gpkg"}, None, {})
