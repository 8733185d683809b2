"""Arrays of the demo world as cloud-optimised GeoTIFFs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from deepsentinel.world.landscape import Landscape
    from deepsentinel.world.scenes import Scene

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_BLOCK_PX = 512


def write_cog(path: Path, array: np.ndarray, box: GeoBox, *, nodata: float, name: str, metres: float = 10.0) -> None:
    """One band as a COG on the lattice of a 10 m grid, in pixels of `metres`. The caller owns the folder's atomicity.

    >>> # write_cog(Path("B04.tif"), red, scene.geobox, nodata=0, name="B04")
    """
    affine = Affine(metres, 0.0, box.affine.c, 0.0, -metres, box.affine.f)
    with rasterio.open(
        path,
        "w",
        driver="COG",
        width=array.shape[1],
        height=array.shape[0],
        count=1,
        dtype=array.dtype,
        crs=str(box.crs),
        transform=affine,
        nodata=nodata,
        compress="DEFLATE",
        # The lowest level: noise hardly shrinks, and rendering must stay quick.
        level=1,
        predictor={"uint16": 2, "float32": 3}.get(str(array.dtype), 1),
        blocksize=_BLOCK_PX,
        overviews="AUTO",
        overview_resampling="nearest",
        num_threads=1,
    ) as file:
        file.write(array, 1)
        file.set_band_description(1, name)


def write_scene(folder: Path, land: Landscape, scene: Scene) -> None:
    """Render a scene and write all its files into a folder.

    >>> # with atomic_folder(target) as folder: write_scene(folder, land, scene)
    """
    if scene.sensor == "S2":
        from deepsentinel.world.optical import RESOLUTION_M, render_s2

        for key, array in render_s2(land, scene).items():
            write_cog(folder / f"{key}.tif", array, scene.geobox, nodata=0, name=key, metres=RESOLUTION_M[key])
        return
    from deepsentinel.world.radar import ANGLE_SPACING_M, NODATA, render_s1

    for key, array in render_s1(land, scene).items():
        metres = ANGLE_SPACING_M if key == "angle" else 10
        name = key if key == "angle" else key.upper()
        write_cog(folder / f"{key}.tif", array, scene.geobox, nodata=NODATA, name=name, metres=metres)
