"""The Patch contract: each rule is broken once, alone, and is the one that is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from deepsentinel.bands import S1_BANDS, S2_BANDS, S2_L2A_BANDS, SCL_CLASSES
from deepsentinel.contract import check_patch
from deepsentinel.errors import PatchError

S1_TIME, S2_TIME = np.datetime64("2018-06-02T06:00:00", "ns"), np.datetime64("2018-06-01T11:00:00", "ns")


def patch(size: int = 8) -> xr.Dataset:
    rng = np.random.default_rng(0)
    shape = (size, size)
    optical = {name: (("y", "x"), rng.integers(1, 4000, shape).astype("uint16")) for name in ("B02", "B04", "B08")}
    radar = {name: (("y", "x"), rng.normal(-12, 3, shape).astype("float32")) for name in ("VV", "VH")}
    return xr.Dataset(
        {**optical, **radar, "SCL": (("y", "x"), np.full(shape, 4, "uint8"))},
        coords={
            "y": 5_000_000.0 - 10 * np.arange(size) - 5,
            "x": 600_000.0 + 10 * np.arange(size) + 5,
            "spatial_ref": ((), 0, {"crs_wkt": "PROJCRS[...]"}),
            "s1_time": S1_TIME,
            "s2_time": S2_TIME,
        },
        attrs={"level": "L2A", "backscatter": "gamma0_rtc", "gap_hours": 19.0},
    )


def with_dtype(name: str, dtype: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda p: p.assign({name: p[name].astype(dtype)})


BROKEN: dict[str, tuple[Callable[[xr.Dataset], object], str]] = {
    "not a dataset": (lambda p: p["B02"], "it is a DataArray"),
    "no bands": (lambda p: p.rename(B02="blue")[["blue"]], "none of its variables is a Sentinel band"),
    "no coordinates": (lambda p: p.drop_vars("x"), "no coordinate 'x'"),
    "south up": (lambda p: p.sortby("y"), "'y' does not fall from north to south"),
    "west to the right": (lambda p: p.sortby("x", ascending=False), "'x' does not grow eastwards"),
    "uneven": (lambda p: p.assign_coords(x=p.x.values + np.eye(8)[3] * 4), "'x' is not evenly spaced"),
    "nowhere": (lambda p: p.drop_vars("spatial_ref"), "no 'spatial_ref' coordinate"),
    "no crs": (lambda p: p.assign_coords(spatial_ref=0), "no attribute 'crs_wkt'"),
    "transposed": (lambda p: p.transpose("x", "y"), r"B02 has dims \('x', 'y'\), expected \('y', 'x'\)"),
    "signed": (with_dtype("B04", "int16"), "B04 is int16, expected uint16"),
    "double": (with_dtype("VV", "float64"), "VV is float64, expected float32: dB"),
    "wide classes": (with_dtype("SCL", "int32"), "SCL is int32, expected uint8"),
    "level": (lambda p: p.assign_attrs(level="2A"), "attribute 'level' is '2A'"),
    "backscatter": (lambda p: p.assign_attrs(backscatter=None), "attribute 'backscatter' is None"),
    "cirrus": (lambda p: p.assign(B10=p.B02), "B10 is in a level L2A patch"),
    "power": (lambda p: p.assign(VV=10 ** (p.VV / 10)), "VV holds no negative value in 64 pixels: that is power"),
    "digital numbers": (lambda p: p.assign(VV=p.VV * 0 + 180), "outside -80 to 60 dB"),
    "minus infinity": (lambda p: p.assign(VH=p.VH - np.inf), "VH runs from -inf"),
    "class 12": (lambda p: p.assign(SCL=p.SCL + np.uint8(8)), "SCL holds the value 12"),
    "time as text": (lambda p: p.assign_coords(s1_time="2018-06-02"), "'s1_time' is <U10, expected datetime64"),
    "no time": (lambda p: p.assign_coords(s2_time=np.datetime64("NaT", "ns")), "'s2_time' holds no time"),
    "gap": (lambda p: p.assign_attrs(gap_hours=-19.0), "'gap_hours' is -19 but s1_time minus s2_time is 19 hours"),
}


def test_a_sound_patch_comes_back_itself() -> None:
    sound = patch()
    assert check_patch(sound) is sound


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_broken_rule_is_named(name: str) -> None:
    spoil, message = BROKEN[name]
    with pytest.raises(PatchError, match=message):
        check_patch(spoil(patch()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p[["VV", "VH"]],
        lambda p: p[["B02", "B08"]].drop_vars(["s1_time", "s2_time"]),
        lambda p: p.assign(class_map=(("y", "x"), np.zeros((8, 8), "int64"))),
        lambda p: p.assign(VV=p.VV * np.float32("nan")),
        lambda p: p.isel(x=[3], y=[4]),
        lambda p: p.isel(x=slice(2, 5)),
    ],
    ids=["radar alone", "no provenance", "a mask rides along", "all nodata", "one pixel", "a window"],
)
def test_what_is_allowed(change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    check_patch(change(patch()))


def test_a_series_keeps_each_sensors_own_dates_in_order() -> None:
    one = patch()
    days = np.arange(3) * np.timedelta64(12, "D")
    optical = one[["B02"]].drop_vars(["s1_time", "s2_time"]).expand_dims(s2_time=S2_TIME + days)
    radar = one[["VV"]].drop_vars(["s1_time", "s2_time"]).expand_dims(s1_time=S1_TIME + days[:2])
    series = xr.merge([optical, radar], combine_attrs="override").assign_attrs(one.attrs)
    check_patch(series)
    with pytest.raises(PatchError, match="'s2_time' is not in order"):
        check_patch(series.isel(s2_time=[1, 0, 2]))
    with pytest.raises(PatchError, match="dimension 's1_time' has no coordinate"):
        check_patch(series.drop_vars("s1_time"))
    with pytest.raises(PatchError, match=r"has dims .* expected \('s._time', 'y', 'x'\)"):
        check_patch(series.transpose("y", "x", "s1_time", "s2_time"))


def test_bands_are_those_of_the_satellites() -> None:
    assert list(S2_BANDS) == [f"B{n:02d}" for n in range(1, 9)] + ["B8A"] + [f"B{n:02d}" for n in range(9, 13)]
    assert len(S2_L2A_BANDS) == 12
    assert {b.resolution_m for b in S2_BANDS.values()} == {10, 20, 60}
    centres = [b.centre_nm for b in S2_BANDS.values()]
    assert centres == sorted(centres)  # type: ignore[type-var]
    for band in S2_BANDS.values():
        assert band.centre_nm is not None
        for platform in band.platforms:
            # B08's nominal centre is the odd one: the satellites measure 9 nm lower.
            assert abs(band.centre_on(platform) - band.centre_nm) <= 13
    assert S2_BANDS["B12"].centre_on("S2A") - S2_BANDS["B12"].centre_on("sentinel-2b") == pytest.approx(16.7)
    with pytest.raises(PatchError, match=r"B09 has no wavelength for platform 'S2C'; known: S2A, S2B"):
        S2_BANDS["B09"].centre_on("S2C")
    assert set(S1_BANDS) == {"VV", "VH", "HH", "HV"}
    assert sorted(SCL_CLASSES) == list(range(12))
