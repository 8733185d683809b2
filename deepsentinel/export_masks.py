"""What a GIS needs to know of each layer of a mask: names and colours of its classes, units, what means nothing.

A colour table lies in the GeoTIFF itself where its type has room for one. The names of the classes do not: GDAL keeps
them, with an attribute table, in an `.aux.xml` beside the file, and QGIS its style in a `.qml` of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from .figures.credits import credit_of_legends, file_of, imaginary
from .figures.masks import ERROR, HEADINGS, MIXED, legend_of
from .legend import Legend

if TYPE_CHECKING:
    import xarray as xr

Colour = tuple[int, int, int, int]

# A TIFF has room for a colour table in these types only.
PALETTE_TYPES = ("uint8", "uint16")
# GDAL lists category names from 0 on without a gap: beyond this the attribute table alone has to do.
MAX_CATEGORY = 4096
UNITS: Mapping[str, str] = {"coverage": "share", "overlap": "share", "distance": "m"}
CONFLICTS: tuple[tuple[int, str, Colour], ...] = (
    (0, "none", (255, 255, 255, 0)),
    (1, "mixed pixel", (*MIXED, 255)),
    (2, "conflict: claimed twice", (*ERROR, 255)),
)
# The columns of GDAL's attribute table: name, type (0 integer, 2 text), use (5 value, 2 name, 6 to 9 colours).
_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9))


@dataclass(frozen=True)
class Layer:
    """One layer of a mask as a file."""

    values: np.ndarray
    """What is written."""
    title: str
    """What a GIS lists the band as."""
    unit: str = ""
    """The unit of its values."""
    nodata: float | None = None
    """The value that means nothing; None where every value means something."""
    mean: bool = False
    """Whether overviews may average."""
    colours: dict[int, Colour] = field(default_factory=dict)
    """The colour table, where the file has room for one."""
    tags: dict[str, str] = field(default_factory=dict)
    """What is said about the file."""
    band_tags: dict[str, str] = field(default_factory=dict)
    """What is said about its band."""
    beside: dict[str, str] = field(default_factory=dict)
    """Files that lie beside it: suffix and text."""


def layer(masks: xr.Dataset, name: str) -> Layer:
    """One layer with all that a file of it says.

    >>> import xarray as xr
    >>> masks = xr.Dataset({"conflict": (("y", "x"), np.array([[0, 2]], "uint8"))})
    >>> layer(masks, "conflict").colours[2], sorted(layer(masks, "conflict").beside)
    ((213, 94, 0, 255), ['.qml', '.tif.aux.xml'])
    """
    values = np.asarray(masks[name].values)
    tags = {"LAYER": name, "RULE": masks.attrs.get("rule"), "CONFLICT_BETWEEN": masks.attrs.get("conflict_between")}
    # The folder is nobody's business but the author's.
    tags |= {"LABELS": file_of(masks) or None, "CREDIT": _credit(masks) or None}
    said = {key: str(value) for key, value in tags.items() if value is not None}
    title = str(masks[name].attrs.get("long_name", HEADINGS[name].lower()))
    if name == "class_map":
        return _classes(masks, values, title, said)
    if name == "conflict":
        return Layer(values, title, tags=said, **_legend_files(CONFLICTS, values, [code for code, _, _ in CONFLICTS]))
    nodata = {"parcel_id": 0.0, "value": np.nan, "distance": np.nan}.get(name)
    return Layer(values, title, UNITS.get(name, ""), nodata, mean=name != "parcel_id", tags=said)


def _credit(masks: xr.Dataset) -> str:
    """Whom the classes come from, of whichever layer: a parcel's number is the publisher's too."""
    if imaginary(masks) or "class_map" not in masks:
        return ""
    return credit_of_legends([legend_of(masks)])


def fraction_tags(shares: xr.DataArray) -> dict[str, str]:
    """What the file of class fractions says of itself.

    >>> import xarray as xr
    >>> from deepsentinel.legend import cdl
    >>> code = xr.Variable("class", [5], cdl().only([5]).to_attrs())
    >>> fraction_tags(xr.DataArray(np.zeros((1, 2, 2)), {"class": code}, ("class", "y", "x")))["CREDIT"]
    'USDA National Agricultural Statistics Service'
    """
    legend = Legend.from_attrs(shares["class"].attrs)
    tags = {"LAYER": "class_fraction", "LABELS": file_of(shares)}
    if legend is not None:
        # Read back, the legend should be the very same one.
        tags |= {"LEGEND": legend.to_json(), "CREDIT": "" if imaginary(shares) else credit_of_legends([legend])}
    return {key: text for key, text in tags.items() if text}


def _classes(masks: xr.Dataset, values: np.ndarray, title: str, tags: dict[str, str]) -> Layer:
    attrs = masks["class_map"].attrs
    background = int(attrs.get("background", 0))
    legend = legend_of(masks)
    table = legend.color_table()
    rows = [(code, legend.names[code], table[code]) for code in sorted(legend.codes)]
    if "shifted_by" in attrs:
        tags = tags | {"SHIFTED_BY": str(attrs["shifted_by"])}
    # Read back, the legend should be the very same one, with its coarser levels.
    band_tags = {"legend": legend.to_json()} if len(legend) else {}
    present = [int(code) for code in np.unique(values) if code != background]
    files = _legend_files(rows, values, present)
    return Layer(values, title, nodata=float(background), tags=tags, band_tags=band_tags, **files)


def _legend_files(rows: Iterable[tuple[int, str, Colour]], values: np.ndarray, shown: list[int]) -> dict[str, Any]:
    """Colour table, names and style; the style lists only what is `shown`, the others the whole legend."""
    rows = list(rows)
    colours = {code: colour for code, _, colour in rows} if values.dtype.name in PALETTE_TYPES else {}
    limit = 256 if values.dtype.name == "uint8" else 65536
    return {
        "colours": {code: colour for code, colour in colours.items() if 0 <= code < limit},
        "beside": {".tif.aux.xml": gdal_names(rows), ".qml": qgis_style([row for row in rows if row[0] in shown])},
    }


def gdal_names(rows: Iterable[tuple[int, str, Colour]]) -> str:
    """The classes as GDAL reads them from beside a file: a list of names and an attribute table with the colours.

    >>> gdal_names([(2, "reed & rush", (0, 170, 0, 255))]).count("<Category>reed &amp; rush</Category>")
    1
    """
    rows = list(rows)
    names = {code: name for code, name, _ in rows}
    lines = ["<PAMDataset>", '  <PAMRasterBand band="1">']
    if names and min(names) >= 0 and max(names) <= MAX_CATEGORY:
        lines.append("    <CategoryNames>")
        lines += [f"      <Category>{escape(names.get(code, ''))}</Category>" for code in range(max(names) + 1)]
        lines.append("    </CategoryNames>")
    lines.append('    <GDALRasterAttributeTable tableType="thematic">')
    for index, (column, kind, use) in enumerate(_COLUMNS):
        lines += [f'      <FieldDefn index="{index}">', f"        <Name>{column}</Name>"]
        lines += [f"        <Type>{kind}</Type>", f"        <Usage>{use}</Usage>", "      </FieldDefn>"]
    for index, (code, name, colour) in enumerate(rows):
        cells = "".join(f"<F>{escape(str(cell))}</F>" for cell in (code, name, *colour))
        lines.append(f'      <Row index="{index}">{cells}</Row>')
    lines += ["    </GDALRasterAttributeTable>", "  </PAMRasterBand>", "</PAMDataset>", ""]
    return "\n".join(lines)


def qgis_style(rows: Iterable[tuple[int, str, Colour]]) -> str:
    """A style that QGIS takes up with the raster beside which it lies under the same name.

    >>> qgis_style([(2, "reed", (0, 170, 0, 255))]).split("<colorPalette>")[1].split()[:4]
    ['<paletteEntry', 'value="2"', 'color="#00aa00"', 'alpha="255"']
    """
    entries = [
        f'        <paletteEntry value="{code}" color="#{red:02x}{green:02x}{blue:02x}" alpha="{alpha}"'
        f" label={quoteattr(name)}/>"
        for code, name, (red, green, blue, alpha) in rows
    ]
    return "\n".join(
        [
            "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>",
            '<qgis version="3.28.0" styleCategories="Symbology">',
            "  <pipe>",
            '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">',
            "      <rasterTransparency/>",
            "      <colorPalette>",
            *entries,
            "      </colorPalette>",
            "    </rasterrenderer>",
            '    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>',
            '    <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0"/>',
            '    <rasterresampler maxOversampling="1"/>',
            "  </pipe>",
            "  <blendMode>0</blendMode>",
            "</qgis>",
            "",
        ]
    )
