"""Whole products, from the real EODAG against a provider on this machine: which, how much, and that they are read."""

from __future__ import annotations

import errno
import inspect
import io
import logging
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from scene_tables import scene, table

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, NothingFoundError, SourceError
from deepsentinel.sources.download import folder as shelves
from deepsentinel.sources.download.folder import Damaged, Folder

pytest.importorskip("eodag", reason="downloading needs the extra 'download'")

from download_server import PASSWORD, DownloadServer, Held, product_zip, serving
from safe_builders import demo_products, zipped

NAMES = [f"S2A_MSIL2A_202306{day:02d}T100601_N0509_R022_T32TPS_202306{day:02d}T162001" for day in (2, 12, 22)]


def held(name: str, **about: Any) -> Held:
    start = next(part for part in name.split("_") if len(part) == 15 and "T" in part)
    stamp = pd.to_datetime(start).strftime("%Y-%m-%dT%H:%M:%S.024Z")
    return Held(name, about.pop("data", None) or product_zip(name), stamp, **about)


def scenes_of(names: list[str]) -> Any:
    """Rows as a catalog has them that keeps the names of products."""
    starts = [next(part for part in name.split("_") if len(part) == 15) for name in names]
    rows = [scene(name, pd.to_datetime(at)) for name, at in zip(names, starts, strict=True)]
    return table(*rows)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A provider that EODAG takes for Copernicus, with three products."""
    with serving(DownloadServer([held(name) for name in NAMES])) as server:
        monkeypatch.setenv("EODAG_CFG_DIR", str(tmp_path / "eodag"))
        monkeypatch.setenv("EODAG_CFG_FILE", str(server.configuration(tmp_path)))
        yield server


def test_a_choice_of_the_demo_world_is_downloaded_and_read_to_the_same_pixels(shop, tmp_path):
    src = ds.open_source("demo", size_px=256)
    scenes = src.search(src.area, "2018-05-01", "2018-08-31", sensors=("S2",))
    best = ds.select(scenes, aoi=src.area, n=2)
    safes = demo_products(src, best, tmp_path / "made")
    shop.products = []
    for safe, time, ground in zip(sorted(safes.iterdir()), best.time, best.geometry, strict=True):
        data = zipped(safe).read_bytes()
        shop.products.append(Held(safe.stem, data, f"{time:%Y-%m-%dT%H:%M:%S}.024Z", ground))
    best.attrs = {}  # the demo world is known by them
    got = ds.download(best, tmp_path / "products")
    assert list(got.status) == ["downloaded", "downloaded"]
    assert [Path(path).stem for path in got.path] == list(got["product"])
    there = ds.open_source(tmp_path / "products")
    found = there.search(src.area, "2018-05-01", "2018-08-31")
    assert len(found) == 2
    grid = ds.geobox(src.area, resolution=10)
    for here, row in zip(best.iloc, found.iloc, strict=True):
        mine, theirs = src.read(here, grid).load(), there.read(row, grid).load()
        for band in ("B02", "B05", "B12", "SCL"):
            np.testing.assert_array_equal(theirs[band], mine[band])


def test_a_dry_run_says_what_it_would_cost_and_brings_nothing(shop, tmp_path):
    folder = tmp_path / "out"
    got = ds.download(scenes_of(NAMES), folder, dry_run=True)
    assert list(got.status) == ["planned"] * 3
    assert not folder.exists()
    assert shop.downloads() == []
    assert got.bytes.tolist() == [len(one.data) for one in shop.products]
    assert got.attrs["estimate"] == "3 products, 0.9 MB, about 0 s at 10 MB/s (assumed)"
    shop.products[0].size = 0  # as Copernicus writes where it does not know
    again = ds.download(scenes_of(NAMES), folder, dry_run=True)
    assert pd.isna(again.bytes[0])
    assert again.attrs["estimate"].startswith("3 products, 1.0 GB, about 2 min")
    assert "1 of unknown size" in again.attrs["estimate"]


def test_the_estimate_learns_from_what_came_before_and_counts_what_is_left(shop, tmp_path):
    shop.slow_s = 0.3
    ds.download(scenes_of(NAMES[:1]), tmp_path, progress=False)
    got = ds.download(scenes_of(NAMES), tmp_path, dry_run=True)
    assert list(got.status) == ["present", "planned", "planned"]
    said = got.attrs["estimate"]
    assert said.startswith("2 products, 0.6 MB"), said
    assert said.endswith("(as before); 1 there already"), said
    rate = float(said.split(" MB/s")[0].split()[-1])
    assert 0.02 < rate < 2.0  # two at once, each at most 300 kB in 0.3 s


def test_a_second_call_asks_nobody_anything(shop, tmp_path):
    # As Planetary Computer calls them, without the baseline: what was found is remembered.
    scenes = scenes_of([name.replace("_N0509", "") for name in NAMES])
    first = ds.download(scenes, tmp_path)
    assert list(first.status) == ["downloaded"] * 3
    for path, one in zip(first.path, shop.products, strict=True):
        assert Path(path).read_bytes() == one.data
    shop.log.clear()
    second = ds.download(scenes, tmp_path)
    assert shop.log == []
    assert list(second.status) == ["present"] * 3
    assert list(second.path) == list(first.path)
    assert list(second.bytes) == list(first.bytes)
    assert second.attrs["estimate"] == "nothing to download; 3 there already"


def test_what_somebody_else_put_there_is_taken_if_it_is_whole(shop, tmp_path):
    (tmp_path / f"{NAMES[0]}.zip").write_bytes(shop.products[0].data)
    (tmp_path / f"{NAMES[1]}.zip").write_bytes(shop.products[1].data[:-500])
    safe = tmp_path / f"{NAMES[2]}.SAFE"
    safe.mkdir()
    (safe / "manifest.safe").write_text("<x/>")
    got = ds.download(scenes_of(NAMES), tmp_path)
    assert list(got.status) == ["present", "downloaded", "present"]
    assert (tmp_path / f"{NAMES[1]}.zip").read_bytes() == shop.products[1].data


def test_tables_pairs_and_rows_bring_the_same(shop, tmp_path):
    radar = "S1A_EW_GRDM_1SDH_20230602T053953_20230602T054018_048802_05DE7B_6FF8"
    shop.products.append(held(radar, geometry=shapely.box(-32, 45, -29, 46)))
    shop.products[0].geometry = shapely.box(-31, 45, -30, 46)
    both = scenes_of([radar, NAMES[0]])
    both["geometry"] = shapely.box(-31, 45, -30, 46)  # the middle of the Atlantic
    pairs = ds.pair(both, max_days=3)
    assert len(pairs) == 1
    wants = {
        "scenes": (both, [radar, NAMES[0]]),
        "pairs": (pairs, [NAMES[0], radar]),
        "row": (pairs.iloc[0], [NAMES[0], radar]),
        "scene": (both.iloc[1], [NAMES[0]]),
    }
    for what, (given, products) in wants.items():
        got = ds.download(given, tmp_path / what, dry_run=True)
        assert list(got["product"]) == products, what
    assert list(ds.download(both, tmp_path / "s2", sensors=("S2",), dry_run=True)["product"]) == [NAMES[0]]
    assert list(ds.download(pairs, tmp_path / "s1", sensors=("S1",), dry_run=True)["product"]) == [radar]


def test_a_year_of_one_tile_is_found_with_few_questions(shop, tmp_path):
    days = pd.date_range("2023-01-01 10:06:01", periods=12, freq="30D")
    names = [f"S2A_MSIL2A_{at:%Y%m%dT%H%M%S}_N0509_R022_T32TPS_{at:%Y%m%d}T162001" for at in days]
    shop.products = [held(name, data=b"x") for name in names]
    got = ds.download(scenes_of(names), tmp_path, dry_run=True)
    assert list(got["product"]) == names
    assert len(shop.searches()) == 1


def test_a_page_that_does_not_hold_all_is_asked_for_in_halves(shop, tmp_path, monkeypatch):
    days = pd.date_range("2023-01-01 10:06:01", periods=8, freq="10D")
    names = [f"S2A_MSIL2A_{at:%Y%m%dT%H%M%S}_N0509_R022_T32TPS_{at:%Y%m%d}T162001" for at in days]
    shop.products = [held(name, data=b"x") for name in names]
    shop.page = 3
    config = Path(shop.configuration(tmp_path))
    config.write_text(
        config.read_text().replace("metadata_mapping", "pagination: {max_limit: 3}\n    metadata_mapping")
    )
    got = ds.download(scenes_of(names), tmp_path, dry_run=True)
    assert list(got["product"]) == names
    assert 3 <= len(shop.searches()) <= 7


def test_what_the_provider_lacks_is_told_and_the_rest_comes(shop, tmp_path):
    lost = NAMES[0].replace("T32TPS", "T32TQS")
    with pytest.warns(
        DeepSentinelWarning, match=f"1 of 2 scenes did not come: {lost} is missing .*no L2A of 2023-06-02"
    ):
        got = ds.download(scenes_of([lost, NAMES[1]]), tmp_path)
    assert list(got.status) == ["missing", "downloaded"]
    assert got.path.isna().tolist() == [True, False]


def test_another_processing_is_taken_where_the_own_is_gone_and_it_is_said(shop, tmp_path):
    older = NAMES[0].replace("N0509", "N0400")
    got = ds.download(scenes_of([older]), tmp_path)
    assert got["product"][0] == NAMES[0]
    assert got.note[0] == "processed with baseline 05.09, the scene with 04.00"


def test_radar_over_land_is_warned_of_before_it_comes(shop, tmp_path):
    radar = "S1A_IW_GRDH_1SDV_20230602T053953_20230602T054018_048802_05DE7B_6FF8"
    shop.products.append(held(radar))
    with pytest.warns(DeepSentinelWarning, match="1 of 1 Sentinel-1 products show land.*planetary-computer"):
        got = ds.download(scenes_of([radar]), tmp_path)
    assert list(got.status) == ["downloaded"]


def test_products_are_unpacked_on_request(shop, tmp_path):
    got = ds.download(scenes_of(NAMES[:1]), tmp_path, extract=True)
    safe = tmp_path / f"{NAMES[0]}.SAFE"
    assert got.path[0] == str(safe)
    assert sorted(path.name for path in safe.iterdir()) == ["MTD_MSIL2A.xml", "bytes.bin", "manifest.safe"]
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.glob("*.zip"))
    shop.log.clear()
    assert ds.download(scenes_of(NAMES[:1]), tmp_path).status[0] == "present"
    assert shop.log == []


@pytest.mark.parametrize("extract", [False, True])
def test_an_archive_may_begin_its_names_with_a_dot(shop, tmp_path, extract):
    with zipfile.ZipFile(io.BytesIO(shop.products[0].data)) as old, zipfile.ZipFile(out := io.BytesIO(), "w") as new:
        for member in old.namelist():
            new.writestr(f"./{member}", old.read(member))
        wanted = {member: old.read(member) for member in old.namelist()}
    shop.products[0].data = out.getvalue()
    got = ds.download(scenes_of(NAMES[:1]), tmp_path, extract=extract)
    assert got.status[0] == "downloaded"
    if extract:
        there = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.glob("*.SAFE/*")}
        assert {name: path.read_bytes() for name, path in there.items()} == wanted


@pytest.mark.parametrize(
    "member",
    [
        "../../escaped.txt",
        "/escaped.txt",
        "x/../../../escaped.txt",
        "{safe}/{outside}/escaped.txt",
        "{safe}/C:/escaped.txt",
        "{safe}/./../../escaped.txt",
        "{safe}\\\\escaped.txt",
    ],
)
@pytest.mark.parametrize("extract", [False, True])
def test_an_archive_that_leads_outside_is_not_kept(shop, tmp_path, member, extract):
    # Two slashes in a row: what follows the product's own folder begins with one, and is absolute.
    member = member.format(safe=f"{NAMES[0]}.SAFE", outside=tmp_path)
    shop.products[0].data = product_zip(NAMES[0], inside={member: b"out"})
    folder = tmp_path / "deep" / "down"
    with pytest.warns(DeepSentinelWarning, match="leads out of the archive"):
        got = ds.download(scenes_of(NAMES[:1]), folder, extract=extract)
    assert got.status[0] == "failed"
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/escaped.txt").exists()
    assert [path.name for path in folder.iterdir()] == [".downloads"]


@pytest.mark.parametrize("outside", ["/", "../../"])
def test_nothing_is_unpacked_outside_even_if_its_name_was_taken_for_good(tmp_path, monkeypatch, outside):
    folder = Folder(tmp_path / "deep" / "down")
    folder.make()
    member = f"{tmp_path}/escaped.txt" if outside == "/" else f"{outside}escaped.txt"
    folder.part(NAMES[0]).write_bytes(product_zip(NAMES[0], inside={f"{NAMES[0]}.SAFE/{member}": b"out"}))
    monkeypatch.setattr("deepsentinel.sources.safe.files.leads_out", lambda name: False)
    with pytest.raises(Damaged, match="leads out of the archive"):
        folder.finish(NAMES[0], extract=True)
    assert not list(tmp_path.rglob("*escaped*"))
    assert [path.name for path in folder.path.iterdir()] == [".downloads"]


def test_a_name_that_leads_elsewhere_is_no_product(shop, tmp_path):
    shop.products[0].name = f"{NAMES[0]}/../../../../escaped"
    with pytest.warns(DeepSentinelWarning, match="missing"):
        got = ds.download(scenes_of(NAMES[:1]), tmp_path / "out")
    assert got.status[0] == "missing"


# -- what lies there already ------------------------------------------------------------------------------------------


def test_half_a_folder_beside_a_whole_archive_is_not_taken_for_it(shop, tmp_path):
    half = tmp_path / f"{NAMES[0]}.SAFE"
    (half / "GRANULE").mkdir(parents=True)
    first = ds.download(scenes_of(NAMES[:1]), tmp_path)
    assert first.path[0].endswith(".zip")
    assert ds.download(scenes_of(NAMES[:1]), tmp_path).path[0] == first.path[0]


@pytest.mark.parametrize(("number", "room"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_only_a_full_disk_is_said_to_be_full(shop, tmp_path, monkeypatch, number, room):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, "what the system says")

    monkeypatch.setattr(Folder, "finish", fail)
    with pytest.warns(DeepSentinelWarning, match="cannot be written"):
        got = ds.download(scenes_of(NAMES[:1]), tmp_path)
    assert got.status[0] == "failed"
    assert "what the system says" in got.note[0]
    assert ("Is there room?" in got.note[0]) == room


# -- many scenes -------------------------------------------------------------------------------------------------------


def test_a_stop_is_heeded_while_products_are_looked_up(shop, tmp_path):
    tiles = [f"32T{letter}S" for letter in "KLMNP"]
    names = [NAMES[0].replace("T32TPS", f"T{tile}") for tile in tiles]
    shop.products = [held(name) for name in names]
    asked = threading.Event()
    for dry in (True, False):
        shop.log.clear()
        asked.clear()

        def enough() -> bool:
            if len(shop.searches()) >= 2:
                asked.set()
            return asked.is_set()

        got = ds.download(scenes_of(names), tmp_path / "out", stop=enough, dry_run=dry)
        assert len(shop.searches()) == 2
        found = "planned" if dry else "stopped"
        assert sorted(got.status) == sorted([found] * 2 + ["stopped"] * 3)
        assert got["product"].isna().sum() == 3
        assert set(got.note[got.status == "stopped"]) == {"was not come to"}
    assert not list((tmp_path / "out").glob("*.zip"))
    assert shop.downloads() == []
    assert list(ds.download(scenes_of(names), tmp_path / "out").status) == ["downloaded"] * 5


def test_what_is_there_is_found_without_reading_each_note_for_each_scene(tmp_path, monkeypatch):
    folder, many = Folder(tmp_path), 60
    folder.make()
    days = pd.date_range("2022-01-01 10:06:01", periods=many, freq="1D")
    names = [f"S2A_MSIL2A_{at:%Y%m%dT%H%M%S}_N0509_R022_T32TPS_{at:%Y%m%d}T162001" for at in days]
    scenes = scenes_of([name.replace("_N0509", "") for name in names])
    for name, scene_id in zip(names, scenes.id, strict=True):
        folder.keep(name, scenes=[scene_id], provider="cop_dataspace", bytes=3, whole=True)
        (tmp_path / f"{name}.zip").write_bytes(b"abc")
    read = []
    noted = shelves._noted
    monkeypatch.setattr(shelves, "_noted", lambda path: (read.append(path), noted(path))[1])
    got = ds.download(scenes, tmp_path)
    assert list(got.status) == ["present"] * many
    assert list(got["product"]) == names
    assert len(read) <= 8 * many


# -- before anything is asked ------------------------------------------------------------------------------------------


def test_who_is_not_signed_in_is_told_how_before_anything_comes(shop, tmp_path, monkeypatch):
    shop.wrong_password = True
    with pytest.raises(SourceError, match="does not accept the credentials") as caught:
        ds.download(scenes_of(NAMES), tmp_path / "out")
    assert "EODAG__COP_DATASPACE__AUTH__CREDENTIALS__USERNAME" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert shop.downloads() == []
    config = Path(shop.configuration(tmp_path))
    config.write_text(config.read_text().replace("credentials:", "unused:"))
    with pytest.raises(SourceError, match="wants credentials"):
        ds.download(scenes_of(NAMES), tmp_path / "out")
    # To know what it would be nobody has to sign in.
    assert list(ds.download(scenes_of(NAMES), tmp_path / "out", dry_run=True).status) == ["planned"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "planetary_computer"}, "open_source\\('planetary-computer'\\)"),
        ({"provider": "earth_search"}, "keeps rasters"),
        ({"provider": "cop_dataspaces"}, "EODAG has no provider 'cop_dataspaces'.*cop_dataspace"),
        ({"sensors": "S2"}, "give \\('S1', 'S2'\\)"),
        ({"sensors": ("S3",)}, "give \\('S1', 'S2'\\)"),
        ({"wait_minutes": -1}, "minutes"),
        ({"threads": 0}, "1 or more"),
        ({"stop": 3}, "stop=3"),
    ],
)
def test_what_cannot_be_meant_is_refused(shop, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ds.download(scenes_of(NAMES), tmp_path, **options)
    assert shop.downloads() == []


def test_what_is_no_scene_is_refused(shop, tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword"):
        ds.download(scenes_of(NAMES), tmp_path, extracted=True)
    with pytest.raises(InputError, match="A list cannot be downloaded"):
        ds.download(NAMES, tmp_path)
    with pytest.raises(InputError, match="neither the columns of scenes"):
        ds.download(pd.DataFrame({"name": NAMES}), tmp_path)
    with pytest.raises(InputError, match="which product 'mine' is"):
        ds.download(table(scene("S2", "2023-06-02")).assign(id="mine"), tmp_path)
    with pytest.raises(NothingFoundError, match="nothing to download"):
        ds.download(scenes_of(NAMES).iloc[:0], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        ds.download(scenes_of(NAMES), tmp_path / "file")
    src = ds.open_source("demo", size_px=256)
    with pytest.raises(InputError, match="imaginary"):
        ds.download(src.search(src.area, "2018-06-01", "2018-06-30"), tmp_path)
    assert shop.log == []


def test_a_disk_that_is_too_small_is_told_of_before(shop, tmp_path, monkeypatch):
    import shutil

    free = sum(len(one.data) for one in shop.products) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10 * free, 9 * free, free))
    with pytest.raises(InputError, match=r"need 0\.9 MB.*another disk"):
        ds.download(scenes_of(NAMES), tmp_path / "out")
    assert shop.downloads() == []


def test_without_eodag_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "eodag", None)
    with pytest.raises(InputError, match=r"pip install 'deepsentinel\[download\]'"):
        ds.download(scenes_of(NAMES), tmp_path)


def test_every_status_is_explained(shop):
    from deepsentinel.sources import download
    from deepsentinel.sources.download import work

    code = inspect.getsource(download) + inspect.getsource(work)
    for status in download.STATUSES:
        assert f'"{status}"' in code.split("STATUSES = {")[1].split("}", 1)[1] + inspect.getsource(work), status


def test_what_could_not_be_looked_up_is_no_finished_download(tmp_path, monkeypatch, capfd):
    """Without a network an estimate of nothing would read as if all were there."""
    monkeypatch.setenv("EODAG_CFG_DIR", str(tmp_path / "eodag"))
    monkeypatch.setattr(logging.root, "handlers", [])  # as where nobody has set up logging
    with pytest.warns(DeepSentinelWarning, match="Check the network"):
        got = ds.download(scenes_of(NAMES), tmp_path / "out", dry_run=True, progress=False)
    assert set(got.status) == {"failed"}
    told = r"nothing was found to download; 3 scenes could not be looked up \(.*Check the network"
    assert re.match(told, got.attrs["estimate"])
    assert "Traceback" not in capfd.readouterr().err
