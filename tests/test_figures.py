"""Figures: the stretches against plain arithmetic, the pages against what a reader must find on them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from types import SimpleNamespace

import factories
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import AxesImage
from matplotlib.text import Text

import deepsentinel as ds
from deepsentinel.errors import InputError, PatchError
from deepsentinel.figures import stretch


def drawn(fig):
    """The figure's canvas after drawing; what is on it has a place only then."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return canvas


def texts(fig) -> list[str]:
    return [text.get_text() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]


def panels(fig):
    """Axes that hold a picture of the ground: not colour bars, which are one pixel high."""
    found = []
    for axes in fig.axes:
        images = [child for child in axes.get_children() if isinstance(child, AxesImage)]
        if images and images[0].get_array().shape[0] > 1:
            found.append((axes, np.asarray(images[0].get_array())))
    return found


def outside_or_overlapping(fig) -> list[str]:
    """Texts that leave the page or run into each other."""
    renderer = drawn(fig).get_renderer()
    shown = [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]
    hidden = _ticks_out_of_view(fig, renderer)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if id(text) not in hidden]
    width, height = fig.canvas.get_width_height()
    bad = [f"{name!r} leaves the page" for name, b in boxes if b.x0 < 0 or b.y0 < 0 or b.x1 > width or b.y1 > height]
    for (name, a), (other, b) in itertools.combinations(boxes, 2):
        if a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1:
            bad.append(f"{name!r} runs into {other!r}")
    return bad


def _ticks_out_of_view(fig, renderer) -> set[int]:
    """matplotlib keeps tick labels beyond the limits, which are not drawn."""
    hidden = set()
    for axes in fig.axes:
        frame = axes.get_window_extent(renderer)
        for axis, low, high in ((axes.xaxis, frame.x0, frame.x1), (axes.yaxis, frame.y0, frame.y1)):
            for tick in axis.majorTicks:
                for label in (tick.label1, tick.label2):
                    box = label.get_window_extent(renderer)
                    middle = (box.x0 + box.x1) / 2 if axis is axes.xaxis else (box.y0 + box.y1) / 2
                    if not low - 1 <= middle <= high + 1:
                        hidden.add(id(label))
    return hidden


# -- stretches ---------------------------------------------------------------------------------------------------------


def test_brighter_ground_never_comes_out_darker_and_missing_is_black():
    patch = factories.make_patch(nodata=True)
    rgb = stretch.to_rgb(patch, "natural")
    for channel, band in enumerate(("B04", "B03", "B02")):
        order = np.argsort(patch[band].values[patch.B02.values > 0], kind="stable")
        grey = rgb[..., channel][patch.B02.values > 0].astype(int)[order]
        assert (np.diff(grey) >= 0).all()
        assert np.unique(grey).size > 50
    assert not rgb[patch.B02.values == 0].any()
    assert rgb[patch.B02.values > 0].any(axis=-1).mean() > 0.99


def test_water_of_one_is_measured_and_zero_is_not():
    patch = factories.make_patch((8, 8), sensors=("S2",))
    for band in ("B02", "B03", "B04"):
        patch[band][:] = 900
    patch["B04"][0, 0] = 1
    patch["B04"][0, 1] = 0
    assert stretch.has_data(patch, ["B04", "B03", "B02"])[0, :3].tolist() == [True, False, True]


def test_a_cloud_does_not_darken_the_ground():
    clear = factories.make_patch((64, 64), sensors=("S2",))
    cloudy = clear.copy(deep=True)
    for band in factories.L2A:
        cloudy[band][:32] = np.linspace(6000, 10_000, 32 * 64).reshape(32, 64)
    cloudy["SCL"][:32] = 9
    before, after = stretch.to_rgb(clear.isel(y=slice(32, 64))), stretch.to_rgb(cloudy)
    np.testing.assert_array_equal(after[32:], before)
    # Brighter than any ground, and with shapes of its own.
    assert after[:32].min() >= 237
    assert np.unique(after[:32]).size > 5


def test_a_dark_scene_stays_dark():
    lake = factories.make_patch((64, 64), sensors=("S2",))
    for band in factories.L2A:
        lake[band][:] = np.random.default_rng(0).integers(100, 160, (64, 64))
    # A percentile stretch alone would spread this noise from 0 to 255.
    assert stretch.to_rgb(lake).max() < 100


def test_visible_bands_share_one_white_so_grey_ground_has_no_cast():
    ramp = np.linspace(400, 2400, 64 * 64).reshape(64, 64).astype("uint16")
    patch = factories.make_patch((64, 64), sensors=("S2",))
    for band in ("B02", "B03", "B04"):
        patch[band][:] = ramp
    patch["B04"][40:60, 40:60] = 2900  # red roofs may not turn the rest green
    rgb = stretch.to_rgb(patch).astype(int)
    assert np.ptp(rgb[:40], axis=-1).max() == 0
    assert np.ptp(rgb[45, 45]) > 20
    sea = patch.copy(deep=True)
    for band, dn in (("B02", 400), ("B03", 300), ("B04", 150)):
        sea[band][:] = dn
    sea["B04"][:4] = sea["B03"][:4] = sea["B02"][:4] = 1500
    assert (np.diff(stretch.to_rgb(sea)[20, 20].astype(int)) > 10).all()  # a dark blue sea stays blue


def test_s1_composite_is_made_of_its_three_layers():
    patch = factories.make_patch(nodata=True)
    rgb = stretch.to_rgb(patch, "s1")
    limits = stretch.limits_of(patch, "s1")
    vv = patch.VV.values
    expected = np.clip((vv - limits[0][0]) / (limits[0][1] - limits[0][0]), 0, 1) * 255
    known = ~np.isnan(vv)
    assert np.abs(rgb[..., 0][known] - expected[known]).max() <= 1
    assert not rgb[~known].any()
    # Water loses more in VH than bare speckle can hide: blue stands out there, and not over the town.
    water, town = patch.SCL.values == 6, patch.SCL.values == 5
    assert np.argmax(rgb[water & known].mean(axis=0)) == 2
    assert np.argmin(rgb[town & known].mean(axis=0)) == 2


def test_decibels_are_averaged_as_power_and_reflectance_over_what_was_measured():
    patch = factories.make_patch((64, 96), nodata=True)
    small = ds.check_patch(stretch.coarsen(patch, 24))
    assert dict(small.sizes) == {"y": 16, "x": 24}
    rng = np.random.default_rng(1)
    for row, col in rng.integers(0, (16, 24), (40, 2)):
        cut = {"y": slice(4 * row, 4 * row + 4), "x": slice(4 * col, 4 * col + 4)}
        power = 10 ** (patch.VV.isel(cut).values.astype("float64") / 10)
        with np.errstate(all="ignore"):
            expected = 10 * np.log10(power[~np.isnan(power)].mean()) if (~np.isnan(power)).any() else np.nan
        assert small.VV.values[row, col] == pytest.approx(expected, abs=1e-4, nan_ok=True)
        dn = patch.B08.isel(cut).values
        expected_dn = int(dn[dn > 0].mean()) if (dn > 0).any() else 0
        assert small.B08.values[row, col] == expected_dn
        assert small.x.values[col] == pytest.approx(patch.x.isel(x=cut["x"]).values.mean())
        assert small.y.values[row] == pytest.approx(patch.y.isel(y=cut["y"]).values.mean())
    assert stretch.coarsen(patch, 96) is patch


@pytest.mark.parametrize("place", ["637U_59R_1_3", "282D_485L_3_3"])
def test_natural_colour_agrees_with_the_published_picture(real, place):
    import rasterio

    with rasterio.open(real / f"terramind/S2RGB/{place}.tif") as file:
        published = file.read().transpose(1, 2, 0)
    ours = stretch.to_rgb(factories.terramind(real, place))
    for channel in range(3):
        a, b = published[..., channel].ravel(), ours[..., channel].ravel()
        unsaturated = (a > 0) & (a < 255) & (b > 0) & (b < 255)
        assert unsaturated.mean() > 0.5
        ranks = [np.argsort(np.argsort(values[unsaturated])) for values in (a, b)]
        assert np.corrcoef(ranks)[0, 1] > 0.98


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: stretch.to_rgb(p, "natrual"), "'natural', 'false', 'swir', 's1'"),
        (lambda p: stretch.to_rgb(p.drop_vars("B04")), "no B04"),
        (lambda p: stretch.to_rgb(p.drop_vars("VH"), "s1"), "only VV"),
        (lambda p: stretch.polarisations(p.drop_vars(["VV", "VH"])), "no Sentinel-1 band"),
        (lambda p: stretch.stretch_s2(p, ["B04"]), "three bands"),
    ],
)
def test_impossible_pictures_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(factories.make_patch((16, 16)))


# -- the figure of a patch ---------------------------------------------------------------------------------------------


def test_a_patch_shows_four_panels_with_dates_gap_orbit_legend_and_credit():
    fig = ds.show(factories.make_patch(source="demo").assign_attrs(seed=3))
    assert len(panels(fig)) == 4
    said = " | ".join(texts(fig))
    for wanted in (
        "Sentinel-2 on 4 July 2018, Sentinel-1 7.0 hours later",
        "Sentinel-2 natural colour",
        "Sentinel-2 false colour",
        "Sentinel-1 VV",
        "Sentinel-1 composite",
        "2018-07-04 10:57 UTC",
        "2018-07-04 17:56 UTC",
        "ascending",
        "B08 near infrared",
        "VV/VH",
        "dB",
        "EPSG:32631",
        "0.96 × 0.96 km",
        "Imaginary demo world (seed 3), not a real place",
        "S2B_MSIL2A_20180704T105700_R094_T31UCQ",
    ):
        assert wanted in said
    assert "no data" not in said
    assert "N" in texts(fig)


def test_real_data_is_credited_and_a_missing_source_is_not_invented():
    patch = factories.make_patch(source="planetary-computer")
    assert any("Contains modified Copernicus Sentinel data 2018" in text for text in texts(ds.show(patch)))
    del patch.attrs["source"]
    assert any("Source not recorded" in text for text in texts(ds.show(patch)))


def test_an_earlier_radar_is_called_earlier():
    patch = factories.make_patch()
    patch["s1_time"] = patch.s2_time.values - np.timedelta64(52, "h")
    patch.attrs["gap_hours"] = -52.0
    assert any("Sentinel-1 52.0 hours earlier" in text for text in texts(ds.show(patch)))


def test_pictures_are_those_of_to_rgb_and_missing_pixels_let_the_hatching_through():
    patch = factories.make_patch(nodata=True)
    fig = ds.show(patch)
    pictures = [image for _, image in panels(fig)]
    for image, view in zip(pictures[:2] + pictures[3:], ("natural", "false", "s1"), strict=True):
        np.testing.assert_array_equal(image[..., :3], stretch.to_rgb(patch, view))
        np.testing.assert_array_equal(image[..., 3] > 0, stretch.has_data(patch, stretch.VIEWS[view].bands))
    assert all(axes.patch.get_hatch() for axes, _ in panels(fig))
    assert "no data" in texts(fig)
    # And on the page: the corner without S2 data is the hatching's pale ground, not black.
    canvas = drawn(fig)
    page = np.asarray(canvas.buffer_rgba())
    box = panels(fig)[0][0].get_window_extent()
    corner = page[
        page.shape[0] - int(box.y1) + 3 : page.shape[0] - int(box.y1) + 20, int(box.x0) + 3 : int(box.x0) + 20
    ]
    assert corner[..., :3].mean() > 180


def test_the_colour_bar_carries_the_limits_of_the_grey():
    patch = factories.make_patch()
    low, high = stretch.limits_of(patch, "VV")[0]
    bars = [axes for axes in ds.show(patch).axes if axes.images and axes.images[0].get_array().shape[0] == 1]
    assert [axes.get_xlim() for axes in bars] == [pytest.approx((low, high))]


@pytest.mark.parametrize(
    ("shape", "resolution_m"), [((96, 96), 10.0), ((40, 300), 10.0), ((300, 90), 10.0), ((64, 64), 60.0)]
)
def test_the_scale_bar_is_as_long_as_it_says(shape, resolution_m):
    fig = ds.show(factories.make_patch(shape, resolution_m=resolution_m))
    drawn(fig)
    axes, _ = panels(fig)[0]
    label = next(text.get_text() for text in axes.texts if text.get_text().endswith("m"))
    number, unit = label.split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    # The outline of the bar is the one without a filling.
    bar = next(patch for patch in axes.patches if patch.get_facecolor()[3] == 0)
    assert bar.get_width() * shape[1] * resolution_m == pytest.approx(metres)
    assert float(str(metres)[0]) in (1, 2, 5)


def every_class():
    """A patch in which the scene classification holds all its codes."""
    patch = factories.make_patch((90, 90))
    patch["SCL"] = patch["SCL"].copy(data=(np.arange(90 * 90, dtype="uint8") % 12).reshape(90, 90))
    return patch


@pytest.mark.parametrize(
    "make",
    [
        lambda: ds.show(factories.make_patch(nodata=True)),
        lambda: ds.show(factories.make_patch((60, 200))),
        lambda: ds.show(factories.make_patch((200, 60))),
        lambda: ds.show(factories.make_patch((90, 70)), panels=["swir", "SCL", "B08", "VH", "s1", "natural"]),
        lambda: ds.show(factories.make_patch(angle=True), panels=["angle", "SCL"]),
        lambda: ds.show(factories.make_patch(sensors=("S1",))),
        lambda: ds.show(factories.make_series(9, 4)),
        lambda: ds.show(factories.make_series(3, 12, (40, 90)), max_dates=12),
        lambda: ds.show(factories.make_scenes()),
        lambda: ds.show(factories.make_pairs(factories.make_scenes())),
        lambda: ds.show(factories.grid((200, 500))),
        lambda: ds.show(match_rate()),
        lambda: ds.show(every_class(), panels=["natural", "SCL", "swir", "B8A"]),
        lambda: ds.show((2.0, 40.0, 2.05, 48.0)),
        lambda: ds.show((2.0, 48.0, 8.0, 48.05)),
        lambda: ds.show((179.5, -17, -179.5, -16)),
        lambda: ds.show({"type": "Polygon", "coordinates": [[[0, 85], [90, 85], [180, 85], [-90, 85], [0, 85]]]}),
    ],
)
def test_no_text_leaves_the_page_or_runs_into_another(make):
    assert outside_or_overlapping(make()) == []


def test_panels_can_be_chosen_by_name():
    patch = factories.make_patch(angle=True)
    assert len(panels(ds.show(patch, panels="natural"))) == 1
    fig = ds.show(patch, panels=["SCL", "angle", "B11"])
    said = texts(fig)
    assert {"Sentinel-2 scene classification", "Sentinel-1 incidence angle", "Sentinel-2 B11"} <= set(said)
    assert {"vegetation", "water", "not vegetated", "degrees", "reflectance"} <= set(said)
    assert "snow or ice" not in said
    scl = panels(fig)[0][1]
    for code in (4, 5, 6):
        assert (scl[patch.SCL.values == code][:, :3] == stretch.SCL_COLOURS[code]).all()


def test_one_sensor_one_polarisation_and_odd_band_sets_have_their_panels():
    assert len(panels(ds.show(factories.make_patch(sensors=("S2",))))) == 2
    assert len(panels(ds.show(factories.make_patch(sensors=("S1",))))) == 2
    lone = factories.make_patch(sensors=("S1",)).drop_vars("VH")
    assert [text for text in texts(ds.show(lone)) if text.startswith("Sentinel-1 ")][-1] == "Sentinel-1 VV"
    few = factories.make_patch(sensors=("S2",))[["B05", "B11"]]
    assert {"Sentinel-2 B05", "Sentinel-2 B11"} <= set(texts(ds.show(few)))


def test_a_patch_without_provenance_is_shown_all_the_same():
    patch = factories.make_patch()
    bare = patch.drop_vars(["s1_time", "s2_time"])
    bare.attrs = {"level": "L2A", "backscatter": "sigma0"}
    said = texts(ds.show(bare))
    assert "Sentinel-1 and Sentinel-2" in said
    assert any("date not recorded" in text for text in said)


def test_a_patch_of_nothing_but_missing_pixels_is_a_hatched_page():
    patch = factories.make_patch((32, 32))
    for name in patch.data_vars:
        patch[name][:] = np.nan if name in ("VV", "VH") else 0
    fig = ds.show(patch)
    assert all(not image[..., 3].any() for _, image in panels(fig))


def test_large_patches_are_thinned_for_the_screen_and_keep_their_size_on_the_ground():
    fig = ds.show(factories.make_patch((1300, 1300), scl=False), panels=["natural"])
    assert max(panels(fig)[0][1].shape) <= 1000
    assert any("1300 × 1300 px of 10 m, 13 × 13 km" in text for text in texts(fig))


def test_degrees_are_turned_into_metres():
    from deepsentinel.figures.slides import metres_per_px

    patch = factories.make_patch((10, 10), epsg=4326)
    patch = patch.assign_coords(y=60 - 0.001 * np.arange(10), x=10 + 0.001 * np.arange(10))
    tall, wide = metres_per_px(patch)
    assert tall == pytest.approx(111.3, abs=0.4)
    assert wide == pytest.approx(tall / 2, rel=0.01)


# -- series, tables, areas ---------------------------------------------------------------------------------------------


def test_a_series_is_a_strip_for_each_sensor_with_dates_and_clouds():
    fig = ds.show(factories.make_series(6, 8))
    assert len(panels(fig)) == 14
    said = texts(fig)
    assert said.count("50 % cloud") == 3
    assert said.count("0 % cloud") == 3
    assert {"2018-05-01", "2018-06-20", "2018-06-12"} <= set(said)
    assert "6 Sentinel-2 and 8 Sentinel-1 dates, 1 May 2018 to 20 June 2018" in said


def test_max_dates_thins_a_strip_evenly_and_keeps_both_ends():
    said = texts(ds.show(factories.make_series(9, 2), max_dates=3, panels=["natural"]))
    assert [text for text in said if text.startswith("2018-") and len(text) == 10] == [
        "2018-05-01",
        "2018-06-10",
        "2018-07-20",
    ]
    assert any("3 of 9 dates" in text for text in said)


def test_all_dates_of_a_strip_share_one_stretch():
    series = factories.make_series(2, 1)
    brighter = series.isel(s2_time=0) * 0 + series.isel(s2_time=0)
    for band in ("B02", "B03", "B04"):
        series[band][1] = (brighter[band] * 1.5).astype("uint16")
    first, second = (image[..., :3].mean() for _, image in panels(ds.show(series, panels="natural")))
    assert second > 1.15 * first


def test_one_overcast_date_does_not_set_the_stretch_of_the_others():
    series = factories.make_series(3, 1).drop_vars("SCL")
    for band in ("B02", "B03", "B04"):
        series[band][:] = series[band].values[0]
    clear = panels(ds.show(series, panels="natural"))[0][1]
    for band in ("B02", "B03", "B04"):
        series[band][2] = np.full((48, 48), 9000, "uint16")
    np.testing.assert_array_equal(panels(ds.show(series, panels="natural"))[0][1], clear)


def test_the_stretch_of_a_strip_is_that_of_its_clear_dates():
    series = factories.make_series(5, 1)
    bands = ("B02", "B03", "B04")
    for band in bands:
        series[band][:] = series[band].values[0]
    series["SCL"][:] = 4
    clear = panels(ds.show(series, panels="natural"))[0][1]
    # Most dates lie under cloud, a few pixels of which SCL takes for ground.
    for date in (1, 2, 4):
        for band in bands:
            series[band][date] = np.full((48, 48), 6000, "uint16")
        series["SCL"][date] = 9
        series["SCL"][date, :9] = 4
    np.testing.assert_array_equal(panels(ds.show(series, panels="natural"))[0][1], clear)


def test_the_scenes_figure_counts_what_is_in_the_table():
    scenes = factories.make_scenes()
    clear = int((scenes.cloud_cover <= 20).sum())
    said = texts(ds.show(scenes))
    assert any("24 Sentinel-2 and 40 Sentinel-1 scenes, 1 May 2018 to" in text for text in said)
    assert f"Sentinel-2, at most 20 % cloud: {clear}" in said
    assert "Sentinel-1 ascending: 20" in said
    assert "S1 and S2 from 2018-05-01 to 2018-08-31" in said
    one_sensor = scenes[scenes.sensor == "S1"]
    assert any("0 Sentinel-2 and 40 Sentinel-1" in text for text in texts(ds.show(one_sensor)))


def test_the_pairs_figure_links_every_pair_and_its_bars_hold_them_all():
    pairs = factories.make_pairs(factories.make_scenes())
    fig = ds.show(pairs)
    links, bars = fig.axes[0], fig.axes[1]
    assert len(links.collections[0].get_segments()) == len(pairs)
    heights = [bar.get_height() for bar in bars.patches]
    assert sum(heights) == len(pairs)
    negative = sum(bar.get_height() for bar in bars.patches if bar.get_x() < 0)
    assert negative == (pairs.gap_hours < 0).sum()


def match_rate():
    """Two years of dates, of which every third has a partner."""
    import pandas as pd

    months = [f"{year}-{month:02d}" for year in (2018, 2019) for month in range(1, 13)]
    by_month = pd.DataFrame({"dates": 6, "matched": 2, "share": 1 / 3}, index=pd.Index(months, name="month"))
    by_days = pd.DataFrame({"matched": [12, 24, 48], "share": [1 / 12, 1 / 6, 1 / 3]}, index=[0.5, 1.0, 3.0])
    return SimpleNamespace(dates=144, matched=48, max_days=3.0, share=1 / 3, by_month=by_month, by_days=by_days)


def test_the_match_rate_is_drawn_month_by_month_and_gap_by_gap():
    fig = ds.show(match_rate())
    assert "48 of 144 Sentinel-2 dates have a Sentinel-1 partner within 3 days" in texts(fig)
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert (sum(heights[:24]), sum(heights[24:])) == (144, 48)
    assert fig.axes[1].lines[0].get_ydata().tolist() == pytest.approx([100 / 12, 100 / 6, 100 / 3])


def test_areas_and_grids_say_their_size():
    from shapely.geometry import box

    assert any("256 × 128 px of 10 m" in t or "px of 10 m" in t for t in texts(ds.show(factories.grid((128, 256)))))
    assert "2.56 × 1.28 km · EPSG:32631" in texts(ds.show(factories.grid((128, 256))))
    # One degree of latitude is 111.2 km; of longitude at 60 degrees north half as much.
    said = " ".join(texts(ds.show(box(10, 59.5, 11, 60.5))))
    assert "111 km from south to north" in said
    assert "55.8 km from west to east" in said
    from deepsentinel.aoi import area

    for same in (area((10, 59.5, 11, 60.5)), (10, 59.5, 11, 60.5), box(10, 59.5, 11, 60.5).__geo_interface__):
        assert "55.8 km from west to east" in " ".join(texts(ds.show(same)))


def test_an_area_over_the_antimeridian_is_drawn_as_large_as_it_is():
    fig = ds.show((179.5, -17, -179.5, -16))
    assert any("107 km from west to east, 111 km from south to north" in text for text in texts(fig))
    west, east = fig.axes[0].get_xlim()
    assert 1 < east - west < 3
    drawn(fig)
    shown = {label.get_text() for label in fig.axes[0].get_xticklabels()}
    assert "-179.5" in shown
    assert "180.5" not in shown


def test_a_scene_whose_cloud_cover_nobody_knows_is_not_drawn_as_clear_or_cloudy():
    scenes = factories.make_scenes()
    scenes.loc[scenes.index[scenes.sensor == "S2"][:5], "cloud_cover"] = np.nan
    said = texts(ds.show(scenes))
    assert "Sentinel-2, cloud not known: 5" in said
    cloudier = int((scenes.cloud_cover > 20).sum())
    assert f"Sentinel-2, cloudier: {cloudier}" in said
    pairs = factories.make_pairs(factories.make_scenes())
    assert "Sentinel-2, cloud not known" not in texts(ds.show(pairs))
    assert "Sentinel-2, cloud not known" in texts(ds.show(pairs.assign(cloud_cover=np.nan)))


def test_one_date_is_a_date():
    said = texts(ds.show(factories.make_series(1, 1)))
    assert any("1 Sentinel-2 and 1 Sentinel-1 date, " in text for text in said)
    assert any(text.endswith(", 1 date") for text in said)


# -- manners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: ds.show(42), InputError, "int.*a patch .four panels.*pairs table.*GeoBox"),
        (lambda p: ds.show(p["B02"]), InputError, "DataArray"),
        (lambda p: ds.show(p, panel=["VV"]), TypeError, "panel"),
        (lambda p: ds.show(p, panels=["B99"]), InputError, "'B99'.*'natural'.*'VV'"),
        (lambda p: ds.show(p, panels=[]), InputError, "empty"),
        (lambda p: ds.show(p.drop_vars("spatial_ref")), PatchError, "spatial_ref"),
        (lambda p: ds.show(factories.make_scenes(), panels=["VV"]), InputError, "panels="),
        (lambda p: ds.show(factories.make_scenes().iloc[:0]), InputError, "no rows"),
        (lambda p: ds.show(factories.make_series(), max_dates=0), InputError, "max_dates"),
        (lambda p: ds.show(factories.make_series(), max_dates="3"), InputError, "max_dates is '3'"),
        (lambda p: ds.show((2, 48)), InputError, r"square\(lon=2, lat=48"),
        (lambda p: ds.show(factories.make_series(2, 0), panels=["VV"]), InputError, "s1_time"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_advice(call, error, message):
    with pytest.raises(error, match=message):
        call(factories.make_patch((16, 16)))


def test_the_users_style_neither_reaches_the_page_nor_is_changed():
    import matplotlib

    patch = factories.make_patch((32, 32))
    with matplotlib.rc_context({"text.color": "#ff00ff", "figure.facecolor": "#000000", "font.size": 40}):
        before = dict(matplotlib.rcParams)
        fig = ds.show(patch)
        assert dict(matplotlib.rcParams) == before
    assert all(text.get_color() != "#ff00ff" for text in fig.findobj(Text))
    assert fig.get_facecolor() == (1, 1, 1, 1)


def test_the_same_patch_gives_the_same_page():
    patch = factories.make_patch((48, 48))
    pages = [np.asarray(drawn(ds.show(patch)).buffer_rgba()).copy() for _ in range(2)]
    np.testing.assert_array_equal(*pages)


def test_show_leaves_the_patch_alone():
    patch = factories.make_patch((48, 48), nodata=True)
    before = patch.copy(deep=True)
    ds.show(patch)
    assert patch.identical(before)


@pytest.mark.parametrize(("size_px", "kind"), [(32, "image/png"), (300, "image/jpeg")])
def test_a_notebook_shows_the_figure_once_without_pyplot_and_small(size_px, kind):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import deepsentinel.figures\n"
        "assert 'matplotlib' not in sys.modules and 'scipy' not in sys.modules\n"
        "import factories, deepsentinel as ds\n"
        f"fig = ds.show(factories.make_patch(({size_px}, {size_px})))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from IPython.utils.capture import capture_output\n"
        "formatter = InteractiveShell.instance().display_formatter\n"
        "with capture_output() as got:\n"
        "    data, _ = formatter.format(fig)\n"
        "pictures = [(k, len(v)) for o in got.outputs for k, v in o.data.items() if 'image' in k]\n"
        f"assert not data and [kind for kind, _ in pictures] == [{kind!r}], pictures\n"
        "assert pictures[0][1] < 600_000, pictures\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_sensor_that_was_taken_out_is_not_told_of():
    patch = factories.make_patch()
    whole, radar = ds.show(patch), ds.show(patch[["VV"]].assign_attrs(patch.attrs), panels=["VV"])
    told = [" ".join(text.get_text() for text in figure.texts) for figure in (whole, radar)]
    assert patch.attrs["s2_id"] in told[0]
    assert patch.attrs["s2_id"] not in told[1]
    assert patch.attrs["s1_id"] in told[1]
    assert "Sentinel-2" not in told[1]
