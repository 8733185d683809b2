"""The command line: what it prints, where it stops, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import factories
import pandas as pd
import pytest
from shapely.geometry import box

import deepsentinel as ds
from deepsentinel import cli, cli_demo
from deepsentinel.errors import NothingFoundError


class FakeSource:
    """A source with an area, scenes of one summer and a ready patch."""

    name = "fake"

    def __init__(self):
        self.area = box(4.0, 49.26, 4.02, 49.275)

    @property
    def labels(self):
        """One parcel, half in the searched area and half on the patch, wherever that lies."""
        import geopandas as gpd

        patch = self.read(None, None)
        left, right = float(patch.x[0]), float(patch.x[25])
        here = gpd.GeoSeries([box(left, float(patch.y[-1]), right, float(patch.y[0]))], crs=patch.spatial_ref.crs_wkt)
        path = self.folder / "parcels_2018.gpkg"
        columns = {"ID_PARCEL": ["7"], "SURF_PARC": [1.0], "CODE_CULTU": ["BTH"], "CODE_GROUP": ["1"]}
        both = here.to_crs(4326).union(self.area)
        gpd.GeoDataFrame(columns | {"CULTURE_D1": "", "CULTURE_D2": ""}, geometry=both).to_file(path)
        return {"parcels_2018": path}

    def search(self, aoi, start=None, end=None, *, sensors=("S1", "S2"), max_cloud=None):
        scenes = factories.make_scenes()
        defaults = {
            "collection": "c",
            "platform": "p",
            "nodata_share": float("nan"),
            "relative_orbit": pd.array([1] * len(scenes), "Int64"),
            "polarisations": "VV+VH",
            "level": "L2A",
            "backscatter": "gamma0_rtc",
            "baseline": "05.00",
            "tile": "31UES",
            "datatake": scenes["id"],
        }
        scenes = scenes.assign(**{k: v for k, v in defaults.items() if k not in scenes})
        scenes = scenes.set_geometry([self.area] * len(scenes), crs="EPSG:4326")
        scenes.attrs = {"source": "fake", "searched": "everything"}
        return scenes

    def read(self, what, grid, *, bands=None, resampling=None):
        return factories.make_patch((40, 50), nodata=True)


@pytest.fixture
def fake(monkeypatch, tmp_path_factory):
    opened = []
    monkeypatch.setattr(FakeSource, "folder", tmp_path_factory.mktemp("labels"), raising=False)

    def open_source(name, **options):
        opened.append((name, options))
        return FakeSource()

    monkeypatch.setitem(vars(ds), "open_source", open_source)
    # Training needs more than a ready patch; the real demo is run below.
    monkeypatch.setattr(cli_demo, "can_learn", lambda: False)
    return SimpleNamespace(opened=opened)


def test_the_demo_walks_from_area_to_files_and_says_how(fake, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), "--seed", "4"]) == 0
    out = capsys.readouterr().out
    assert fake.opened == [("demo", {"seed": 4})]
    for line in (
        '>>> src = ds.open_source("demo", seed=4)',
        ">>> aoi = src.area",
        ">>> grid = ds.geobox(aoi, resolution=10)",
        '>>> scenes = src.search(aoi, "2018-05-01", "2018-08-31")',
        ">>> ds.match_rate(scenes, aoi=aoi, max_days=3)",
        ">>> pairs = ds.pair(scenes, aoi=aoi, max_days=3)",
        ">>> patch = src.read(pairs.iloc[0], grid)",
        ">>> masks = ds.rasterize(labels, like=patch)",
        "Winter wheat",
        "jupyter lab notebooks/01_quickstart.ipynb",
        "50 x 40 px",
    ):
        assert line in out
    assert re.search(r"gap +[+-]\d+\.\d h", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            "S1_20180704T175612.tif",
            "S2_20180704T105700.tif",
            "SCL_20180704T105700.tif",
            "SCL_20180704T105700.tif.aux.xml",
            *(f"{name}.tif{end}" for name in ("class_map", "conflict") for end in ("", ".aux.xml")),
            "class_map.qml",
            "conflict.qml",
            "coverage.tif",
            "masks.png",
            "parcel_id.tif",
            "patch.png",
        ]
    )
    assert (tmp_path / "patch.png").read_bytes()[:4] == b"\x89PNG"


def test_the_printed_python_runs_and_gives_the_same_files(fake, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "a")]) == 0
    lines = re.findall(r"^ +>>> (.*)$", capsys.readouterr().out, flags=re.MULTILINE)
    script = "\n".join(lines).replace(str(tmp_path / "a"), str(tmp_path / "b"))
    (tmp_path / "b").mkdir()
    names: dict[str, object] = {}
    exec(script, names)
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / k).iterdir()} for k in "ab")
    assert first == second
    assert "patch" in names


def test_columns_of_the_tables_are_aligned_and_hold_no_trailing_space(fake, tmp_path, capsys):
    cli.main(["demo", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 120
    head = next(line for line in out.splitlines() if "Sentinel-2 (UTC)" in line)
    row = next(line for line in out.splitlines() if re.match(r" +2018-\d\d-\d\d \d\d:\d\d  2018", line))
    assert row.index("2018", 8) == head.index("Sentinel-1")


@pytest.mark.filterwarnings("error")
def test_radar_without_clouds_is_counted_without_a_warning():
    scenes = FakeSource().search(None)
    rows = cli_demo._scene_rows(scenes.assign(cloud_cover=scenes["cloud_cover"].where(scenes["sensor"] == "S2")))
    assert [row[-1] for row in rows][:2] == ["median cloud", ""]
    assert rows[2][-1].endswith("%")


def test_another_source_takes_its_box_and_no_seed(fake, tmp_path, capsys):
    arguments = ["demo", "--out", str(tmp_path), "--source", "earth-search", "--bbox", "4", "49.26", "4.02", "49.275"]
    assert cli.main([*arguments, "--start", "2018-06-01", "--end", "2018-06-30"]) == 0
    assert fake.opened == [("earth-search", {})]
    out = capsys.readouterr().out
    assert "aoi = (4, 49.26, 4.02, 49.275)" in out
    assert 'src.search(aoi, "2018-06-01", "2018-06-30")' in out


def test_the_printed_box_is_the_box_that_was_used(fake, tmp_path, capsys):
    box = ["4.0012345678", "49.26", "4.02", "49.275"]
    assert cli.main(["demo", "--out", str(tmp_path), "--source", "earth-search", "--bbox", *box]) == 0
    assert f"aoi = ({', '.join(box)})" in capsys.readouterr().out


def test_a_seed_for_the_real_earth_is_refused(fake, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), "--source", "earth-search", "--seed", "3"]) == 2
    assert "--seed numbers imaginary Earths" in capsys.readouterr().err
    assert fake.opened == []


def test_a_place_that_cannot_be_written_is_named_before_the_work(fake, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--out", str(tmp_path / "file" / "out")]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err
    assert "--out" in err
    assert "Traceback" not in err
    assert fake.opened == []


def test_our_errors_are_one_message_and_status_2(monkeypatch, tmp_path, capsys):
    class Nothing(FakeSource):
        def search(self, *args, **kwargs):
            raise NothingFoundError("No scenes over the sea. Widen the dates.")

    monkeypatch.setitem(vars(ds), "open_source", lambda name, **options: Nothing())
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "deepsentinel: No scenes over the sea. Widen the dates."
    assert "Traceback" not in err
    assert "--debug" in err
    with pytest.raises(NothingFoundError):
        cli.main(["demo", "--out", str(tmp_path), "--debug"])


def test_a_source_without_an_area_asks_for_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(vars(ds), "open_source", lambda name, **options: SimpleNamespace(name=name))
    assert cli.main(["demo", "--source", "earth-search", "--out", str(tmp_path)]) == 2
    assert "--bbox WEST SOUTH EAST NORTH" in capsys.readouterr().err


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    def interrupted(name, **options):
        raise KeyboardInterrupt

    monkeypatch.setitem(vars(ds), "open_source", interrupted)
    assert cli.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_doctor_prints_text_or_json_and_its_status(monkeypatch, capsys):
    assert cli.main(["doctor", "--services", "none"]) == 0
    assert capsys.readouterr().out.startswith("Versions\n")
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {checkup["status"] for checkup in report["services"]} == {"unreachable"}
    from deepsentinel import doctor

    monkeypatch.setattr(doctor, "LIBRARIES", ("no-such-library",))
    assert cli.main(["doctor", "--services", "none"]) == 1
    capsys.readouterr()
    assert cli.main(["doctor", "--services", "earth-serch"]) == 2
    assert "planetary-computer, earth-search, cdse" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["--help"], 0), ([], 2), (["dmeo"], 2)])
def test_usage(arguments, status, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == status
    streams = capsys.readouterr()
    said = streams.out + streams.err
    assert "deepsentinel" in said
    if arguments == ["--version"]:
        assert said.strip() == f"deepsentinel {ds.__version__}"


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    code = "import sys; from deepsentinel.cli import main; sys.exit(main())"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_needs_no_heavy_import():
    code = (
        "import sys; sys.argv = ['deepsentinel', '--version']\n"
        "from deepsentinel.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "bad = {'numpy', 'pandas', 'xarray', 'matplotlib', 'rasterio'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_a_reader_who_has_enough_is_no_error():
    code = "from deepsentinel.cli import main; import sys; sys.exit(main(['doctor', '--services', 'none']))"
    shell = f'"{sys.executable}" -W error -c "{code}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_doctor_runs_as_a_process_without_a_warning():
    done = run("doctor", "--services", "none", env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_the_demo_takes_a_minute_the_first_time_and_seconds_after(tmp_path):
    environment = {**os.environ, "DEEPSENTINEL_CACHE": str(tmp_path / "cache")}
    for limit_s in (60, 15):
        began = time.monotonic()
        done = run("demo", "--out", str(tmp_path / "out"), env=environment)
        took_s = time.monotonic() - began
        print(f"deepsentinel demo: {took_s:.1f} s (at most {limit_s})")
        assert (done.returncode, done.stderr) == (0, "")
        assert took_s < limit_s
        # What was learnt elsewhere is worth something here: clearly more than to name the commonest class everywhere.
        right, common = re.findall(r"right on (\d+)% .* would be on (\d+)%", done.stdout)[0]
        print(f"right on {right} %, the commonest class on {common} %")
        assert int(right) >= int(common) + 15
    # The same place, dates and pixels every time.
    assert len(list((tmp_path / "out").glob("*.tif"))) == 9
