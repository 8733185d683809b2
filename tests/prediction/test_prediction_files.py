"""Maps on disk: the same as in memory, whole or not at all, and as a GIS wants them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from factories import make_patch
from prediction_kit import CLASSES, by_hand, clouded, model, thresholds

from deepsentinel.errors import InputError
from deepsentinel.grids import grid_of
from deepsentinel.legend import Legend
from deepsentinel.prediction import predict
from deepsentinel.prediction.layout import layout

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def patch() -> xr.Dataset:
    return clouded(make_patch((72, 110), nodata=True))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks smaller than the map, and panels of several of them."""
    monkeypatch.setattr("deepsentinel.prediction.sinks._Tiffs.chunk", 32)
    monkeypatch.setattr("deepsentinel.prediction.sinks._Zarr.chunk", 32)
    monkeypatch.setattr("deepsentinel.prediction.running.PANEL_PX", 64)


@pytest.mark.parametrize("name", ["map.zarr", "map.tif"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_on_disk_is_the_map_that_memory_holds(
    patch: xr.Dataset, tmp_path: Path, name: str, probabilities: bool
) -> None:
    drawn = model(sensors="both")
    memory = predict(drawn, patch, probabilities=probabilities)
    disk = predict(drawn, patch, probabilities=probabilities, out=tmp_path / name)
    assert not disk["class_map"].variable._in_memory
    assert set(disk.data_vars) == set(memory.data_vars)
    assert disk.attrs == memory.attrs
    assert grid_of(disk) == grid_of(memory)
    for layer in memory.data_vars:
        assert disk[layer].dims == memory[layer].dims
        assert disk[layer].dtype == memory[layer].dtype
        np.testing.assert_allclose(disk[layer], memory[layer], atol=1e-6)
    assert Legend.from_attrs(disk["class_map"].attrs) == Legend.from_attrs(memory["class_map"].attrs)
    for coord in memory.coords:
        assert (disk[coord] == memory[coord]).all()


def test_a_gis_finds_colours_names_and_overviews(tmp_path: Path) -> None:
    ground = make_patch((700, 600), nodata=True)
    predict(model(thresholds), ground, overlap=0, window_px=128, out=tmp_path / "map.tif", probabilities=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.qml", "map.tif", "map.tif.aux.xml", "map_probability.tif", "map_uncertainty.tif",
    ]  # fmt: skip
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.nodata, file.dtypes, file.crs.to_epsg()) == (0, ("uint8",), 32631)
        assert file.colormap(1)[CLASSES.codes[2]] == (255, 238, 153, 255)
        assert Legend.from_json(file.tags(1)["legend"]).names[10] == "dark"
        assert file.tags()["ENCODER"] == "fusion-nano"
        np.testing.assert_array_equal(file.read(1), by_hand(ground))
        assert file.overviews(1) == [2]
        small = file.read(1, out_shape=(350, 300))
        blocks = by_hand(ground).reshape(350, 2, 300, 2).transpose(0, 2, 1, 3).reshape(350, 300, 4)
        # Of the classes that are there one is shown: the mean of dark and bright is middling.
        assert (small[..., None] == blocks).any(axis=-1).all()
    with rasterio.open(tmp_path / "map_uncertainty.tif") as file:
        assert np.isnan(file.nodata)
    with rasterio.open(tmp_path / "map_probability.tif") as file:
        assert file.descriptions == CLASSES.names
    assert "middling" in (tmp_path / "map.qml").read_text()
    with xr.open_dataset(tmp_path / "map.tif", engine="rasterio") as opened:
        assert opened["band_data"].shape == (1, 700, 600)


def test_others_open_the_store(patch: xr.Dataset, tmp_path: Path) -> None:
    predict(model(thresholds), patch, out=tmp_path / "map.zarr")
    opened = xr.open_zarr(tmp_path / "map.zarr", chunks=None)
    # Codes stay whole numbers, 0 among them.
    assert opened["class_map"].dtype == "uint8"
    np.testing.assert_array_equal(opened["class_map"], by_hand(patch))
    assert grid_of(opened) == grid_of(patch)


@pytest.mark.parametrize("name", ["map.zarr", "map.tif"])
def test_a_map_that_fails_leaves_the_older_one(patch: xr.Dataset, tmp_path: Path, name: str) -> None:
    predict(model(thresholds), patch, out=tmp_path / name)
    before = {path.name for path in tmp_path.iterdir()}
    calls: list[int] = []

    def breaks(batch: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("the power went")
        return thresholds(batch)

    with pytest.raises(RuntimeError, match="power"):
        predict(model(breaks), patch, out=tmp_path / name, batch_size=2)
    assert {path.name for path in tmp_path.iterdir()} == before
    again = predict(model(thresholds), patch, out=tmp_path / name)
    np.testing.assert_array_equal(again["class_map"], by_hand(patch))


def test_what_is_no_map_is_never_replaced(patch: xr.Dataset, tmp_path: Path) -> None:
    patch.to_zarr(tmp_path / "patch.zarr", zarr_format=2)
    pixels = xr.open_zarr(tmp_path / "patch.zarr", chunks=None, mask_and_scale=False)
    head = model(thresholds)
    with pytest.raises(InputError, match="where the pixels are read from"):
        predict(head, pixels, out=tmp_path / "patch.zarr")
    predict(head, pixels, out=tmp_path / "map.zarr")
    xr.open_zarr(tmp_path / "map.zarr", chunks=None).assign(B02=patch["B02"]).to_zarr(
        tmp_path / "more.zarr", zarr_format=2
    )
    for name in ("patch.zarr", "more.zarr"):
        with pytest.raises(InputError, match="other things"):
            predict(head, patch, out=tmp_path / name)
    patch["B02"].rio.to_raster(tmp_path / "mine_uncertainty.tif")
    with pytest.raises(InputError, match="no prediction"):
        predict(head, patch, out=tmp_path / "mine.tif")
    with pytest.raises(InputError, match=r"\.zarr or a file with \.tif"):
        predict(head, patch, out=tmp_path / "map.nc")


def test_pixels_may_lie_on_disk(patch: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepsentinel.embedding.reading.SLAB_BYTES", 50_000)
    patch.to_zarr(tmp_path / "patch.zarr", zarr_format=2)
    lazy = xr.open_zarr(tmp_path / "patch.zarr", chunks=None, mask_and_scale=False)
    np.testing.assert_array_equal(predict(model(thresholds), lazy)["class_map"], by_hand(patch))
    assert not lazy["B08"].variable._in_memory


def test_many_classes_have_wider_codes(tmp_path: Path) -> None:
    from dataclasses import replace

    ground = make_patch((64, 64))
    corine = replace(CLASSES, codes=(111, 312, 523))
    result = predict(model(thresholds, classes=corine), ground, out=tmp_path / "map.tif")
    assert result["class_map"].dtype == "uint16"
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.colormap(1)[523][:3] == (255, 238, 153)
    assert set(np.unique(result["class_map"])) <= {111, 312, 523}


def test_whole_windows_have_cells_that_patches_divide() -> None:
    from deepsentinel.encoders.registry import find

    for overlap, cell in ((0, 96), (0.5, 48), (0.7, 32), (0.9, 16)):
        plan = layout(find("fusion-nano"), trained_px=96, overlap=overlap, whole=True)
        assert plan.cell_px == cell
        assert plan.cell_px % plan.patch_px == 0


MEMORY = """
import json, resource, sys, tempfile
import numpy as np
sys.path[:0] = [{tests!r}, {here!r}]
from factories import grid, make_patch
from prediction_kit import model, thresholds
from deepsentinel.prediction import predict

block = make_patch((512, 512))

class Tiled:
    '''The same ground again and again, as wide as anybody asks.'''
    name = "tiled"
    def search(self, *args, **kwargs):
        raise AssertionError
    def read(self, row, box, *, bands=None):
        from deepsentinel.grids import grid_coords
        names = bands or list(block.data_vars)
        rows, columns = box.shape
        down, across = np.arange(rows) % 512, np.arange(columns) % 512
        picked = {{name: (("y", "x"), block[name].values[np.ix_(down, across)]) for name in names}}
        import xarray as xr
        return xr.Dataset(picked, {{**grid_coords(box), "s1_time": block.s1_time}}, block.attrs)

head, folder = model(thresholds, crop_px=128), tempfile.mkdtemp()
peaks = []
for rows in (1024, {rows}):
    row, out = {{"s1_id": "a", "s2_id": "b"}}, f"{{folder}}/{{rows}}.tif"
    predict(head, Tiled(), grid((rows, 1024)), row=row, overlap=0, out=out)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_area() -> None:
    """Sixteen times the ground of the first map would be 0.5 GB of pixels."""
    here = Path(__file__).parent
    code = MEMORY.format(tests=str(here.parent), here=str(here), rows=16 * 1024)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"peak of 1,024 rows {small:.0f} MB, of 16,384 rows {large:.0f} MB")
    assert large - small < 150
