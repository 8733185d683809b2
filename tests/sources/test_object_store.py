"""CDSE's object store by configuration alone: moto plays it, the keys are in the environment or in an AWS profile."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fake_services import FakeService
from stac_builders import MADE_AOI, made_dn, made_grid

from deepsentinel.errors import ReadError, SourceError
from deepsentinel.sources.presets import CDSE
from deepsentinel.sources.services import S3Source, open_preset

NAME = "S2A_31UDQ_20200611_0_L2A"
ROW = {"sensor": "S2", "id": NAME}
KEYS = {"aws_access_key_id": "somebody", "aws_secret_access_key": "planted"}


@pytest.fixture
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def store(
    _no_keys: None, service: FakeService, coast_items: list[dict[str, Any]], tmp_path: Path
) -> Iterator[S3Source]:
    """A bucket `eodata` with two bands as JPEG 2000, under the names that CDSE gives them."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[server]'")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket="eodata")
    item = copy.deepcopy(next(one for one in coast_items if one["id"] == NAME))
    assets = {}
    for band in ("B04", "B08"):
        path = tmp_path / f"{band}_10m.jp2"
        with rasterio.open(item["assets"][band]["href"]) as file:
            profile, data = file.profile, file.read()
        kept = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")}
        with rasterio.open(path, "w", "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", **kept) as file:
            file.write(data)
        client.upload_file(str(path), "eodata", f"Sentinel-2/{NAME}.SAFE/{path.name}")
        assets[path.stem] = {"href": f"s3://eodata/Sentinel-2/{NAME}.SAFE/{path.name}", "type": "image/jp2"}
    service.items = [{**item, "assets": assets}]
    settings = {**CDSE.gdal, "AWS_S3_ENDPOINT": f"127.0.0.1:{port}", "AWS_HTTPS": "NO"}
    source = open_preset(dataclasses.replace(CDSE, gdal=settings), service.url)
    assert isinstance(source, S3Source)
    try:
        yield source
    finally:
        server.stop()


@pytest.mark.parametrize("where", ["environment", "profile", "default profile"])
def test_keys_in_the_environment_or_in_a_profile(
    store: S3Source, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if where == "environment":
        for name, value in KEYS.items():
            monkeypatch.setenv(name.upper(), value)
    else:
        name = "default" if where == "default profile" else "copernicus"
        lines = [f"[{name}]", *(f"{key} = {value}" for key, value in KEYS.items())]
        (tmp_path / "credentials").write_text("\n".join(lines))
        if where == "profile":
            monkeypatch.setenv("AWS_PROFILE", name)
    rows = store.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2")
    patch = store.read(rows.iloc[0], made_grid())
    for band in ("B04", "B08"):
        np.testing.assert_array_equal(patch[band], made_dn(band, 1))
    assert patch.attrs["offset_removed"] == 1000
    (many,) = store.read_many(ROW, made_grid())
    assert many.identical(patch)
    assert "planted" not in repr(vars(store)) + repr(patch.attrs)


@pytest.mark.usefixtures("_no_keys")
def test_no_keys_at_all(store: S3Source) -> None:
    assert len(store.search(MADE_AOI, "2020-06-01", "2020-06-30", sensors="S2")) == 1, "searching needs none"
    with pytest.raises(SourceError, match=r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .*or AWS_PROFILE"):
        store.read(ROW, made_grid(), bands=["B04"])


def test_an_object_that_is_gone(store: S3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    item = store.items_of("S2", [NAME])[NAME]
    item["assets"]["B04_10m"]["href"] = "s3://eodata/gone.jp2"
    with pytest.raises(ReadError, match=f"Scene {NAME}: B04 .*s3://eodata/gone.jp2") as problem:
        store.read(ROW, made_grid(), bands=["B04"])
    assert "planted" not in str(problem.value)
