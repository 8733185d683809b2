"""A corpus behind a web server: few requests, the same pixels, and errors that tell a cut line from a torn file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from store_kit import S2, make_store, pixels

pytest.importorskip("obstore")

from deepsentinel.corpus.layout import shard_path
from deepsentinel.corpus.remote import open_remote
from deepsentinel.corpus.store import open_corpus, patch_of, samples_of
from deepsentinel.errors import InputError, ReadError, SourceError


class Web:
    """A web server of this machine that answers byte ranges, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str | None]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted, file = self.headers.get("Range"), folder / self.path.lstrip("/")
                owner.asked.append((self.path, wanted))
                if not file.is_file():
                    self.send_error(404)
                    return
                data = file.read_bytes()
                found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
                first, last = 0, len(data) - 1
                if found and found[1]:
                    first, last = int(found[1]), min(int(found[2] or last), last)
                elif found:
                    first = max(0, len(data) - int(found[2]))
                self.send_response(206 if found else 200)
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Last-Modified", self.date_time_string())
                if found:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.end_headers()
                self.wfile.write(data[first : last + 1])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    make_store(tmp_path / "c.zarr")
    served = Web(tmp_path)
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_opening_takes_two_requests_and_a_sample_one_more_than_its_bytes(web: Web) -> None:
    corpus = open_corpus(f"{web.url}/c.zarr")
    assert [path for path, _ in web.asked] == ["/c.zarr/zarr.json", "/c.zarr/samples.parquet"]
    web.asked.clear()
    np.testing.assert_array_equal(corpus.s2[5].values, pixels()["s2"][5])
    assert len(web.asked) == 2  # the index of its shard, and its chunk
    assert all(path == "/c.zarr/s2/c/1/0/0/0" and wanted for path, wanted in web.asked)
    web.asked.clear()
    np.testing.assert_array_equal(corpus.s2[4:8].values, pixels()["s2"][4:8])
    assert len(web.asked) == 1  # the index is known, and neighbours come in one piece
    assert samples_of(corpus)["sample"].tolist() == list(range(10))
    assert patch_of(corpus, 3).attrs["sample_id"] == "p3"


def test_a_line_that_is_cut_is_not_taken_for_a_torn_file(web: Web, tmp_path: Path) -> None:
    corpus = open_corpus(f"{web.url}/c.zarr", storage_options={"retry_config": {"max_retries": 0}})
    file = shard_path(tmp_path / "c.zarr", S2, 0)
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    with pytest.raises(ReadError, match=r"Sample 0 of array 's2' cannot be read from http://.*: the checksum"):
        corpus.s2[0].load()
    web.server.shutdown()
    web.server.server_close()
    with pytest.raises(SourceError, match=r"s1/c/0/0/0/0 cannot be reached") as caught:
        corpus.s1[0].load()
    assert not isinstance(caught.value, ReadError)


def test_a_fork_of_a_process_that_read_from_far_away_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_remote("memory://fork")
    store.put("zarr.json", b"{}")
    monkeypatch.setattr("deepsentinel.corpus.remote.os.getpid", lambda: -1)
    with pytest.raises(InputError, match="multiprocessing_context='spawn'"):
        open_corpus("memory://fork")
