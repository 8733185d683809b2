"""One pixel through the year is what patches of the same scenes hold there, and nothing more is read for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import deepsentinel as ds
from deepsentinel.bands import SCL_CLOUDY
from deepsentinel.errors import InputError, NothingFoundError, StoppedError
from deepsentinel.grids import transformer
from deepsentinel.sources.points import read_point

START, END = "2018-05-01", "2018-08-31"


class Counting:
    """A source that remembers which scenes were read on which grids."""

    def __init__(self, source: Any) -> None:
        self.source, self.name = source, source.name
        self.read_scenes: list[tuple[str, tuple[int, int]]] = []

    def search(self, *args: Any, **kwargs: Any) -> Any:
        return self.source.search(*args, **kwargs)

    def read_many(self, table: Any, grids: Any, **kwargs: Any) -> Any:
        for (name, grid), patch in zip(
            zip(table.id, grids, strict=True), self.source.read_many(table, grids, **kwargs), strict=True
        ):
            self.read_scenes.append((name, tuple(grid.shape)))
            yield patch


@pytest.fixture(scope="module")
def src() -> Any:
    return ds.open_source("demo", size_px=256)


@pytest.fixture(scope="module")
def grid(src: Any) -> Any:
    return ds.geobox(src.area)


@pytest.fixture(scope="module")
def at(grid: Any) -> tuple[float, float]:
    """The middle of the pixel in row 20, column 30."""
    x, y = grid.affine.c + 10 * 30.5, grid.affine.f - 10 * 20.5
    lon, lat = transformer(str(grid.crs), "EPSG:4326").transform(x, y)
    return float(lon), float(lat)


@pytest.fixture(scope="module")
def counting(src: Any) -> Counting:
    return Counting(src)


@pytest.fixture(scope="module")
def point(counting: Counting, at: tuple[float, float], grid: Any) -> xr.Dataset:
    return read_point(counting, at, START, END, max_cloud=100, max_dates=6, like=grid)


def test_it_is_what_patches_hold_there(src: Any, grid: Any, point: xr.Dataset) -> None:
    assert point.sizes == {"s2_time": point.sizes["s2_time"], "s1_time": 6}
    for index in (0, -1):
        one = point.isel(s2_time=index)
        patch = src.read({"sensor": "S2", "id": one["s2_id"].item()}, grid)
        assert patch["s2_time"] == one["s2_time"]
        for name in patch.data_vars:
            assert one[name] == patch[name].to_numpy()[20, 30]
            assert one[name].dtype == patch[name].dtype
            assert one[name].attrs["units" if name != "SCL" else "long_name"]
        radar = point.isel(s1_time=index)
        patch = src.read({"sensor": "S1", "id": radar["s1_id"].item()}, grid)
        around = patch["VV"].to_numpy()[19:22, 29:32].astype("float64")
        assert radar["VV"].item() == pytest.approx(10 * np.log10((10 ** (around / 10)).mean()), abs=1e-4)
        assert radar["VV"].item() != patch["VV"].to_numpy()[20, 30]
        assert radar["orbit"].item().split()[0] == patch.attrs["orbit"]
    assert point.attrs == {"source": "demo", "seed": 0, "level": "L2A", "backscatter": "gamma0_rtc", "radar_px": 3}


def test_a_pixel_alone_on_request(src: Any, at: tuple[float, float], grid: Any, point: xr.Dataset) -> None:
    alone = read_point(src, at, START, END, sensors="S1", radar_px=1, max_dates=2, like=grid)
    patch = src.read({"sensor": "S1", "id": alone["s1_id"].to_numpy()[0]}, grid)
    assert alone["VH"].to_numpy()[0] == patch["VH"].to_numpy()[20, 30]
    assert not {"s2_time", "clear"} & set(alone.variables)


def test_clear_is_what_scl_says(point: xr.Dataset) -> None:
    codes = point["SCL"].to_numpy()
    assert (point["clear"].to_numpy() == [code not in (0, *SCL_CLOUDY) for code in codes]).all()
    assert 0 < point["clear"].sum() <= point.sizes["s2_time"]


def test_little_is_read(src: Any, counting: Counting, at: tuple[float, float], point: xr.Dataset) -> None:
    scenes = src.search(src.area, START, END)
    names = [name for name, _ in counting.read_scenes]
    assert len(set(names)) == len(names) <= 6 + 6
    assert {shape for name, shape in counting.read_scenes if name.startswith("S2")} == {(1, 1)}
    assert {shape for name, shape in counting.read_scenes if name.startswith("S1")} == {(3, 3)}
    # The area lies in two tiles, so each pass is there twice.
    read = scenes[scenes.id.isin(names)]
    assert not read.duplicated(["platform", "time"]).any()
    assert scenes.duplicated(["platform", "time"]).any()


def test_dates_are_spread_and_orbits_take_equal_parts(point: xr.Dataset) -> None:
    for axis in ("s1_time", "s2_time"):
        times = pd.DatetimeIndex(point[axis].to_numpy())
        assert times.is_monotonic_increasing
        assert times[0] < pd.Timestamp("2018-05-20")
        assert times[-1] > pd.Timestamp("2018-08-10")
    ways, counts = np.unique(point["orbit"].to_numpy(), return_counts=True)
    assert len(ways) > 1
    assert np.ptp(counts) <= 1


def test_clouds_are_left_out(src: Any, at: tuple[float, float], point: xr.Dataset) -> None:
    clear = read_point(src, at, START, END, max_cloud=30, max_dates=3, sensors=["S2"])
    cover = src.search(src.area, START, END).set_index("id").cloud_cover
    assert (cover[clear["s2_id"].to_numpy()] <= 30).all()
    assert (cover[point["s2_id"].to_numpy()] > 30).any()


def test_it_is_told_of_each_date_and_stops_when_asked(src: Any, at: tuple[float, float], point: xr.Dataset) -> None:
    heard: list[xr.Dataset] = []
    got = read_point(
        src, at, START, END, max_cloud=100, max_dates=6, on_read=heard.append, stop=lambda: len(heard) >= 3
    )
    sizes = [each.sizes.get("s1_time", 0) + each.sizes.get("s2_time", 0) for each in heard]
    assert sizes == [1, 2, 3]
    assert got.identical(heard[-1])
    # The first ones are far apart, and of both sensors.
    assert {"VV", "B04"} <= set(got.data_vars)
    assert "2018-06-01" < str(heard[0].s2_time.to_numpy()[0]) < "2018-08-01"


def test_one_that_is_stopped_before_its_first_date_does_not_say_there_is_no_data(
    src: Any, at: tuple[float, float]
) -> None:
    with pytest.raises(StoppedError):
        read_point(src, at, START, END, max_cloud=100, max_dates=6, stop=lambda: True)


def test_where_one_tile_ends_the_other_is_asked(src: Any) -> None:
    """At the edge of the tile that would be read first there is no data, and the pass is not lost for it."""
    scenes = src.search(src.area, START, END, sensors="S2")
    first, second = (scenes[scenes.tile == tile].iloc[0] for tile in sorted(scenes.tile.unique()))
    both = first.geometry.intersection(second.geometry).buffer(-0.0005).representative_point()
    there = (both.x, both.y)

    class Torn(Counting):
        def read_many(self, table: Any, grids: Any, **kwargs: Any) -> Any:
            for name, patch in zip(table.id, super().read_many(table, grids, **kwargs), strict=True):
                yield xr.zeros_like(patch) if self.lost in name else patch

    whole = Counting(src)
    kept = read_point(whole, there, START, END, max_dates=2, sensors="S2")
    torn = Torn(src)
    torn.lost = "T30" if "T30" in whole.read_scenes[0][0] else "T31"
    other = read_point(torn, there, START, END, max_dates=2, sensors="S2")
    assert len(torn.read_scenes) == 2 * len(whole.read_scenes)
    assert np.abs(kept.s2_time.to_numpy() - other.s2_time.to_numpy()).max() < np.timedelta64(10, "m")
    assert not set(kept.s2_id.to_numpy()) & set(other.s2_id.to_numpy())


def test_what_cannot_be_read_is_left_out_with_a_warning(
    src: Any, at: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Counting):
        def read_many(self, table: Any, grids: Any, **kwargs: Any) -> Any:
            from deepsentinel.sources import Failure

            for place, patch in enumerate(super().read_many(table, grids, **kwargs)):
                yield Failure(place, None, "S2A_x", ValueError("B04 is truncated")) if place == 0 else patch

    # Threads of libraries that read may put the warning filters back while Python's own recorder listens.
    heard: list[str] = []
    monkeypatch.setattr("deepsentinel.sources.points.warn", heard.append)
    got = read_point(Broken(src), at, START, END, max_dates=3, sensors="S1")
    assert got.sizes["s1_time"] == 2
    assert set(heard) == {"A scene was left out of the point: B04 is truncated"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"at": (0.0,)}, "no place"),
        ({"at": (0.0, 123.0)}, "no place on Earth"),
        ({"max_dates": 0}, "number of dates"),
        ({"radar_px": 2}, "1, 3, 5"),
    ],
)
def test_wrong_arguments_are_refused(src: Any, at: tuple[float, float], wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_point(src, **{"at": at, "start": START, "end": END, **wrong})


def test_outside_of_everything(src: Any, at: tuple[float, float], grid: Any) -> None:
    with pytest.raises(NothingFoundError):
        read_point(src, (50.0, 10.0), START, END)
    with pytest.raises(InputError, match="outside of the grid"):
        read_point(src, (at[0] + 1, at[1]), START, END, like=grid)
