"""Offsets and units: what the catalogs say and do not say, and arithmetic at the edges of what fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepsentinel.errors import ReadError
from deepsentinel.sources.assets import AssetRef
from deepsentinel.sources.harmonise import (
    Offset,
    check_power,
    offset_from_pixels,
    quantity_of,
    remove_offset,
    rescale,
    s2_offset,
    to_db,
)


def ref(key: str = "B04", **stated: float) -> AssetRef:
    return AssetRef(key=key, href=f"https://example.org/{key}.tif", **stated)  # type: ignore[arg-type]


def item(collection: str = "sentinel-2-l2a", **properties: object) -> dict:
    return {"id": "S2A_32TPS_20230602_0_L2A", "collection": collection, "properties": properties}


STATED = {"scale": 0.0001, "offset": -0.1}
FLAG = "earthsearch:boa_offset_applied"


@pytest.mark.parametrize(
    ("rule", "about", "stated", "add"),
    [
        # anybody's catalog: what the band states, then the baseline
        ("stated", {}, STATED, -1000),
        ("stated", {}, {"scale": 0.0001, "offset": 0.0}, 0),
        ("stated", {"s2:processing_baseline": "05.09"}, {"scale": 0.0001, "offset": 0.0}, 0),
        ("stated", {}, {"scale": 1.0, "offset": -1000.0}, -1000),
        ("stated", {}, {"offset": -0.1}, -1000),
        ("stated", {"s2:processing_baseline": "05.09"}, {}, -1000),
        ("stated", {"s2:processing_baseline": "04.00"}, {}, -1000),
        ("stated", {"s2:processing_baseline": "03.01"}, {}, 0),
        ("stated", {"processing:version": "02.14"}, {}, 0),
        ("stated", {"s2:product_uri": "S2A_MSIL2A_20150706T105016_N0500_R051_T31TCJ_20231001T000000.SAFE"}, {}, -1000),
        # the original products: the baseline, whatever the band states
        ("baseline", {"s2:processing_baseline": "02.12"}, STATED, 0),
        ("baseline", {"s2:processing_baseline": "05.00"}, {"scale": 0.0001, "offset": 0.0}, -1000),
        ("baseline", {}, STATED, -1000),
        # Earth Search: the flag; its stated offset would be subtracted twice
        ("earth-search", {FLAG: True, "s2:processing_baseline": "05.09"}, STATED, 0),
        ("stated", {FLAG: True, "s2:processing_baseline": "05.09"}, STATED, 0),
        ("earth-search", {FLAG: False, "s2:processing_baseline": "02.14"}, STATED, 0),
        ("earth-search", {FLAG: False, "s2:processing_baseline": "05.09"}, STATED, None),
        ("earth-search", {}, STATED, None),
        ("stated", {}, {}, None),
    ],
)
def test_offset_rule(rule: str, about: dict, stated: dict, add: int | None) -> None:
    assert s2_offset(item(**about), ref(**stated), rule).add == add  # type: ignore[arg-type]


def test_earth_search_jp2_and_collection_1_are_originals() -> None:
    flagged = {FLAG: True, "s2:processing_baseline": "05.09"}
    assert s2_offset(item(**flagged), ref("red-jp2", **STATED), "earth-search").add == -1000
    c1 = item("sentinel-2-c1-l2a", **{FLAG: False, "s2:processing_baseline": "05.00"})
    assert s2_offset(c1, ref("red", **STATED), "earth-search").add == -1000


def test_the_sensing_date_decides_nothing_and_the_processing_date_does() -> None:
    sensed_early = {"id": "a", "properties": {"datetime": "2016-01-01T00:00:00Z"}}
    assert s2_offset(sensed_early, ref()).add is None
    made_early = {"id": "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531", "properties": {}}
    assert s2_offset(made_early, ref()).add == 0
    made_late = {"id": "S2B_MSIL2A_20190629T212529_R043_T06VVN_20230101T080531", "properties": {}}
    assert s2_offset(made_late, ref()).add is None


def test_pixels_settle_what_the_flag_cannot() -> None:
    rng = np.random.default_rng(0)
    shifted = rng.integers(20, 4000, (100, 100)).astype("uint16")
    open_question = Offset(None, "flag is false", fallback=-1000)
    assert offset_from_pixels(open_question, shifted).add == 0
    assert offset_from_pixels(open_question, shifted + 1000).add == -1000
    with_holes = np.where(rng.random(shifted.shape) < 0.5, 0, shifted + 1000)
    assert offset_from_pixels(open_question, with_holes).add == -1000, "no data is not dark"
    assert offset_from_pixels(Offset(None, "nothing said"), shifted + 1000).add is None


@given(arrays("uint16", 20, elements=st.integers(0, 65535)), st.sampled_from([0, -1000]))
def test_valid_stays_valid_and_nodata_stays_nodata(dn: np.ndarray, add: int) -> None:
    got = remove_offset(dn, add)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got == 0, dn == 0)
    valid = dn > 0
    np.testing.assert_array_equal(got[valid], np.maximum(dn[valid].astype(int) + add, 1))


def test_other_types_and_other_nodata() -> None:
    np.testing.assert_array_equal(remove_offset(np.array([-5, 0, 1, 32767], "int16"), 0), [1, 0, 1, 32767])
    np.testing.assert_array_equal(remove_offset(np.array([0, 7, 65535], "uint16"), 0, nodata=65535), [0, 7, 0])
    np.testing.assert_array_equal(remove_offset(np.array([np.nan, 12.4]), 0), [0, 12])
    reflectance = rescale(np.array([0.0, 0.00001, 0.25, np.nan]), ref(scale=1.0, offset=0.0))
    np.testing.assert_array_equal(remove_offset(reflectance, 0), [0, 1, 2500, 0])
    for stated in ({}, {"scale": 1.0}, {"scale": 0.0001}):
        np.testing.assert_array_equal(rescale(np.array([7], "uint16"), ref(**stated)), np.array([7], "uint16"))
    percent = rescale(np.array([0, 25], "uint8"), ref(scale=0.01))
    np.testing.assert_array_equal(remove_offset(percent, 0), [0, 2500])


@given(st.floats(1e-5, 1e4))
def test_power_amplitude_and_db_agree(power: float) -> None:
    wanted = 10 * np.log10(power)
    assert to_db(np.array([power]), "power")[0] == pytest.approx(wanted, abs=1e-4)
    assert to_db(np.array([np.sqrt(power)]), "amplitude")[0] == pytest.approx(wanted, abs=1e-4)
    assert to_db(np.array([wanted]), "db")[0] == pytest.approx(wanted, abs=1e-4)


def test_what_is_no_measurement_becomes_nan() -> None:
    stored = np.array([0.1, 0.0, -0.2, np.nan, np.inf, -32768, 1e-12], "float32")
    got = to_db(stored, "power", nodata=-32768)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(got), [False, True, True, True, True, True, True])
    assert np.isnan(to_db(np.array([-9999.0]), "db")[0])


def test_scaled_integers_become_db() -> None:
    """openEO stores amplitude so that dB = 20 log10(DN) - 83; WorldCereal stores dB x 10000."""
    dn = np.array([0, 3000, 10000], "uint16")
    got = to_db(dn, "amplitude", scale=10 ** (-83 / 20), nodata=0)
    np.testing.assert_allclose(got[1:], 20 * np.log10(dn[1:]) - 83, atol=1e-4)
    assert np.isnan(got[0])
    np.testing.assert_allclose(to_db(np.array([-123456], "int32"), "db", scale=1e-4), [-12.3456], atol=1e-4)


def test_decibels_taken_for_power_are_refused() -> None:
    with pytest.raises(ReadError, match=r"vv.tif holds mostly negative values.*s1_units='dB'"):
        check_power(np.array([-12.0, -9.0, 1.0, np.nan]), "vv.tif")
    check_power(np.array([0.1, -32768.0, -32768.0, -32768.0]), "vv.tif", nodata=-32768)
    check_power(np.array([np.nan]), "vv.tif")


@pytest.mark.parametrize(
    ("unit", "quantity"),
    [("dB", "db"), ("decibel", "db"), ("linear power", "power"), ("1", "power"), ("amplitude", "amplitude")],
)
def test_units(unit: str, quantity: str) -> None:
    assert quantity_of(unit) == quantity


def test_no_unit_is_guessed() -> None:
    assert quantity_of("degree") is None
    assert quantity_of(None) is None
