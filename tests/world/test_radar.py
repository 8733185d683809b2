"""Sentinel-1 of the demo world: speckle of the number of looks asked for, geometry, wind, rain, towns and ships."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from scenes_kit import ground_of, landscape, pick, pure, rendered

from deepsentinel.world.backscatter import unit_backscatter
from deepsentinel.world.classes import Cover
from deepsentinel.world.radar import NODATA, incidence_deg, mean_power, render_s1, speckle
from deepsentinel.world.ships import ships_at
from deepsentinel.world.weather import stream

FULL = [s for s in pick("S1") if s.nodata_share == 0]


def db(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(power)


@pytest.mark.parametrize("looks", [1.0, 4.4, 10.7])
def test_equivalent_number_of_looks_is_the_one_asked_for(looks: float) -> None:
    """Measured as on real scenes: mean squared over variance, in ground whose own differences are divided out."""
    scene = FULL[3]
    images, truth = render_s1(landscape(), scene, looks=looks), mean_power(landscape(), scene)
    for name, power in zip(("vv", "vh"), truth, strict=True):
        ratio = images[name] / power
        measured = ratio.mean() ** 2 / ratio.var()
        assert abs(measured / looks - 1) < 0.1
        assert abs(ratio.mean() - 1) < 0.02


def test_looks_in_fields_as_an_analyst_would_measure_them() -> None:
    g, scene = ground_of(FULL[3]), FULL[3]
    power = rendered(scene)["vv"].astype(float)
    looks = []
    inner = pure(g)
    for unit in np.unique(g.unit[(g.cover == Cover.CROP) & inner]):
        at = (g.unit == unit) & inner
        if at.sum() > 300:
            looks.append(power[at].mean() ** 2 / power[at].var())
    assert len(looks) > 3
    assert 0.9 * 4.4 < np.median(looks) < 1.1 * 4.4


def test_speckle_is_alike_in_neighbours_as_in_real_scenes_and_independent_between_polarisations() -> None:
    values = speckle(stream("test"), (400, 400))
    one = np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]
    three = np.corrcoef(values[:, :-3].ravel(), values[:, 3:].ravel())[0, 1]
    assert 0.6 < one < 0.78
    assert abs(three) < 0.05
    images, truth = rendered(FULL[3]), mean_power(landscape(), FULL[3])
    a, b = images["vv"] / truth[0], images["vh"] / truth[1]
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_speckle_correlation_matches_the_real_patches(real) -> None:  # type: ignore[no-untyped-def]
    import rasterio

    def detrended(image: np.ndarray) -> float:
        n = min(image.shape) // 8 * 8
        blocks = image[:n, :n].reshape(n // 8, 8, n // 8, 8)
        rest = (blocks - blocks.mean(axis=(1, 3), keepdims=True)).reshape(n, n)
        return float(np.corrcoef(rest[:, :-1].ravel(), rest[:, 1:].ravel())[0, 1])

    found = []
    for path in sorted((real / "terramind" / "S1RTC").glob("*.tif")):
        with rasterio.open(path) as file:
            found.append(detrended(file.read(1)))
    ours = detrended(db(rendered(FULL[3])["vv"]))
    print(f"speckle correlation of neighbours: ours {ours:.2f}, real {np.round(found, 2)}")
    assert abs(ours - np.mean(found)) < 0.15


def test_one_or_many_threads_render_the_same_bytes() -> None:
    land = landscape()
    alone = [render_s1(land, scene) for scene in FULL[:3]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scene: render_s1(land, scene), FULL[:3] * 2))
    for first, second in zip(alone * 2, together, strict=True):
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_incidence_grows_away_from_the_satellite() -> None:
    for scene in (next(s for s in FULL if s.orbit == o) for o in ("ascending", "descending")):
        angle = rendered(scene)["angle"]
        assert angle.dtype == np.float32
        assert 29 < angle.min() < angle.max() < 46
        eastward = float((angle[:, -1] - angle[:, 0]).mean())
        # 17 degrees over a swath of 250 km.
        assert abs(abs(eastward) - 17 / 250 * scene.size_px / 100) < 0.03
        assert (eastward > 0) == (scene.orbit == "ascending")
    assert incidence_deg(FULL[0], np.zeros(1)).dtype == np.float32


def test_outside_the_slice_is_nodata_in_every_file() -> None:
    scene = next(s for s in pick("S1") if 0.1 < s.nodata_share < 0.9)
    images = rendered(scene)
    for image in images.values():
        assert abs((image == NODATA).mean() - scene.nodata_share) < 0.03
        assert image[image != NODATA].min() > 0


def _median_db(scene, cover: Cover, band: str = "vv") -> float:  # type: ignore[no-untyped-def]
    g = ground_of(scene)
    at = g.cover == cover
    at = at & pure(g) if (at & pure(g)).sum() > 50 else at
    return float(np.median(db(rendered(scene)[band][at])))


def _unit_db(scene, cover: Cover) -> float:  # type: ignore[no-untyped-def]
    units = ground_of(scene).units
    table, _ = unit_backscatter(units, scene.time.year, scene.time.timetuple().tm_yday, scene.weather)
    return float(np.median(table[0, units.cover == cover]))


def test_wind_roughens_the_sea_more_than_the_river_and_calm_water_is_dark() -> None:
    calm, windy = min(FULL, key=lambda s: s.weather.wind_ms), max(FULL, key=lambda s: s.weather.wind_ms)
    assert _median_db(calm, Cover.SEA) < -18
    for cover in (Cover.SEA, Cover.LAKE, Cover.RIVER):
        assert _unit_db(calm, cover) < -18
    assert _median_db(windy, Cover.SEA) > _median_db(calm, Cover.SEA) + 5
    assert _unit_db(windy, Cover.SEA) > max(_unit_db(windy, Cover.LAKE), _unit_db(windy, Cover.RIVER)) + 1.5
    assert _median_db(calm, Cover.SEA, "vh") > -30  # the instrument's noise: nothing is darker


def test_rain_brightens_bare_fields() -> None:
    scene = FULL[20]
    units = ground_of(scene).units
    dry = replace(scene.weather, soil_moisture=0.1, snow=0.0)
    wet = replace(scene.weather, soil_moisture=0.9, snow=0.0)
    (a, _), (b, _) = unit_backscatter(units, 2018, 300, dry), unit_backscatter(units, 2018, 300, wet)
    rise = np.median((b - a)[0, 1 : units.parcels + 1])
    assert 1.5 < rise < 3.5
    woods = units.cover == Cover.BROADLEAF
    assert np.median((b - a)[0, woods]) < 0.6


def test_towns_are_bright() -> None:
    houses, fields = _median_db(FULL[30], Cover.BUILDING), _median_db(FULL[30], Cover.CROP)
    assert houses > fields + 3


def test_ships_are_bright_elsewhere_each_time_and_the_same_for_both_tiles() -> None:
    land = landscape()
    places = [ships_at(land, s.time.isoformat()) for s in FULL[:30]]
    assert np.mean([len(p.x) for p in places]) > 0
    first, second = [p for p in places if len(p.x)][:2]
    assert not set(first.x) & set(second.x)
    contrast = []
    for scene in FULL[:12]:
        sea, (vv, _) = ground_of(scene).cover == Cover.SEA, mean_power(land, scene)
        contrast.append(float(db(vv[sea]).max() - db(np.median(vv[sea]))))
    # Some dates have a ship on this tile, others none.
    assert max(contrast) > 14
    assert min(contrast) < 12


def test_optical_items_are_refused() -> None:
    with pytest.raises(ValueError, match="render_s2"):
        render_s1(landscape(), pick("S2")[0])
