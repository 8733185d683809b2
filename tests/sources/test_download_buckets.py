"""Products that lie in buckets, file by file: they come as folders, and are what their makers made or are not kept."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.sources.download.folder import Damaged, Folder, check_folder

pytest.importorskip("eodag", reason="downloading needs the extra 'download'")

from download_server import DownloadServer, manifest
from test_download import NAMES, scenes_of, shop

__all__ = ["shop"]


@pytest.fixture
def bucket(shop, tmp_path, monkeypatch):
    """The same products file by file in a bucket, as cop_dataspace_s3 has them."""
    moto = pytest.importorskip("moto.server", reason="buckets on this machine need moto")
    import boto3
    import yaml

    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    port = server.get_host_and_port()[1]
    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "AKIAPLANTED", "aws_secret_access_key": "planted-secret-key"}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="eodata")
    for one in shop.products:
        with zipfile.ZipFile(io.BytesIO(one.data)) as archive:
            for member in archive.namelist():
                client.put_object(Bucket="eodata", Key=f"Sentinel-2/{member}", Body=archive.read(member))
        one.s3_path = f"/eodata/Sentinel-2/{one.name}.SAFE"
    told = {
        "cop_dataspace_s3": {
            "search": {"api_endpoint": f"{shop.url}/odata/v1/Products", "s3_endpoint": url},
            "download": {"s3_endpoint": url},
            "auth": {"s3_endpoint": url, "credentials": keys},
        }
    }
    (tmp_path / "s3.yml").write_text(yaml.safe_dump(told))
    monkeypatch.setenv("EODAG_CFG_FILE", str(tmp_path / "s3.yml"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield client
    server.stop()


def test_products_that_lie_file_by_file_in_a_bucket_come_as_folders(shop, bucket, tmp_path):
    got = ds.download(scenes_of(NAMES[:2]), tmp_path / "out", "cop_dataspace_s3")
    assert list(got.status) == ["downloaded", "downloaded"]
    for path, one in zip(got.path, shop.products, strict=False):
        assert path.endswith(f"{one.name}.SAFE")
        with zipfile.ZipFile(io.BytesIO(one.data)) as archive:
            for member in archive.namelist():
                assert (tmp_path / "out" / member).read_bytes() == archive.read(member)
    assert sorted(path.name for path in (tmp_path / "out" / ".downloads").iterdir()) == [f"{n}.json" for n in NAMES[:2]]
    shop.log.clear()
    assert list(ds.download(scenes_of(NAMES[:2]), tmp_path / "out", "cop_dataspace_s3").status) == ["present"] * 2
    assert shop.log == []
    for name in ("manifest.safe", "MTD_MSIL2A.xml"):
        bucket.delete_object(Bucket="eodata", Key=f"Sentinel-2/{NAMES[2]}.SAFE/{name}")
    with pytest.warns(DeepSentinelWarning, match="without anything that is a product"):
        last = ds.download(scenes_of(NAMES), tmp_path / "out", "cop_dataspace_s3")
    assert list(last.status) == ["present", "present", "failed"]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out" / ".downloads").rglob("*.json"))
    for secret in ("AKIAPLANTED", "planted-secret-key"):
        assert secret not in last.to_csv() + str(last.attrs) + kept.decode()


def listing(shop: DownloadServer, bucket: Any, name: str, **options: Any) -> dict[str, bytes]:
    """Give a product in the bucket a manifest that lists its files; what it has."""
    held = next(one for one in shop.products if one.name == name)
    with zipfile.ZipFile(io.BytesIO(held.data)) as archive:
        members = {member.partition("/")[2]: archive.read(member) for member in archive.namelist()}
    del members["manifest.safe"]
    listed = members | {"HTML/star.gif": b"for people"}  # which is not in the bucket
    put(bucket, name, "manifest.safe", manifest(name, listed, **options))
    return members


def put(bucket: Any, name: str, member: str, data: bytes) -> None:
    bucket.put_object(Bucket="eodata", Key=f"Sentinel-2/{name}.SAFE/{member}", Body=data)


def checked(folder: Path, name: str) -> str:
    return json.loads((folder / ".downloads" / f"{name}.json").read_text())["checked"]


def test_what_came_file_by_file_is_compared_with_what_its_manifest_lists(shop, bucket, tmp_path):
    members = listing(shop, bucket, NAMES[0])
    listing(shop, bucket, NAMES[1], algorithm="SHA3-256")
    got = ds.download(scenes_of(NAMES), tmp_path / "out", "cop_dataspace_s3")
    assert list(got.status) == ["downloaded"] * 3
    # What is noted is what was compared: the third one's manifest lists nothing.
    assert [checked(tmp_path / "out", name) for name in NAMES] == ["md5", "sha3_256", "size"]
    assert checked_bytes(tmp_path / "out" / f"{NAMES[0]}.SAFE") == members


def checked_bytes(safe: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in safe.iterdir() if path.name != "manifest.safe"}


@pytest.mark.parametrize("fault", ["flipped", "short", "gone"])
def test_what_came_file_by_file_and_damaged_is_not_kept(shop, bucket, tmp_path, fault):
    data = listing(shop, bucket, NAMES[0])["bytes.bin"]
    put(bucket, NAMES[0], "bytes.bin", data[:-1] + bytes([data[-1] ^ 1]) if fault == "flipped" else data[:-10])
    if fault == "gone":
        bucket.delete_object(Bucket="eodata", Key=f"Sentinel-2/{NAMES[0]}.SAFE/bytes.bin")
    out = tmp_path / "out"
    with pytest.warns(DeepSentinelWarning, match=r"bytes\.bin.*manifest lists.*twice"):
        got = ds.download(scenes_of(NAMES[:2]), out, "cop_dataspace_s3")
    assert list(got.status) == ["failed", "downloaded"]
    assert sorted(path.name for path in out.iterdir()) == [".downloads", f"{NAMES[1]}.SAFE"]
    assert not list(out.glob(".downloads/*.part"))
    if fault == "flipped":  # a manifest may be what is wrong
        assert "checksum=False" in got.note[0]
        again = ds.download(scenes_of(NAMES[:1]), out, "cop_dataspace_s3", checksum=False)
        assert again.status[0] == "downloaded"
        assert checked(out, NAMES[0]) == "size"
    else:
        put(bucket, NAMES[0], "bytes.bin", data)
        assert ds.download(scenes_of(NAMES[:1]), out, "cop_dataspace_s3").status[0] == "downloaded"
        assert checked(out, NAMES[0]) == "md5"


def test_fewer_bytes_than_were_announced_are_not_the_product(tmp_path):
    safe = tmp_path / "a.SAFE"
    safe.mkdir()
    (safe / "manifest.safe").write_bytes(b"<x/>")
    (safe / "bytes.bin").write_bytes(bytes(100))
    for sums in (True, False):
        assert check_folder(safe, "a", sums=sums, announced=104) == "size"
        assert check_folder(safe, "a", sums=sums, announced=None) == "nothing"
        with pytest.raises(Damaged, match="104 bytes of the 105"):
            check_folder(safe, "a", sums=sums, announced=105)
    # Sums that cannot be computed here leave the sizes.
    for size, whole in ((100, True), (99, False)):
        data = manifest("a", {"bytes.bin": bytes(size)}).replace(b'"MD5"', b'"CRC-7"')
        (safe / "manifest.safe").write_bytes(data)
        if whole:
            assert check_folder(safe, "a", sums=True, announced=None) == "size"
        else:
            with pytest.raises(Damaged, match="100 bytes, and its manifest lists 99"):
                check_folder(safe, "a", sums=True, announced=None)
    (safe / "manifest.safe").write_bytes(b"<x")
    with pytest.raises(Damaged, match="not whole XML"):
        check_folder(safe, "a", sums=True, announced=106)


def test_a_disk_that_is_full_is_not_the_providers_fault(shop, bucket, tmp_path, monkeypatch):
    from eodag import EOProduct

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "s3://eodata?token=planted-secret-key")

    monkeypatch.setattr(EOProduct, "download", full)
    with pytest.warns(DeepSentinelWarning, match=r"cannot be written.*No space left.*Is there room\?"):
        got = ds.download(scenes_of(NAMES[:1]), tmp_path / "out", "cop_dataspace_s3")
    assert got.status[0] == "failed"
    assert "planted" not in got.note[0]


def test_half_a_product_is_replaced_and_a_single_archive_unpacked(shop, bucket, tmp_path):
    half = tmp_path / "out" / f"{NAMES[0]}.SAFE"
    (half / "GRANULE").mkdir(parents=True)
    (half / "GRANULE" / "old.jp2").write_bytes(b"half")
    got = ds.download(scenes_of(NAMES[:1]), tmp_path / "out", "cop_dataspace_s3")
    assert list(got.status) == ["downloaded"]
    assert sorted(path.name for path in half.iterdir()) == ["MTD_MSIL2A.xml", "bytes.bin", "manifest.safe"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".downloads", half.name]
    # Some buckets hold one archive for each product.
    for extract, ending in ((False, "zip"), (True, "SAFE")):
        folder = Folder(tmp_path / ending)
        folder.make()
        made = folder.part(NAMES[1]) / f"{NAMES[1]}.zip"
        made.parent.mkdir()
        made.write_bytes(shop.products[1].data)
        path = folder.adopt(NAMES[1], made, extract=extract)
        assert path == folder.path / f"{NAMES[1]}.{ending}"
        assert path.is_dir() == extract
        assert list(folder.path.glob(".downloads/*")) == []
