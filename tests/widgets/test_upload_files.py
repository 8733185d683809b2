"""Files that a page sends and that are kept: none takes the place of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepsentinel.widgets.uploads import kept


def keep(name: str, data: bytes) -> str:
    return kept({"name": name, "size": len(data), "data": data}).as_posix()


def test_an_upload_never_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert keep("field.gpkg", b"one") == "uploads/field.gpkg"
    assert keep("field.gpkg", b"two") == "uploads/field-2.gpkg"
    assert keep("field.gpkg", b"three") == "uploads/field-3.gpkg"
    # The same once more is the same file.
    for name, data in (("field.gpkg", b"one"), ("field-2.gpkg", b"two"), ("field-3.gpkg", b"three")):
        assert keep("field.gpkg", data) == f"uploads/{name}"
        assert (tmp_path / "uploads" / name).read_bytes() == data
    assert len(list((tmp_path / "uploads").iterdir())) == 3
