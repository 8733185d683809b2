"""Products that lie in buckets, file by file: they come as folders, and are what their makers made or are not kept."""

from __future__ import annotations

import errno
import io
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

import deepsentinel as ds
from deepsentinel.errors import DeepSentinelWarning
from deepsentinel.sources.download.folder import Damaged, Folder, check_folder

pytest.importorskip("eodag", reason="downloading needs the extra 'download'")

from download_server import DownloadServer, manifest, product_zip
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


def listing(
    shop: DownloadServer, bucket: Any, name: str, more: dict[str, bytes] | None = None, **options: Any
) -> dict[str, bytes]:
    """Give a product in the bucket a manifest that lists its files, and perhaps more; what it has."""
    held = next(one for one in shop.products if one.name == name)
    with zipfile.ZipFile(io.BytesIO(held.data)) as archive:
        members = {member.partition("/")[2]: archive.read(member) for member in archive.namelist()}
    del members["manifest.safe"]
    listed = members | (more or {}) | {"HTML/star.gif": b"for people"}  # which is not in the bucket
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


READ, UNREAD = "GRANULE/L2A_T32TPS/IMG_DATA/R10m/T32TPS_B04_10m.jp2", "GRANULE/L2A_T32TPS/QI_DATA/FORMAT.xml"


@pytest.mark.parametrize(
    "gone", [READ, UNREAD, "MTD_MSIL2A.xml", "GRANULE/L2A_T32TPS/MTD_TL.xml", "DATASTRIP/x/MTD_DS.xml"]
)
@pytest.mark.parametrize("checksum", [True, False])
def test_only_what_is_read_must_come(shop, bucket, tmp_path, gone, checksum):
    """Providers that put products together leave out what their makers list."""
    listing(shop, bucket, NAMES[0], more={gone: b"data"} if "MTD_MSI" not in gone else {})
    bucket.delete_object(Bucket="eodata", Key=f"Sentinel-2/{NAMES[0]}.SAFE/{gone}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = ds.download(scenes_of(NAMES[:1]), tmp_path / "out", "cop_dataspace_s3", checksum=checksum)
    if gone in (UNREAD, "DATASTRIP/x/MTD_DS.xml"):
        assert list(got.status) == ["downloaded"]
        assert got.note[0] == f"came without {gone}, from which nothing is read"
        assert not [one for one in told if issubclass(one.category, DeepSentinelWarning)]
    else:
        assert list(got.status) == ["failed"]
        assert f"came without {gone}, which its manifest lists. It came twice" in got.note[0]
        assert "checksum=False" not in got.note[0], "it would change nothing"


@pytest.mark.parametrize("fault", ["flipped", "short", "gone"])
def test_what_came_file_by_file_and_damaged_is_not_kept(shop, bucket, tmp_path, fault):
    name = "MTD_MSIL2A.xml" if fault == "gone" else "bytes.bin"
    data = listing(shop, bucket, NAMES[0])[name]
    put(bucket, NAMES[0], name, data[:-1] + bytes([data[-1] ^ 1]) if fault == "flipped" else data[:-3])
    if fault == "gone":
        bucket.delete_object(Bucket="eodata", Key=f"Sentinel-2/{NAMES[0]}.SAFE/{name}")
    out = tmp_path / "out"
    with pytest.warns(DeepSentinelWarning, match=rf"{name}.*manifest lists.*twice"):
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
        put(bucket, NAMES[0], name, data)
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
    half.mkdir(parents=True)
    (half / "bytes.bin").write_bytes(b"half")
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


MINE = ("my_masks/fields.gpkg", "GRANULE/notes.txt")


@pytest.mark.parametrize("way", ["adopted", "unpacked"])
def test_what_else_lies_in_half_a_product_is_kept(tmp_path, way):
    """And what lay there is never half deleted, however often it happens."""
    folder = Folder(tmp_path / "out")
    folder.make()
    safe = folder.path / f"{NAMES[0]}.SAFE"
    elsewhere = tmp_path / "archive"
    elsewhere.mkdir()
    (elsewhere / "T_B04.jp2").write_bytes(b"of another")
    for turn in ("", "2"):
        shutil.rmtree(safe, ignore_errors=True)
        for member in (*MINE, "bytes.bin", "GRANULE/T_B02.jp2"):
            (safe / member).parent.mkdir(parents=True, exist_ok=True)
            (safe / member).write_bytes(f"{member}{turn}".encode())
        (safe / "IMG_DATA").symlink_to(elsewhere)
        inside = {
            "bytes.bin": b"new",
            "GRANULE/T_B02.jp2": b"new",
            "IMG_DATA/T_B04.jp2": b"new",
            "manifest.safe": b"<x/>",
        }
        inside["MTD_MSIL2A.xml"] = b"<x/>"
        if way == "adopted":
            made = folder.part(NAMES[0]) / safe.name
            for member, data in inside.items():
                (made / member).parent.mkdir(parents=True, exist_ok=True)
                (made / member).write_bytes(data)
            path = folder.adopt(NAMES[0], made, extract=True)
        else:
            with zipfile.ZipFile(folder.part(NAMES[0]), "w") as archive:
                for member, data in inside.items():
                    archive.writestr(f"{safe.name}/{member}", data)
            path = folder.finish(NAMES[0], extract=True)
        assert {
            file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
        } == inside
        aside = safe.with_name(f"{safe.name}.before{turn}")
        assert sorted(file.relative_to(aside).as_posix() for file in aside.rglob("*") if not file.is_dir()) == sorted(
            MINE
        )
        assert (aside / MINE[0]).read_text() == f"{MINE[0]}{turn}"
        assert (elsewhere / "T_B04.jp2").read_bytes() == b"of another"
        assert f"what else lay in {safe.name} is kept in {safe.name}.before" in folder.remark(NAMES[0], path)
    assert list(folder.path.glob(".downloads/*")) == []


@pytest.mark.parametrize("kind", ["more in it", "something else", "cut short", "the same"])
def test_an_archive_that_is_replaced_is_kept_if_it_holds_more(tmp_path, kind):
    folder = Folder(tmp_path)
    folder.make()
    old = tmp_path / f"{NAMES[0]}.zip"
    new = product_zip(NAMES[0])
    more = {f"{NAMES[0]}.SAFE/my_masks/fields.gpkg": b"mine"}
    was = {
        "more in it": product_zip(NAMES[0], inside=more),
        "something else": b"my own notes",
        "cut short": new[:1000],
        "the same": new,
    }[kind]
    old.write_bytes(was)
    folder.part(NAMES[0]).write_bytes(new)
    assert folder.finish(NAMES[0], extract=False) == old
    assert old.read_bytes() == new
    aside = tmp_path / f"{old.name}.before"
    if kind in ("cut short", "the same"):
        assert not aside.exists()
    else:
        assert aside.read_bytes() == was


def test_a_product_that_is_a_link_is_left_where_it_leads(tmp_path):
    folder = Folder(tmp_path / "out")
    folder.make()
    kept = tmp_path / "archive"
    kept.mkdir()
    (kept / "bytes.bin").write_bytes(b"of another")
    safe = folder.path / f"{NAMES[0]}.SAFE"
    safe.symlink_to(kept)
    folder.part(NAMES[0]).write_bytes(product_zip(NAMES[0]))
    folder.finish(NAMES[0], extract=True)
    assert not safe.is_symlink()
    assert (kept / "bytes.bin").read_bytes() == b"of another"
    assert (folder.path / f"{safe.name}.before").is_symlink()
