"""Figures of points and windows: where they are drawn, on which map, and what is said beside them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from deepsentinel.errors import InputError
from deepsentinel.figures.earth import EARTH_M, cap, forth
from deepsentinel.figures.places import DRAWN, is_places, places_figure
from deepsentinel.land import cover, sample_land
from deepsentinel.legend import corine

NE = "Land: Natural Earth, 1:110 million · deepsentinel"


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.texts]


def offsets(fig: Figure) -> np.ndarray:
    """The places of the dots on the map, in its projection."""
    return dots(fig).get_offsets()


def dots(fig: Figure) -> PathCollection:
    return [one for one in fig.axes[0].collections if isinstance(one, PathCollection) and len(one.get_sizes())][-1]


def drawn(fig: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def at(*places: tuple[float, float]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(*zip(*places, strict=True)), crs="EPSG:4326")


def test_points_all_over_the_world_are_on_a_map_of_the_world():
    from pyproj import CRS

    points = sample_land(500, seed=3)
    fig = places_figure(points, title=None)
    lon, lat = points.geometry.x.to_numpy(), points.geometry.y.to_numpy()
    x, y = forth(CRS("+proj=eqearth +R=6371000 +type=crs"), lon, lat)
    assert np.asarray(offsets(fig)) == pytest.approx(np.stack([x, y], axis=1), abs=1)
    assert texts(fig)[0] == "500 points: all land but Antarctica"
    assert "seed 3" in texts(fig)
    assert NE in texts(fig)
    box = fig.axes[0].get_position()
    assert box.width * 13.33 / (box.height * fig.get_figheight()) == pytest.approx(2.05, abs=0.02)


def test_points_of_one_place_are_on_a_map_of_that_place_with_a_globe_beside_it():
    points = sample_land(50, (176, -20, -177, -14))
    fig = places_figure(points, title=None)
    where = np.asarray(offsets(fig))
    # Nobody is half the world away, though the longitudes are.
    assert np.ptp(where[:, 0]) < 900_000
    assert "176" in texts(fig)[2]
    assert texts(fig)[2].endswith("S")
    assert len(fig.axes) == 2
    assert NE in texts(fig)
    west, east = fig.axes[0].get_xlim()
    assert west < where[:, 0].min()
    assert where[:, 0].max() < east


def test_land_is_where_it_is_on_the_map_and_on_the_globe():
    fig = places_figure(at((2.3, 48.8), (-3.7, 40.4), (18.0, 52.0)), title=None)
    pixels = drawn(fig)
    height = pixels.shape[0]

    def colour(axes, x: float, y: float) -> tuple[int, ...]:
        column, row = axes.transData.transform((x, y))
        return tuple(pixels[height - round(row), round(column)])

    globe = fig.axes[1]
    # Europe is in the middle, and the Atlantic to the west of it.
    land, sea = colour(globe, 0.0, -0.05 * EARTH_M), colour(globe, -0.5 * EARTH_M, 0.0)
    assert land != sea
    assert land[0] > land[2]
    assert sea[2] > sea[0]


def test_classes_are_in_their_colours_with_their_shares():
    points = sample_land(400, seed=1)
    points["class"] = np.repeat([111, 311], [300, 100])
    points.attrs["legend"] = corine().to_json()
    for table in (points, points.cx[0:20, 45:55]):
        fig = places_figure(table, title=None)
        shares = table["class"].value_counts(normalize=True)
        assert f"{100 * shares.iloc[0]:.1f} %" in texts(fig)
        assert corine().names[311] in texts(fig)
        assert "in 2 classes" in texts(fig)[0]
        colours = dots(fig).get_facecolors()
        rgb = np.array([corine().color_table()[code][:3] for code in table["class"]]) / 255
        assert colours[:, :3] == pytest.approx(rgb)
    named = points.assign(**{"class": np.repeat(["oats", "rye"], 200)})
    named.attrs = {}
    assert {"oats", "rye"} <= set(texts(places_figure(named, title="Mine")))
    assert texts(places_figure(named, title="Mine"))[0] == "Mine"
    # Codes that the legend does not know are called by their numbers; places without a class are grey.
    odd = points.assign(**{"class": [7] * 399 + [np.nan]})
    assert "7" in texts(places_figure(odd, title=None))


def test_windows_are_drawn_as_they_lie():
    windows = cover((2.0, 48.0, 2.4, 48.2))
    fig = places_figure(windows, title=None)
    paths = fig.axes[0].collections[-1].get_paths()
    assert len(paths) == len(windows)
    sides = [np.hypot(*np.diff(path.vertices[:5], axis=0).T) for path in paths]
    assert np.concatenate(sides) == pytest.approx(2560, rel=2e-3)
    assert texts(fig)[:2] == [f"{len(windows)} windows", "256 × 256 px of 10 m, 2.56 km a side · EPSG:32631"]
    many = cover((2, 40, 9, 45))
    assert "2 projections" in texts(places_figure(many, title=None))[1]
    assert len(offsets(places_figure(many, title=None))) == len(many)


def test_of_a_million_points_as_many_are_drawn_as_can_be_seen():
    fig = places_figure(sample_land(DRAWN + 5000), title=None)
    assert len(offsets(fig)) == DRAWN
    assert any(f"{DRAWN:,} of them drawn" in text for text in texts(fig))


@pytest.mark.parametrize("points", [
    at((2.0, 48.0)), at((10.0, 90.0)), at((180.0, 0.0), (-179.9, 0.1)), at((0.0, -90.0), (90.0, -89.0)),
])  # fmt: skip
def test_single_points_poles_and_the_antimeridian_are_drawn(points):
    fig = places_figure(points, title=None)
    where = np.asarray(offsets(fig))
    assert np.isfinite(where).all()
    assert np.ptp(where, axis=0).max(initial=0) < 200_000
    assert drawn(fig).std() > 5


def test_the_same_points_make_the_same_picture():
    points = sample_land(200, seed=2)
    assert (drawn(places_figure(points, title=None)) == drawn(places_figure(points, title=None))).all()


def test_what_counts_as_places():
    assert is_places(sample_land(3))
    assert is_places(cover((2, 48, 2.1, 48.1)))
    assert not is_places(sample_land(3).assign(ground_truth=1))
    assert not is_places(gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326"))
    assert not is_places(sample_land(0))
    assert not is_places(shapely.Point(0, 0))


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(InputError, match="empty"):
        places_figure(cover((2, 48, 2.1, 48.1)).iloc[:0], title=None)
    with pytest.raises(InputError, match="no CRS"):
        places_figure(at((0, 0)).set_crs(None, allow_override=True), title=None)
    with pytest.raises(InputError, match="1 of the 2 points"):
        places_figure(gpd.GeoDataFrame(geometry=[shapely.Point(0, 0), None], crs="EPSG:4326"), title=None)


def test_a_cap_holds_what_is_near_and_nothing_else():
    from pyproj import Geod

    geod, rng = Geod(a=EARTH_M, b=EARTH_M), np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    for centre, reach in (((0.0, 0.0), 30.0), ((179.0, 10.0), 50.0), ((20.0, 85.0), 20.0), ((0.0, -90.0), 60.0)):
        away = np.degrees(geod.inv(*np.tile(centre, (3000, 1)).T, lon, lat)[2] / EARTH_M)
        held = shapely.contains_xy(cap(centre, reach), lon, lat)
        assert held[away < reach - 0.1].all()
        assert not held[away > reach + 0.1].any()
