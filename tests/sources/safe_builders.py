"""Downloaded products that tests write: demo scenes as .SAFE folders, and pixels beside copies of real metadata."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint

from deepsentinel.bands import S2_BANDS
from deepsentinel.sources.assets import Item

NS = 'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/{}.xsd"'


def write_jp2(path: Path, data: np.ndarray, transform: Affine, crs: str) -> Path:
    """Lossless JPEG 2000 with its place in the GML box, as products have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, cols = data.shape
    # Without a decomposition that ends in less than a pixel, which the encoder refuses.
    options = {"QUALITY": 100, "REVERSIBLE": "YES", "RESOLUTIONS": max(1, min(6, int(np.log2(min(rows, cols)))))}
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        width=cols,
        height=rows,
        count=1,
        dtype=data.dtype,
        crs=crs,
        transform=transform,
        **options,
    ) as file:
        file.write(data, 1)
    path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
    return path


def product_xml(item: Mapping[str, Any], level: str, offset: int, images: Iterable[str], name: str) -> str:
    """MTD_MSIL*.xml with the tags that matter, worded as the ground segment words them."""
    about = item["properties"]
    ring = item["geometry"]["coordinates"][0]
    tag = "BOA" if level == "2A" else "RADIO"
    offsets = "".join(f'<{tag}_ADD_OFFSET band_id="{n}">{-offset}</{tag}_ADD_OFFSET>' for n in range(13))
    lists = {"BOA": "BOA_ADD_OFFSET_VALUES_LIST", "RADIO": "Radiometric_Offset_List"}
    quantity = (
        "<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>"
        "</QUANTIFICATION_VALUES_LIST>"
        if level == "2A"
        else "<QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>"
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product {NS.format(f"User_Product_Level-{level}")}>
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>{about["datetime"]}</PRODUCT_START_TIME>
<PRODUCT_URI>{name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE><PROCESSING_BASELINE>{about["s2:processing_baseline"]}</PROCESSING_BASELINE>
<GENERATION_TIME>{about["s2:generation_time"]}</GENERATION_TIME>
<Datatake datatakeIdentifier="{about["s2:datatake_id"]}"><SPACECRAFT_NAME>{about["platform"]}</SPACECRAFT_NAME>
<SENSING_ORBIT_NUMBER>{about["sat:relative_orbit"]}</SENSING_ORBIT_NUMBER>
<SENSING_ORBIT_DIRECTION>{about["sat:orbit_state"].upper()}</SENSING_ORBIT_DIRECTION></Datatake>
<Product_Organisation><Granule_List><Granule imageFormat="JPEG2000">
{"".join(f"<IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)}
</Granule></Granule_List></Product_Organisation></Product_Info>
<Product_Image_Characteristics>{quantity}
{f"<{lists[tag]}>{offsets}</{lists[tag]}>" if offset else ""}</Product_Image_Characteristics></n1:General_Info>
<n1:Geometric_Info><Product_Footprint><Product_Footprint><Global_Footprint>
<EXT_POS_LIST>{" ".join(f"{lat!r} {lon!r}" for lon, lat in ring)}</EXT_POS_LIST>
</Global_Footprint></Product_Footprint></Product_Footprint></n1:Geometric_Info>
<n1:Quality_Indicators_Info>
<Cloud_Coverage_Assessment>{about["eo:cloud_cover"]!r}</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info>
</n1:Level-{level}_User_Product>"""


def tile_xml(
    item: Mapping[str, Any], level: str, granule: str, grids: Mapping[int, tuple[Affine, tuple[int, int]]]
) -> str:
    """MTD_TL.xml likewise."""
    about = item["properties"]
    sizes = "".join(
        f'<Size resolution="{metres}"><NROWS>{shape[0]}</NROWS><NCOLS>{shape[1]}</NCOLS></Size>'
        for metres, (_, shape) in grids.items()
    )
    places = "".join(
        f'<Geoposition resolution="{metres}"><ULX>{affine.c}</ULX><ULY>{affine.f}</ULY>'
        f"<XDIM>{metres}</XDIM><YDIM>-{metres}</YDIM></Geoposition>"
        for metres, (affine, _) in grids.items()
    )
    views = "".join(
        f'<Mean_Viewing_Incidence_Angle bandId="{n}"><ZENITH_ANGLE unit="deg">{3 + n / 10}</ZENITH_ANGLE>'
        f'<AZIMUTH_ANGLE unit="deg">{(355 + n) % 360}</AZIMUTH_ANGLE></Mean_Viewing_Incidence_Angle>'
        for n in range(13)
    )
    tile = about["s2:mgrs_tile"]
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_Tile_ID {NS.format(f"S2_PDI_Level-{level}_Tile_Metadata")}><n1:General_Info>
<TILE_ID metadataLevel="Brief">S2A_OPER_MSI_L{level}_TL_2APS_20230626T022157_A041826_T{tile}_N05.09</TILE_ID>
<SENSING_TIME metadataLevel="Standard">{about["datetime"]}</SENSING_TIME></n1:General_Info>
<n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
<HORIZONTAL_CS_CODE>EPSG:{about["proj:epsg"]}</HORIZONTAL_CS_CODE>{sizes}{places}</Tile_Geocoding>
<Tile_Angles metadataLevel="Standard"><Mean_Sun_Angle>
<ZENITH_ANGLE unit="deg">{about["s2:mean_solar_zenith"]!r}</ZENITH_ANGLE>
<AZIMUTH_ANGLE unit="deg">{about["s2:mean_solar_azimuth"]!r}</AZIMUTH_ANGLE></Mean_Sun_Angle>
<Mean_Viewing_Incidence_Angle_List>{views}</Mean_Viewing_Incidence_Angle_List></Tile_Angles></n1:Geometric_Info>
<n1:Quality_Indicators_Info metadataLevel="Standard"><Image_Content_QI>
<CLOUDY_PIXEL_PERCENTAGE>{about["eo:cloud_cover"]!r}</CLOUDY_PIXEL_PERCENTAGE>
<NODATA_PIXEL_PERCENTAGE>{about["s2:nodata_pixel_percentage"]!r}</NODATA_PIXEL_PERCENTAGE>
</Image_Content_QI></n1:Quality_Indicators_Info></n1:Level-{level}_Tile_ID>"""


def write_safe(folder: Path, item: Item, bands: Mapping[str, Path], *, level: str = "2A", name: str = "") -> Path:
    """A .SAFE folder with the pixels of `bands` (rasters of stored values), described by a demo item."""
    name = name or item["id"]
    about = item["properties"]
    tile, start = about["s2:mgrs_tile"], re.sub(r"[-:Z]", "", about["datetime"])
    granule = f"L{level}_T{tile}_A041826_{start}"
    safe = folder / f"{name}.SAFE"
    images: list[str] = []
    grids: dict[int, tuple[Affine, tuple[int, int]]] = {}
    for band, path in bands.items():
        metres = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
        with rasterio.open(path) as file:
            data, transform, crs = file.read(1), file.transform, str(file.crs)
        stem = f"T{tile}_{start}_{band}"
        image = f"GRANULE/{granule}/IMG_DATA/" + (f"R{metres}m/{stem}_{metres}m" if level == "2A" else stem)
        write_jp2(safe / f"{image}.jp2", data, transform, crs)
        images.append(image)
        grids[metres] = (transform, data.shape)
    offset = 1000 if about["s2:processing_baseline"] >= "04.00" else 0
    (safe / f"MTD_MSIL{level}.xml").write_text(product_xml(item, level, offset, images, name))
    (safe / f"GRANULE/{granule}/MTD_TL.xml").write_text(tile_xml(item, level, granule, grids))
    return safe


def demo_products(source: Any, scenes: Any, folder: Path) -> Path:
    """The scenes of a demo table as downloads: Sentinel-2 as .SAFE folders, Sentinel-1 RTC as folders of GeoTIFFs."""
    for sensor, name in zip(scenes.sensor, scenes.id, strict=True):
        item = source.items_of(sensor, [name])[name]
        paths = {band: Path(source.resolve(ref.href, item, ref.key)) for band, ref in source.assets_of(item).items()}
        if sensor == "S2":
            write_safe(folder, item, paths)
            continue
        (folder / name).mkdir(parents=True)
        for path in paths.values():
            shutil.copy(path, folder / name / path.name)
    return folder


def zipped(safe: Path, dot: str = "") -> Path:
    """The product zipped as services hand it out, its folder gone; `dot` begins the names, as some programs do."""
    archive = safe.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(safe.rglob("*")):
            if path.is_file():
                file.writestr(dot + path.relative_to(safe.parent).as_posix(), path.read_bytes())
    shutil.rmtree(safe)
    return archive


# -- small products whose every pixel is known -------------------------------------------------------------------------

LEFT, TOP, EPSG, SIZE = 600_000.0, 5_500_020.0, 32631, 96
L2A = tuple(name for name in S2_BANDS if name != "B10")


def small_item(
    day: str = "2021-06-04", tile: str = "31UEQ", *, baseline: str = "05.00", generated: str = "", letter: str = "A"
) -> Item:
    from pyproj import Transformer

    to = Transformer.from_crs(EPSG, 4326, always_xy=True)
    side = SIZE * 10
    corners = [(LEFT, TOP), (LEFT, TOP - side), (LEFT + side, TOP - side), (LEFT + side, TOP), (LEFT, TOP)]
    stamp = day.replace("-", "")
    return {
        "id": f"S2{letter}_MSIL2A_{stamp}T105620_N{baseline.replace('.', '')}_R094_T{tile}_{generated or stamp}T190000",
        "geometry": {"type": "Polygon", "coordinates": [[list(to.transform(*corner)) for corner in corners]]},
        "properties": {
            "datetime": f"{day}T10:56:20.500000Z",
            "platform": f"Sentinel-2{letter}",
            "proj:epsg": EPSG,
            "sat:relative_orbit": 94,
            "sat:orbit_state": "descending",
            "s2:mgrs_tile": tile,
            "s2:processing_baseline": baseline,
            "s2:datatake_id": f"GS2{letter}_{stamp}T105620_031087_N{baseline}",
            "s2:generation_time": f"{generated or stamp}T190000",
            "s2:mean_solar_zenith": 30.5,
            "s2:mean_solar_azimuth": 150.25,
            "s2:nodata_pixel_percentage": 12.5,
            "eo:cloud_cover": 20.75,
        },
    }


def small_dn(band: str, seed: int = 0) -> np.ndarray:
    """Stored values of a small product; nothing in the first row and column, dark water in the last."""
    native = S2_BANDS[band].resolution_m if band in S2_BANDS else 20
    size = SIZE * 10 // native
    rng = np.random.default_rng([seed, sum(map(ord, band))])
    if band == "SCL":
        return rng.integers(0, 12, (size, size)).astype("uint8")
    dn = rng.integers(1001, 9000, (size, size)).astype("uint16")
    dn[0], dn[:, 0], dn[-1, -1], dn[-1, -2] = 0, 0, 900, 65535
    return dn


def small_safe(
    folder: Path,
    *,
    bands: Iterable[str] = ("B02", "B04", "B05", "B09", "SCL"),
    level: str = "2A",
    seed: int = 0,
    **about: Any,
) -> Path:
    """A .SAFE folder of 960 m."""
    item = small_item(**about)
    name = item["id"].replace("MSIL2A", f"MSIL{level}")
    raw = folder / f".raw-{name}"
    raw.mkdir(parents=True)
    paths = {}
    for band in bands:
        data = small_dn(band, seed)
        step = SIZE * 10 / data.shape[0]
        paths[band] = raw / f"{band}.tif"
        transform = Affine(step, 0, LEFT, 0, -step, TOP)
        with rasterio.open(
            paths[band], "w", driver="GTiff", width=data.shape[1], height=data.shape[0], count=1, dtype=data.dtype,
            crs=f"EPSG:{EPSG}", transform=transform,
        ) as file:  # fmt: skip
            file.write(data, 1)
    safe = write_safe(folder, item, paths, level=level, name=name)
    shutil.rmtree(raw)
    return safe


# -- pixels beside copies of real metadata -----------------------------------------------------------------------------


def copied(source: Path, folder: Path) -> Path:
    """A product's metadata where it can be changed."""
    target = folder / source.name
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def grd_product(real: Path, folder: Path, images: Mapping[str, np.ndarray]) -> Path:
    """The real radar product cut to its first lines and pixels, with these images (HH, HV)."""
    safe = copied(next((real / "safe").glob("S1A_EW_GRDM*")), folder)
    (safe / "measurement").mkdir()
    for band, dn in images.items():
        path = safe / f"annotation/ew-{band.lower()}.xml"
        text = path.read_text()
        for tag, size in (("numberOfLines", dn.shape[0]), ("numberOfSamples", dn.shape[1])):
            text = re.sub(rf"<{tag}>\d+<", f"<{tag}>{size}<", text)
        path.write_text(text)
        write_image(safe / f"measurement/s1a-ew-grd-{band.lower()}-001.tiff", dn)
    return safe


def write_image(path: Path, dn: np.ndarray) -> None:
    """A TIFF with control points and no map, as radar images come (these points are wrong, and nobody should look)."""
    rows, cols = dn.shape
    corners = [GroundControlPoint(row, col, col / 1000, row / 1000) for row in (0, rows) for col in (0, cols)]
    with rasterio.open(
        path, "w", driver="GTiff", width=cols, height=rows, count=1, dtype="uint16", gcps=corners, crs="EPSG:4326"
    ) as file:
        file.write(dn, 1)


def edited(path: Path, *changes: tuple[str, str]) -> None:
    """Change text in a metadata file; each must be there."""
    text = path.read_text()
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text, flags=re.S)
        assert count, f"{pattern} is not in {path.name}"
    path.write_text(text)
