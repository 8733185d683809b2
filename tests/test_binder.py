"""What Binder makes of the repository: an image that needs no network, and a kernel that fits into its memory."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMORY_GB = 2.0
# What somebody does who opens the explorer, without the page: a pair, an embedding, labels and the map they give.
EXPLORER = """
import json, time, warnings
warnings.simplefilter("ignore")
import deepsentinel as ds
m = ds.Map("demo")
m.wait(120)
west, south, east, north = m.src.area.bounds
m.aoi = (west - 0.02, south - 0.01, east + 0.02, north + 0.01)
assert m.wait(120)
area = m.open("Area")
area.read.click()
assert m.wait(120)
m.open("Pair")
panel = m.open("Embedding")
panel.make.click()
assert m.wait(300)
assert m.z is not None, panel.line.text
labels = m.open("Labels")
for name, (lon, lat) in {"a": (west, south), "b": (east, north)}.items():
    labels.book.add(name)
    labels.label((lon, lat))
    assert m.wait(60)
assert m.prediction is not None, labels.line.text
"""
# And goes on, in the same kernel: a corpus, a few steps of training, a map.
TRAINING = """
panel = m.open("Train")
for press in (panel.make_plan, panel.make):
    press.click()
    assert m.wait(300), panel.line.text
panel.steps.value = 20
panel.start.click()
assert m.wait(300), panel.line.text
assert m.model is not None, panel.line.text
before = m.prediction
panel.map_it.click()
assert m.wait(120), panel.line.text
assert m.prediction is not before, panel.line.text
"""
TOLD = """
# Not getrusage: it remembers what the process was before it became this one, which is all of pytest.
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
print(json.dumps({"peak_gb": peak, "pixels": m.patch.sizes["x"] * m.patch.sizes["y"], "cells": m.z.sizes["x"]}))
"""


@pytest.mark.long
@pytest.mark.parametrize("done", [pytest.param("", id="explored"), pytest.param(TRAINING, id="trained")])
def test_the_explorers_kernel_fits_into_binders_memory(done: str, tmp_path: Path) -> None:
    start = [ROOT / "binder" / "start", sys.executable, "-c"]
    # As in the image: who builds the world in the kernel keeps some of the memory that it took.
    subprocess.run([*start, "import fill_cache; fill_cache.build_the_demo_world()"], check=True, cwd=ROOT / "binder")
    words = [*start, EXPLORER + done + TOLD]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    print(f"{told['peak_gb']:.2f} GB at most, {told['pixels']:,} pixels embedded and classified")
    assert told["pixels"] > 250_000
    assert told["peak_gb"] < MEMORY_GB


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_image_is_made_without_a_network_and_says_what_it_lacks(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    # The package is there already, and what builds it would have to be fetched.
    (tools / "pip").write_text('#!/bin/sh\necho "pip $@" >> "$HOME/asked"\n')
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for each in tools.iterdir():
        each.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    outside = {key: value for key, value in os.environ.items() if key not in ("no_proxy", "NO_PROXY")}
    env = {**outside, **dead, "HOME": str(home), "DEEPSENTINEL_CACHE": "", "PATH": f"{tools}:{os.environ['PATH']}"}
    env.pop("DEEPSENTINEL_CACHE")
    env.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [ROOT / "binder" / "postBuild"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=350
    )
    assert done.returncode == 0, done.stderr
    assert "fetch the samples: not now." in done.stdout
    assert "fetch the weights: not now." in done.stdout
    assert (home / "asked").read_text().strip() == "pip install --no-deps --quiet -e ."
    world = home / ".cache" / "deepsentinel" / "demo"
    assert [path.name for path in world.glob("seed0-1024*") if path.is_dir()]
    scenes = [path for path in world.rglob("*.tif") if "scenes" in path.parts]
    assert len(scenes) >= 2


def test_it_starts_whatever_it_is_told_with_the_apps_looks(tmp_path: Path) -> None:
    start = ROOT / "binder" / "start"
    assert start.stat().st_mode & 0o111
    done = subprocess.run([start, "printenv", "JUPYTER_PATH"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (Path(done.stdout.strip().split(":")[0]) / "voila" / "templates" / "deepsentinel").is_dir()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Jupyter server that was started as Binder starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(tmp_path_factory.mktemp(name)) for name in ("CONFIG", "RUNTIME")}
    env = {**os.environ, **own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["jupyter", "server", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    words += ["--IdentityProvider.token=tok", f"--ServerApp.root_dir={ROOT}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([ROOT / "binder" / "start", *words], cwd=ROOT, env=env, **quiet) as process:
        address, limit = f"http://127.0.0.1:{port}/", time.monotonic() + 60
        while True:
            try:
                ask(f"{address}api/status?token=tok")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.2)
        yield address
        process.terminate()


def ask(url: str) -> str:
    # No proxy is asked for what is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return str(opener.open(url, timeout=90).read().decode())


def test_the_readme_says_how_a_link_is_made_and_that_link_shows_the_app(server: str) -> None:
    text = (ROOT / "README.md").read_text()
    (link,) = set(re.findall(r"\?urlpath=(voila/render/[^`\s]+)", text))
    page = ask(f"{server}{urllib.parse.unquote(link)}&token=tok")
    assert "vnd.jupyter.widget-view+json" in page
    # In its own looks, which fetch no letters from far away.
    assert "#rendered_cells {\n      padding" in page
    assert "fonts.googleapis" not in page
