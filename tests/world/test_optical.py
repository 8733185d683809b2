"""Sentinel-2 of the demo world: files as delivered, clouds with shadows, a classification that errs as the real one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scenes_kit import SMALL_PX, clearest, ground_of, landscape, pick, pure, rendered, to_10m

from deepsentinel.world import clouds
from deepsentinel.world.classes import Cover
from deepsentinel.world.ground import shifted
from deepsentinel.world.optical import RESOLUTION_M, render_s2
from deepsentinel.world.scenes import cloud_field_of, inside

CLEAR = clearest()
CLOUDY = next(s for s in pick("S2") if 30 < s.cloud_cover < 60 and s.sun_elevation_deg > 45)


def test_bands_come_at_their_own_pixel_size() -> None:
    images = rendered(CLEAR)
    assert set(images) == set(RESOLUTION_M)
    assert len(images) == 13
    for band, image in images.items():
        side = -(-SMALL_PX * 10 // RESOLUTION_M[band])
        assert image.shape == (side, side)
        assert image.dtype == (np.uint8 if band == "SCL" else np.uint16)


def test_one_or_many_threads_render_the_same_bytes() -> None:
    land, wanted = landscape(), [CLEAR, CLOUDY, *pick("S2", tile="31UCQ")[40:42]]
    alone = [render_s2(land, scene) for scene in wanted]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scene: render_s2(land, scene), wanted * 2))
    for first, second in zip(alone * 2, together, strict=True):
        assert all(first[band].tobytes() == second[band].tobytes() for band in first)


def test_another_date_and_another_seed_look_different() -> None:
    other = pick("S2")[pick("S2").index(CLEAR) + 1]
    assert (rendered(other)["B04"] != rendered(CLEAR)["B04"]).mean() > 0.9
    changed = landscape(1)
    assert (changed.cover != landscape().cover).mean() > 0.2


def test_the_offset_is_stored_by_baseline_and_valid_pixels_are_never_zero() -> None:
    new = next(s for s in pick("S2") if s.offset_dn and s.cloud_cover < 10)
    old = next(s for s in pick("S2") if not s.offset_dn and s.cloud_cover < 10)
    dark = {scene.baseline: np.percentile(rendered(scene)["B12"], 1) for scene in (new, old)}
    assert dark["05.00"] > 1000 > dark[old.baseline]
    for scene in (new, old):
        assert min(int(rendered(scene)[band].min()) for band in RESOLUTION_M if band != "SCL") >= 1


def test_beyond_the_swath_every_band_is_empty_and_nothing_else_is() -> None:
    scene = max(pick("S2", tile="31UCQ"), key=lambda s: s.nodata_share)
    images, g = rendered(scene), ground_of(scene)
    seen = inside(scene, g.x20, g.y20)
    assert abs((~seen).mean() - scene.nodata_share) < 0.01
    np.testing.assert_array_equal(images["SCL"] > 0, seen)
    for band in ("B02", "B08", "B11", "B01"):
        shape = images[band].shape
        if RESOLUTION_M[band] == 60:
            continue
        np.testing.assert_array_equal(images[band] > 0, to_10m(seen, shape) if shape != seen.shape else seen)
    assert 0 < (images["B01"] == 0).mean() < 0.8


def test_stated_cloud_cover_is_what_the_classification_shows() -> None:
    off = []
    for scene in pick("S2")[::12]:
        scl = rendered(scene)["SCL"]
        off.append(100 * np.isin(scl, (8, 9, 10)).mean() - scene.cloud_cover)
    assert np.abs(off).mean() < 5
    assert np.abs(off).max() < 20


def test_shadows_lie_away_from_the_sun_at_the_distance_the_height_gives() -> None:
    """Correlate the darkening of a cloudy scene with the cloud mask: the best shift is the one the sun demands."""
    g, field = ground_of(CLOUDY), cloud_field_of(CLOUDY)
    hidden, _ = clouds.opacity(field, g.x20, g.y20)
    near = rendered(CLOUDY)["B8A"].astype(float) - CLOUDY.offset_dn
    clear = rendered(CLEAR)["B8A"].astype(float) - CLEAR.offset_dn
    land = np.isin(g.cover[::2, ::2], (Cover.CROP, Cover.GRASSLAND, Cover.BROADLEAF, Cover.CONIFER)) & (hidden < 0.02)
    dark = np.log(np.maximum(near, 50) / np.maximum(clear, 50))
    dx, dy = clouds.shadow_shift_m(field, CLOUDY.sun_azimuth_deg, CLOUDY.sun_elevation_deg)
    assert dy < 0  # the sun is in the south: a shaded point finds its cloud to the south of it

    def score(fx: float, fy: float) -> float:
        cloud, _ = clouds.opacity(field, g.x20 + np.float32(fx), g.y20 + np.float32(fy))
        return float(np.corrcoef(cloud[land], dark[land])[0, 1])

    right = score(dx, dy)
    assert right < -0.5
    others = [score(dx * f, dy * f) for f in (-1.0, 0.0, 0.5, 1.6)] + [score(-dx, dy), score(dy, dx)]
    assert right < min(others) - 0.05


def test_the_classification_errs_as_much_as_the_real_one() -> None:
    hits = missed = false = clear = shaded = found = 0
    for scene in [s for s in pick("S2") if 15 < s.cloud_cover < 85][::4]:
        g, field = ground_of(scene), cloud_field_of(scene)
        hidden, _ = clouds.opacity(field, g.x20, g.y20)
        thin = clouds.veil(field, g.x20, g.y20)
        dx, dy = clouds.shadow_shift_m(field, scene.sun_azimuth_deg, scene.sun_elevation_deg)
        shadow, _ = clouds.opacity(field, g.x20 + np.float32(dx), g.y20 + np.float32(dy))
        scl = rendered(scene)["SCL"]
        flagged = np.isin(scl, (8, 9, 10))
        truth, sky = (hidden > 0.15) | (thin > 0.15), (hidden < 0.02) & (thin < 0.05)
        hits += (flagged & truth).sum()
        missed += (~flagged & truth).sum()
        false += (flagged & sky).sum()
        clear += sky.sum()
        dark = (shadow > 0.6) & (hidden < 0.05)
        shaded += dark.sum()
        found += (dark & (scl == 3)).sum()
    # Sen2Cor: user's and producer's accuracies of clouds between 75 and 95 %, of shadows far lower.
    assert 0.04 < missed / (hits + missed) < 0.25
    assert 0.0005 < false / clear < 0.05
    print(
        f"clouds missed {missed / (hits + missed):.3f}, false {false / clear:.4f}, shadows found {found / shaded:.2f}"
    )
    assert 0.35 < found / shaded < 0.85


def test_bright_roofs_and_beaches_pass_for_clouds_sometimes() -> None:
    scl, g = rendered(CLEAR)["SCL"], ground_of(CLEAR)
    kind = g.cover[::2, ::2]
    bright = np.isin(kind, (Cover.BEACH, Cover.INDUSTRY, Cover.QUARRY))
    sky, _ = clouds.opacity(cloud_field_of(CLEAR), g.x20, g.y20)
    wrong = np.isin(scl, (8, 9)) & (sky < 0.01)
    assert wrong[bright].mean() > 5 * wrong[np.isin(kind, (Cover.CROP, Cover.GRASSLAND))].mean()
    assert 0.005 < wrong[bright].mean() < 0.6


def test_thick_clouds_have_hills_and_valleys() -> None:
    """An overcast sky is neither flat nor at the end of the scale."""
    scene = next(s for s in pick("S2") if s.cloud_cover > 99 and s.sun_elevation_deg > 45)
    hidden, thick = clouds.opacity(cloud_field_of(scene), ground_of(scene).x20, ground_of(scene).y20)
    midst = hidden > 0.96
    tops = (rendered(scene)["B8A"].astype(float) - scene.offset_dn)[midst]
    print("cloud tops:", tops.mean().round(), "sd", tops.std().round(), "thickest", thick.max())
    assert midst.mean() > 0.5
    assert 0.06 < tops.std() / tops.mean() < 0.4
    assert (thick[midst] < 0.99).mean() > 0.9
    assert np.percentile(tops, 99) < 11_000


def test_the_midst_of_thick_clouds_is_classified_without_doubt() -> None:
    g, field = ground_of(CLOUDY), cloud_field_of(CLOUDY)
    hidden, _ = clouds.opacity(field, g.x20, g.y20)
    midst = np.ones_like(hidden, bool)
    for down in range(-2, 3):
        for right in range(-2, 3):
            midst &= shifted(hidden, down, right) > 0.96
    assert midst.sum() > 1000
    assert (rendered(CLOUDY)["SCL"][midst] == 9).mean() > 0.999


def test_roofs_of_a_block_are_alike_and_blocks_are_not() -> None:
    """Towns at 10 m show blocks: the texture is not a new draw for each house."""
    g = ground_of(CLEAR)
    houses = g.cover == Cover.BUILDING
    image = np.log(rendered(CLEAR)["B04"].astype(float) - CLEAR.offset_dn + 1)
    near, far = [], []
    for lag, found in ((3, near), (40, far)):
        both = houses[:, :-lag] & houses[:, lag:]
        assert both.sum() > 300
        found.append(np.corrcoef(image[:, :-lag][both], image[:, lag:][both])[0, 1])
    print("correlation of roofs 30 and 400 m apart:", near, far)
    assert near[0] > 0.45
    assert abs(far[0]) < 0.2


def test_slopes_towards_the_sun_are_brighter() -> None:
    winter = clearest(months=(11, 12, 1, 2))
    g = ground_of(winter)
    image = rendered(winter)["B08"].astype(float) - winter.offset_dn
    azimuth = np.radians(winter.sun_azimuth_deg)
    toward = -(g.slope_x * np.sin(azimuth) + g.slope_y * np.cos(azimuth))
    woods = np.isin(g.cover, (Cover.BROADLEAF, Cover.CONIFER, Cover.GRASSLAND, Cover.CROP)) & pure(g)
    lit, turned = woods & (toward > 0.04), woods & (toward < -0.04)
    assert lit.sum() > 200
    assert turned.sum() > 200
    ratios = []
    for kind in (Cover.BROADLEAF, Cover.CONIFER, Cover.GRASSLAND, Cover.CROP):
        a, b = image[lit & (g.cover == kind)], image[turned & (g.cover == kind)]
        if len(a) > 100 and len(b) > 100:
            ratios.append(np.median(a) / np.median(b))
    assert ratios
    assert np.mean(ratios) > 1.05


def test_radar_items_are_refused() -> None:
    with pytest.raises(ValueError, match="render_s1"):
        render_s2(landscape(), pick("S1")[0])
