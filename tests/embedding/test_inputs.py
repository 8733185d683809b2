"""What goes to an encoder: other units, unknown dates and odd dimensions are told, and places and sizes are true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from embedding_kit import TOY, Toy, apart, expected, galileo
from factories import L2A, make_patch, make_series
from pyproj import CRS, Transformer

from deepsentinel.embedding import embed
from deepsentinel.embedding.inputs import Scene
from deepsentinel.encoders import load_encoder
from deepsentinel.encoders.galileo import Galileo
from deepsentinel.encoders.registry import find
from deepsentinel.errors import InputError


@pytest.fixture(scope="module")
def encoder() -> Galileo:
    return galileo()


@pytest.fixture
def patch() -> xr.Dataset:
    return expected(make_patch((64, 64)))


# Units


@pytest.mark.parametrize("lost", [0.06, 0.12, 0.31, 0.62])
@pytest.mark.parametrize("linear", [True, False])
def test_zeros_for_no_data_do_not_hide_the_units(
    patch: xr.Dataset, encoder: Galileo, lost: float, linear: bool
) -> None:
    hole = np.random.default_rng(0).random((64, 64)) < lost
    for name in ("VV", "VH"):
        values = 10 ** (patch[name] / 10) if linear else patch[name]
        patch[name] = values.where(~hole, 0.0)
    with pytest.raises(InputError, match=r"VV is exactly 0 in .* no data is NaN"):
        embed(patch, encoder)
    for name in ("VV", "VH"):
        patch[name] = patch[name].where(patch[name] != 0)
    if linear:
        with pytest.raises(InputError, match="linear power"):
            embed(patch, encoder)
    else:
        assert embed(patch, encoder).notnull().all()


def test_zeros_in_a_corner_are_found_where_the_first_rows_are_sound(encoder: Galileo) -> None:
    patch = expected(make_patch((200, 64)))
    patch["VV"][150:, :30] = 0
    with pytest.raises(InputError, match="exactly 0"):
        embed(patch, encoder)


@pytest.mark.parametrize("whole", ["B02", "B05", "B12"])
def test_one_band_of_whole_numbers_does_not_speak_for_the_others(
    patch: xr.Dataset, encoder: Galileo, whole: str
) -> None:
    mixed = patch.assign({band: (patch[band] / 10_000).astype("float32") for band in L2A if band != whole})
    with pytest.raises(InputError, match=r"0\.\.1"):
        embed(mixed, encoder)


def test_percent_and_quicklooks_are_refused(patch: xr.Dataset, encoder: Galileo) -> None:
    with pytest.raises(InputError, match="percent"):
        embed(patch.assign({band: patch[band].astype("float32") / 100 for band in L2A}), encoder)
    with pytest.raises(InputError, match=r"uint8.*quicklooks"):
        embed(patch.assign({band: (patch[band] // 20).astype("uint8") for band in L2A}), encoder)
    # Resampled reflectance has fractions too.
    assert embed(patch.assign({band: patch[band] + np.float32(0.25) for band in L2A}), encoder).notnull().all()


def test_a_classification_of_floats_masks_as_one_of_whole_numbers(patch: xr.Dataset, encoder: Galileo) -> None:
    patch["SCL"][:40] = 9
    floats = patch.assign(SCL=patch["SCL"].astype("float32"))
    assert apart(embed(floats, encoder, mask_clouds=True), embed(patch, encoder, mask_clouds=True)) == 0
    floats["SCL"][50:] = np.nan
    assert apart(embed(floats, encoder, mask_clouds=True), embed(patch, encoder, mask_clouds=True)) == 0


# Dates and dimensions


def test_a_date_that_is_not_known_is_no_month(patch: xr.Dataset, encoder: Galileo) -> None:
    unknown = patch.assign_coords(s2_time=np.datetime64("NaT", "ns"))
    assert Scene(unknown, find("galileo-nano")).months.astype(str).tolist() == ["2018-07"]  # that of S1
    assert apart(embed(unknown, encoder), embed(patch.drop_vars("s2_time"), encoder)) == 0
    nothing = unknown.assign_coords(s1_time=np.datetime64("NaT", "ns"))
    assert Scene(nothing, find("galileo-nano")).months is None


def test_a_series_with_an_unknown_date_names_it() -> None:
    series = expected(make_series(3, 2, shape=(8, 8)))
    times = series["s2_time"].to_numpy().copy()
    times[1] = np.datetime64("NaT")
    broken = series.assign_coords(s2_time=times)
    with pytest.raises(InputError, match=r"s2_time is not known \(NaT\) for 1 of 3"):
        embed(broken, "presto-random")
    advised = broken.sel(s2_time=broken.s2_time.notnull())
    assert embed(advised, "presto-random").notnull().all()


def test_a_plain_time_axis_is_not_taken_for_a_batch(patch: xr.Dataset, encoder: Galileo) -> None:
    both = xr.concat([patch.drop_vars(["s1_time", "s2_time"])] * 2, "time")
    for dense in (False, True):
        with pytest.raises(InputError, match=r"dimension `time`.*s1_time or s2_time.*isel\(time=0\)"):
            embed(both, encoder, dense=dense)


def test_the_advice_for_a_series_works() -> None:
    series = expected(make_series(2, 2, shape=(8, 8)))
    with pytest.raises(InputError, match=r"series\.isel\(s1_time=0, s2_time=0\)"):
        embed(series, "image-statistics")
    assert embed(series.isel(s1_time=0, s2_time=0), "image-statistics").notnull().all()


# Places and sizes


def test_pixels_on_either_side_of_the_antimeridian_know_where_they_are() -> None:
    x, y = Transformer.from_crs(4326, 32660, always_xy=True).transform(180.0, -17.0)
    patch = expected(make_patch((4, 8))).assign_coords(x=x - 35 + 10 * np.arange(8), y=y - 10 * np.arange(4))
    patch["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": CRS.from_epsg(32660).to_wkt()})
    presto = load_encoder("presto", "random")
    seen = []
    presto.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    z = embed(patch, presto, dense=True)
    lon = seen[0]["latlon"][0, 1].numpy()
    assert np.abs((lon + 180) % 360 - 180).min() > 179.999
    for column in (0, 3, 4, 7):
        one = embed(patch.isel(x=[column]).assign_coords(spatial_ref=_with_step(patch, column)), presto, dense=True)
        assert apart(z[:, column : column + 1], one) < 1e-4


def _with_step(patch: xr.Dataset, column: int) -> xr.DataArray:
    """A side of one pixel has no step of its own."""
    left, top = float(patch["x"][column]) - 5, float(patch["y"][0]) + 5
    return xr.DataArray(0, attrs={**patch["spatial_ref"].attrs, "GeoTransform": f"{left} 10 0 {top} 0 -10"})


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("step", ["20 m", "degrees", "web map"])
def test_the_encoder_is_told_how_long_a_pixel_is(dense: bool, step: str) -> None:
    patch = make_patch((64, 64), resolution_m=20.0)
    if step == "degrees":
        patch = patch.assign_coords(y=60.0 - 0.0001 * np.arange(64), x=2.0 + 0.0002 * np.arange(64))
        patch["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": CRS.from_epsg(4326).to_wkt()})
    if step == "web map":
        patch = patch.assign_coords(y=8_399_738.0 - 10 * np.arange(64), x=10.0 * np.arange(64))
        patch["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": CRS.from_epsg(3857).to_wkt()})
    encoder = Toy()
    told = []
    encoder.register_forward_pre_hook(lambda _, args, kwargs: told.append(kwargs["resolution_m"]), with_kwargs=True)
    embed(patch, encoder, dense=dense)
    assert told[0] == pytest.approx({"20 m": 20.0, "degrees": 11.15, "web map": 5.0}[step], rel=0.01)
    assert set(told) == {told[0]}


# Sensors that see nothing


@pytest.mark.parametrize("dense", [False, True])
def test_an_encoder_that_cannot_mask_is_shown_no_grey_picture(patch: xr.Dataset, dense: bool) -> None:
    strict = Toy(replace(TOY, can_mask=False))
    patch["SCL"][:] = 9
    z = embed(patch, strict, mask_clouds=True, dense=dense)
    assert z.isnull().all()
    assert z.attrs["sensors"] == "s1"
    assert embed(patch, Toy(), mask_clouds=True, dense=dense).notnull().all()
    patch["SCL"][0, 0] = 4
    assert embed(patch, strict, mask_clouds=True, dense=dense).notnull().all()


def test_the_pixels_given_are_not_written_to(patch: xr.Dataset) -> None:
    patch["VV"][:8] = np.nan
    before = patch.copy(deep=True)
    embed(patch, Toy(replace(TOY, can_mask=False)), dense=True)
    xr.testing.assert_identical(patch, before)


# Arguments


def test_nothing_to_embed_says_so(patch: xr.Dataset, encoder: Galileo) -> None:
    stacked = xr.concat([patch, patch], "sample")
    for nothing in ([], iter(()), stacked.isel(sample=slice(0))):
        with pytest.raises(InputError, match="no patch to embed"):
            embed(nothing, encoder)
    with pytest.raises(InputError, match="patch is empty"):
        embed(patch.isel(y=slice(0)), encoder)


@pytest.mark.parametrize(
    "wrong", [{"overlap": None}, {"overlap": "0.5"}, {"window_px": 64.0}, {"window_px": "64"}, {"batch_size": 2.0}]
)
def test_arguments_of_other_types_are_named(patch: xr.Dataset, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        embed(patch, Toy(), dense=True, **wrong)


def test_numbers_of_numpy_are_numbers(patch: xr.Dataset) -> None:
    given = {"batch_size": np.int64(4), "window_px": np.int32(64), "overlap": np.float32(0.5)}
    assert apart(embed(patch, Toy(), dense=True, **given), embed(patch, Toy(), dense=True)) == 0
