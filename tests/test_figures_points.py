"""The figure of one pixel's year draws every date once, apart by orbit, and tells cloud from ground."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.figures.points import greenness, is_point, spectrum_of, year_of
from deepsentinel.figures.saving import save_figure

BANDS = ("B02", "B03", "B04", "B08", "B09", "B11", "B12")


def made_point(*, s1: bool = True, s2: bool = True, clear: bool = True) -> xr.Dataset:
    """Green in summer, with a cloud in May; two orbits, and one date without VH."""
    variables, coords, attrs = {}, {"lon": 2.0, "lat": -48.5}, {"source": "demo", "seed": 0, "radar_px": 3}
    if s2:
        days = np.array(["2018-03-01", "2018-05-01", "2018-07-01", "2018-09-01"], "datetime64[ns]")
        for place, name in enumerate(BANDS):
            values = np.array([500, 6000, 400, 600]) + 100 * place
            variables[name] = (("s2_time",), values.astype("uint16"))
        variables["B08"] = (("s2_time",), np.array([1500, 6500, 4000, 0], "uint16"))
        if clear:
            variables["clear"] = (("s2_time",), np.array([True, False, True, True]))
        coords["s2_time"] = days
        attrs["level"] = "L2A"
    if s1:
        coords["s1_time"] = np.array(["2018-03-02", "2018-04-02", "2018-05-02", "2018-06-02"], "datetime64[ns]")
        coords["orbit"] = ("s1_time", ["ascending 30", "descending 110"] * 2)
        variables["VV"] = (("s1_time",), np.array([-9, -10, -8, -11], "float32"))
        variables["VH"] = (("s1_time",), np.array([-15, -16, -14, np.nan], "float32"))
        attrs["backscatter"] = "gamma0_rtc"
    return xr.Dataset(variables, coords, attrs)


def drawn(fig: Figure, label: str) -> np.ndarray:
    """The numbers of the line with this label."""
    (line,) = [line for axes in fig.axes for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_ydata(), dtype="float64")


def test_every_number_is_drawn_once() -> None:
    point = made_point()
    fig = ds.show(point)
    assert [axes.get_ylabel() for axes in fig.axes] == ["reflectance", "NDVI", "backscatter, dB"]
    assert drawn(fig, "VV ascending 30").tolist() == [-9, -8]
    assert drawn(fig, "VH descending 110").tolist() == [-16]
    ndvi = (point["B08"] / 1.0 - point["B04"]) / (point["B08"] / 1.0 + point["B04"])
    # B08 was not measured in September.
    assert drawn(fig, "clear").tolist() == pytest.approx(ndvi.to_numpy()[[0, 2]].tolist())
    assert drawn(fig, "cloud or shadow").tolist() == pytest.approx(ndvi.to_numpy()[[1]].tolist())
    summer = drawn(fig, "1 July 2018")
    assert summer.tolist() == [
        point[name].to_numpy()[2] / 10_000 for name in ("B02", "B03", "B04", "B08", "B11", "B12")
    ]
    assert "1 May 2018" not in [line.get_label() for line in fig.axes[0].lines]


def test_the_page_says_what_it_is() -> None:
    said = [text.get_text() for text in ds.show(made_point()).texts]
    assert said[0] == "One pixel, 4 Sentinel-2 and 4 Sentinel-1 dates, 1 March 2018 to 1 September 2018"
    assert said[1] == "backscatter is the mean over 3 × 3 pixels · hollow marks: cloud or shadow, by SCL"
    assert "48.50000° S, 2.00000° E" in said
    assert any("Imaginary" in text for text in said)
    assert ds.show(made_point(), title="Mine").texts[0].get_text() == "Mine"


@pytest.mark.parametrize(
    ("sensors", "labels"),
    [({"s1": False}, ["reflectance", "NDVI"]), ({"s2": False}, ["backscatter, dB"]), ({"clear": False}, None)],
)
def test_one_sensor_alone(sensors: dict[str, bool], labels: list[str] | None) -> None:
    fig = ds.show(made_point(**sensors))
    if labels:
        assert [axes.get_ylabel() for axes in fig.axes] == labels
    else:
        assert drawn(fig, "clear").size == 3  # where nobody knows of clouds, all are drawn alike


def test_a_year_without_a_clear_date_says_so() -> None:
    point = made_point()
    point["clear"][:] = False
    fig = ds.show(point)
    assert "no clear date" in [text.get_text() for text in fig.axes[0].texts]


def test_numbers_for_others_to_draw() -> None:
    year = year_of(made_point())
    assert [each["time"] for each in year["s2"]][:2] == ["2018-03-01T00:00", "2018-05-01T00:00"]
    assert [each["clear"] for each in year["s2"]] == [True, False, True, True]
    assert year["s2"][3]["ndvi"] is None
    assert [band for band, _, _ in year["s2"][0]["spectrum"]] == ["B02", "B03", "B04", "B08", "B11", "B12"]
    assert "VH" not in year["s1"][3]
    assert {each["clear"] for each in year_of(made_point(clear=False))["s2"]} == {None}


def test_wavelengths_rise() -> None:
    found = spectrum_of({name: 100 + place for place, name in enumerate(("B12", "B8A", "B02", "B10", "B01", "B05"))})
    assert [band for band, _, _ in found] == ["B01", "B02", "B05", "B8A", "B12"]
    assert greenness({"B04": 100}) is None


def test_only_points_are_points() -> None:
    assert is_point(made_point(s2=False))
    assert not is_point(made_point().expand_dims(y=2, x=2))
    assert not is_point(xr.Dataset({"VV": (("y", "x"), np.zeros((2, 2)))}))


def test_figures_are_written_whole_or_not_at_all(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fig = ds.show(made_point(s2=False))
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert save_figure(fig, tmp_path / f"a.{kind}").read_bytes().startswith(begins)
    with pytest.raises(InputError, match=r"\.png, \.svg"):
        save_figure(fig, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no figure"):
        save_figure("a", tmp_path / "a.png")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg"]
