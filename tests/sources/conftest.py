"""A made-up coast as files, a catalog of it, and a fake service that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_services import FakeService, served
from stac_builders import made_items, write_catalog


@pytest.fixture(scope="session")
def coast_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coast") / "files"


@pytest.fixture(scope="session")
def coast_items(coast_files: Path) -> list[dict[str, Any]]:
    return made_items(coast_files)


@pytest.fixture(scope="session")
def coast_catalog(coast_items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog"), coast_items)


@pytest.fixture
def service(coast_items: list[dict[str, Any]], coast_files: Path) -> Iterator[FakeService]:
    with served(FakeService(coast_items, coast_files)) as running:
        yield running
