"""The canonical CSV: a CRS in every row, several in one file, and rows that cannot be placed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from deepsentinel.errors import DeepSentinelWarning, InputError
from deepsentinel.labels import read_labels
from deepsentinel.legend import Legend

HOLED = "POLYGON ((500000 5200000, 500100 5200000, 500100 5200100, 500000 5200100, 500000 5200000), " \
        "(500020 5200020, 500040 5200020, 500040 5200040, 500020 5200040, 500020 5200020))"  # fmt: skip
TWO_PARTS = "MULTIPOLYGON (((500200 5200000, 500300 5200000, 500300 5200100, 500200 5200000)), " \
            "((500400 5200000, 500410 5200000, 500410 5200010, 500400 5200000)))"  # fmt: skip


def square(x: float, y: float, size: float = 100.0) -> str:
    return shapely.box(x, y, x + size, y + size).wkt


def written(folder: Path, name: str = "labels.csv", sep: str = ",", **columns: list[object]) -> Path:
    pd.DataFrame(columns).to_csv(folder / name, index=False, sep=sep)
    return folder / name


def test_holes_and_parts_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path, id=[7, 9], ground_truth=[3, 1], crs=[32632, 32632], year=[2018, 2019],
                   geometry=[HOLED, TWO_PARTS])  # fmt: skip
    labels = read_labels(path)
    assert labels.attrs["kind"] == "canonical"
    assert labels.crs.to_epsg() == 32632
    assert labels.area.tolist() == [100 * 100 - 20 * 20, 100 * 100 / 2 + 10 * 10 / 2]
    assert labels["id"].tolist() == [7, 9]
    assert labels["ground_truth"].tolist() == [3, 1]
    assert labels["ground_truth"].dtype == np.dtype("int64")
    assert labels["valid_from"].dt.year.tolist() == [2018, 2019]
    assert labels["valid_to"].dt.year.tolist() == [2019, 2020]
    assert labels.attrs["notes"] == []


def test_mixed_crs_are_reprojected_row_by_row_and_reported(tmp_path: Path) -> None:
    lon, lat = 9.0, 47.0
    crs = [32632, "EPSG:4326", 32632, "3035.0", 32632, 32631]
    shapes = []
    for system in crs:
        to = pyproj.Transformer.from_crs("EPSG:4326", pyproj.CRS(str(system).removesuffix(".0")), always_xy=True)
        x, y = to.transform(lon, lat)
        size = 0.001 if "4326" in str(system) else 100.0
        shapes.append(square(x, y, size))
    table = {"id": list(range(6)), "ground_truth": [1, 2, 3, 4, 5, 6], "crs": crs, "geometry": shapes}
    with pytest.warns(DeepSentinelWarning, match=r"4 CRS in one file: .*1 rows from EPSG:3035.* to EPSG:32632"):
        labels = read_labels(written(tmp_path, **table))
    assert labels["id"].tolist() == list(range(6))
    assert labels.crs.to_epsg() == 32632
    assert "4 CRS in one file" in labels.attrs["notes"][0]
    # Every square has its lower left corner in the same place, whatever it was written in.
    corner = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True).transform(lon, lat)
    for shape in labels.geometry:
        assert min(np.hypot(*(shapely.get_coordinates(shape) - corner).T)) < 1e-3
    # The order of the rows changes nothing.
    turned = {name: values[::-1] for name, values in table.items()}
    with pytest.warns(DeepSentinelWarning):
        again = read_labels(written(tmp_path, "b.csv", **turned))
    again = again.sort_values("id", ignore_index=True)
    assert again.crs == labels.crs
    assert again.geometry.geom_equals(labels.geometry).all()


def test_rows_that_cannot_be_placed_are_set_aside(tmp_path: Path) -> None:
    good = square(5e5, 5.2e6)
    path = written(
        tmp_path,
        id=["a", "b", "c", "d", "e", "f"],
        ground_truth=[1, 2, 3, 4, np.nan, 6],
        crs=["32632", "99999", "32632", None, "32632", "32632"],
        geometry=[good, good, "POLYGON ((1 2", good, good, None],
    )
    with pytest.warns(DeepSentinelWarning) as caught:
        labels = read_labels(path)
    assert labels["id"].tolist() == ["a"]
    reasons = {entry["id"]: (entry["row"], entry["reason"]) for entry in labels.attrs["set_aside"]}
    assert reasons == {
        "b": (1, "crs '99999' is not known"),
        "c": (2, "WKT that cannot be read"),
        "d": (3, "no crs"),
        "e": (4, "no ground_truth"),
        "f": (5, "no geometry"),
    }
    said = " ".join(str(warning.message) for warning in caught)
    assert all(reason in said for _, reason in reasons.values())
    # The user may know where rows without a CRS lie.
    with pytest.warns(DeepSentinelWarning):
        assert read_labels(path, crs="EPSG:32632")["id"].tolist() == ["a", "d"]


def test_without_any_crs_it_asks(tmp_path: Path) -> None:
    path = written(tmp_path, ground_truth=[1, 2], geometry=[square(5e5, 5.2e6)] * 2)
    with pytest.raises(InputError, match="does not tell its CRS: it needs a column crs"):
        read_labels(path)
    assert read_labels(path, crs=32632).crs.to_epsg() == 32632
    ewkt = written(tmp_path, "e.csv", ground_truth=[1], geometry=["SRID=32632;" + square(5e5, 5.2e6)])
    assert read_labels(ewkt).crs.to_epsg() == 32632


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_any_separator(sep: str, tmp_path: Path) -> None:
    path = written(tmp_path, sep=sep, Ground_Truth=[1, 2], CRS=[32632] * 2, WKT=[HOLED, TWO_PARTS], note=["x", "y"])
    labels = read_labels(path)
    assert labels["ground_truth"].tolist() == [1, 2]
    assert labels["note"].tolist() == ["x", "y"]


def test_text_classes_are_numbered_and_numbers_stay_what_they_are(tmp_path: Path) -> None:
    shapes = [square(5e5 + 200 * n, 5.2e6) for n in range(4)]
    base = {"crs": [32632] * 4, "geometry": shapes}
    texts = read_labels(written(tmp_path, ground_truth=["rye", "oats", "rye", "wheat"], **base))
    legend = Legend.from_json(texts.attrs["legend"])
    assert [legend.names[code] for code in texts["ground_truth"]] == ["rye", "oats", "rye", "wheat"]
    assert texts["ground_truth"].tolist() == [2, 1, 2, 3]
    floats = read_labels(written(tmp_path, "f.csv", ground_truth=["1.0", "2.5", "3.0", "4.0"], **base))
    assert floats["ground_truth"].dtype == np.dtype("float64")
    with pytest.warns(DeepSentinelWarning, match="no ground_truth"):
        gaps = read_labels(written(tmp_path, "g.csv", ground_truth=["1", None, "3", "4"], **base))
    assert gaps["ground_truth"].dtype == np.dtype("int64")
    codes = read_labels(written(tmp_path, "c.csv", ground_truth=[1, 2, 3, 4], id=["007", "08", "9", "10"], **base))
    assert codes["id"].tolist() == ["007", "08", "9", "10"]


def test_a_long_file_is_read_in_pieces_with_its_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepsentinel.labels.wkt._CHUNK_ROWS", 7)
    count = 40
    crs = [32632 if n % 3 else 32631 for n in range(count)]
    shapes = [square(5e5 + 200 * n, 5.2e6) for n in range(count)]
    with pytest.warns(DeepSentinelWarning, match="2 CRS"):
        labels = read_labels(written(tmp_path, ground_truth=list(range(count)), crs=crs, geometry=shapes))
    assert labels["ground_truth"].tolist() == list(range(count))
