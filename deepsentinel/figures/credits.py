"""Whose labels these are: what a legend's name stands for on a page, whom to credit, and which files were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from deepsentinel.legend import Legend

from . import slides

if TYPE_CHECKING:
    import xarray as xr

_ICE = "Classes of the World Meteorological Organization's SIGRID-3"
_CLC = "© European Union, Copernicus Land Monitoring Service, European Environment Agency"
TITLES: Mapping[str, str] = {
    "bigearthnet19": "BigEarthNet, 19 classes",
    "cdl": "Cropland Data Layer",
    "corine": "CORINE Land Cover",
    "crops": "crops",
    "dynamic_world": "Dynamic World",
    "esri_land_cover": "Esri Land Cover",
    "ice_concentration": "concentration of sea ice",
    "ice_form": "form of sea ice",
    "ice_stage": "stage of sea ice",
    "osm": "OpenStreetMap",
    "overture": "Overture Maps",
    "worldcover": "ESA WorldCover",
}
"""What the name of each known legend stands for."""
CREDITS: Mapping[str, str] = {
    "bigearthnet19": f"Classes of BigEarthNet, from CORINE Land Cover {_CLC}",
    "cdl": "USDA National Agricultural Statistics Service",
    "corine": _CLC,
    "crops": "Classes by the Hierarchical Crop and Agriculture Taxonomy (HCAT) of EuroCrops",
    "dynamic_world": "Dynamic World by Google and the World Resources Institute, CC BY 4.0",
    "esri_land_cover": "Impact Observatory, Microsoft and Esri, CC BY 4.0",
    "ice_concentration": _ICE,
    "ice_form": _ICE,
    "ice_stage": _ICE,
    "osm": "© OpenStreetMap contributors",
    "overture": "© OpenStreetMap contributors, Overture Maps Foundation",
    "worldcover": "© ESA WorldCover project, contains modified Copernicus Sentinel data",
}
"""Whom the classes of each known legend come from."""
# Names that say nothing of where a legend is from.
_NAMELESS = ("classes", "flags", "ground_truth")
# More names of files than this fill the foot of the page.
_FILES_LISTED = 3


def title_of(legend: Legend) -> str:
    """What a legend is called on a page; nothing where its name says nothing.

    >>> from deepsentinel.legend import corine
    >>> title_of(corine()), title_of(Legend.of_codes([1]))
    ('CORINE Land Cover', '')
    """
    return "" if legend.name in _NAMELESS else TITLES.get(legend.name, legend.name)


def credit_of_legends(legends: Iterable[Legend]) -> str:
    """Whom the classes come from, each once.

    >>> from deepsentinel.legend import cdl
    >>> credit_of_legends([cdl(), cdl(), Legend.of_codes([1])])
    'USDA National Agricultural Statistics Service'
    """
    return "; ".join(dict.fromkeys(CREDITS[legend.name] for legend in legends if legend.name in CREDITS))


def page_credit(*several: xr.Dataset) -> str:
    """Where the labels came from, in a few words.

    >>> import xarray as xr
    >>> page_credit(xr.Dataset(attrs={"labels": "/data/fr_rpg_2022.gpkg"}), xr.Dataset(attrs={"labels": "b.gpkg"}))
    'Labels from fr_rpg_2022.gpkg and b.gpkg · deepsentinel'
    """
    if any(imaginary(each) for each in several):
        return slides.credit_of({"source": "demo"}, [])
    return files_credit([file_of(each) for each in several])


def made_credit(ground: xr.Dataset, legend: Legend | None) -> str:
    """For what was made of labels: whom their classes come from and the file, or that all of it is imaginary.

    >>> import xarray as xr
    >>> from deepsentinel.legend import cdl
    >>> made_credit(xr.Dataset(attrs={"labels": "/data/iowa.gpkg"}), cdl())
    'USDA National Agricultural Statistics Service · Labels from iowa.gpkg · deepsentinel'
    """
    told = page_credit(ground)
    classes = "" if imaginary(ground) or legend is None else credit_of_legends([legend])
    return " · ".join(filter(None, (classes, told)))


def files_credit(names: Sequence[str]) -> str:
    """The files of labels, for the foot of a page.

    >>> files_credit(["a.gpkg", "a.gpkg", ""])
    'Labels from a.gpkg · deepsentinel'
    """
    told = list(dict.fromkeys(name for name in names if name))
    listed = told[:_FILES_LISTED] + ([f"{len(told) - _FILES_LISTED} more"] if len(told) > _FILES_LISTED else [])
    text = " and ".join(filter(None, (", ".join(listed[:-1]), *listed[-1:])))
    return f"Labels from {text} · deepsentinel" if text else "deepsentinel"


def file_of(each: Any) -> str:
    """The name of the file that labels or masks were read from; nothing where nobody noted it.

    >>> import xarray as xr
    >>> file_of(xr.Dataset(attrs={"labels": "/data/fr_rpg_2022.gpkg"}))
    'fr_rpg_2022.gpkg'
    """
    # A table of labels calls its file the source, which in a patch is the catalog.
    key = "source" if hasattr(each, "geometry") else "labels"
    return PurePath(str(each.attrs.get(key) or "")).name


def imaginary(each: Any) -> bool:
    """Whether a patch, masks or labels show the demo world, for which nobody else deserves credit.

    >>> import xarray as xr
    >>> imaginary(xr.Dataset(attrs={"source": "demo"}))
    True
    """
    # Labels do not tell; but those of the demo world lie in a folder of their own in its cache.
    path = each.attrs.get("source" if hasattr(each, "geometry") else "labels")
    folders = PurePath(str(path or "")).parts[:-1]
    return each.attrs.get("source") == "demo" or (folders[-1:] == ("vectors",) and "demo" in folders)


def told_apart(several: Sequence[xr.Dataset], legends: Sequence[Legend | None]) -> list[str]:
    """What tells masks of the same ground apart in a word or two each: their pixels, their files, or what they hold.

    >>> import xarray as xr
    >>> grid = xr.Dataset(coords={"y": [15.0, 5.0], "x": [5.0, 15.0], "spatial_ref": 0})
    >>> from pyproj import CRS
    >>> grid["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> told_apart([grid.assign_attrs(labels="a.gpkg"), grid.assign_attrs(labels="b.gpkg")], [None, None])
    ['a.gpkg', 'b.gpkg']
    """
    sizes = [f"{slides.metres_per_px(each)[1]:.3g} m" for each in several]
    files = [file_of(each) for each in several]
    titles = [title_of(legend) if legend is not None else "" for legend in legends]
    names = [file or title for file, title in zip(files, titles, strict=True)]
    both = [", ".join(filter(None, pair)) for pair in zip(names, sizes, strict=True)]
    for words in (sizes, titles, files, both):
        if all(words) and len(set(words)) == len(words):
            return words
    return [f"{name} ({number})" for number, name in enumerate(both, start=1)]
