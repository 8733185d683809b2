"""The cache on disk: the second look needs no network, whoever looks; it stays within bounds, and what is damaged in it
is thrown away."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_server import FaultService, faulty
from stac_builders import MADE_AOI, made_dn, made_grid

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning, InputError, SourceError
from deepsentinel.files import folder_bytes
from deepsentinel.sources import cache as cache_module
from deepsentinel.sources.cache import SceneCache, unsigned
from deepsentinel.sources.engine.remote import Version
from deepsentinel.sources.presets import PLANETARY_COMPUTER
from deepsentinel.sources.services import SignedSource, TokenSigner

ROW = {"sensor": "S2", "id": "S2A_31UDQ_20200601_0_L2A"}
B04 = f"{ROW['id']}_B04.tif"
ONE = Version("e1", 1000)


@pytest.fixture
def service(coast_items: list[dict[str, Any]], coast_files: Path) -> Iterator[FaultService]:
    with faulty(FaultService(copy.deepcopy(coast_items), coast_files)) as running:
        yield running


def asked(service: FaultService) -> int:
    """Requests for pixels since the last look."""
    count = sum(request.path.startswith("/files/") for request, _ in service.log)
    service.forget()
    return count


def test_the_second_look_needs_no_network(service: FaultService, tmp_path: Path) -> None:
    plain = ds.open_source(service.url)
    row = plain.search(MADE_AOI, sensors="S2").iloc[0]
    wanted = plain.read(row, made_grid())
    assert asked(service) == 26
    first = ds.open_source(service.url, cache=tmp_path)
    assert first.read(row, made_grid()).identical(wanted)
    assert asked(service) == 26, "looking into an empty cache costs nothing at the server"
    second = ds.open_source(service.url, cache=tmp_path)  # as in another session
    assert second.read(row, made_grid()).identical(wanted)
    (many,) = second.read_many(row, made_grid())
    assert many.identical(wanted)
    assert second.read(row.to_frame().T, made_grid(), bands=["B04"])["B04"].max() > 0
    assert asked(service) == 0
    assert asked(service) == 0
    plain.read(row, made_grid(), bands=["B04"])
    assert asked(service) == 2, "off unless asked for"


def test_patches_share_what_lies_under_both(service: FaultService, tmp_path: Path) -> None:
    """Blocks of 64 px, four to a file: the second window needs one that the first had, and one more."""
    source = ds.open_source(service.url, cache=tmp_path)
    grid = made_grid((32, 32))
    source.read(ROW, grid, bands=["B04"])
    assert asked(service) == 2
    wider = source.read(ROW, made_grid((32, 96)), bands=["B04"])
    assert asked(service) == 1
    np.testing.assert_array_equal(wider["B04"], made_dn("B04", 0)[:32])
    source.read(ROW, grid.translate_pix(40, 0), bands=["B04"])
    assert asked(service) == 0


def test_another_signature_is_no_other_file(service: FaultService, tmp_path: Path) -> None:
    service.files_need_token, service.now = True, time.time()

    def source() -> SignedSource:
        signer = TokenSigner(f"{service.url}/token", host=re.compile(r"(127\.0\.0\.1):\d+$"))
        return SignedSource(service.url, preset=PLANETARY_COMPUTER, signer=signer, cache=tmp_path)

    wanted = source().read(ROW, made_grid(), bands=["B04"])
    assert asked(service) == 2
    service.token = "another"
    assert source().read(ROW, made_grid(), bands=["B04"]).identical(wanted)
    assert asked(service) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.org/b.tif?sv=1&sig=x", "https://a.org/b.tif?sig=y&sv=2", True),
        ("https://a.org/b.tif?X-Amz-Signature=x", "https://a.org/b.tif", True),
        ("https://me:word@A.org/b.tif", "https://a.org/b.tif", True),
        ("https://a.org/get?file=a.tif&sig=x", "https://a.org/get?sig=y&file=b.tif", False),
        ("https://a.org/get?key=a.tif", "https://a.org/get?key=b.tif", False),
        ("https://a.org/get?src=a.tif", "https://a.org/get?src=b.tif", False),
        ("https://a.org/wcs?sr=1&id=3", "https://a.org/wcs?sr=2&id=3", False),
        ("https://a.org/b.tif?versionId=1", "https://a.org/b.tif?versionId=2", False),
        ("https://a.org/b.tif", "http://a.org/b.tif", False),
        ("https://a.org/b.tif", "https://a.org:8443/b.tif", False),
    ],
)
def test_two_files_never_pass_for_one(one: str, other: str, same: bool) -> None:
    assert (unsigned(one) == unsigned(other)) == same


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_what_is_damaged_is_thrown_away(service: FaultService, tmp_path: Path, damage: str) -> None:
    source = ds.open_source(service.url, cache=tmp_path)
    wanted = source.read(ROW, made_grid(), bands=["B04"])
    service.forget()
    entries = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(entries) == 5, "a header and four blocks"
    for path in entries:
        data = path.read_bytes()
        spoilt = {
            "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
            "cut": data[:-5],
            "empty": b"",
            "other": b"x" * 99,
        }
        path.write_bytes(spoilt[damage])
    assert source.read(ROW, made_grid(), bands=["B04"]).identical(wanted)
    assert asked(service) == 2
    assert source.read(ROW, made_grid(), bands=["B04"]).identical(wanted)
    assert asked(service) == 0, "and it is whole again"


def test_a_block_that_came_spoilt_is_not_kept(service: FaultService, tmp_path: Path) -> None:
    """Spoilt on its way, noticed when it is decoded, fetched again: the cache has the good one."""
    source = ds.open_source(service.url, cache=tmp_path)
    service.plan = lambda request: (
        "corrupt" if request.path.endswith(B04) and request.first > 0 and request.nth == 1 else None
    )
    source.read(ROW, made_grid(), bands=["B04"])
    assert service.faults() == 1
    asked(service)
    np.testing.assert_array_equal(source.read(ROW, made_grid(), bands=["B04"])["B04"], made_dn("B04", 0))
    assert asked(service) == 0


def test_a_file_that_was_replaced(service: FaultService, tmp_path: Path) -> None:
    """Its old header is in the cache; a block of it that is not tells that there is another file now."""
    (tmp_path / "files").mkdir()
    here, other = tmp_path / "files" / B04, B04.replace("20200601", "20200611")
    assert service.files is not None
    here.write_bytes((service.files / B04).read_bytes())
    originals, service.locate = service.files, lambda path: here  # type: ignore[method-assign]
    source = ds.open_source(service.url, cache=tmp_path / "cache")
    old = source.read(ROW, made_grid((32, 32)), bands=["B04"])
    here.write_bytes((originals / other).read_bytes())
    assert source.read(ROW, made_grid((32, 32)), bands=["B04"]).identical(old), "nobody asked the server"
    both = source.read(ROW, made_grid(), bands=["B04"])
    wanted = np.where(made_dn("B04", 1) > 0, made_dn("B04", 1).astype(int) + 1000, 0)
    np.testing.assert_array_equal(both["B04"], wanted)  # wholly of the new file, as stored


def test_a_header_grows_old(service: FaultService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ds.open_source(service.url, cache=tmp_path)
    source.read(ROW, made_grid(), bands=["B04"])
    asked(service)
    monkeypatch.setattr(cache_module, "MAX_AGE_S", 0.0)
    source.read(ROW, made_grid(), bands=["B04"])
    assert asked(service) == 1, "the header; its version is the old one, so the blocks are still good"


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_it_is_bounded_and_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "TOUCH_S", 0.0)
    cache = SceneCache(tmp_path, max_gb=0.001)
    favourite = os.urandom(5_000)
    cache.keep_block("https://a.org/favourite.tif", ONE, 0, favourite)
    most = 0
    for number in range(600):
        cache.keep_block(f"https://a.org/{number}.tif", ONE, 0, os.urandom(5_000))
        if number % 20 == 0:
            assert cache.block("https://a.org/favourite.tif", ONE, 0, 5_000) == favourite
            most = max(most, folder_bytes(tmp_path))
    assert 0.5e6 < most < 1e6
    assert cache.block("https://a.org/0.tif", ONE, 0, 5_000) is None
    assert cache.block("https://a.org/599.tif", ONE, 0, 5_000) is not None
    cache.keep_block("https://a.org/huge.tif", ONE, 0, bytes(400_000))
    assert cache.block("https://a.org/huge.tif", ONE, 0, 400_000) is None, "one that would push out most others"


def test_a_full_folder_is_trimmed_by_whoever_comes_next(tmp_path: Path) -> None:
    large = SceneCache(tmp_path, max_gb=0.01)
    for number in range(300):
        large.keep_block(f"https://a.org/{number}.tif", ONE, 0, os.urandom(10_000))
    small = SceneCache(tmp_path, max_gb=0.001)
    small.keep_block("https://a.org/new.tif", ONE, 0, b"1")
    assert folder_bytes(tmp_path) < 1e6


WORKER = """
import sys, zlib
from deepsentinel.sources.cache import SceneCache
from deepsentinel.sources.engine.remote import Version
cache, seed = SceneCache(sys.argv[1], max_gb=0.002), int(sys.argv[2])
content = lambda n: (zlib.crc32(str(n).encode()).to_bytes(4, "big") * 1500)
mine, hits = set(), 0
for step in range(800):
    # Every other one is of fifty that are asked for again and again; the rest pushes them out in the end.
    n = (step * 7 + seed * 13) % 50 if step % 2 else 100 + step + seed * 1000
    kept = cache.block(f"https://a.org/{n}.tif", Version("e", 9), 0, 6000)
    assert kept is None or kept == content(n), "somebody else's bytes"
    hits += kept is not None and n not in mine
    if kept is None:
        mine.add(n)
        cache.keep_block(f"https://a.org/{n}.tif", Version("e", 9), 0, content(n))
print(hits)
"""


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    """Writing, reading and trimming at once: never a torn or foreign entry, never beyond the bound."""
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    most = 0
    while any(one.poll() is None for one in started):
        most = max(most, folder_bytes(tmp_path))
        time.sleep(0.02)
    assert [one.returncode for one in started] == [0, 0, 0]
    assert sum(int(one.communicate()[0]) for one in started) > 0, "none used what another had kept"
    assert 0.5e6 < max(most, folder_bytes(tmp_path)) < 2e6
    assert not list(tmp_path.rglob(".partial-*"))


def test_many_threads_share_one(tmp_path: Path) -> None:
    cache = SceneCache(tmp_path, max_gb=0.01)

    def work(number: int) -> bool:
        cache.keep_block("https://a.org/b.tif", ONE, number % 10, bytes([number % 10]) * 500)
        return cache.block("https://a.org/b.tif", ONE, number % 10, 500) == bytes([number % 10]) * 500

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


def test_a_folder_that_cannot_be_written_costs_no_pixels(
    service: FaultService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ds.open_source(service.url, cache=tmp_path)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "atomic_path", full)
    with pytest.warns(DeepSentinelWarning, match="cannot be written .*No space left") as caught:
        patch = source.read(ROW, made_grid(), bands=["B04"])
    assert len([one for one in caught if one.category is DeepSentinelWarning]) == 1
    np.testing.assert_array_equal(patch["B04"], made_dn("B04", 0))


# -- options -----------------------------------------------------------------------------------------------------------


def test_options(service: FaultService, tmp_path: Path) -> None:
    assert ds.open_source(service.url)._cache is None
    assert ds.open_source(service.url, cache=False)._cache is None
    usual = ds.open_source(service.url, cache=True, cache_gb=2)
    assert usual._cache is not None
    assert usual._cache.folder == Path(os.environ["DEEPSENTINEL_CACHE"]) / "pixels"
    assert "up to 2 GB" in repr(usual)
    assert pickle.loads(pickle.dumps(usual))._cache.max_bytes == 2_000_000_000
    for wrong in ({"cache": 7}, {"cache": " "}, {"cache_gb": 0}, {"cache_gb": "10"}, {"cache_gb": True}):
        with pytest.raises(InputError, match="cache"):
            ds.open_source(service.url, **wrong)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        ds.open_source(service.url, cache=tmp_path / "file")
    with pytest.raises(SourceError, match="cannot be made"):
        ds.open_source(service.url, cache=tmp_path / "file" / "below")
    with pytest.raises(TypeError, match="cach_gb"):
        ds.open_source(service.url, cach_gb=1)
