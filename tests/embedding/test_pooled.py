"""Vectors of patches: the authors' own, whatever else is embedded beside them, and what is missing is missing."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from embedding_kit import TOY, Toy, apart, expected, galileo
from factories import L2A, make_patch, make_series, terramind

from deepsentinel.embedding import embed
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.galileo import Galileo
from deepsentinel.encoders.presto import build as build_presto
from deepsentinel.encoders.registry import find
from deepsentinel.errors import DeepSentinelWarning, InputError

PLACES = ("282D_485L_3_3", "637U_59R_1_3")


@pytest.fixture(scope="module")
def encoder() -> Galileo:
    return galileo()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sensors", ["s1", "s2", "both"])
def test_the_authors_vectors_of_galileo(real: Path, place: str, sensors: str) -> None:
    golden = np.load(real / f"golden/galileo_nano_{place}.npz")
    window = expected(terramind(real, place)).isel(y=slice(0, 64), x=slice(0, 64))
    encoder = load_encoder("galileo-nano", real / "weights/galileo-nano/encoder.pt")
    z = embed(window, encoder, sensors=sensors)
    assert z.dims == ("feature",)
    np.testing.assert_allclose(z, golden[f"{sensors}_pooled"], atol=1e-4)
    np.testing.assert_allclose(
        embed(window, encoder, sensors=sensors, dense=True, keep_positions=True), golden[f"{sensors}_tokens"], atol=1e-4
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sensors", ["s1", "s2", "both"])
def test_the_authors_vectors_of_presto_pixel_by_pixel(real: Path, place: str, sensors: str) -> None:
    golden = np.load(real / f"golden/presto_{place}.npz")
    # A part of the patch, as every pixel is a series of its own and takes its time.
    patch = expected(terramind(real, place)).isel(y=slice(8, 40), x=slice(16, 64))
    encoder = load_encoder("presto", real / "weights/presto/default_model.pt")
    z = embed(patch, encoder, sensors=sensors, dense=True)
    assert z.shape == (32, 48, 128)
    row, column = golden["row"] - 8, golden["col"] - 16
    here = (row >= 0) & (row < 32) & (column >= 0) & (column < 48)
    assert here.sum() == 24
    np.testing.assert_allclose(z.to_numpy()[row[here], column[here]], golden[sensors][here], atol=1e-4)
    # One vector of the patch is the mean of its pixels, each counted once.
    np.testing.assert_allclose(embed(patch, encoder, sensors=sensors), z.mean(["y", "x"]), atol=1e-4)


def test_a_large_patch_is_the_mean_of_windows_by_what_is_usable(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 128)))
    patch["VV"][:, 96:] = patch["VH"][:, 96:] = np.nan
    for band in L2A:
        patch[band][:, 96:] = 0
    left, right = (embed(patch.isel(x=part), encoder) for part in (slice(0, 64), slice(64, None)))
    both = embed(patch, encoder)
    np.testing.assert_allclose(both, (2 * left + right) / 3, atol=1e-5)


def test_neighbours_and_batches_change_nothing(encoder: Galileo) -> None:
    shapes = [(64, 64), (64, 64), (40, 56), (64, 64), (100, 64)]
    patches = [expected(make_patch(shape, seed, nodata=seed == 1)) for seed, shape in enumerate(shapes)]
    patches.append(patches[0].drop_vars(["VV", "VH"]))
    patches.append(patches[0].drop_vars(["B05"]))
    with pytest.warns(DeepSentinelWarning, match="B05"):
        together = embed(patches, encoder)
    assert together.dims == ("sample", "feature")
    for batch_size in (1, 2):
        with pytest.warns(DeepSentinelWarning, match="B05"):
            assert apart(embed(iter(patches), encoder, batch_size=batch_size), together) < 1e-5
    for at, patch in enumerate(patches):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "galileo-nano also takes B05")
            alone = embed(patch, encoder)
        assert apart(alone, together[at].drop_vars(["id"])) < 1e-5
        for name in ("lon", "lat", "s1_time"):
            assert name not in alone.coords or alone[name] == together[name][at]
    assert np.isnat(together["s1_time"].to_numpy()).sum() == 0
    with pytest.warns(DeepSentinelWarning, match="B05"):
        turned = embed(patches[::-1], encoder)
    assert apart(turned[::-1], together) < 1e-5


def test_a_dataset_of_samples_is_embedded_sample_by_sample(encoder: Galileo) -> None:
    patches = [expected(make_patch((64, 64), seed)) for seed in range(3)]
    stacked = xr.concat([patch.assign_coords(sample=f"p{at}") for at, patch in enumerate(patches)], "sample")
    z = embed(stacked, encoder)
    assert z["id"].to_numpy().tolist() == ["p0", "p1", "p2"]
    assert apart(z, embed(patches, encoder)) < 1e-5


def test_order_of_bands_and_bands_of_no_use_change_nothing(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64)))
    turned = patch[list(patch.data_vars)[::-1]].assign(class_map=(("y", "x"), np.ones((64, 64), "uint8")))
    assert apart(embed(turned, encoder), embed(patch, encoder)) == 0


@pytest.mark.parametrize("name", ["galileo-nano-random", "image-statistics"])
def test_nothing_seen_is_nan(name: str) -> None:
    patch = expected(make_patch((64, 64)))
    for band in L2A:
        patch[band][:] = 0
    assert embed(patch, name, sensors="s2").isnull().all()
    assert embed(patch, name, sensors="s2", dense=True).isnull().all()
    assert not embed(patch, name).isnull().any()
    patch["VV"][:] = np.nan
    assert embed(patch, name).isnull().all()


def test_what_clouds_hide_is_left_to_radar(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64)))
    patch["SCL"][:] = 9
    assert embed(patch, encoder, sensors="s2", mask_clouds=True).isnull().all()
    assert not embed(patch, encoder, sensors="s2").isnull().any()
    # What is taken off for positions is measured with the sensors that are there, clouded or not.
    for how in ({}, {"dense": True, "keep_positions": True}):
        alone = embed(patch, encoder, sensors="s1", **how)
        assert apart(embed(patch, encoder, mask_clouds=True, **how), alone) < 1e-5
        assert apart(embed(patch, encoder, **how), alone) > 1e-3


def test_values_under_clouds_are_never_looked_at(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64)))
    patch["SCL"][:32] = 8
    other = patch.copy(deep=True)
    for band in L2A:
        other[band][:32] = 9000
    assert apart(embed(patch, encoder, mask_clouds=True), embed(other, encoder, mask_clouds=True)) == 0
    assert apart(embed(patch, encoder), embed(other, encoder)) > 1e-3


def test_clouds_without_scl_cannot_be_masked(encoder: Galileo) -> None:
    with pytest.raises(InputError, match="SCL"):
        embed(expected(make_patch((64, 64), scl=False)), encoder, mask_clouds=True)


def test_a_sensor_that_is_not_there(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64), sensors=("S1",)))
    z = embed(patch, encoder)
    assert z.attrs["sensors"] == "s1"
    assert apart(z, embed(patch, encoder, sensors="s1")) == 0
    strict = Toy(replace(TOY, can_mask=False))
    with pytest.raises(InputError, match=r"S2 .*VV VH.*sensors=\"s1\""):
        embed(patch, strict)
    assert embed(patch, strict, sensors="s1").sizes == {"feature": 4}
    with pytest.raises(InputError, match="S2"):
        embed(patch, encoder, sensors="s2")


def test_encoders_of_one_sensor_take_it_without_being_told() -> None:
    spec = replace(TOY, modes=("s2",), s1_bands=(), s1_scaling=None)
    assert embed(make_patch((64, 64)), Toy(spec)).attrs["sensors"] == "s2"
    with pytest.raises(InputError, match="does not take s1"):
        embed(make_patch((64, 64)), Toy(spec), sensors="s1")
    with pytest.raises(InputError, match=r'sensors="s1" or sensors="s2"'):
        embed(make_patch((64, 64)), Toy(replace(TOY, modes=("s1", "s2"))))


def test_missing_bands_are_masked_where_the_encoder_can(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64)))
    garbled = patch.drop_vars("B08")
    with pytest.warns(DeepSentinelWarning, match="B08"):
        z = embed(garbled, encoder)
    assert not z.isnull().any()
    assert apart(z, embed(patch, encoder)) > 1e-4
    with pytest.raises(InputError, match="B08"):
        embed(garbled, Toy(replace(TOY, any_bands=False)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.assign(VV=10 ** (p["VV"] / 10)), "linear power"),
        (lambda p: p.assign({b: p[b].astype("float32") / 10_000 for b in L2A}), "0..1"),
        (lambda p: p.drop_vars("spatial_ref"), "spatial_ref"),
        (lambda p: p.sortby("y"), "north up"),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_other_units_and_lost_places_are_refused(encoder: Galileo, change, message: str, dense: bool) -> None:
    patch = change(expected(make_patch((64, 64))))
    with pytest.raises(InputError, match=message):
        embed(patch, encoder, dense=dense)


def test_units_are_checked_patch_by_patch(encoder: Galileo) -> None:
    good = expected(make_patch((64, 64)))
    bad = good.assign(VH=10 ** (good["VH"] / 10))
    with pytest.raises(InputError, match="linear power"):
        embed([good] * 3 + [bad], encoder)


def test_another_level_is_warned_of_once() -> None:
    patches = [make_patch((64, 64), seed) for seed in range(3)]
    with pytest.warns(DeepSentinelWarning, match="trained on level L1C") as caught:
        embed(patches, galileo(), sensors="s2")
    assert len(caught) == 1


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (64, 9), (3, 150)])
def test_small_and_narrow_patches(encoder: Galileo, shape: tuple[int, int]) -> None:
    z = embed(expected(make_patch(shape)), encoder)
    assert not z.isnull().any()


def test_the_result_tells_its_story(encoder: Galileo) -> None:
    patch = expected(make_patch((64, 64)))
    z = embed(patch, encoder)
    assert z.attrs["encoder"] == "galileo-nano"
    assert z.attrs["s1_id"] == patch.attrs["s1_id"]
    assert z["s1_time"] == patch["s1_time"]
    assert z["lon"] == pytest.approx(4.02, abs=0.1)
    assert z["lat"] == pytest.approx(49.29, abs=0.1)
    again = galileo()
    assert embed(patch, again).attrs["weights"] == z.attrs["weights"]
    with torch.no_grad():
        again.norm.bias += 1
    assert embed(patch, again).attrs["weights"] != z.attrs["weights"]


def test_the_encoder_is_left_as_it_was() -> None:
    encoder = galileo().train()
    embed(expected(make_patch((64, 64))), encoder)
    assert encoder.training


def test_a_series_is_seen_month_by_month() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        presto = build_presto(find("presto")).eval()
    series = expected(make_series(4, 3, shape=(6, 5)))
    z = embed(series, presto, dense=True)
    # 2018-05-01, -11, -21 and -31 of S2; 2018-05-01, -07 and -13 of S1: one month.
    s2 = torch.tensor(np.stack([series[band].mean("s2_time").to_numpy() for band in find("presto").s2_bands]))
    power = [10 * np.log10((10 ** (series[band] / 10)).mean("s1_time").to_numpy()) for band in ("VV", "VH")]
    lon, lat = lonlat(series)
    with torch.no_grad():
        direct = presto(
            torch.tensor(np.stack(power))[None, None].float(),
            s2[None, None].float(),
            month=torch.tensor([[4]]),
            latlon=torch.tensor(np.stack([lat, lon]))[None].float(),
        ).dense[0]
    np.testing.assert_allclose(z, direct, atol=1e-5)


def lonlat(patch: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    from pyproj import Transformer

    x, y = np.meshgrid(patch["x"], patch["y"])
    return Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(x, y)


def test_clouded_dates_do_not_count(encoder: Galileo) -> None:
    series = expected(make_series(4, 3, shape=(64, 64)))
    clear = series.isel(s2_time=[0, 2])
    seen = embed(series.isel(y=slice(0, 32)), encoder, mask_clouds=True)
    assert apart(seen, embed(clear.isel(y=slice(0, 32)), encoder)) < 1e-5


def test_months_without_a_date_are_not_seen_but_count() -> None:
    series = expected(make_series(2, 2, shape=(8, 8)))
    late = series.assign_coords(
        s2_time=np.array(["2018-05-02", "2018-09-02"], "datetime64[ns]"),
        s1_time=np.array(["2018-05-03", "2018-09-05"], "datetime64[ns]"),
    )
    encoder = load_encoder("presto", "random")
    seen = []
    encoder.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    assert not embed(late, encoder).isnull().any()
    assert seen[0]["month"][0].tolist() == [4, 5, 6, 7, 8]
    assert seen[0]["s2_mask"][0].flatten(1).any(dim=1).tolist() == [True, False, False, False, True]


def test_what_a_series_cannot_be() -> None:
    series = expected(make_series(2, 2, shape=(8, 8)))
    with pytest.raises(InputError, match="one date"):
        embed(series, "random-convolutions")
    long = series.assign_coords(s2_time=np.array(["2016-01-01", "2019-01-01"], "datetime64[ns]"))
    with pytest.raises(InputError, match="37 months"):
        embed(long, "presto-random", sensors="s2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sensors": "S3"}, "sensors"),
        ({"batch_size": 0}, "batch_size"),
        ({"device": "tpu9"}, "device"),
        ({"overlap": 1.0, "dense": True}, "overlap"),
        ({"window_px": 60, "dense": True}, "window_px"),
        ({"resolution_m": 20}, "dense=True"),
        ({"out": "z.zarr"}, "dense=True"),
        ({"dtype": "int8"}, "dtype"),
        ({"weights": "random"}, "weights"),
    ],
)
def test_wrong_arguments(encoder: Galileo, given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embed(expected(make_patch((64, 64))), encoder, **given)
