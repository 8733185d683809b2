"""Where the two tiles overlap they show one ground, whichever grid it is drawn on."""

from __future__ import annotations

import numpy as np
import pytest
from scenes_kit import SMALL_PX, ground_of, landscape, pick, pure, rendered

from deepsentinel.world.classes import Cover
from deepsentinel.world.grid import transformer
from deepsentinel.world.ground import apply
from deepsentinel.world.radar import mean_power
from deepsentinel.world.scenes import Scene

WILD = (Cover.BROADLEAF, Cover.CONIFER, Cover.GRASSLAND, Cover.HEATH, Cover.MARSH)
TOWN = (Cover.BUILDING, Cover.GARDEN, Cover.ASPHALT)


def both(sensor: str) -> tuple[Scene, Scene]:
    """The two granules of a clear summer date, or of a whole radar pass."""
    west, east = pick(sensor), pick(sensor, tile="31UCQ")
    if sensor == "S1":
        k = next(k for k in range(20, 60) if west[k].nodata_share == 0)
    else:
        summer = [k for k in range(len(west)) if west[k].time.month in (6, 7, 8)]
        k = min(summer, key=lambda k: west[k].cloud_cover + east[k].cloud_cover)
    assert west[k].time == east[k].time
    return west[k], east[k]


def western(image: np.ndarray, west: Scene, east: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The western image's nearest pixel for each pixel of the eastern grid, and where there is one."""
    at = np.arange(SMALL_PX) + 0.5
    x, y = apply(east.geobox.affine, *np.meshgrid(at, at))
    there = transformer(str(east.geobox.crs), str(west.geobox.crs)).transform(x, y)
    col, row = (np.floor(v).astype(int) for v in apply(~west.geobox.affine, *there))
    ok = (col >= 0) & (row >= 0) & (col < SMALL_PX) & (row < SMALL_PX)
    out = np.zeros(x.shape, image.dtype)
    out[ok] = image[row[ok], col[ok]]
    return out, ok


@pytest.mark.parametrize("band", ["B03", "B08"])
def test_reflectances_of_one_date_agree_but_for_noise_and_half_a_pixel(band: str) -> None:
    west, east = both("S2")
    theirs, seen = western(rendered(west)[band].astype(float), west, east)
    cover, _ = western(ground_of(west).cover, west, east)
    ours = rendered(east)[band].astype(float)
    seen &= (ours > 0) & pure(ground_of(east)) & (cover == ground_of(east).cover) & np.isin(cover, WILD)
    ours, theirs = ours - east.offset_dn, theirs - west.offset_dn
    off = np.abs(theirs - ours)[seen] / ours[seen]
    print(f"{band}: {seen.sum()} px, median {np.median(off):.3f}, nine in ten within {np.percentile(off, 90):.3f}")
    assert seen.sum() > 5000
    assert np.median(off) < 0.035
    assert np.percentile(off, 90) < 0.11


def test_reflectors_of_one_pass_stand_in_the_same_places() -> None:
    west, east = both("S1")
    power = [10 * np.log10(mean_power(landscape(), scene)[0]) for scene in (west, east)]
    theirs, seen = western(power[0], west, east)
    cover = ground_of(east).cover
    for kinds, median_db in ((WILD, 0.25), (TOWN, 0.6)):
        at = seen & np.isin(cover, kinds)
        off = np.abs(theirs - power[1])[at]
        print(f"{kinds[0].name}: {at.sum()} px, median {np.median(off):.2f} dB")
        assert at.sum() > 500
        assert np.median(off) < median_db
