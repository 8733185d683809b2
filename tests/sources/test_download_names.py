"""Which product a scene is, whatever its catalog calls it, among everything that a provider may have beside it."""

from __future__ import annotations

import random

import pandas as pd
import pytest
import shapely
from scene_tables import scene, table

from deepsentinel.sources.download.names import Candidate, Wanted, choose, product, wanted_from

S2 = "S2B_MSIL2A_20250302T100029_N0511_R122_T33UXP_20250302T140126"
DECOYS = (
    "S2A_MSIL2A_20250302T100029_N0511_R122_T33UXP_20250302T140126",  # the other satellite
    "S2B_MSIL1C_20250302T100029_N0511_R122_T33UXP_20250302T140126",  # the other level
    "S2B_MSIL2A_20250302T100029_N0511_R122_T33UWP_20250302T140126",  # the tile beside
    "S2B_MSIL2A_20250302T114029_N0511_R123_T33UXP_20250302T160126",  # an orbit later
    "S2B_MSIL2A_20250312T100029_N0511_R122_T33UXP_20250312T140126",  # a cycle later
    "S2B_MSIL2A_20250302T100029_N0511_R122_T33UXP_20250302T140126.zip/../../x",
    "S1A_IW_GRDH_1SDV_20250302T051953_20250302T052018_058125_072D1A_6FF8",
)
S1 = "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8"
S1_DECOYS = (
    "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8_COG",
    "S1A_IW_GRDH_1SDV_20210809T174018_20210809T174043_039156_049F13_1B2C",  # the next frame
    "S1B_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8",
    "S1A_IW_SLC__1SDV_20210809T173952_20210809T174020_039156_049F13_77AB",
)


def wanted(name: str, time: str, **known: object) -> Wanted:
    return wanted_from(table(scene(name, time, **known)), ("S1", "S2"))[0]


WAYS = [
    (S2, "2025-03-02T10:00:29", {}),  # CDSE, and downloaded products
    (f"{S2}.SAFE", "2025-03-02T10:00:29", {}),
    ("S2B_MSIL2A_20250302T100029_R122_T33UXP_20250302T140126", "2025-03-02T10:00:29", {}),  # Planetary Computer
    ("S2B_33UXP_20250302_0_L2A", "2025-03-02T10:08:57", {}),  # Earth Search: when the tile was seen
    ("S2B_T33UXP_20250302T100857_L2A", "2025-03-02T10:08:57", {}),  # its Collection 1
    ("20250302T100029_20250302T100031_T33UXP", "2025-03-02T10:08:57", {"platform": "sentinel-2b"}),  # Earth Engine
    ("S2B_33UXP_20250302_0_L2A", "2025-03-02T10:08:57", {"datatake": "GS2B_20250302T100029_041717_N05.11"}),
]


@pytest.mark.parametrize(("name", "time", "known"), WAYS)
def test_a_scene_is_its_product_by_whatever_name(name, time, known):
    # The id is put in afterwards, as Earth Engine's do not begin with the sensor.
    one = wanted_from(table(scene(S2, time, **known)).assign(id=name), ("S2",))[0]
    for seed in range(3):
        shelf = [Candidate(other) for other in (*DECOYS, S2)]
        random.Random(seed).shuffle(shelf)
        chosen = choose(one, shelf)
        assert chosen is not None
        assert chosen.name == S2
        assert choose(one, [Candidate(other) for other in DECOYS]) is None


@pytest.mark.parametrize("name", [S1, S1[:-5], f"{S1[:-5]}_rtc", f"{S1}.SAFE"])
def test_radar_is_its_product_by_whatever_name(name):
    one = wanted(name, "2021-08-09T17:40:05")
    assert one.level == "GRD"
    chosen = choose(one, [Candidate(other) for other in (*S1_DECOYS, S1)])
    assert chosen is not None
    assert chosen.name == S1
    assert choose(one, [Candidate(other) for other in S1_DECOYS]) is None


def test_of_several_processings_the_own_then_the_newest():
    def at(baseline: str, made: str) -> Candidate:
        return Candidate(f"S2A_MSIL2A_20180606T105621_N{baseline}_R094_T31UCQ_{made}")

    first, again, newest = at("0206", "20180606T140126"), at("0500", "20230115T071811"), at("0511", "20250115T071811")
    pc = "S2A_MSIL2A_20180606T105621_R094_T31UCQ_20180606T140126"
    when = "2018-06-06T10:56:21"
    assert choose(wanted(pc, when, baseline="02.06"), [newest, again, first]) is first
    # A table of pairs says no baseline; the time when it was made is in the name.
    assert choose(wanted(pc, when), [newest, again, first]) is first
    # Planetary Computer made its own of that baseline, at a time of its own.
    assert choose(wanted(pc.replace("140126", "235959"), when, baseline="02.06"), [newest, again, first]) is first
    assert choose(wanted("S2A_31UCQ_20180606_0_L2A", when), [first, newest, again]) is newest
    assert choose(wanted(pc, when, baseline="02.06"), [again, newest]) is newest
    assert choose(wanted(S1[:-5], "2021-08-09T17:40:05"), [Candidate(S1, published="2021"), Candidate(
        S1.replace("6FF8", "0A0A"), published="2023")]).name.endswith("0A0A")  # fmt: skip


def test_of_a_tile_that_was_cut_in_two_the_part_with_more_of_the_scene():
    one = wanted("S2A_31UCQ_20180606_0_L2A", "2018-06-06T10:56:21")
    parts = [
        Candidate("S2A_MSIL2A_20180606T105621_N0500_R094_T31UCQ_20230115T071811", covered=0.3),
        Candidate("S2A_MSIL2A_20180606T105621_N0500_R094_T31UCQ_20230115T011811", covered=0.9),
    ]
    assert choose(one, parts) is parts[1]


def test_each_scene_comes_once_and_in_order():
    pairs = pd.DataFrame(
        {
            "s1_id": [S1, S1],
            "s2_id": [S2, S2.replace("33UXP", "33UWP")],
            "s1_time": pd.Timestamp("2021-08-09T17:40:05Z"),
            "s2_time": pd.Timestamp("2025-03-02T10:00:29Z"),
            "geometry": shapely.box(0, 0, 1, 1),
        }
    )
    found = wanted_from(pairs, ("S1", "S2"))
    assert [one.scene_id for one in found] == [S2, S1, S2.replace("33UXP", "33UWP")]
    assert [one.sensor for one in found] == ["S2", "S1", "S2"]
    assert [one.scene_id for one in wanted_from(pairs, ("S1",))] == [S1]


@pytest.mark.parametrize("name", ["S2B_MSIL2A_x", "", "../etc", f"{S2}/..", f"{S2}x", "LC08_L1TP_1", f"x{S2}"])
def test_what_is_no_product_is_none(name):
    assert product(name) is None
