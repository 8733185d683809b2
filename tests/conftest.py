"""Fixtures for every test: no network, a cache of its own, and the real data where it is at hand."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time: a suite that fails must fail for whoever runs it next. Others are drawn, to look for what
# nobody has thought of, by `pytest --hypothesis-profile default`.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

LOOPBACK = ("127.", "::1", "localhost")
# Before anything of ours is imported: a cache that no earlier run has touched, and no proxy or GDAL setting of the
# user's. GDAL has its own network stack, which Python cannot see; a dead proxy closes it for all but this machine.
# The processes of one run share it: a scene is rendered once.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["DEEPSENTINEL_CACHE"] = tempfile.mkdtemp(prefix="deepsentinel-tests-")
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


def pytest_sessionfinish() -> None:
    import shutil

    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    shutil.rmtree(os.environ["DEEPSENTINEL_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails there and then, with the address in the message."""
    connect = socket.socket.connect
    resolve = socket.getaddrinfo

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOOPBACK):  # type: ignore[index]
            raise OSError(f"the network is blocked in tests: {address}")
        connect(self, address)  # type: ignore[arg-type]

    def local_names(host: object, *args: object, **kwargs: object) -> object:
        if host is not None and not str(host).startswith((*LOOPBACK, "0.0.0.0")):
            raise socket.gaierror(f"the network is blocked in tests: {host}")
        return resolve(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", local_names)


@pytest.fixture(autouse=True)
def _no_host_known() -> None:
    """Ports are used again, and what one test found out about a server is not of another's."""
    if wire := sys.modules.get("deepsentinel.sources.wire"):
        wire.ANSWERED.clear()
        wire.DEAD.clear()


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real Sentinel data, which is not part of the repository."""
    folder = Path(os.environ.get("DEEPSENTINEL_REAL", Path(__file__).parents[2] / "shared" / "real"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real data at {folder} (set DEEPSENTINEL_REAL to its folder)")
    return folder
