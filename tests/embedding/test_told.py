"""What a result tells: which sensors and bands were seen, which patch it is of, and what was asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from embedding_kit import Toy, apart, expected, galileo
from factories import L2A, make_patch

from deepsentinel.embedding import embed
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.galileo import Galileo
from deepsentinel.errors import DeepSentinelWarning, InputError


@pytest.fixture(scope="module")
def encoder() -> Galileo:
    return galileo()


@pytest.fixture
def patch() -> xr.Dataset:
    return expected(make_patch((64, 64)))


def test_sensors_are_those_that_were_seen(patch: xr.Dataset, encoder: Galileo) -> None:
    blind = patch.assign(VV=patch["VV"] * np.nan, VH=patch["VH"] * np.nan)
    clouded = patch.assign(SCL=xr.full_like(patch["SCL"], 9))
    for dense in (False, True):
        assert embed(patch, encoder, dense=dense).attrs["sensors"] == "both"
        assert embed(blind, encoder, dense=dense).attrs["sensors"] == "s2"
        assert embed(clouded, encoder, mask_clouds=True, dense=dense).attrs["sensors"] == "s1"
        assert embed(clouded, encoder, sensors="s2", mask_clouds=True, dense=dense).attrs["sensors"] == "none"


def test_patches_that_differ_are_told_apart(patch: xr.Dataset, encoder: Galileo) -> None:
    z = embed([patch, patch[["VV", "VH"]], patch.drop_vars(["VV", "VH"])], encoder)
    assert z.attrs["sensors"] == "mixed"
    assert z["sensors"].to_numpy().tolist() == ["both", "s1", "s2"]
    assert embed([patch, patch], encoder).attrs["sensors"] == "both"


@pytest.mark.parametrize("name", ["z.zarr", "z.tif"])
def test_a_file_tells_what_was_seen_when_all_of_it_was_read(patch: xr.Dataset, tmp_path: Path, name: str) -> None:
    pytest.importorskip("zarr")
    blind = patch.assign(VV=patch["VV"] * np.nan, VH=patch["VH"] * np.nan)
    embed(blind, Toy(), dense=True, out=tmp_path / name)
    if name == "z.zarr":
        assert xr.open_zarr(tmp_path / name, chunks=None)["embedding"].attrs["sensors"] == "s2"
    else:
        import rasterio

        with rasterio.open(tmp_path / name) as file:
            assert file.tags()["SENSORS"] == "s2"


@pytest.mark.parametrize("dense", [False, True])
def test_missing_bands_are_warned_of_and_noted(patch: xr.Dataset, encoder: Galileo, dense: bool) -> None:
    with pytest.warns(DeepSentinelWarning, match="also takes VH, B02, B08, which the patch lacks") as caught:
        z = embed(patch.drop_vars(["B02", "B08", "VH"]), encoder, dense=dense)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert z.attrs["bands"] == "VV B03 B04 B05 B06 B07 B8A B11 B12"
    assert embed(patch, encoder, dense=dense).attrs["bands"].split()[:3] == ["VV", "VH", "B02"]


def test_of_many_patches_that_lack_the_same_one_is_warned_of(patch: xr.Dataset, encoder: Galileo) -> None:
    lacking = patch.drop_vars("B05")
    with pytest.warns(DeepSentinelWarning, match="B05") as caught:
        z = embed([lacking, patch, lacking], encoder)
    assert len(caught) == 1
    assert z.attrs["bands"] == "mixed"


@pytest.mark.parametrize("turned", [1, -1])
def test_another_level_is_warned_of_in_any_order(turned: int) -> None:
    patch = make_patch((64, 64)).assign_attrs(backscatter="sigma0")
    with pytest.warns(DeepSentinelWarning, match="trained on level L1C"):
        embed([patch[["VV", "VH"]], patch][::turned], galileo())


def test_controls_have_a_name_and_no_level_of_their_own(patch: xr.Dataset) -> None:
    other = patch.assign_attrs(level="L2A", backscatter="gamma0_rtc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = embed(other, "galileo-nano-random")
    assert z.attrs["encoder"] == "galileo-nano-random"
    assert load_encoder("presto", "random").spec.name == "presto-random"
    assert load_encoder("image-statistics").spec.name == "image-statistics"


def test_positions_that_were_kept_are_noted(patch: xr.Dataset) -> None:
    kept, taken = (embed(patch, Toy(), dense=True, keep_positions=keep) for keep in (True, False))
    assert (kept.attrs["keep_positions"], taken.attrs["keep_positions"]) == (1, 0)


def test_a_stacked_dataset_keeps_the_name_of_each() -> None:
    patches = [expected(make_patch((64, 64), seed)).assign_attrs(id=f"place-{seed}") for seed in range(3)]
    assert embed(patches, Toy())["id"].to_numpy().tolist() == ["place-0", "place-1", "place-2"]
    named = xr.concat([patch.assign_coords(sample=f"p{at}") for at, patch in enumerate(patches)], "sample")
    assert embed(named, Toy())["id"].to_numpy().tolist() == ["p0", "p1", "p2"]
    # What has no coordinate is numbered: the first one's name is not that of all.
    assert embed(xr.concat(patches, "sample"), Toy())["id"].to_numpy().tolist() == [0, 1, 2]


def made_corpus(patches: list[xr.Dataset], status: list[str]) -> xr.Dataset:
    """What `open_corpus` gives, as far as it matters here."""
    first = patches[0]
    corners = [(float(p["x"][0]) - 5, float(p["y"][0]) + 5) for p in patches]
    rows = {
        "status": status,
        "id": [f"p{at}" for at in range(len(patches))],
        "height": [64] * len(patches),
        "width": [64] * len(patches),
        "crs": ["EPSG:32631"] * len(patches),
        "s1_time": np.array([p["s1_time"].values for p in patches]),
        "s2_time": np.array([p["s2_time"].values for p in patches]),
    }
    coords = {name: ("sample", np.asarray(values)) for name, values in rows.items()}
    coords["transform"] = (("sample", "six"), np.array([(10, 0, left, 0, -10, top) for left, top in corners]))
    stack = {
        "s2": (("sample", "s2_band", "y", "x"), np.stack([p[list(L2A)].to_array().values for p in patches])),
        "s1": (("sample", "s1_band", "y", "x"), np.stack([p[["VV", "VH"]].to_array().values for p in patches])),
    }
    bands = {"s2_band": list(L2A), "s1_band": ["VV", "VH"], "sample": np.arange(len(patches))}
    return xr.Dataset(stack, {**coords, **bands}, {"level": first.attrs["level"], "backscatter": "sigma0"})


def test_a_corpus_is_embedded_sample_by_sample(encoder: Galileo) -> None:
    patches = [expected(make_patch((64, 64), seed)) for seed in range(3)]
    corpus = made_corpus(patches, ["ok"] * 3)
    z = embed(corpus, encoder)
    assert z["id"].to_numpy().tolist() == ["p0", "p1", "p2"]
    assert apart(z, embed(patches, encoder)) < 1e-5
    with pytest.warns(DeepSentinelWarning, match="1 of 3 samples of the corpus hold no pixels"):
        some = embed(made_corpus(patches, ["ok", "failed", "ok"]), encoder)
    assert some["id"].to_numpy().tolist() == ["p0", "p2"]
    assert apart(some, z[[0, 2]]) < 1e-5
    with pytest.raises(InputError, match="one patch"):
        embed(corpus, encoder, dense=True)
