"""What tests of panels have in common: vectors that nobody has to compute, a mouse, a page that sends files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from deepsentinel.grids import grid_coords, grid_of
from deepsentinel.widgets.canvas import Canvas
from deepsentinel.widgets.controls import Upload
from deepsentinel.widgets.jobs import Jobs
from deepsentinel.widgets.panel import Panel
from deepsentinel.widgets.state import State

PX = 4
"""The side of a cell of vectors, in pixels."""


def cells_of(patch: xr.Dataset, values: Callable[[tuple[int, int]], np.ndarray], name: str) -> xr.DataArray:
    """A map of vectors over a patch; `values` makes them of (rows, columns)."""
    grid = grid_of(patch)
    shape = (grid.shape.y // PX, grid.shape.x // PX)
    place = grid_coords(GeoBox(shape, grid.affine @ grid.affine.scale(PX), str(grid.crs)))
    return xr.DataArray(values(shape).astype("float32"), place, ("y", "x", "feature"), attrs={"encoder": name})


class Bench:
    """A panel with its state and its map, and a hand on the mouse."""

    def __init__(self, panel: Callable[[State, Canvas, Jobs], Any]) -> None:
        self.state, self.jobs, self.canvas = State(), Jobs(), Canvas()
        self.panel: Any = panel(self.state, self.canvas, self.jobs)

    def place(self, row: float, col: float) -> tuple[float, float]:
        """Longitude and latitude of a cell of the map of vectors, by its number."""
        z = self.state["z"]
        to = Transformer.from_crs(str(grid_of(z).crs), 4326, always_xy=True)
        lon, lat = to.transform(float(z.x[0]) + 10 * PX * col, float(z.y[0]) - 10 * PX * row)
        return float(lon), float(lat)

    def click(self, row: float, col: float) -> None:
        self.click_at(*self.place(row, col))

    def click_at(self, lon: float, lat: float) -> None:
        click_at(self.canvas, lon, lat)

    def settle(self) -> None:
        settle(self.jobs, self.panel)

    def close(self) -> None:
        self.jobs.close()
        self.panel.close()
        self.canvas.close()


def click_at(canvas: Canvas, lon: float, lat: float) -> None:
    """What the page sends when somebody clicks the map."""
    told = {"event": "interaction", "type": "click", "coordinates": [lat, lon]}
    canvas.map._handle_custom_msg(told, [])


def draw_on(canvas: Canvas, ring: list[Any], action: str = "created") -> None:
    """What the page sends when somebody draws a polygon."""
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    canvas.drawing.control._handle_custom_msg({"event": f"draw:{action}", "geo_json": feature}, [])


def settle(jobs: Jobs, panel: Panel, timeout_s: float = 120) -> None:
    """Until all work is done; what went wrong on the way fails the test."""
    assert jobs.wait(timeout_s)
    assert panel.line.kind != "error", panel.line.text


def upload(control: Upload, name: str, data: bytes, *, piece: int = 1000, lost: bool = False) -> None:
    """What the page sends when somebody chooses a file; `lost`: the last piece does not come."""
    told = {"id": f"the one of {name}", "name": name, "size": len(data)}
    control._handle_custom_msg({"kind": "begin", **told}, [])
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    for each in pieces[:-1] if lost else pieces:
        control._handle_custom_msg({"kind": "piece", **told}, [memoryview(each)])
    control._handle_custom_msg({"kind": "end", **told}, [])


def as_file(table: gpd.GeoDataFrame, name: str, folder: Path) -> bytes:
    """A table as the bytes of a GeoJSON, GeoPackage or zipped shapefile."""
    path = folder / name
    if path.suffix != ".zip":
        table.to_file(path)
        return path.read_bytes()
    inside = folder / "shapefile"
    inside.mkdir()
    table.to_file(inside / "shapes.shp")
    with zipfile.ZipFile(path, "w") as archive:
        for part in inside.iterdir():
            archive.write(part, part.name)
    return path.read_bytes()
