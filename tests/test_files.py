"""Writers never leave half a file, and the cache stays within its bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deepsentinel import files
from deepsentinel.files import atomic_folder, atomic_path, cache_dir, folder_bytes, trim_cache, write_bytes


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_an_exception_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "scene") as temporary:
        (temporary / "B02.tif").write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    code = (
        "import sys, time; from deepsentinel.files import atomic_path, atomic_folder\n"
        f"with atomic_path({str(tmp_path / 'a.tif')!r}) as f, atomic_folder({str(tmp_path / 'scene')!r}) as d:\n"
        "    f.write_bytes(b'half'); (d / 'B02.tif').write_bytes(b'half'); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        process.send_signal(signal.SIGKILL)
    left = [p.name for p in tmp_path.iterdir()]
    assert left
    assert all(name.startswith(".partial-") for name in left)
    # A day later the litter is swept up with the next trim, whatever the bound.
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert trim_cache(tmp_path, 10**9) == []
    assert list(tmp_path.iterdir()) == []


def test_readers_see_the_old_or_the_new_file_never_a_mixture(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"0" * 100_000)
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            data = target.read_bytes()
            if len(data) != 100_000 or len(set(data)) != 1:
                torn.append(data[:10])

    reader = threading.Thread(target=read)
    reader.start()
    for digit in b"123456789" * 5:
        write_bytes(target, bytes([digit]) * 100_000)
    stop.set()
    reader.join()
    assert torn == []


def test_of_two_writers_of_a_folder_the_first_wins_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "scene") as slow:
        (slow / "who").write_text("slow")
        with atomic_folder(tmp_path / "scene") as quick:
            (quick / "who").write_text("quick")
    assert (tmp_path / "scene" / "who").read_text() == "quick"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_replaces_another_does_so_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("first", "second"):
        with atomic_folder(tmp_path / "map", replace=True) as folder:
            (folder / who).write_text(who)
    assert [path.name for path in (tmp_path / "map").iterdir()] == ["second"]
    rename = Path.rename

    def stuck(path: Path, target: Path) -> Path:
        if target.name == "map" and (path / "third").exists():
            raise OSError("the disk is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stuck)
    with pytest.raises(OSError, match="disk is gone"), atomic_folder(tmp_path / "map", replace=True) as folder:
        (folder / "third").write_text("third")
    assert [path.name for path in tmp_path.rglob("*")] == ["map", "second"]


def test_written_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_trimming_deletes_the_least_recently_used_until_it_fits(tmp_path: Path) -> None:
    now = time.time()
    for age, name in enumerate(("new", "middle", "old", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pixels").write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - 1000 * age,) * 2)
    assert trim_cache(tmp_path, 250) == ["oldest", "old"]
    assert folder_bytes(tmp_path) == 200
    # What is in use stays, whatever it takes.
    assert trim_cache(tmp_path, 0, in_use_since=now - 500) == ["middle"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_what_is_taken_into_use_while_others_are_trimmed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - 1000 - (name == "first"),) * 2)
    remove = files._remove

    def meanwhile(path: Path) -> None:
        os.utime(tmp_path / "second")
        remove(path)

    monkeypatch.setattr(files, "_remove", meanwhile)
    assert trim_cache(tmp_path, 0, in_use_since=now - 500) == ["first"]
    assert [p.name for p in tmp_path.iterdir()] == ["second"]


def test_the_cache_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path / "elsewhere"))
    assert cache_dir("demo") == tmp_path / "elsewhere" / "demo"
    monkeypatch.delenv("DEEPSENTINEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / "xdg" / "deepsentinel"
