"""From disk and to disk: the same map, whole or not at all, and memory that does not grow with the area."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from embedding_kit import Toy, apart, expected
from factories import make_patch

from deepsentinel.embedding import embed
from deepsentinel.embedding.reading import Slabs
from deepsentinel.errors import InputError
from deepsentinel.grids import grid_of

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return expected(make_patch((200, 300), nodata=True))


@pytest.mark.parametrize("name", ["z.zarr", "z.tif"])
@pytest.mark.parametrize("resolution_m", [None, 20])
def test_on_disk_is_the_map_that_memory_holds(
    patch: xr.Dataset, tmp_path: Path, name: str, resolution_m: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks smaller than the map, and panels of several of them.
    monkeypatch.setattr("deepsentinel.embedding.sinks.LARGEST_BLOCK", 16)
    monkeypatch.setattr("deepsentinel.embedding.dense.PANEL_PX", 256)
    memory = embed(patch, Toy(offset=1.0), dense=True, resolution_m=resolution_m)
    disk = embed(patch, Toy(offset=1.0), dense=True, resolution_m=resolution_m, out=tmp_path / name)
    assert apart(disk, memory) == 0
    assert disk.dims == memory.dims
    assert disk.attrs == memory.attrs
    assert grid_of(disk) == grid_of(memory)
    for axis in ("y", "x", "feature", "s1_time", "s2_time"):
        assert (disk[axis] == memory[axis]).all()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_others_open_what_was_written(patch: xr.Dataset, tmp_path: Path) -> None:
    z = embed(patch, Toy(), dense=True, out=tmp_path / "z.tif")
    with rasterio.open(tmp_path / "z.tif") as file:
        assert file.crs.to_epsg() == 32631
        assert file.count == 4
        assert np.isnan(file.nodata)
        assert file.tags()["ENCODER"] == "toy"
        np.testing.assert_array_equal(file.read(1), z[..., 0])
    embed(patch, Toy(), dense=True, out=tmp_path / "z.zarr", dtype="float16")
    opened = xr.open_zarr(tmp_path / "z.zarr", chunks=None)["embedding"]
    assert opened.dtype == "float16"
    assert opened.attrs["encoder"] == "toy"
    assert grid_of(opened) == grid_of(z)


@pytest.mark.parametrize("kind", ["dask", "zarr", "tif"])
@pytest.mark.parametrize("dense", [False, True])
def test_pixels_may_lie_on_disk(
    patch: xr.Dataset, tmp_path: Path, kind: str, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsentinel.embedding.reading.SLAB_BYTES", 200_000)
    monkeypatch.setattr("deepsentinel.embedding.dense.PANEL_PX", 256)
    lazy = lazily(patch, tmp_path, kind)
    assert apart(embed(lazy, Toy(offset=1.0), dense=dense), embed(patch, Toy(offset=1.0), dense=dense)) == 0
    # Nothing was loaded behind the user's back.
    assert not lazy["VV"].variable._in_memory


def lazily(patch: xr.Dataset, folder: Path, kind: str) -> xr.Dataset:
    if kind == "dask":
        pytest.importorskip("dask")
        return patch.chunk(y=64, x=128)
    if kind == "zarr":
        patch.to_zarr(folder / "patch.zarr", zarr_format=2)
        return xr.open_zarr(folder / "patch.zarr", chunks=None, mask_and_scale=False)
    import rioxarray

    kept = {}
    for name in ("VV", "B02", *(f"B{n:02}" for n in range(3, 9)), "B8A", "B11", "B12", "VH"):
        patch[name].rio.to_raster(folder / f"{name}.tif")
        kept[name] = rioxarray.open_rasterio(folder / f"{name}.tif").squeeze("band", drop=True)
    return xr.Dataset(kept, attrs=patch.attrs).assign_coords(s1_time=patch["s1_time"], s2_time=patch["s2_time"])


def test_every_row_is_read_once(patch: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask")
    monkeypatch.setattr("deepsentinel.embedding.reading.SLAB_BYTES", 200_000)
    read = []
    load = Slabs._load

    def noted(self: Slabs, rows: range, columns: range) -> dict[str, np.ndarray]:
        read.extend(rows)
        return load(self, rows, columns)

    monkeypatch.setattr(Slabs, "_load", noted)
    embed(patch.chunk(y=64, x=128), Toy(), dense=True)
    assert read == list(range(200))


def test_an_older_map_is_replaced_and_other_things_are_not(patch: xr.Dataset, tmp_path: Path) -> None:
    for name in ("z.zarr", "z.tif"):
        embed(patch, Toy(), dense=True, out=tmp_path / name)
        second = embed(patch, Toy(offset=1.0), dense=True, out=tmp_path / name)
        assert second[..., 2].max() > 0
    photos = tmp_path / "photos.zarr"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match="other things"):
        embed(patch, Toy(), dense=True, out=photos)
    (tmp_path / "note.zarr").write_text("mine")
    with pytest.raises(InputError, match="other things"):
        embed(patch, Toy(), dense=True, out=tmp_path / "note.zarr")
    with pytest.raises(InputError, match=r"\.zarr or a file with \.tif"):
        embed(patch, Toy(), dense=True, out=tmp_path / "z.nc")
    with pytest.raises(InputError, match="float32"):
        embed(patch, Toy(), dense=True, out=tmp_path / "z.tif", dtype="float16")


def test_what_is_no_embedding_is_never_replaced(patch: xr.Dataset, tmp_path: Path) -> None:
    pixels = lazily(patch, tmp_path, "zarr")
    with pytest.raises(InputError, match="where the pixels are read from"):
        embed(pixels, Toy(), dense=True, out=tmp_path / "patch.zarr")
    # A part of it no longer says where it comes from.
    with pytest.raises(InputError, match="other things than an embedding"):
        embed(patch, Toy(), dense=True, out=tmp_path / "patch.zarr")
    for version in (2, 3):
        kept = tmp_path / f"kept{version}.zarr"
        both = patch.assign(embedding=patch["VV"].assign_attrs(encoder="toy"))
        both.to_zarr(kept, zarr_format=version)
        with pytest.raises(InputError, match="other things than an embedding"):
            embed(patch, Toy(), dense=True, out=kept)
        named = tmp_path / f"named{version}.zarr"
        patch["VV"].rename("embedding").to_dataset().to_zarr(named, zarr_format=version)
        with pytest.raises(InputError, match="other things than an embedding"):
            embed(patch, Toy(), dense=True, out=named)
        assert xr.open_zarr(kept, chunks=None)["B02"].equals(patch["B02"])
    tiffs = lazily(patch, tmp_path, "tif")
    with pytest.raises(InputError, match="where the pixels are read from"):
        embed(tiffs, Toy(), dense=True, out=tmp_path / "VV.tif")
    with pytest.raises(InputError, match="is no embedding"):
        embed(patch, Toy(), dense=True, out=tmp_path / "VV.tif")
    with rasterio.open(tmp_path / "VV.tif") as file:
        assert file.count == 1


def test_a_map_that_was_opened_and_written_again_is_replaced_too(patch: xr.Dataset, tmp_path: Path) -> None:
    z = embed(patch, Toy(), dense=True)
    for version in (2, 3):
        z.to_dataset().to_zarr(tmp_path / f"z{version}.zarr", zarr_format=version)
        assert apart(embed(patch, Toy(), dense=True, out=tmp_path / f"z{version}.zarr"), z) == 0


def test_a_disk_that_is_full_at_the_end_leaves_the_older_map(
    patch: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed(patch, Toy(), dense=True, out=tmp_path / "z.zarr").load()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepsentinel.files._sync", full)
    with pytest.raises(OSError, match="No space"):
        embed(patch, Toy(offset=1.0), dense=True, out=tmp_path / "z.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["z.zarr"]
    assert apart(xr.open_zarr(tmp_path / "z.zarr", chunks=None)["embedding"], first) == 0


@pytest.mark.parametrize("name", ["z.zarr", "z.tif"])
def test_what_breaks_off_leaves_nothing_and_spoils_nothing(patch: xr.Dataset, tmp_path: Path, name: str) -> None:
    class Failing(Toy):
        def forward(self, *args: object, **kwargs: object):
            if self.seen:
                raise RuntimeError("the plug was pulled")
            return super().forward(*args, **kwargs)

    target = tmp_path / name
    with pytest.raises(RuntimeError, match="plug"):
        embed(patch, Failing(), dense=True, batch_size=4, out=target)
    assert list(tmp_path.iterdir()) == []
    first = embed(patch, Toy(), dense=True, out=target).load()
    with pytest.raises(RuntimeError, match="plug"):
        embed(patch, Failing(), dense=True, batch_size=4, out=target)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = xr.open_zarr(target, chunks=None)["embedding"] if name == "z.zarr" else None
    assert again is None or apart(again, first) == 0


PEAK = """
import json, resource, sys
sys.path[:0] = {paths!r}
import dask.array as da
import numpy as np, torch, xarray as xr
from embedding_kit import Toy
from factories import grid, with_grid
from deepsentinel.embedding import embed
torch.set_num_threads(1)
def peak(side, out):
    blank = {{name: (("y", "x"), da.full((side, side), value, dtype=kind, chunks=(512, 512)))
             for name, value, kind in (("VV", -9, "float32"), ("VH", -15, "float32"), ("B02", 900, "uint16"))}}
    patch = with_grid(blank, grid((side, side))).assign_attrs(level="L2A", backscatter="sigma0")
    z = embed(patch, Toy(), dense=True, overlap=0, out=out)
    assert z.shape[0] == side // 8
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
# A first map brings in all libraries; pages of them are no part of the question.
print(json.dumps([peak(512, {out!r} + "0.zarr"), peak(1536, {out!r} + "1.zarr"), peak(6144, {out!r} + "2.zarr")]))
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_area(tmp_path: Path) -> None:
    pytest.importorskip("dask")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = PEAK.format(paths=paths, out=str(tmp_path / "z"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    _, small, large = json.loads(done.stdout.strip().splitlines()[-1])
    assert large < 1.2 * small
