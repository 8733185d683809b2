"""Checkpoints: fetched whole or not at all, checked, and never run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import random
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import deepsentinel.encoders as package
from deepsentinel.encoders import load_encoder, weights
from deepsentinel.encoders.registry import find
from deepsentinel.encoders.spec import EncoderSpec
from deepsentinel.encoders.weights import fetch, read_state
from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import cache_dir

NAME = "galileo-nano"


class Home:
    """A place that serves one file in ranges, as the hub does, and can break off or lie."""

    def __init__(self) -> None:
        self.body = b""
        self.break_after: int | None = None
        self.status: int | None = None
        self.promise = ""
        self.asked: list[str | None] = []
        home = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/resolve":
                    self.send_response(302)
                    self.send_header("Location", "/file")
                    if home.promise:
                        self.send_header("X-Linked-Etag", f'"{home.promise}"')
                    self.end_headers()
                    return
                asked = self.headers.get("Range")
                home.asked.append(asked)
                if home.status:
                    self.send_error(home.status)
                    return
                first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
                if first >= len(home.body) and asked:
                    self.send_error(416)
                    return
                rest = home.body[first:]
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                cut, home.break_after = home.break_after, None
                self.wfile.write(rest if cut is None else rest[:cut])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/resolve"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.server.shutdown()
    home.server.server_close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path / "cache"))


def checkpoint(path: Path, name: str = NAME) -> bytes:
    torch.save(load_encoder(name, "random", seed=3).state_dict(), path)
    return path.read_bytes()


def spec_at(home: Home, body: bytes, **changes: object) -> EncoderSpec:
    home.body = body
    sha256 = hashlib.sha256(body).hexdigest()
    return dataclasses.replace(find(NAME), **{"url": home.url, "file": "a.pt", "sha256": sha256, **changes})


# Fetching


def test_a_file_is_fetched_once(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    path = fetch(spec)
    assert path.read_bytes() == home.body
    assert path.parent == cache_dir("weights")
    assert fetch(spec) == path
    assert home.asked == [None]
    assert not list(path.parent.glob("*.part"))


def test_an_interrupted_fetch_goes_on_where_it_broke_off(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    home.break_after = 100_000
    assert fetch(spec).read_bytes() == home.body
    assert home.asked == [None, "bytes=100000-"]


def test_a_fetch_that_died_goes_on_next_time(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    (cache_dir("weights") / "a.pt.part").write_bytes(home.body[:5000])
    assert fetch(spec).read_bytes() == home.body
    assert home.asked == ["bytes=5000-"]


def test_a_partial_file_longer_than_the_whole_is_begun_again(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    (cache_dir("weights") / "a.pt.part").write_bytes(home.body + b"more")
    assert fetch(spec).read_bytes() == home.body


def test_another_file_in_its_place_is_refused_and_not_kept(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    home.body = b"<html>Please log in</html>"
    with pytest.raises(SourceError, match=r"SHA-256.*proxy.*put it into .*weights as a.pt"):
        fetch(spec)
    assert list(cache_dir("weights").iterdir()) == []


def test_some_digits_of_a_checksum_are_checked_too(home: Home, tmp_path: Path) -> None:
    body = checkpoint(tmp_path / "b.pt")
    right = hashlib.sha256(body).hexdigest()[:8]
    assert fetch(spec_at(home, body, sha256=right)).is_file()
    wrong = ("0" if right[0] != "0" else "1") + right[1:]
    with pytest.raises(SourceError, match="SHA-256"):
        fetch(spec_at(home, body, sha256=wrong, file="c.pt"))


def test_where_no_checksum_is_known_the_one_that_the_hub_promises_is_checked(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"), sha256="")
    home.promise = "0" * 64
    with pytest.raises(SourceError, match="SHA-256"):
        fetch(spec)
    home.promise = hashlib.sha256(home.body).hexdigest()
    assert fetch(spec).read_bytes() == home.body


def test_a_wrong_file_put_there_by_hand_is_refused(home: Home, tmp_path: Path) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    (cache_dir("weights") / "a.pt").write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"a\.pt is not the file"):
        fetch(spec)
    (cache_dir("weights") / "a.pt").write_bytes(home.body)
    assert fetch(spec).read_bytes() == home.body
    assert home.asked == []


def test_a_file_that_changes_in_the_cache_is_checked_again(home: Home, tmp_path: Path) -> None:
    path = fetch(spec_at(home, checkpoint(tmp_path / "b.pt")))
    path.write_bytes(home.body[:-10])
    with pytest.raises(SourceError, match="SHA-256"):
        fetch(spec_at(home, home.body))


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_says_what_to_do(home: Home, status: int) -> None:
    spec = spec_at(home, b"x")
    home.status = status
    with pytest.raises(SourceError, match=f"{status}.*put it into .*weights as a.pt"):
        fetch(spec)


def test_without_a_network_the_message_names_the_file_and_its_place() -> None:
    """The tests' own network block stands in for none at all."""
    spec = find(NAME)
    with pytest.raises(SourceError) as caught:
        load_encoder(NAME)
    for needed in (spec.url, spec.file, str(cache_dir("weights"))):
        assert needed in str(caught.value)


def test_the_weights_arrive_in_the_encoder(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_at(home, checkpoint(tmp_path / "b.pt"))
    monkeypatch.setattr(package, "find", lambda name: spec)
    loaded = load_encoder(NAME).state_dict()
    wanted = load_encoder(NAME, "random", seed=3).state_dict()
    other = load_encoder(NAME, "random").state_dict()
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)
    assert not all(torch.equal(loaded[key], other[key]) for key in wanted)


# Reading


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_format_gives_the_same_tensors(tmp_path: Path, kind: str) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7])}
    path = tmp_path / "file"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    read = read_state(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_wrapped_and_grouped_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"epoch": 7, "state_dict": {"model.w": torch.ones(1)}}, path)
    assert list(read_state(path)) == ["model.w"]
    torch.save({"s1_encoder": {"w": torch.ones(1)}, "s2_encoder": {"w": torch.ones(1)}}, path)
    assert list(read_state(path)) == ["s1_encoder.w", "s2_encoder.w"]


class Touches:
    """What a hostile checkpoint is: an object that is put together by calling any function it likes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch {self.path}",)


class Opens(Touches):
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("hostile", [Touches, Opens])
@pytest.mark.parametrize("kind", ["zip", "legacy", 2, 3, 4, 5])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, hostile: type[Touches], kind: str | int) -> None:
    touched, path = tmp_path / "touched", tmp_path / "a.pt"
    content = {"weight": torch.ones(2), "extra": hostile(touched)}
    if isinstance(kind, int):
        path.write_bytes(pickle.dumps(hostile(touched), protocol=kind))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    # The file is indeed as dangerous as it is meant to be.
    if kind != "legacy" and kind != "zip":
        pickle.loads(path.read_bytes())
        assert touched.is_file()
        touched.unlink()
    for load in (lambda: read_state(path), lambda: load_encoder(NAME, path)):
        with pytest.raises(SourceError, match=r"a\.pt.*(more than tensors|truncated or damaged).*"):
            load()
        assert not touched.exists()


def test_the_refusal_names_what_it_would_have_called(tmp_path: Path) -> None:
    torch.save({"weight": Touches(tmp_path / "touched")}, tmp_path / "a.pt")
    with pytest.raises(SourceError, match=r"more than tensors \((posix|nt)\.system\).*nothing in it was run"):
        read_state(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, kept: float) -> None:
    state = {f"layer{number}.weight": torch.randn(50, 50) for number in range(5)}
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    body = path.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(body[: int(len(body) * kept)])
    with pytest.raises(SourceError, match=r"cut\.pt.*(truncated|not a checkpoint)"):
        read_state(cut)


PAGE, POINTER = b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"


@pytest.mark.parametrize("content", [PAGE, POINTER, b"PNG" * 20])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"not a checkpoint.*begins with"):
        read_state(path)


def test_the_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "presto.pt", "presto")
    with pytest.raises(SourceError, match=rf"presto\.pt does not hold the weights of {NAME}.*missing"):
        load_encoder(NAME, tmp_path / "presto.pt")
    torch.save({"weight": torch.ones(2)}, tmp_path / "b.pt")
    for name in ("ssl4eo-resnet18-s2-moco", NAME):
        with pytest.raises(SourceError, match="does not fit"):
            load_encoder(name, tmp_path / "b.pt")
    torch.save([torch.ones(2)], tmp_path / "c.pt")
    with pytest.raises(SourceError, match="no tensors by name"):
        load_encoder(NAME, tmp_path / "c.pt")


def test_a_path_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.pt"):
        load_encoder(NAME, tmp_path / "nowhere.pt")
    with pytest.raises(InputError, match="There is no file Random"):
        load_encoder(NAME, "Random")


def test_nothing_but_the_restricted_reader_reads_pickles() -> None:
    source = Path(weights.__file__).read_text()
    assert source.count("torch.load(") == source.count("weights_only=True)")
    for other in Path(package.__file__).parent.glob("*.py"):
        assert "torch.load(" not in other.read_text() or other.name == "weights.py"
        assert "pickle.load" not in other.read_text()


# Damaged, foreign and old


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_damage_of_any_kind_is_told_as_damage(tmp_path: Path, kind: str) -> None:
    state = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    torch.save(state, tmp_path / "whole.pt", _use_new_zipfile_serialization=kind == "zip")
    whole = (tmp_path / "whole.pt").read_bytes()
    rng = random.Random(0)
    path = tmp_path / "a.pt"
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(rng.choice([1, 2, 5])):
            body[rng.randrange(len(body))] = rng.randrange(256)
        path.write_bytes(body[: rng.randrange(20, len(body))] if rng.random() < 0.3 else body)
        with contextlib.suppress(SourceError):
            read_state(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda v: torch.full_like(v, float("nan")), "NaN or infinite"),
        (lambda v: torch.full_like(v, float("inf")), "NaN or infinite"),
        (lambda v: (100 * v).to(torch.int8), "of another type: .* is int8"),
    ],
)
def test_weights_that_are_no_numbers_to_compute_with_are_refused(tmp_path: Path, spoil, words: str) -> None:
    state = load_encoder(NAME, "random").state_dict()
    first = next(name for name, value in state.items() if value.is_floating_point())
    torch.save({**state, first: spoil(state[first])}, tmp_path / "a.pt")
    with pytest.raises(SourceError, match=words):
        load_encoder(NAME, tmp_path / "a.pt")
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.pt")
    assert load_encoder(NAME, tmp_path / "half.pt").spec.name == NAME


def test_the_file_of_a_lookalike_is_known_by_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = checkpoint(tmp_path / "twin.pt")
    twin = dataclasses.replace(find(NAME), name="twin", sha256=hashlib.sha256(body).hexdigest()[:8])
    monkeypatch.setattr(package, "registry", lambda: {"twin": twin, NAME: find(NAME)})
    with pytest.raises(SourceError, match=rf"twin\.pt holds the weights of twin, not those of {NAME}"):
        load_encoder(NAME, tmp_path / "twin.pt")
    own = dataclasses.replace(find(NAME), sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(package, "find", lambda name: own)
    assert load_encoder(NAME, tmp_path / "twin.pt").spec.name == NAME


@pytest.mark.parametrize("version", ["2.5.1", "2.6.0+cpu", "2.9.1"])
def test_an_older_torch_reads_only_what_is_known(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = checkpoint(tmp_path / "a.pt")
    save_file(read_state(tmp_path / "a.pt"), tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(SourceError, match=rf"torch {re.escape(version)} is known.*torch>=2\.10.*safetensors"):
        load_encoder(NAME, tmp_path / "a.pt")
    assert load_encoder(NAME, tmp_path / "a.safetensors").spec.name == NAME
    published = dataclasses.replace(find(NAME), sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(package, "find", lambda name: published)
    assert load_encoder(NAME, tmp_path / "a.pt").spec.name == NAME


def test_what_is_no_name_and_no_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a list"):
        load_encoder(["presto"])
    with pytest.raises(InputError, match=r"weights= is a OrderedDict.*load_weights"):
        load_encoder(NAME, load_encoder(NAME, "random").state_dict())
    checkpoint(tmp_path / "encoder.pt")
    with pytest.raises(InputError, match=r"It is a folder with encoder\.pt in it: name the file"):
        load_encoder(NAME, tmp_path)


def test_a_control_is_made_again_by_its_own_name() -> None:
    once = load_encoder(NAME, "random", seed=5)
    again = load_encoder(once.spec.name, "random", seed=5)
    assert again.spec.name == once.spec.name == f"{NAME}-random"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in once.state_dict().items())
