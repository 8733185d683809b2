"""What others would have drawn of the demo world, and that its faults are the planted ones and no more."""

from __future__ import annotations

import re

import geopandas as gpd
import numpy as np
import pytest
import shapely
from landscapes import land

from deepsentinel.errors import InputError
from deepsentinel.world.classes import Cover
from deepsentinel.world.grid import WORLD_CRS
from deepsentinel.world.vectors import CORINE_NAMES, RPG_CODES, corine, osm, parcels, planted_faults

SEEDS = (0, 1)


def world_area_m2(seed: int) -> float:
    here = land(seed)
    return here.shape[0] * here.shape[1] * here.resolution_m**2


# CORINE


@pytest.mark.parametrize("seed", SEEDS)
def test_corine_covers_everything_once(seed: int) -> None:
    table = corine(land(seed))
    assert table.crs.to_epsg() == 4326
    assert shapely.coverage_is_valid(table.geometry.to_numpy())
    assert table.to_crs(WORLD_CRS).area.sum() == pytest.approx(world_area_m2(seed), rel=1e-4)
    assert table["Shape_Area"].sum() == pytest.approx(world_area_m2(seed), rel=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_corine_keeps_its_columns_codes_and_smallest_unit(seed: int) -> None:
    table = corine(land(seed))
    assert list(table.columns) == ["ID", "Remark", "Area_Ha", "Code_18", "Shape_Area", "Shape_Length", "geometry"]
    assert table["ID"].is_unique
    assert set(table["Code_18"]) <= set(CORINE_NAMES)
    assert {"112", "211", "231", "523"} <= set(table["Code_18"])
    assert table["Area_Ha"].min() >= 25
    assert np.allclose(table["Area_Ha"] * 1e4, table["Shape_Area"], atol=1)
    area_m2 = table.to_crs("EPSG:3035").area  # an equal-area projection, unlike the world's own plane
    assert np.allclose(table["Shape_Area"], area_m2, rtol=2e-3)


def test_corine_is_a_weak_label() -> None:
    """Right about the large, blind to the small: that is what makes it a label worth arguing with."""
    here = land(0)
    table = corine(here).to_crs(WORLD_CRS)
    rng = np.random.default_rng(0)
    x = here.origin_x + rng.random(6000) * here.shape[1] * 5
    y = here.origin_y - rng.random(6000) * here.shape[0] * 5
    row, col = here.grid.index(x, y)
    tree = shapely.STRtree(table.geometry.to_numpy())
    point, polygon = tree.query(shapely.points(x, y), predicate="within")
    code = table["Code_18"].to_numpy()[polygon].astype(int)
    cover = here.cover[row[point], col[point]]
    sea = cover == Cover.SEA
    assert (code[sea] == 523).mean() > 0.97
    wood = (cover == Cover.BROADLEAF) | (cover == Cover.CONIFER)
    assert 0.6 < np.isin(code[wood], [311, 312, 313]).mean() < 0.98
    crop = cover == Cover.CROP
    assert 0.6 < np.isin(code[crop], [211, 221, 242]).mean() < 0.98
    ponds = cover == Cover.GARDEN
    assert (code[ponds] // 100 == 1).mean() > 0.5


# OpenStreetMap


def test_osm_has_the_columns_of_gdals_driver() -> None:
    layers = osm(land(0))
    for name, columns in {
        "points": ("osm_id", "name", "highway", "place", "other_tags"),
        "lines": ("osm_id", "name", "highway", "waterway", "railway", "z_order", "other_tags"),
        "multipolygons": ("osm_id", "osm_way_id", "landuse", "natural", "building", "leisure", "other_tags"),
    }.items():
        assert set(columns) <= set(layers[name].columns), name
        assert layers[name].crs.to_epsg() == 4326
        assert layers[name].geometry.is_valid.all()
        # hstore text: "key"=>"value","key"=>"value"
        pair = r'"[^"]+"=>"[^"]*"'
        tags = layers[name]["other_tags"].dropna()
        assert all(re.fullmatch(f"{pair}(,{pair})*", text) for text in tags), name
    areas = layers["multipolygons"]
    identity = areas["osm_id"].fillna(areas["osm_way_id"])
    assert identity.is_unique
    assert (areas["osm_id"].isna() ^ areas["osm_way_id"].isna()).all()
    assert set(areas.geom_type) == {"MultiPolygon"}


def test_osm_maps_what_matters_and_leaves_gaps() -> None:
    here = land(0)
    layers = osm(here)
    lines, areas = layers["lines"], layers["multipolygons"]
    assert {"trunk", "secondary", "tertiary", "residential", "track"} <= set(lines["highway"].dropna())
    assert {"river", "stream"} <= set(lines["waterway"].dropna())
    assert "rail" in set(lines["railway"])
    assert {"residential", "industrial", "farmland", "meadow", "forest", "quarry"} <= set(areas["landuse"].dropna())
    assert {"wood", "water", "wetland", "beach"} <= set(areas["natural"].dropna())
    assert areas["other_tags"].str.contains('"power"=>"plant"').any()
    assert {"town", "village"} == set(layers["points"]["place"].dropna())
    houses = len(here.features["buildings"]) + len(here.features["halls"])
    assert 0.85 * houses < areas["building"].notna().sum() < 0.99 * houses
    streets = lines["highway"].notna()
    assert 0.02 < lines.loc[streets, "other_tags"].str.contains("width|lanes", na=False).mean() < 0.6
    farm = areas["landuse"].isin(["farmland", "meadow", "vineyard"])
    mapped_m2 = areas[farm].to_crs(WORLD_CRS).area.sum()
    true_m2 = (np.isin(here.cover, [Cover.CROP, Cover.GRASSLAND])).sum() * 25.0
    assert 0.25 < mapped_m2 / true_m2 < 0.85


@pytest.mark.parametrize("seed", SEEDS)
def test_coastline_has_land_on_its_left(seed: int) -> None:
    here = land(seed)
    lines = osm(here)["lines"]
    coast = lines[lines["other_tags"].str.contains('"natural"=>"coastline"', na=False)].to_crs(WORLD_CRS)
    main = max(coast.geometry, key=lambda g: g.length)
    assert main.length > 3000
    sides = {}
    for name, metres in (("left", 30), ("right", -30)):
        moved = main.offset_curve(metres)
        xy = np.array([moved.interpolate(d).coords[0] for d in np.linspace(200, moved.length - 200, 200)])
        sides[name] = here.cover[here.grid.index(xy[:, 0], xy[:, 1])]
    wet = (Cover.SEA, Cover.TIDAL_FLAT)
    assert np.isin(sides["left"], wet).mean() < 0.2
    assert np.isin(sides["right"], wet).mean() > 0.8


# Parcels


def overlapping(table: gpd.GeoDataFrame) -> set[frozenset[str]]:
    """Pairs of parcels that share more than ten square metres."""
    shapes = shapely.make_valid(table.to_crs(WORLD_CRS).geometry.to_numpy())
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    a, b = a[a < b], b[a < b]
    shared = shapely.area(shapely.intersection(shapes[a], shapes[b])) > 10
    names = table["ID_PARCEL"].to_numpy()
    return {frozenset((names[i], names[j])) for i, j in zip(a[shared], b[shared], strict=True)}


@pytest.mark.parametrize("seed", SEEDS)
def test_parcels_overlap_only_where_that_was_planted(seed: int) -> None:
    here = land(seed)
    faults = planted_faults(here).set_index("ID_PARCEL")["fault"]
    assert faults.index.is_unique
    assert set(faults) == {"overlap", "shifted", "invalid", "multipolygon", "tiny"}
    guilty = set(faults[faults.isin(["overlap", "shifted", "invalid"])].index)
    pairs = overlapping(parcels(here, 2018))
    assert all(pair & guilty for pair in pairs)
    caught = {name for pair in pairs for name in pair}
    planted = set(faults[faults == "overlap"].index)
    # A field with woods all around it has no neighbour to overlap.
    assert len(caught & planted) >= 0.6 * len(planted)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_planted_fault_is_what_it_says(seed: int) -> None:
    here = land(seed)
    table = parcels(here, 2019).to_crs(WORLD_CRS).set_index("ID_PARCEL")
    faults = planted_faults(here)
    truth = dict(zip(table.index, table.geometry, strict=True))
    original = here.parcels["geometry"].to_numpy()
    tree = shapely.STRtree(original)
    for row in faults.itertuples():
        shape = truth[row.ID_PARCEL]
        if row.fault == "invalid":
            assert not shape.is_valid
        elif row.fault == "tiny":
            assert shape.area < 100
        elif row.fault == "multipolygon":
            assert shape.geom_type == "MultiPolygon"
            assert len(shape.geoms) == 2
        elif row.fault == "shifted":
            assert 5 <= np.hypot(row.dx_m, row.dy_m) <= 15
            back = shapely.transform(shape, lambda xy, by=(row.dx_m, row.dy_m): xy - np.array(by))
            best = max(original[tree.query(back)], key=lambda g: g.intersection(back).area)
            assert back.symmetric_difference(best).area < 1e-3 * best.area
    healthy = table[~table.index.isin(faults["ID_PARCEL"])]
    assert healthy.geometry.is_valid.all()
    assert set(healthy.geom_type) == {"Polygon"}
    assert (table.geom_type == "MultiPolygon").sum() == 1


def test_parcels_look_like_the_rpg_and_change_crop_not_shape() -> None:
    here = land(0)
    first, second = parcels(here, 2018), parcels(here, 2019)
    assert list(first.columns) == [
        "ID_PARCEL", "SURF_PARC", "CODE_CULTU", "CODE_GROUP", "CULTURE_D1", "CULTURE_D2", "geometry",
    ]  # fmt: skip
    assert first.crs.to_epsg() == 4326
    assert first["ID_PARCEL"].is_unique
    assert (first["ID_PARCEL"] == second["ID_PARCEL"]).all()
    assert all(a.equals_exact(b, 0) for a, b in zip(first.geometry, second.geometry, strict=True))
    for table in (first, second):
        assert all(RPG_CODES[c][0] == g for c, g in zip(table["CODE_CULTU"], table["CODE_GROUP"], strict=True))
        assert set(table["CODE_CULTU"]) == set(RPG_CODES)
        assert np.allclose(table["SURF_PARC"], table.to_crs(WORLD_CRS).area / 1e4, atol=0.006)
    moved = first["CODE_CULTU"] != second["CODE_CULTU"]
    lasting = first["CODE_CULTU"].isin(["PPH", "VRC"])
    assert not moved[lasting].any()
    assert moved[~lasting].mean() > 0.5


def test_a_year_without_declarations_is_refused() -> None:
    with pytest.raises(InputError, match="2018 and 2019, not for 2017"):
        parcels(land(0), 2017)
