"""Cells that notebooks of tests and benchmarks begin with; `{tab}` is the tab that is open then."""

# A pair is read.
PAIR = """
m = ds.Map(src, aoi=src.area)
assert m.wait(60)
m.state.do("patch", "src.read(pairs.iloc[{row}], grid)", row=0)
m.open("{tab}");
m
"""
# After it: two pairs of 1024 px, made of copies of the one that was read.
LARGE_PAIRS = """
import numpy as np, xarray as xr
from odc.geo.geobox import GeoBox
from deepsentinel.grids import grid_coords, grid_of
small = m.patch
times = -(-1024 // min(small.sizes["x"], small.sizes["y"]))
place = grid_coords(GeoBox((1024, 1024), grid_of(small).affine, str(grid_of(small).crs)))
tiled = {name: np.tile(layer.values, (times, times))[:1024, :1024] for name, layer in small.data_vars.items()}
when = {name: small[name] for name in ("s1_time", "s2_time")}
large = [
    xr.Dataset({name: (("y", "x"), values[::step].copy()) for name, values in tiled.items()}, place | when, small.attrs)
    for step in (1, -1)
]
"""
# Vectors that need no encoder: means, spreads and mixtures of the bands in cells of 40 m.
VECTORS = """
import numpy as np, xarray as xr
from odc.geo.geobox import GeoBox
from deepsentinel.grids import grid_coords, grid_of
m = ds.Map(src, aoi=src.area)
assert m.wait(60)
m.state.do("patch", "src.read(pairs.iloc[{row}], grid)", row=0)
def vectors(patch, px=4, width=96):
    names = [str(name) for name in patch.data_vars if name not in ("SCL", "angle")]
    grid = grid_of(patch)
    rows, columns = grid.shape.y // px, grid.shape.x // px
    layers = [np.nan_to_num(patch[name].values[: rows * px, : columns * px].astype("float32")) for name in names]
    blocks = np.stack(layers, -1).reshape(rows, px, columns, px, -1).transpose(0, 2, 4, 1, 3)
    blocks = blocks.reshape(rows, columns, len(names), -1)
    plain = np.concatenate([blocks.mean(-1), blocks.std(-1)], axis=-1)
    plain = (plain - plain.mean((0, 1))) / plain.std((0, 1))
    mixed = plain @ np.random.default_rng(0).normal(size=(plain.shape[-1], width)).astype("float32")
    place = grid_coords(GeoBox((rows, columns), grid.affine @ grid.affine.scale(px), str(grid.crs)))
    return xr.DataArray(mixed, place, ("y", "x", "feature"), attrs={"encoder": "mixtures", "sensors": "both"})
m.state.put("z", vectors(m.patch), "vectors(patch)")
m.open("{tab}");
m
"""
# After it: a whole tile of the demo world, 128 x 128 cells of 80 m and 384 features, over copies of the pair.
WHOLE_TILE = """
times = -(-1024 // min(m.patch.sizes["x"], m.patch.sizes["y"]))
place = grid_coords(GeoBox((1024, 1024), grid_of(m.patch).affine, str(grid_of(m.patch).crs)))
tiled = {name: np.tile(layer.values, (times, times))[:1024, :1024] for name, layer in m.patch.data_vars.items()}
when = {name: m.patch[name] for name in ("s1_time", "s2_time")}
large = xr.Dataset({name: (("y", "x"), values) for name, values in tiled.items()}, place | when, m.patch.attrs)
m.state.put("patch", large, "large")
m.state.put("z", vectors(large, 8, 384), "vectors(large, 8, 384)")
assert m.wait(60)
m.canvas.fit(m.state["view_z"].bounds)
"""
