"""What is offered without a network: shipped weights, fetched ones, and encoders that need none."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepsentinel as ds
from deepsentinel.encoders import find


def test_weights_that_are_here_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    bare = [spec.name for spec in ds.ready_encoders()]
    assert bare[0] == "fusion-nano"
    assert "galileo-nano" not in bare
    # Never trained: there are no weights of it anywhere.
    assert "fusion-tiny" not in bare
    file = tmp_path / "weights" / find("galileo-nano").file
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"weights")
    assert {spec.name for spec in ds.ready_encoders()} - set(bare) == {"galileo-nano"}


def test_only_encoders_of_maps_whose_packages_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(spec.dense for spec in ds.ready_encoders())
    monkeypatch.setattr("deepsentinel.encoders.ready.find_spec", lambda name: None)
    assert ds.ready_encoders() == []
