"""The real samples: fetched once, checked, credited; and what happens without a network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fake_services import FakeService, served
from rasterio.transform import from_origin
from stac_builders import grid_of

import deepsentinel as ds
from deepsentinel.errors import InputError, NothingFoundError, SourceError
from deepsentinel.sources.samples import CREDIT, KINDS, PLACES, SHA256, SamplesSource, fetch

BANDS = {"S1RTC": 2, "S2L2A": 12, "S2L1C": 13, "LULC": 1, "DEM": 1}


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like the samples' at made-up places: 16 px, radar in dB, optical x 10000."""
    folder = tmp_path_factory.mktemp("home")
    for n, place in enumerate(PLACES):
        for kind in KINDS:
            rng = np.random.default_rng(n)
            data = rng.integers(1, 3000, (BANDS[kind], 16, 16)).astype("int16")
            if kind == "S1RTC":
                data = rng.normal(-12, 2, (2, 16, 16))
            path = folder / kind / f"{place.name}.tif"
            path.parent.mkdir(exist_ok=True)
            with rasterio.open(
                path, "w", driver="GTiff", width=16, height=16, count=len(data), dtype=data.dtype, crs="EPSG:32632",
                transform=from_origin(549_892.697 + n * 10_000, 6_344_077.614, 10, 10),
            ) as file:  # fmt: skip
                file.write(data)
    return folder


@pytest.fixture(scope="module")
def checksums(made_home: Path) -> dict[str, str]:
    return {name: hashlib.sha256((made_home / name).read_bytes()).hexdigest() for name in SHA256}


@pytest.fixture
def home(made_home: Path) -> Iterator[FakeService]:
    with served(FakeService([], made_home)) as service:
        yield service


def requests_of(service: FakeService) -> int:
    return sum(service.counts.values())


def test_fetched_once_with_credit(
    home: FakeService, checksums: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"base_url": f"{home.url}/files", "checksums": checksums, "folder": tmp_path / "cache"}
    first = ds.open_source("samples", **options)
    shown = capsys.readouterr()
    assert CREDIT in shown.err
    assert shown.out == ""
    assert requests_of(home) == len(SHA256)
    assert CREDIT in (tmp_path / "cache/CREDITS.txt").read_text()
    assert CREDIT in first.info()
    again = ds.open_source("samples", **options)
    assert requests_of(home) == len(SHA256), "once is enough"
    assert capsys.readouterr().err == ""
    for source in (first, again):
        pairs = ds.pair(source.search(source.area), aoi=source.area, max_days=3)
        patch = ds.check_patch(source.read(pairs.iloc[0], grid_of(source.files[f"S2L2A/{PLACES[0].name}.tif"])))
        assert patch.attrs["level"] == "L2A"
        assert patch.attrs["offset_removed"] == 0


def test_level_l1c_knows_which_place_has_the_offset(
    home: FakeService, checksums: dict[str, str], tmp_path: Path
) -> None:
    source = SamplesSource(level="L1C", base_url=f"{home.url}/files", checksums=checksums, folder=tmp_path)
    for place, removed in zip(PLACES, (0, 1000), strict=True):
        grid = grid_of(source.files[f"S2L1C/{place.name}.tif"])
        scenes = source.search(source.areas[place.name], sensors="S2")
        assert len(scenes) == 1
        patch = ds.check_patch(source.read(scenes.iloc[0], grid))
        assert patch.attrs["offset_removed"] == removed
        assert "B10" in patch


def test_a_file_that_is_not_the_one_is_not_kept(home: FakeService, checksums: dict[str, str], tmp_path: Path) -> None:
    wrong = {**checksums, "DEM/637U_59R_1_3.tif": "0" * 64}
    with pytest.raises(SourceError, match=r"DEM/637U_59R_1_3\.tif is not the file that was expected.*Nothing was kept"):
        fetch(tmp_path, f"{home.url}/files", wrong)
    assert not (tmp_path / "DEM/637U_59R_1_3.tif").exists()
    assert not list(tmp_path.rglob(".partial*"))
    assert fetch(tmp_path, f"{home.url}/files", checksums)["DEM/637U_59R_1_3.tif"].is_file()


def test_without_a_network_it_says_where_to_put_the_files(
    made_home: Path, checksums: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SourceError) as problem:
        SamplesSource(base_url="http://127.0.0.1:9/examples", checksums=checksums, folder=tmp_path / "cache")
    said = str(problem.value)
    assert "http://127.0.0.1:9/examples" in said
    assert str(tmp_path / "cache") in said
    assert "S1RTC" in said or ".tif" in said
    # put there by hand, they are checked and used
    for name in checksums:
        target = tmp_path / "cache" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((made_home / name).read_bytes())
    source = SamplesSource(base_url="http://127.0.0.1:9/examples", checksums=checksums, folder=tmp_path / "cache")
    assert len(source.search(source.area)) == 2


def test_killed_while_fetching_leaves_nothing_that_counts(
    home: FakeService, checksums: dict[str, str], tmp_path: Path
) -> None:
    """A process dies in the middle of writing a file; the next one starts that file again."""
    code = (
        "import os, pathlib, sys\n"
        "from deepsentinel.sources import samples\n"
        "write = pathlib.Path.write_bytes\n"
        "def half(self, data):\n"
        "    write(self, data[: len(data) // 2])\n"
        "    os._exit(9)\n"
        "pathlib.Path.write_bytes = half\n"
        f"samples.fetch(pathlib.Path({str(tmp_path)!r}), {home.url + '/files'!r}, {checksums!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ})
    assert done.returncode == 9
    paths = fetch(tmp_path, f"{home.url}/files", checksums)
    for name, path in paths.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checksums[name]


def test_bad_options() -> None:
    with pytest.raises(InputError, match="level='L3'"):
        SamplesSource(level="L3")
    with pytest.raises(TypeError, match=r"no option 'levels'.*Did you mean 'level'"):
        ds.open_source("samples", levels="L2A")


def test_the_real_samples(real: Path, tmp_path: Path) -> None:
    """The checksums in the code are those of the real files, and the source reads them."""
    with served(FakeService([], real / "terramind")) as service:
        source = SamplesSource(base_url=f"{service.url}/files", folder=tmp_path)
    area = source.areas["282D_485L_3_3"]
    pairs = ds.pair(source.search(area), aoi=area, max_days=3)
    assert len(pairs) == 1
    assert pairs.gap_hours.iloc[0] == pytest.approx(-52.709, abs=0.01)
    patch = ds.check_patch(source.read(pairs.iloc[0], grid_of(real / "terramind/S2L2A/282D_485L_3_3.tif")))
    with rasterio.open(real / "terramind/S2L2A/282D_485L_3_3.tif") as file:
        np.testing.assert_array_equal(patch["B8A"], file.read(9))
    with pytest.raises(NothingFoundError, match="outside the catalog"):
        source.search((100, 10, 101, 11))
