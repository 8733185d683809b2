"""The demo world as a source: a catalog at once, scenes when wanted, nothing half-made, a bounded cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio

from deepsentinel import check_patch, geobox, pair
from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import folder_bytes
from deepsentinel.sources import demo as demo_module
from deepsentinel.sources.demo import DemoSource
from deepsentinel.world.landscape import Landscape
from deepsentinel.world.optical import render_s2
from deepsentinel.world.scenes import scene_by_id

SIZE = 256
MARK = ".partial-"


@pytest.fixture(scope="module")
def source() -> DemoSource:
    return DemoSource(size_px=SIZE)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: DemoSource) -> Path:
    """A cache of its own that holds the same catalog and no scene yet."""
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    target = tmp_path / "demo" / source.folder.name
    shutil.copytree(source.folder, target, ignore=shutil.ignore_patterns("scenes"))
    return target


def items_of(source: DemoSource, collection: str) -> list[dict]:
    return json.loads((source.folder / f"{collection}-items.json").read_text())["features"]


def hrefs(source: DemoSource, item: dict) -> dict[str, str]:
    return {key: str(source.folder / asset["href"]) for key, asset in item["assets"].items()}


def test_a_pair_is_found_read_and_is_a_patch(source: DemoSource) -> None:
    scenes = source.search(source.area, "2018-05-01", "2018-07-31", max_cloud=60)
    pairs = pair(scenes, aoi=source.area, max_days=3)
    assert {"S1", "S2"} == set(scenes.sensor)
    assert len(pairs) > 3
    grid = geobox(source.area, resolution=10)
    patch = source.read(pairs.iloc[0], grid)
    check_patch(patch)
    assert {"B02", "B08", "VV", "VH"} <= set(patch.data_vars)
    assert patch.attrs["seed"] == 0
    assert patch.attrs["backscatter"] == "gamma0_rtc"
    assert patch.attrs["level"] == "L2A"
    assert -40 < float(patch.VV.median()) < 5


def test_the_catalog_carries_what_real_ones_carry(source: DemoSource) -> None:
    for item in items_of(source, "sentinel-2-l2a")[::40]:
        properties = item["properties"]
        assert {
            "eo:cloud_cover",
            "proj:epsg",
            "s2:processing_baseline",
            "s2:nodata_pixel_percentage",
            "s2:mgrs_tile",
            "s2:datatake_id",
            "sat:orbit_state",
            "sat:relative_orbit",
            "view:sun_elevation",
        } <= set(properties)
        offset = item["assets"]["B04"]["raster:bands"][0]["offset"]
        assert offset == (-0.1 if properties["s2:processing_baseline"] == "05.00" else 0)
        assert len(item["assets"]) == 13
        ring = np.array(item["geometry"]["coordinates"][0])
        assert (ring[0] == ring[-1]).all()
        # GeoJSON rings run counter-clockwise.
        assert np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]) > 0
    radar = items_of(source, "sentinel-1-rtc")[0]
    assert {"sar:polarizations", "sar:instrument_mode", "sat:orbit_state", "sar:looks_equivalent_number"} <= set(
        radar["properties"]
    )


def test_stated_shapes_and_transforms_are_those_of_the_files_and_the_files_are_cogs(source: DemoSource) -> None:
    for item in (items_of(source, "sentinel-2-l2a")[50], items_of(source, "sentinel-1-rtc")[50]):
        for key, href in hrefs(source, item).items():
            asset = item["assets"][key]
            with rasterio.open(source.resolve(href, item, key)) as file:
                assert list(file.shape) == asset["proj:shape"]
                assert list(file.transform)[:6] == asset["proj:transform"]
                assert file.crs.to_epsg() == item["properties"]["proj:epsg"]
                assert file.nodata == asset["raster:bands"][0]["nodata"]
                assert file.dtypes[0] == asset["raster:bands"][0]["data_type"]
                assert file.descriptions[0] in (key, key.upper())
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_what_lies_in_the_files_is_what_the_world_renders(source: DemoSource) -> None:
    item = items_of(source, "sentinel-2-l2a")[60]
    land = Landscape.load(source.folder / "landscape.npz")
    wanted = render_s2(land, scene_by_id(0, SIZE, item["id"]))
    for key, href in hrefs(source, item).items():
        with rasterio.open(source.resolve(href, item, key)) as file:
            np.testing.assert_array_equal(file.read(1), wanted[key])


def test_opening_again_is_quick_and_loads_no_landscape(source: DemoSource) -> None:
    start = time.perf_counter()
    again = DemoSource(size_px=SIZE)
    assert time.perf_counter() - start < 0.3
    assert again._land is None


def test_many_threads_render_a_scene_once(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepsentinel.sources import demo_files

    calls = []
    real_write = demo_files.write_scene
    monkeypatch.setattr(demo_files, "write_scene", lambda *a: (calls.append(1), real_write(*a)))
    fresh = DemoSource(size_px=SIZE)
    item = items_of(fresh, "sentinel-2-l2a")[10]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda pair: fresh.resolve(pair[1], item, pair[0]), hrefs(fresh, item).items()))
    assert len(calls) == 1
    assert all(Path(p).is_file() for p in paths)


def test_the_files_of_a_scene_are_the_same_bytes_in_another_process(source: DemoSource, elsewhere: Path) -> None:
    item = items_of(source, "sentinel-1-rtc")[20]
    code = (
        "import json,sys; from deepsentinel.sources.demo import DemoSource; s = DemoSource(size_px=256);"
        "i = json.loads(sys.argv[1]);"
        "print(s.resolve(str(s.folder / i['assets']['vv']['href']), i, 'vv'))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, json.dumps(item)], capture_output=True, text=True, check=True, env=os.environ
    )
    there = Path(out.stdout.strip())
    assert there.is_relative_to(elsewhere)
    here = Path(source.resolve(hrefs(source, item)["vv"], item, "vv"))
    assert here != there
    assert here.read_bytes() == there.read_bytes()


def test_two_processes_that_render_one_scene_at_once_agree(source: DemoSource, elsewhere: Path) -> None:
    """Both start after both are ready, and each must find the scene whole, whoever came first."""
    item = items_of(source, "sentinel-2-l2a")[12]
    code = """
import hashlib, json, sys
from pathlib import Path
from deepsentinel.sources.demo import DemoSource
s = DemoSource(size_px=256)
i = json.loads(sys.argv[1])
s._landscape()
print("ready", flush=True)
sys.stdin.readline()
for key, asset in i["assets"].items():
    path = Path(s.resolve(str(s.folder / asset["href"]), i, key))
    print(key, hashlib.sha256(path.read_bytes()).hexdigest())
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(item)],
            env=os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    alone = {key: Path(source.resolve(href, item, key)).read_bytes() for key, href in hrefs(source, item).items()}
    assert dict(zip(said[0][::2], said[0][1::2], strict=True)) == {
        key: hashlib.sha256(data).hexdigest() for key, data in alone.items()
    }
    assert [path.name for path in (elsewhere / "scenes").iterdir()] == [item["id"]]


def test_rendering_loads_no_scipy_and_nothing_else_that_is_heavy(source: DemoSource, elsewhere: Path) -> None:
    items = [items_of(source, name)[7] for name in ("sentinel-2-l2a", "sentinel-1-rtc")]
    # odc-geo imports dask on sight, where somebody installed it beside us.
    code = """
import importlib.util, json, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "dask" else find(name, package)
from deepsentinel.sources.demo import DemoSource
s = DemoSource(size_px=256)
for i in json.loads(sys.argv[1]):
    key = next(iter(i["assets"]))
    s.resolve(str(s.folder / i["assets"][key]["href"]), i, key)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(items)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert len(list((elsewhere / "scenes").iterdir())) == 2
    loaded = set(json.loads(done.stdout))
    assert {"numpy", "rasterio"} <= loaded
    assert not loaded & {"scipy", "matplotlib", "torch", "dask", "sklearn", "pystac_client", "ipywidgets"}


def test_a_killed_rendering_leaves_nothing_taken_for_finished(elsewhere: Path) -> None:
    fresh = DemoSource(size_px=SIZE)
    item = items_of(fresh, "sentinel-2-l2a")[30]
    # Dies in the middle: after the fourth of thirteen files.
    code = """
import json, os, signal, sys
from deepsentinel.sources import demo_files
from deepsentinel.sources.demo import DemoSource
write, done = demo_files.write_cog, []
def dying(*args, **kwargs):
    write(*args, **kwargs)
    done.append(1)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
demo_files.write_cog = dying
s = DemoSource(size_px=256)
i = json.loads(sys.argv[1])
s.resolve(str(s.folder / i["assets"]["B04"]["href"]), i, "B04")
"""
    died = subprocess.run([sys.executable, "-c", code, json.dumps(item)], env=os.environ, check=False)
    assert died.returncode == -signal.SIGKILL
    left = list((elsewhere / "scenes").iterdir())
    assert len(left) == 1
    assert left[0].name.startswith(MARK)
    assert len(list(left[0].iterdir())) == 4
    for key, href in hrefs(fresh, item).items():
        with rasterio.open(fresh.resolve(href, item, key)) as file:
            assert file.read(1).any()
    assert len(list((elsewhere / "scenes" / item["id"]).iterdir())) == 13


def test_the_cache_is_bounded_and_forgets_the_least_recently_used(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = DemoSource(size_px=SIZE)
    monkeypatch.setattr(demo_module, "TRIM_EVERY_S", 0.0)
    items = items_of(fresh, "sentinel-1-rtc")[:6]

    def use(item: dict) -> Path:
        return Path(fresh.resolve(hrefs(fresh, item)["vv"], item, "vv"))

    without_scenes = folder_bytes(elsewhere.parent)
    first = use(items[0])
    one = sum(f.stat().st_size for f in first.parent.iterdir())
    monkeypatch.setattr(demo_module, "CACHE_BYTES", without_scenes + int(3.5 * one))
    for item in items[1:4]:
        use(item)
    # All were asked for just now: nothing goes, however full it is.
    assert len(list((elsewhere / "scenes").iterdir())) == 4
    monkeypatch.setattr(demo_module, "IN_USE_S", 60.0)
    for age, item in enumerate(items[1:4]):
        os.utime(elsewhere / "scenes" / item["id"], (1000 + age, 1000 + age))
    os.utime(elsewhere / "scenes" / items[0]["id"], (5000, 5000))
    use(items[4])
    kept = {p.name for p in (elsewhere / "scenes").iterdir()}
    assert items[1]["id"] not in kept
    assert {items[0]["id"], items[4]["id"]} <= kept
    assert use(items[1]).is_file()


def test_the_bound_holds_for_all_worlds_together(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = DemoSource(size_px=SIZE)
    monkeypatch.setattr(demo_module, "TRIM_EVERY_S", 0.0)
    items = items_of(fresh, "sentinel-1-rtc")[:2]
    other = elsewhere.parent / "seed9-256-v0"
    shutil.copytree(elsewhere, other)
    scene = other / "scenes" / "S1A_of_another_earth"
    scene.mkdir(parents=True)
    (scene / "vv.tif").write_bytes(bytes(3 * folder_bytes(elsewhere)))
    monkeypatch.setattr(demo_module, "IN_USE_S", 60.0)
    for path in (scene, other):
        os.utime(path, (1000, 1000))
    monkeypatch.setattr(demo_module, "CACHE_BYTES", folder_bytes(elsewhere.parent) - 1_000_000)
    fresh.resolve(hrefs(fresh, items[0])["vv"], items[0], "vv")
    # The scene of a world that nobody uses goes first; when that is not enough, so does the world.
    assert not scene.exists()
    assert (other / "catalog.json").is_file()
    monkeypatch.setattr(demo_module, "CACHE_BYTES", folder_bytes(elsewhere) + 1_000_000)
    fresh.resolve(hrefs(fresh, items[1])["vv"], items[1], "vv")
    assert not other.exists()
    assert (elsewhere / "catalog.json").is_file()


def test_of_many_worlds_old_ones_go_before_scenes_lately_made(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = DemoSource(size_px=SIZE)
    monkeypatch.setattr(demo_module, "TRIM_EVERY_S", 0.0)
    first, second = items_of(fresh, "sentinel-1-rtc")[:2]
    fresh.resolve(hrefs(fresh, first)["vv"], first, "vv")
    os.utime(elsewhere / "scenes" / first["id"], (5000, 5000))
    for number in range(3):
        other = elsewhere.parent / f"seed{number + 5}-256-v0"
        shutil.copytree(elsewhere, other, ignore=shutil.ignore_patterns("scenes"))
        os.utime(other, (1000 + number, 1000 + number))
    monkeypatch.setattr(demo_module, "CACHE_BYTES", folder_bytes(elsewhere.parent))
    fresh.resolve(hrefs(fresh, second)["vv"], second, "vv")
    assert len(list((elsewhere / "scenes").iterdir())) == 2
    assert sorted(p.name for p in elsewhere.parent.iterdir() if p.name != elsewhere.name) == [
        "seed6-256-v0",
        "seed7-256-v0",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "numbered from 0"),
        ({"seed": 1.5}, "numbered from 0"),
        ({"size_px": 100}, "256 to"),
        ({"size_px": 258}, "multiple of 4"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DemoSource(**options)


def test_labels_are_there(source: DemoSource) -> None:
    assert {"corine", "osm", "parcels_2018", "parcels_2019", "land_cover_2018_30UYV"} <= set(source.labels)
    assert all(path.is_file() for path in source.labels.values())


def test_two_builders_at_once_agree(tmp_path: Path) -> None:
    code = (
        "from deepsentinel.sources.demo import DemoSource; print(len(list(DemoSource(size_px=256).folder.iterdir())))"
    )
    env = os.environ | {"DEEPSENTINEL_CACHE": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in running]
    assert [p.returncode for p in running] == [0, 0]
    assert said[0] == said[1]
    assert not [p for p in (tmp_path / "demo").iterdir() if p.name.startswith(MARK)]


def test_a_cache_deleted_while_in_use_is_made_again(elsewhere: Path) -> None:
    fresh = DemoSource(size_px=SIZE)
    first, second = items_of(fresh, "sentinel-1-rtc")[:2]
    shutil.rmtree(elsewhere)
    assert Path(fresh.resolve(hrefs(fresh, first)["vv"], first, "vv")).is_file()
    shutil.rmtree(elsewhere)
    # The landscape is still in memory, so only scenes would be written: a folder that is no world any more.
    (elsewhere / "scenes").mkdir(parents=True)
    assert Path(fresh.resolve(hrefs(fresh, second)["vv"], second, "vv")).is_file()
    assert fresh.area.geometry.is_valid
    assert len(DemoSource(size_px=SIZE).search(fresh.area, "2018-06-01", "2018-06-30")) > 10


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match=r"cannot be made.*Set the environment variable DEEPSENTINEL_CACHE"):
        DemoSource(size_px=SIZE)


def test_a_full_disk_says_what_to_do(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = DemoSource(size_px=SIZE)
    item = items_of(fresh, "sentinel-1-rtc")[0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepsentinel.sources.demo_files.write_scene", full)
    with pytest.raises(SourceError, match=r"No space left on device.*DEEPSENTINEL_CACHE"):
        fresh.resolve(hrefs(fresh, item)["vv"], item, "vv")
    assert not list((elsewhere / "scenes").glob("*"))


def test_a_patch_tells_other_libraries_where_it_lies_and_what_is_missing(source: DemoSource) -> None:
    import rioxarray  # noqa: F401 - gives datasets their .rio

    grid = geobox(source.area)
    scenes = source.search(source.area, "2018-05-01", "2018-05-31")
    patch = source.read(pair(scenes, aoi=source.area).iloc[0], grid)
    assert patch.rio.crs.to_epsg() == grid.crs.epsg
    assert tuple(patch.B04.rio.transform())[:6] == pytest.approx(tuple(grid.affine)[:6])
    assert patch.B04.rio.nodata == 0
    turned = patch[["B04", "SCL", "VV"]].rio.reproject("EPSG:4326")
    # The corners of the turned grid lie outside: missing, and not the largest number there is.
    assert turned.B04.values[0, 0] == 0
    assert turned.SCL.values[0, 0] == 0
    assert np.isnan(turned.VV.values[0, 0])
    assert patch.VV.attrs["units"] == "dB"
    check_patch(patch)
