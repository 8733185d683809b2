"""What is written is read by others: rasterio, GDAL's COG check, GeoPandas."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from pyarrow import parquet

from deepsentinel.errors import InputError
from deepsentinel.export_embedding import embedding_to_geoparquet, embedding_to_geotiff
from deepsentinel.similarity import pca_rgb, similarity_index

sys.path.insert(0, str(Path(__file__).parent / "similarity"))
from vectors_kit import dense, landscape, lonlat_of, samples


def holed(rows: int = 300, columns: int = 140, width: int = 6) -> np.ndarray:
    values = landscape(rows, columns, width)[0].astype("float32")
    values[40:50, 3:9] = np.nan
    return values


def test_a_geotiff_holds_every_feature_where_it_belongs(tmp_path: Path) -> None:
    values = holed()
    z = dense(values, encoder="presto").chunk({"y": 64})
    path = embedding_to_geotiff(z, tmp_path / "z.tif")
    with rasterio.open(path) as file:
        assert np.array_equal(np.moveaxis(file.read(), 0, -1), values, equal_nan=True)
        assert file.crs.to_epsg() == 32631
        assert file.xy(7, 9) == (float(z["x"][9]), float(z["y"][7]))
        assert np.isnan(file.nodata)
        assert file.descriptions[2] == "feature 2"
        assert file.tags()["ENCODER"] == "presto"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert "partial" not in str(file.tags())
    assert [found.name for found in tmp_path.iterdir()] == ["z.tif"]


def test_pictures_and_maps_of_one_band(tmp_path: Path) -> None:
    values = holed()
    colours = pca_rgb(dense(values))
    with rasterio.open(embedding_to_geotiff(colours, tmp_path / "rgb.tif")) as file:
        read = file.read()
        assert read.dtype == "uint8"
        assert [band.name for band in file.colorinterp] == ["red", "green", "blue"]
        assert np.array_equal(read[0] == 0, np.isnan(values[..., 0]))
        assert np.nanmax(abs((read.transpose(1, 2, 0) - 1) / 254 - colours.values)[read[0] > 0]) < 0.003
    scores = similarity_index(dense(values)).score_map(values[0, 0])
    with rasterio.open(embedding_to_geotiff(scores, tmp_path / "s.tif")) as file:
        assert np.array_equal(file.read(1), scores.values, equal_nan=True)
        assert file.descriptions == ("cosine similarity",)


def test_geoparquet_holds_every_vector_with_data_at_its_place(tmp_path: Path) -> None:
    values = holed(40, 60)
    values[10:13] = np.nan
    z = dense(values, encoder="presto")
    table = gpd.read_parquet(embedding_to_geoparquet(z, tmp_path / "z.parquet"))
    assert len(table) == np.isfinite(values).all(axis=-1).sum()
    assert table.crs.to_epsg() == 4326 or table.crs.to_authority() == ("OGC", "CRS84")
    stacked = np.stack(table["embedding"])
    assert np.array_equal(stacked, values[table["row"], table["col"]])
    for _, row in table.iloc[:: len(table) // 7].iterrows():
        assert (row.geometry.x, row.geometry.y) == pytest.approx(lonlat_of(z, row["row"], row["col"]), abs=1e-9)
    schema = parquet.read_schema(tmp_path / "z.parquet")
    assert schema.field("embedding").type.list_size == 6
    box = json.loads(schema.metadata[b"geo"])["columns"]["geometry"]["bbox"]
    assert box == pytest.approx(table.total_bounds, abs=1e-3)
    assert json.loads(schema.metadata[b"deepsentinel"])["encoder"] == "presto"


def test_samples_keep_their_ids(tmp_path: Path) -> None:
    z = samples(np.eye(3, 4), np.array([2.0, 3.0, np.nan]), np.array([48.0, 49.0, np.nan]), ["a", "b", "c"])
    table = gpd.read_parquet(embedding_to_geoparquet(z, tmp_path / "z.parquet"))
    assert table["id"].tolist() == ["a", "b", "c"]
    assert table.geometry.iloc[1].coords[0] == (3, 49)
    assert table.geometry.iloc[2] is None


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end with \.tif"):
        embedding_to_geotiff(dense(holed()), tmp_path / "z")
    with pytest.raises(InputError, match=r"\(sample, feature\)"):
        embedding_to_geotiff(samples(np.eye(2), np.zeros(2), np.zeros(2)), tmp_path / "z.tif")
    with pytest.raises(InputError, match="all of them are NaN"):
        embedding_to_geoparquet(dense(np.full((3, 3, 2), np.nan)), tmp_path / "z.parquet")
    assert not list(tmp_path.iterdir())


def test_what_writes_patches_tells_what_writes_embeddings(tmp_path: Path) -> None:
    from deepsentinel.export import to_geotiff

    z = dense(landscape(8, 8)[0])
    for made in (z, pca_rgb(z), similarity_index(z).score_map(z[0, 0])):
        with pytest.raises(InputError, match=r"deepsentinel\.export_embedding\.embedding_to_geotiff"):
            to_geotiff(made, tmp_path)
    with pytest.raises(InputError, match="embedding_to_geoparquet"):
        to_geotiff(samples(np.eye(3), np.arange(3.0), np.arange(3.0)), tmp_path)
    with pytest.raises(InputError, match="bands="):
        to_geotiff(None, tmp_path)
