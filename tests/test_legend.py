"""Legends: what the published ones hold, how levels, text and files keep them, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio

from deepsentinel.errors import InputError
from deepsentinel.legend import (
    Legend,
    LegendClass,
    as_legend,
    bigearthnet19,
    by_name,
    cdl,
    corine,
    crops,
    distinct_colors,
    dynamic_world,
    ice_concentration,
    ice_stage,
    named,
    published,
    recode,
    source_codes,
    worldcover,
)


@pytest.mark.parametrize("name", named())
def test_every_published_legend_is_whole_and_survives_text(name: str) -> None:
    legend = by_name(name)
    assert legend.name == name
    assert len(legend) > 5
    for level in range(1, legend.level + 1):
        at = legend.at(level)
        assert at.level == level
        assert len(set(at.names.values())) == len(at), "names that tell classes apart"
        assert all(entry.name.strip() == entry.name != "" for entry in at)
        if level < legend.level:
            children = {entry.parent for entry in legend.at(level + 1)}
            assert children == set(at.codes), "every group has a class, and every class a group"
    assert Legend.from_json(legend.to_json()) == legend
    assert Legend.from_attrs(json.loads(json.dumps(legend.to_attrs()))) == legend


def test_corine_is_as_published(real: Path) -> None:
    with (real.parent / "facts" / "corine_legend.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if 1 <= int(row["grid_code"]) <= 44]
    legend, grid = corine(), source_codes("corine", "grid")
    assert len(rows) == len(legend) == 44
    for row in rows:
        code = int(row["clc_code"])
        assert grid[row["grid_code"]] == code
        assert legend[code].name == row["name"]
        assert legend.color_table()[code] == (int(row["red"]), int(row["green"]), int(row["blue"]), 255)
    assert (len(corine(2)), len(corine(1))) == (15, 5)


def test_corine_goes_up_by_its_digits() -> None:
    legend = corine()
    codes = np.array(legend.codes, dtype="uint16")
    for level, divisor in ((2, 10), (1, 100)):
        up = legend.up(codes, level)
        np.testing.assert_array_equal(up, codes // divisor)
        assert up.dtype == np.uint16
    np.testing.assert_array_equal(legend.up(codes, 1), legend.at(2).up(legend.up(codes, 2), 1))
    assert legend.at(2) == corine(2)
    assert legend.up(np.zeros((0, 3), int), 1).shape == (0, 3)
    with pytest.raises(InputError, match=r"'corine'.*no code 199, 600"):
        legend.up([111, 199, 600], 1)
    with pytest.raises(InputError, match="no level 4; it has levels 1, 2, 3"):
        legend.at(4)
    with pytest.raises(InputError, match="integers"):
        legend.up([111.5], 1)


def test_groups_take_the_mean_colour_of_their_classes() -> None:
    forests = [corine().color_table()[code][:3] for code in (311, 312, 313)]
    np.testing.assert_allclose(corine(2).color_table()[31][:3], np.mean(forests, axis=0), atol=0.5)


def test_crops_know_every_code_of_the_real_files(real: Path) -> None:
    import geopandas as gpd

    for file, column, country in (
        ("fr_rpg_2022.gpkg", "code_cultu", "fr"),
        ("fr_rpg_eolearn.gpkg", "code_cultu", "fr"),
        ("fr_rpg_2022.gpkg", "code_group", "fr_group"),
        ("fr_rpg_eolearn.gpkg", "code_group", "fr_group"),
        ("be_vlg_2023.gpkg", "GWSCOD_H", "vlg"),
        ("nl_brp_2023.gpkg", "gewascode", "nl"),
        ("at_invekos_2024.gpkg.zip", "SNAR_CODE", "at"),
        ("de_fusion_2018.geojson", "crop_id", "de"),
    ):
        path = real / "parcels" / file
        table = gpd.read_file(f"zip://{path}" if path.suffix == ".zip" else path)
        unknown = set(table[column].astype(str)) - source_codes("crops", country).keys()
        assert not unknown, (file, column)


@pytest.mark.parametrize(
    ("hcat", "at", "fr", "nl", "vlg"),
    [
        ("3301010101", "138", "BTH", "233", "311"),
        ("3301010401", "110", "ORH", "235", "321"),
        ("3301010402", "111", "ORP", "236", "322"),
        ("3301010301", "142", "SGH", None, "331"),
        ("3301010600", None, "MIS", "316", "202"),
        ("3301090400", "109", "MIE", "259", "201"),
        ("3301060401", "301", "CZH", "1922", "4111"),
        ("3301290700", "651", "BTN", "256", "91"),
        ("3301030000", "513", "PTC", "2014", "901"),
        ("3301160000", "308", "SOJ", "665", "43"),
        ("3302000000", None, "PPH", "265", "60"),
        ("3303060000", "901", "VRC", "1099", "9716"),
    ],
)
def test_a_crop_is_the_same_class_in_every_country(
    hcat: str, at: str | None, fr: str, nl: str | None, vlg: str
) -> None:
    own = source_codes("crops", "hcat")[hcat]
    for country, code in {"at": at, "fr": fr, "nl": nl, "vlg": vlg}.items():
        assert code is None or source_codes("crops", country)[code] == own


def test_the_demo_worlds_crops_are_known_and_named_alike() -> None:
    from deepsentinel.world.rpg import RPG_CODES

    codes, groups, legend = source_codes("crops", "fr"), source_codes("crops", "fr_group"), crops()
    for code, (group, name) in RPG_CODES.items():
        words = set(re.findall(r"\w{4,}", name)) - {"soft", "temporary", "permanent", "meadow"}
        assert all(word[:5] in legend[codes[code]].name.lower() for word in words), (code, name)
        assert groups[group] in legend
        assert legend.up([codes[code]], 1) == legend.up([groups[group]], 1)


def test_no_code_of_another_list_is_mapped_twice() -> None:
    for name in named():
        with (Path(corine.__code__.co_filename).parent / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for column in set(rows[0]) - {"code", "name", "color", "parent", "level"}:
            codes = [code for row in rows for code in row[column].split("|") if code]
            assert len(codes) == len(set(codes)), (name, column)
            assert source_codes(name, column).keys() == set(codes), (name, column)
    with pytest.raises(InputError, match=r"'crops' does not know the codes of 'se'; it knows hcat, at, fr"):
        source_codes("crops", "se")


def test_bigearthnet_takes_in_what_it_should() -> None:
    groups = source_codes("bigearthnet19", "corine")
    dropped = {122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 335, 423}
    assert {int(code) for code in groups} == set(corine().codes) - dropped
    assert bigearthnet19()[groups["211"]].name == "Arable land"


def test_ice_colours_and_groups() -> None:
    assert ice_stage().color_table()[87] == (155, 210, 0, 255)
    names = [ice_stage(1)[code].name for code in ice_stage().up([81, 84, 88, 91, 97, 80], 1)]
    assert names == ["New ice", "Young ice", "Thin first-year ice", "Thick first-year ice", "Old ice", "Ice free"]
    classes = source_codes("ice_concentration", "sigrid")
    middles = {"20": 3, "50": 4, "13": 3, "46": 4, "78": 5, "81": 6, "91": 6, "92": 6, "55": 1, "98": 1, "02": 2}
    assert {code: classes[code] for code in middles} == middles
    assert ice_concentration().color_table()[5] == (255, 125, 7, 255)


def test_a_class_nought_moves_out_of_the_backgrounds_way() -> None:
    shifted = dynamic_world().shifted(1)
    assert 0 in dynamic_world()
    assert 0 not in shifted
    assert [shifted[code + 1].name for code in dynamic_world().codes] == [entry.name for entry in dynamic_world()]


def test_only_keeps_what_is_there_with_its_groups() -> None:
    part = corine().only(np.array([0, 312, 112]))
    assert part.codes == (112, 312)
    assert part.at(1).names == {1: "Artificial surfaces", 3: "Forest and semi natural areas"}
    assert part.up([312, 0], 2).tolist() == [31, 0]
    assert Legend.from_json(part.to_json()) == part
    with pytest.raises(InputError, match="no class 7"):
        corine().only([7])


def test_texts_are_numbered_in_one_way_whatever_their_order() -> None:
    texts = ["wheat", "Rye", None, float("nan"), "maïs", "wheat"]
    legend = Legend.of_texts(texts, name="crops")
    assert legend == Legend.of_texts(texts[::-1], name="crops")
    assert legend.numbers == {"Rye": 1, "maïs": 2, "wheat": 3}
    assert Legend.from_json(legend.to_json()) == legend
    colors = distinct_colors(300)
    assert len(set(colors)) == 300
    assert colors[:7] == distinct_colors(7)


def test_the_cf_attributes_are_words_that_others_can_read() -> None:
    attrs = corine().to_attrs()
    words = attrs["flag_meanings"].split()
    assert len(words) == len(attrs["flag_values"]) == len(attrs["flag_colors"].split()) == 44
    assert all(re.fullmatch(r"[\w.+@-]+", word) for word in words)
    foreign = {
        "flag_values": np.array([3, 5], "int8"),
        "flag_meanings": "fen open_water",
        "flag_colors": "#00FF00 #0000FF",
    }
    legend = Legend.from_attrs(foreign)
    assert legend is not None
    assert (legend.names, legend.colors) == ({3: "fen", 5: "open water"}, {3: "#00ff00", 5: "#0000ff"})
    assert Legend.from_attrs({"units": "1"}) is None
    with pytest.raises(InputError, match="1 flag_meanings for 2 flag_values"):
        Legend.from_attrs({"flag_values": [1, 2], "flag_meanings": "one"})


@pytest.mark.parametrize("legend", [corine(), worldcover(), cdl(), crops()], ids=lambda legend: legend.name)
def test_the_colour_table_of_a_geotiff_keeps_them(legend: Legend, tmp_path: Path) -> None:
    path = tmp_path / "classes.tif"
    kind = "uint8" if max(legend.codes) < 256 else "uint16"
    with rasterio.open(
        path, "w", driver="GTiff", width=2, height=2, count=1, dtype=kind, crs="EPSG:32631",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 2, 2), kind))
        file.write_colormap(1, legend.color_table())
        file.update_tags(legend=legend.to_json())
    with rasterio.open(path) as file:
        colors = file.colormap(1)
        assert {code: colors[code] for code in legend.codes} == legend.color_table()
        assert Legend.from_json(file.tags()["legend"]) == legend


def test_recode_matches_a_loop() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-5, 60_000, (40, 50))
    mapping = {int(code): int(code) // 7 for code in np.unique(values)[::2]}
    expected = [[mapping.get(int(value), -1) for value in row] for row in values]
    np.testing.assert_array_equal(recode(values, mapping, unknown=-1), expected)
    assert recode(np.array([1, 2], "uint8"), {1: 7, 2: 400}).tolist() == [7, 400]
    assert recode(np.array([1.0, 2.0]), {1: 7, 2: 8}).tolist() == [7, 8]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Legend("x", (LegendClass(1, "a", "#00000"),)), "not a colour; write #rrggbb"),
        (lambda: Legend("x", (LegendClass(-1, "a", "#000000"),)), "not an integer from 0 on"),
        (lambda: Legend("x", (LegendClass(1, "a", "#000000"), LegendClass(1, "b", "#000000"))), "code 1 twice"),
        (lambda: Legend("x", (LegendClass(1, "a", "#000000", 9),), corine(1)), "parent 9 is not among"),
        (lambda: Legend.from_json("{}"), "not a legend as text"),
        (lambda: Legend.from_json("[1"), "not a legend as text"),
        (lambda: by_name("corinne"), "no legend called 'corinne'; there are bigearthnet19, cdl, corine"),
        (lambda: corine()[112.5], "no class 112.5"),
    ],
)  # fmt: skip
def test_what_is_no_legend_is_refused_with_a_reason(make: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()  # type: ignore[operator]


def test_texts_are_numbered_without_the_blanks_around_them() -> None:
    assert Legend.of_texts([" reed", "reed", "", "  ", None, float("nan"), "alder "]).names == {1: "alder", 2: "reed"}


def test_a_legend_is_known_by_its_codes_and_names_at_any_level() -> None:
    for name in named():
        legend: Legend | None = by_name(name)
        while legend is not None:
            found = published(legend.names)
            assert found is not None
            assert legend.names.items() <= found.names.items()
            legend = legend.coarser
    assert published({311: "Broad-leaved forest", 12: "Forests"}) is None, "of two levels"
    assert published({311: "Coniferous forest"}) is None, "another's name"
    assert published({}) is None


def test_colours_come_from_a_published_legend_only_if_it_has_all_of_them() -> None:
    some = {50: "Built-up", 10: "Tree cover"}
    legend = as_legend(some)
    assert legend is not None
    assert legend.codes == (50, 10)
    assert legend.colors == {code: worldcover()[code].color for code in some}
    other = as_legend({**some, 11: "Hedges"})
    assert other is not None
    assert len(set(other.colors.values())) == 3
    assert as_legend(None) is None
    assert as_legend(other) is other
    assert as_legend(other.to_json()) == other
