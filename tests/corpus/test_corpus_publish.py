"""A corpus in a bucket is the corpus that was sent, also after a cut, and never half of it or two mixed."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_examples import made_up, stored
from emulators import amazon, azure, google

from deepsentinel.corpus import publish as module
from deepsentinel.corpus.publish import publish
from deepsentinel.corpus.remote import open_remote
from deepsentinel.corpus.store import open_corpus
from deepsentinel.errors import InputError, NothingFoundError, SourceError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("made") / "one.zarr")


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}"


def held(url: str, options: dict[str, Any] | None = None) -> dict[str, bytes]:
    store = open_remote(url, options)
    return {entry["path"]: bytes(store.get(entry["path"]).bytes()) for page in store.list() for entry in page}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(found: dict[str, bytes], folder: Path) -> bool:
    return {name: data for name, data in found.items() if name != "manifest.json"} == files(folder)


def test_what_arrives_is_what_was_sent_and_the_manifest_tells_its_checksums(corpus: Path, memory: str) -> None:
    report = publish(corpus, memory)
    found = held(memory)
    assert same(found, corpus)
    assert report.sent == report.files == len(files(corpus))
    assert report.bytes == sum(map(len, files(corpus).values()))
    told = json.loads(found["manifest.json"])["files"]
    assert {name: entry["sha256"] for name, entry in told.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files(corpus).items()
    }


def test_a_second_call_sends_nothing_and_a_changed_shard_goes_alone(tmp_path: Path, memory: str) -> None:
    folder = stored(tmp_path / "one.zarr")
    publish(folder, memory)
    assert publish(folder, memory).sent == 0
    assert publish(folder, memory, resume=False).sent == len(files(folder))
    shard = folder / "s2/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1  # of the same length, so that only the checksum tells
    shard.write_bytes(data)
    assert publish(folder, memory).sent == 1
    assert same(held(memory), folder)


def test_a_corpus_that_lacks_a_shard_is_not_sent(tmp_path: Path, memory: str) -> None:
    folder = stored(tmp_path / "one.zarr")
    (folder / "s2/c/1/0/0/0").unlink()
    for given in (folder, open_corpus(folder)):
        with pytest.raises(InputError, match=r"s2/c/1/0/0/0 is missing, and samples 4 to 7 were built"):
            publish(given, memory)
    assert not held(memory)


def test_a_shard_that_is_gone_goes_there_too(tmp_path: Path, memory: str) -> None:
    folder = stored(tmp_path / "one.zarr", failed=(8, 9))
    publish(folder, memory)
    (folder / "s1/c/2/0/0/0").unlink()
    assert publish(folder, memory).removed == 1
    assert same(held(memory), folder)


def test_nobody_can_open_it_before_it_is_whole(corpus: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    put = module._Bucket.put

    def noted(self: Any, name: str, content: Any, sha256: str) -> None:
        order.append(name)
        put(self, name, content, sha256)

    monkeypatch.setattr(module._Bucket, "put", noted)
    publish(corpus, memory, threads=1)
    assert order[0] == "publishing.json"
    assert order[-3:] == ["samples.parquet", "manifest.json", "zarr.json"]
    assert "publishing.json" not in held(memory)


@pytest.mark.parametrize("after", [0, 1, 5, 12])
def test_after_a_cut_it_sends_the_rest_and_only_that(
    corpus: Path, memory: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = module._Bucket.put
    sent: list[str] = []

    def cut(self: Any, name: str, content: Any, sha256: str) -> None:
        if sha256:
            if len(sent) >= after:
                raise SourceError("the line is dead.")
            sent.append(name)
        put(self, name, content, sha256)

    with monkeypatch.context() as broken:
        broken.setattr(module._Bucket, "put", cut)
        with pytest.raises(SourceError, match=r"the line is dead\. .* publish again"):
            publish(corpus, memory, threads=1)
    assert "zarr.json" not in held(memory)
    with pytest.raises(NothingFoundError):
        open_corpus(memory)
    report = publish(corpus, memory)
    assert report.sent == report.files - after
    assert same(held(memory), corpus)


def test_another_corpus_is_not_overwritten_by_mistake(corpus: Path, tmp_path: Path, memory: str) -> None:
    other = stored(tmp_path / "two.zarr", 12)
    publish(other, memory)
    with pytest.raises(InputError, match="holds another corpus"):
        publish(corpus, memory)
    assert same(held(memory), other)
    publish(corpus, memory, overwrite=True)
    assert same(held(memory), corpus)  # no shard of the larger one is left, which would read as samples


def test_one_that_was_on_its_way_counts_as_well(corpus: Path, tmp_path: Path, memory: str) -> None:
    store = open_remote(memory)
    store.put("publishing.json", b'{"corpus": "another"}')
    store.put("s2/c/9/0/0/0", b"half")
    with pytest.raises(InputError, match="was on its way"):
        publish(corpus, memory)
    publish(corpus, memory, overwrite=True)
    assert same(held(memory), corpus)


def test_what_is_no_corpus_stays_where_it_is(corpus: Path, memory: str) -> None:
    open_remote(memory).put("thesis.tex", b"five years")
    with pytest.raises(InputError, match=r"not empty: it holds 'thesis\.tex'"):
        publish(corpus, memory)
    publish(corpus, memory, overwrite=True)
    assert held(memory)["thesis.tex"] == b"five years"


def test_a_folder_does_too(corpus: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.zarr"
    publish(corpus, there)
    assert same(files(there), corpus)
    (there / "scl/c/0/0/0").unlink()
    assert publish(corpus, there).sent == 1
    assert np.array_equal(open_corpus(there).s2[3].values, made_up(3, 32)["s2"])


@pytest.mark.parametrize("where", ["itself", "inside", "around"])
def test_a_corpus_is_not_copied_into_itself(tmp_path: Path, where: str) -> None:
    folder = stored(tmp_path / "a" / "one.zarr", 4)
    place = {"itself": folder, "inside": folder / "copy", "around": folder.parent}[where]
    with pytest.raises(InputError, match="a folder of its own"):
        publish(folder, place)


def test_an_unfinished_corpus_a_selection_and_nonsense_are_refused(tmp_path: Path, corpus: Path, memory: str) -> None:
    with pytest.raises(InputError, match="selection of 3 of the 10"):
        publish(open_corpus(corpus).isel(sample=slice(3)), memory)
    with pytest.raises(InputError, match="no corpus"):
        publish(tmp_path, memory)
    with pytest.raises(InputError, match="cannot be written to"):
        publish(corpus, "https://example.org/one.zarr")
    with pytest.raises(InputError, match="no address"):
        publish(corpus, "ftp://example.org/one.zarr")
    with pytest.raises(InputError, match="threads"):
        publish(corpus, memory, threads=0)
    with pytest.raises(TypeError):
        publish(corpus, memory, thread=2)  # type: ignore[call-arg]
    half = stored(tmp_path / "half.zarr", 4)
    (half / "samples.parquet").unlink()
    with pytest.raises(InputError, match="not built to the end"):
        publish(half, memory)


def round_trip(cloud: Any, folder: Path) -> None:
    report = publish(folder, cloud.url, storage_options=cloud.options)
    assert report.sent == report.files
    assert same(held(cloud.url, cloud.options), folder)
    assert publish(folder, cloud.url, storage_options=cloud.options).sent == 0
    here, there = open_corpus(folder), open_corpus(cloud.url, storage_options=cloud.options)
    assert there.sizes == here.sizes
    for name in here.data_vars:
        assert np.array_equal(there[name].values, here[name].values, equal_nan=here[name].dtype.kind == "f"), name
    assert there.sample.to_numpy().tolist() == here.sample.to_numpy().tolist()


def test_amazon(corpus: Path) -> None:
    with amazon() as cloud:
        round_trip(cloud, corpus)
        with pytest.raises(SourceError, match="no bucket 'nowhere'"):
            publish(corpus, "s3://nowhere/one.zarr", storage_options=cloud.options)


def test_without_credentials_it_says_how_to_get_in(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # Where a machine of Amazon's would be asked for its credentials there is nobody.
    nobody = {"metadata_endpoint": "http://127.0.0.1:9", "region": "us-east-1"}
    options = {**nobody, "endpoint": "http://127.0.0.1:9", "client_options": {"allow_http": True}}
    with pytest.raises(SourceError, match=r"credentials are missing or not enough.*AWS_ACCESS_KEY_ID"):
        publish(corpus, "s3://corpora/one.zarr", storage_options=options | {"retry_config": {"max_retries": 0}})


def test_google(corpus: Path) -> None:
    with google() as cloud:
        round_trip(cloud, corpus)


def test_google_cut_in_the_middle(corpus: Path) -> None:
    with google(fail_after=7) as cloud:  # the marker, and six files
        with pytest.raises(SourceError, match="publish again"):
            publish(corpus, cloud.url, storage_options=cloud.options, threads=1)
        there = held(cloud.url, cloud.options)
        assert len(there) == 7
        assert "zarr.json" not in there
        cloud.mend()  # type: ignore[attr-defined]
        cloud.requests.clear()
        report = publish(corpus, cloud.url, storage_options=cloud.options)
        again = {name.partition(".zarr/")[2] for verb, name in cloud.requests if verb == "PUT"}
        assert again == set(files(corpus)) - set(there) | {"publishing.json", "manifest.json"}
        assert report.sent == report.files - 6
        assert same(held(cloud.url, cloud.options), corpus)


def test_azure(corpus: Path, tmp_path: Path) -> None:
    with azure(tmp_path) as cloud:
        round_trip(cloud, corpus)


@pytest.mark.parametrize("where", [amazon, azure])
def test_large_files_go_in_pieces(where: Any, tmp_path: Path) -> None:
    folder = stored(tmp_path / "large.zarr", 4)
    large = np.random.default_rng(0).bytes(12_000_000)
    (folder / "plan").mkdir()
    (folder / "plan" / "large.bin").write_bytes(large)
    with where(*([tmp_path / "azurite"] if where is azure else [])) as cloud:
        publish(folder, cloud.url, storage_options=cloud.options)
        assert held(cloud.url, cloud.options)["plan/large.bin"] == large
        assert publish(folder, cloud.url, storage_options=cloud.options).sent == 0
