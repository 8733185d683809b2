"""Expressions of Earth Engine, evaluated: what the client sends, done to the images of ee_world.

Only what a test has needed is here; anything else is an error, as an unknown function is in the real service.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import shapely
from ee_world import Band, Image, Pixels, Sampled

Algorithm = Callable[..., Any]
ALGORITHMS: dict[str, Algorithm] = {}


class EvaluationError(Exception):
    """What the service would answer with status 400."""


@dataclass(frozen=True)
class Feature:
    geometry: Any
    properties: dict[str, Any]


Element = Image | Feature


def algorithm(name: str) -> Callable[[Algorithm], Algorithm]:
    def known(function: Algorithm) -> Algorithm:
        ALGORITHMS[name] = function
        return function

    return known


class Evaluator:
    """One expression: a table of nodes that refer to one another."""

    def __init__(self, collections: dict[str, list[Image]], expression: dict[str, Any]) -> None:
        self.collections, self.nodes = collections, expression["values"]
        self._found: dict[str, Any] = {}
        self.used: set[str] = set()

    def named(self, name: str, scope: dict[str, Any]) -> Any:
        if scope:  # within a function, a node may mean another thing each time
            return self.value(self.nodes[name], scope)
        if name not in self._found:
            self._found[name] = self.value(self.nodes[name], scope)
        return self._found[name]

    def value(self, node: dict[str, Any], scope: dict[str, Any]) -> Any:
        kind, held = next(iter(node.items()))
        if kind == "constantValue":
            return held
        if kind == "integerValue":
            return int(held)
        if kind == "valueReference":
            return self.named(held, scope)
        if kind == "argumentReference":
            return scope[held]
        if kind == "arrayValue":
            return [self.value(each, scope) for each in held["values"]]
        if kind == "dictionaryValue":
            return {key: self.value(each, scope) for key, each in held["values"].items()}
        if kind == "functionDefinitionValue":
            names, body = held["argumentNames"], held["body"]
            return lambda *args: self.named(body, {**scope, **dict(zip(names, args, strict=True))})
        assert kind == "functionInvocationValue", kind
        name = held["functionName"]
        if name not in ALGORITHMS:
            raise EvaluationError(f"Unknown function '{name}'.")
        self.used.add(name)
        arguments = {key: self.value(each, scope) for key, each in held["arguments"].items()}
        if name in ("Image.load", "ImageCollection.load"):
            arguments["collections"] = self.collections
        return ALGORITHMS[name](**arguments)


def evaluate(collections: dict[str, list[Image]], expression: dict[str, Any]) -> Any:
    evaluator = Evaluator(collections, expression)
    return evaluator.named(expression["result"], {})


# -- collections -------------------------------------------------------------------------------------------------------


@algorithm("ImageCollection.load")
def _load_collection(collections: dict[str, list[Image]], id: str) -> list[Image]:
    if id not in collections:
        raise EvaluationError(f"ImageCollection.load: ImageCollection asset '{id}' not found.")
    return collections[id]


@algorithm("Image.load")
def _load_image(collections: dict[str, list[Image]], id: str) -> Image:
    collection, _, name = id.rpartition("/")
    for image in collections.get(collection, []):
        if image.properties["system:index"] == name:
            return image
    raise EvaluationError(f"Image.load: Image asset '{id}' not found (does not exist or caller does not have access).")


@algorithm("Collection.filter")
def _filter(collection: list[Element], filter: Callable[[Element], bool]) -> list[Element]:
    return [element for element in collection if filter(element)]


@algorithm("Collection.map")
def _map(collection: list[Element], baseAlgorithm: Algorithm, dropNulls: bool = False) -> list[Element]:
    made = []
    for element in collection:
        result = baseAlgorithm(element)
        index = {"system:index": element.properties["system:index"]}
        made.append(replace(result, properties={**result.properties, **index}))
    return made


@algorithm("Collection")
def _collection(features: list[Element]) -> list[Element]:
    # Members of a collection are numbered, whatever they were called.
    return [replace(one, properties={**one.properties, "system:index": str(at)}) for at, one in enumerate(features)]


@algorithm("ImageCollection.mosaic")
def _mosaic(collection: list[Image]) -> Image:
    if not collection:
        return Image({})
    names = list(collection[0].bands)

    def over(name: str) -> Band:
        def sample(pixels: Pixels, mode: str) -> Sampled:
            top: Sampled | None = None
            for image in collection:  # the last lies on top
                one = image.bands[name].at(pixels)
                if top is not None:
                    values = np.where(one.there, one.values, top.values)
                    one = Sampled(values, one.there | top.there, one.inside | top.inside)
                top = one
            assert top is not None
            return top

        return Band(collection[0].bands[name].dtype, sample)

    return Image({name: over(name) for name in names})


# -- filters -----------------------------------------------------------------------------------------------------------


def _geometry(element: Element) -> Any:
    return element.geometry


@algorithm("DateRange")
def _date_range(start: Any, end: Any) -> tuple[float, float]:
    first, last = (pd.Timestamp(at).timestamp() * 1000 if isinstance(at, str) else float(at) for at in (start, end))
    if last <= first:
        raise EvaluationError("DateRange: Empty date ranges not supported for the current operation.")
    return first, last


@algorithm("Filter.dateRangeContains")
def _in_dates(leftValue: tuple[float, float], rightField: str) -> Callable[[Element], bool]:
    return lambda one: leftValue[0] <= one.properties[rightField] < leftValue[1]


@algorithm("Filter.intersects")
def _intersects(leftField: str, rightValue: Any) -> Callable[[Element], bool]:
    assert leftField == ".all"
    area = rightValue.geometry if isinstance(rightValue, Feature) else rightValue
    shapely.prepare(area)
    return lambda one: bool(shapely.intersects(area, _geometry(one)))


def _compared(how: Callable[[Any, Any], bool]) -> Algorithm:
    def made(leftField: str, rightValue: Any) -> Callable[[Element], bool]:
        return lambda one: leftField in one.properties and how(one.properties[leftField], rightValue)

    return made


ALGORITHMS["Filter.equals"] = _compared(lambda held, wanted: held == wanted)
ALGORITHMS["Filter.lessThanOrEquals"] = _compared(lambda held, wanted: held <= wanted)
ALGORITHMS["Filter.listContains"] = _compared(lambda held, wanted: wanted in held)


@algorithm("Filter.and")
def _and(filters: list[Callable[[Element], bool]]) -> Callable[[Element], bool]:
    return lambda one: all(each(one) for each in filters)


@algorithm("Filter.not")
def _not(filter: Callable[[Element], bool]) -> Callable[[Element], bool]:
    return lambda one: not filter(one)


# -- elements ----------------------------------------------------------------------------------------------------------


@algorithm("GeometryConstructors.Polygon")
def _polygon(coordinates: Any, geodesic: bool = True, evenOdd: bool = True, crs: Any = None) -> Any:
    if geodesic:
        raise EvaluationError("this server knows straight edges only")
    return shapely.Polygon(coordinates[0], coordinates[1:])


@algorithm("GeometryConstructors.MultiPolygon")
def _multi_polygon(coordinates: Any, geodesic: bool = True, evenOdd: bool = True, crs: Any = None) -> Any:
    return shapely.MultiPolygon([_polygon(rings, geodesic) for rings in coordinates])


@algorithm("Feature")
def _feature(geometry: Any = None, metadata: dict[str, Any] | None = None) -> Feature:
    return Feature(geometry, dict(metadata or {}))


@algorithm("Image.geometry")
def _image_geometry(feature: Element) -> Any:
    return feature.geometry


ALGORITHMS["Element.geometry"] = _image_geometry


@algorithm("Element.get")
def _get(object: Element, property: str) -> Any:
    return object.properties.get(property)


@algorithm("Element.copyProperties")
def _copy(destination: Element, source: Element, properties: list[str] | None = None, exclude: Any = None) -> Element:
    names = properties if properties is not None else [name for name in source.properties if ":" not in name]
    copied = {name: source.properties[name] for name in names if name in source.properties}
    return replace(destination, properties={**destination.properties, **copied})


@algorithm("Element.set")
def _set(object: Element, key: str, value: Any) -> Element:
    if value is None:
        raise EvaluationError(f"Element.set: Parameter 'value' is required ({key}).")
    return replace(object, properties={**object.properties, key: value})


@algorithm("Image.projection")
def _projection(image: Image) -> str:
    if not image.bands:
        raise EvaluationError("Image.projection: The image has no bands.")
    return image.crs


ALGORITHMS["Projection.crs"] = lambda projection: projection

# -- images ------------------------------------------------------------------------------------------------------------


@algorithm("Image.constant")
def _constant(value: float) -> Image:
    def sample(pixels: Pixels, mode: str) -> Sampled:
        everywhere = np.ones(pixels.x.shape, bool)
        return Sampled(np.full(pixels.x.shape, value), everywhere, everywhere)

    return Image({"constant": Band("float64" if isinstance(value, float) else "int16", sample)})


@algorithm("Image.select")
def _select(input: Image, bandSelectors: list[str], newNames: list[str] | None = None) -> Image:
    chosen = []
    for selector in bandSelectors:
        matches = [name for name in input.bands if re.fullmatch(selector, name)]
        if not matches:
            raise EvaluationError(
                f"Image.select: Band pattern '{selector}' did not match any bands. Available bands: {list(input.bands)}"
            )
        chosen += matches
    return input.with_bands(dict(zip(newNames or chosen, (input.bands[name] for name in chosen), strict=True)))


@algorithm("Image.addBands")
def _add_bands(dstImg: Image, srcImg: Image, names: Any = None, overwrite: bool = False) -> Image:
    assert not set(dstImg.bands) & set(srcImg.bands)
    return dstImg.with_bands({**dstImg.bands, **srcImg.bands})


def _changed(image: Image, dtype: str | None, how: Callable[[Sampled, Pixels], Sampled]) -> Image:
    def made(band: Band) -> Band:
        return Band(dtype or band.dtype, lambda pixels, mode: how(band.at(pixels), pixels))

    return image.with_bands({name: made(band) for name, band in image.bands.items()})


def _cast(dtype: str) -> Algorithm:
    def made(value: Image) -> Image:
        return _changed(value, dtype, lambda one, _: Sampled(np.asarray(one.values, dtype), one.there, one.inside))

    return made


for kind, dtype in {"Uint8": "uint8", "Uint16": "uint16", "Float": "float32"}.items():
    ALGORITHMS[f"Image.to{kind}"] = _cast(dtype)


@algorithm("Image.max")
def _max(image1: Image, image2: Image) -> Image:
    (other,) = image2.bands.values()

    def how(one: Sampled, pixels: Pixels) -> Sampled:
        two = other.at(pixels)
        return Sampled(np.maximum(one.values, two.values), one.there & two.there, one.inside & two.inside)

    return _changed(image1, "float64", how)


@algorithm("Image.unmask")
def _unmask(input: Image, value: Image | None = None, sameFootprint: bool = True) -> Image:
    (other,) = (value or _constant(0)).bands.values()

    def how(one: Sampled, pixels: Pixels) -> Sampled:
        two = other.at(pixels)
        gaps = ~one.there & (one.inside if sameFootprint else True)
        return Sampled(np.where(gaps, two.values, one.values), one.there | gaps, one.inside | (not sameFootprint))

    return _changed(input, "float64", how)


@algorithm("Image.resample")
def _resample(image: Image, mode: str = "bilinear") -> Image:
    if mode not in ("bilinear", "bicubic"):
        raise EvaluationError(f"Image.resample: Unknown mode '{mode}'.")
    return image.with_bands({name: replace(band, mode=mode) for name, band in image.bands.items()})


@algorithm("Image.linkCollection")
def _link(input: Image, imageCollection: list[Image], linkedBands: list[str]) -> Image:
    index = input.properties["system:index"]
    match = next((one for one in imageCollection if one.properties["system:index"] == index), None)

    def nothing(pixels: Pixels, mode: str) -> Sampled:
        nowhere = np.zeros(pixels.x.shape, bool)
        return Sampled(np.zeros(pixels.x.shape), nowhere, ~nowhere)

    linked = {name: match.bands[name] if match else Band("float32", nothing) for name in linkedBands}
    return input.with_bands({**input.bands, **linked})


def pixels_of(image: Image, bands: list[str] | None, grid: dict[str, Any]) -> np.ndarray:
    """What computePixels answers with: a field for each band, 0 where there is nothing."""
    chosen = _select(image, bands).bands if bands else image.bands
    pixels = Pixels.of(grid)
    found = np.zeros(pixels.x.shape, [(name, band.dtype) for name, band in chosen.items()])
    for name, band in chosen.items():
        one = band.at(pixels)
        found[name] = np.where(one.there, one.values, 0).astype(band.dtype)
    return found
