"""Pictures of what becomes of embeddings: their main directions as colours, groups, likeness to a place, change.

Each map is a panel like any other and stands beside the patch it was made of. The results of a query are numbered marks
on those pictures, with a piece of the patch around each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsentinel.errors import InputError

from . import slides
from .panels import Panel
from .slides import FAINT, FOOT_IN, HEAD_IN, INK, MARGIN_IN, ORANGE, PAGE_WIDTH_IN

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADINGS: Mapping[str, str] = {
    "pca_rgb": "Principal components",
    "similarity": "Likeness",
    "change": "Change",
}
"""The maps that can be drawn beside those of masks, and what stands above each where no encoder is known."""
SENSORS: Mapping[str, str] = {"s1": "S1", "s2": "S2", "both": "S1 and S2"}
# The rest of the values, on either side, would take most of a scale for a few cells.
PERCENTILES = (2.0, 100.0)
TITLE_IN = 0.5
BAR_IN = 0.42
GAP_IN = 0.26
MAP_IN = 4.1
THUMB_COLUMNS, THUMB_ROWS = 3, 3
LABEL_IN = 0.22
# A piece of the ground around each result: so wide at least, and so many cells of the map of likeness.
THUMB_M, THUMB_CELLS = 320.0, 4
MARKED = THUMB_COLUMNS * THUMB_ROWS


def is_map(obj: Any) -> bool:
    """Whether this is a DataArray that lies on the ground: an embedding, or what was made of one.

    >>> import xarray as xr
    >>> is_map(xr.DataArray(np.zeros((2, 2, 8)), dims=("y", "x", "feature")))
    True
    """
    return hasattr(obj, "to_dataset") and not hasattr(obj, "data_vars")


def is_matches(obj: Any) -> bool:
    """Whether this is the table that a query of an index gives.

    >>> import pandas as pd
    >>> is_matches(pd.DataFrame(columns=["score", "part", "key", "lon", "lat"]))
    True
    """
    return {"score", "key", "lon", "lat"} <= {str(name) for name in getattr(obj, "columns", ())}


def as_layers(array: xr.DataArray) -> xr.Dataset:
    """A map as a Dataset that `show` draws: a dense embedding becomes the colours of its principal components.

    >>> import deepsentinel as ds
    >>> from deepsentinel.grids import grid_coords
    >>> place = grid_coords(ds.geobox((2.0, 48.0, 2.001, 48.001)))
    >>> size = (place["y"].size, place["x"].size, 8)
    >>> import xarray as xr
    >>> list(as_layers(xr.DataArray(np.zeros(size, "float32"), place, ("y", "x", "feature"))).data_vars)
    ['pca_rgb']
    """
    from deepsentinel.similarity.vectors import reopened

    array = reopened(array)
    dims = {str(dim) for dim in array.dims}
    if not {"y", "x"} <= dims:
        held = ", ".join(map(str, array.dims))
        raise InputError(
            f"This has the dimensions ({held}) and no place on a map. ds.embed(..., dense=True) gives one vector a"
            " cell; single vectors are searched with similarity_index and probed with linear_probe."
        )
    missing = [name for name in ("x", "y", "spatial_ref") if name not in array.coords]
    if missing:
        raise InputError(f"This map has no {' and no '.join(missing)}, so nobody knows where it lies.")
    if "feature" in dims:
        from deepsentinel.similarity import pca_rgb

        array = pca_rgb(array)
    name = str(array.name)
    if "band" in dims and array.ndim == 3:
        raise InputError(
            "This map has bands, as a GeoTIFF is opened, and no attribute ENCODER. If they are the features of an"
            " embedding: z.rename(band='feature').transpose('y', 'x', 'feature')."
        )
    if name not in (*HEADINGS, "class_map"):
        known = ", ".join(map(repr, HEADINGS))
        raise InputError(
            f"show does not know what the DataArray {name!r} is. It draws a dense embedding, clusters, and maps named"
            f" {known}: rename yours to the one that fits, as in z.rename('similarity')."
        )
    dims_wanted = ("y", "x", "channel") if name == "pca_rgb" else ("y", "x")
    return array.transpose(*dims_wanted).to_dataset(name=name)


def held_maps(each: xr.Dataset) -> list[str]:
    """The maps of an embedding that a Dataset holds.

    >>> import xarray as xr
    >>> held_maps(xr.Dataset({"change": (("y", "x"), np.zeros((2, 2)))}))
    ['change']
    """
    return [name for name in HEADINGS if name in each.data_vars]


def is_embedded(each: xr.Dataset) -> bool:
    """Whether all that a Dataset shows was made of an embedding: its maps, or groups that an encoder is noted of.

    >>> import xarray as xr
    >>> is_embedded(xr.Dataset({"class_map": (("y", "x"), np.ones((2, 2), "uint8"))}))
    False
    """
    return bool(held_maps(each)) or "encoder" in (each["class_map"].attrs if "class_map" in each.data_vars else ())


def map_panel(maps: xr.Dataset, name: str) -> Panel:
    """One map with all that its legend needs.

    >>> import xarray as xr
    >>> map_panel(xr.Dataset({"change": (("y", "x"), np.array([[0.0, np.nan]]))}), "change").known.tolist()
    [[True, False]]
    """
    layer = maps[name]
    values = np.asarray(layer.values, "float32")
    notes = _notes(name, layer.attrs)
    if name == "pca_rgb":
        known = np.isfinite(values).all(axis=-1)
        image = (np.where(known[..., None], values, 0) * 255).round().astype("uint8")
        shares = layer.attrs.get("explained", ())
        channels = tuple(
            f"{word}, {_percent(share)}" for word, share in zip(("1st", "2nd", "3rd"), shares, strict=False)
        )
        return Panel(name, "", _heading(name, layer.attrs), image, known, channels=channels, notes=notes)
    known = np.isfinite(values)
    low, high = np.percentile(values[known], PERCENTILES) if known.any() else (0.0, 1.0)
    low, high = (0.0, high) if name == "change" else (low, high)
    high = max(high, low + 1e-6 * max(abs(low), 1.0))
    scale = "magma" if name == "change" else "viridis"
    unit = str(layer.attrs.get("long_name", "")).removesuffix(" similarity")
    image = _coloured(np.where(known, values, low), low, high, scale)
    return Panel(
        name,
        "",
        _heading(name, layer.attrs),
        image,
        known,
        bar=(float(low), float(high), unit),
        scale=scale,
        notes=notes,
    )


def map_headline(maps: xr.Dataset) -> str:
    """What a map is, in one line.

    >>> import xarray as xr
    >>> map_headline(xr.Dataset({"change": (("y", "x"), np.zeros((2, 2)), {"encoder": "presto"})}))
    'What changed, to presto'
    """
    told = _told(maps)
    name = next((name for name in HEADINGS if name in maps.data_vars), "class_map")
    seen = f"{told.get('encoder', 'an encoder')}{_of(told)}"
    if name == "class_map":
        groups = np.unique(maps["class_map"].values)
        return f"{slides.counted(int((groups != 0).sum()), 'group')} of ground that look alike to {seen}"
    words = {"pca_rgb": "The ground as seen by", "similarity": "What looks alike to", "change": "What changed, to"}
    return f"{words[name]} {seen}"


def map_credit(maps: xr.Dataset) -> str:
    """Whose data an embedding was made of, as far as it tells.

    >>> import xarray as xr
    >>> map_credit(xr.Dataset(attrs={"source": "demo"}))
    'Imaginary demo world, not a real place · deepsentinel'
    """
    told = _told(maps)
    return slides.credit_of(told, slides.years_of(maps)) if told.get("source") else "deepsentinel"


def groups_panel(picture: Panel, maps: xr.Dataset) -> Panel:
    """The picture of a class map, headed as groups that an encoder makes: not classes that somebody named.

    >>> import xarray as xr
    >>> told = {"encoder": "presto", "sensors": "s1"}
    >>> groups = xr.Dataset({"class_map": (("y", "x"), np.ones((2, 2), "uint8"), told)})
    >>> grey = Panel("class_map", "", "Classes", np.zeros((2, 2, 3), "uint8"), np.ones((2, 2), bool))
    >>> groups_panel(grey, groups).heading, groups_panel(grey, groups).notes
    ('Groups by presto', ('on S1',))
    """
    told = _told(maps)
    sensors = _of(told).strip()
    return replace(picture, heading=f"Groups by {told['encoder']}", notes=(sensors,) if sensors else ())


def _told(maps: xr.Dataset) -> dict[Any, Any]:
    """What is noted of a Dataset and of the maps in it."""
    noted: dict[Any, Any] = {}
    for name in (*HEADINGS, "class_map"):
        noted |= maps[name].attrs if name in maps.data_vars else {}
    return noted | maps.attrs


def _of(told: Mapping[Any, Any]) -> str:
    sensors = SENSORS.get(str(told.get("sensors", "")).lower(), "")
    return f" on {sensors}" if sensors else ""


def _heading(name: str, told: Mapping[Any, Any]) -> str:
    return str(told.get("encoder", HEADINGS[name])) if name == "pca_rgb" else HEADINGS[name]


def _notes(name: str, told: Mapping[Any, Any]) -> tuple[str, ...]:
    if name == "pca_rgb":
        shares = told.get("explained", ())
        variance = f"three principal components, {_percent(sum(shares))} of the variance" if len(shares) else ""
        return tuple(words for words in (_of(told).strip(), variance) if words)
    if name == "similarity":
        return ("to what was asked for: the brighter, the more alike",)
    return ("between two dates: the brighter, the more",)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _coloured(values: np.ndarray, low: float, high: float, scale: str) -> np.ndarray:
    from matplotlib import colormaps

    table = (colormaps[scale](np.linspace(0, 1, 256))[:, :3] * 255).round().astype("uint8")
    return np.asarray(table[(np.clip((values - low) / (high - low), 0, 1) * 255).astype(int)])


def matches_figure(
    found: Any, pictures: Sequence[Panel], grounds: Sequence[xr.Dataset], *, credit: str, title: str | None
) -> Figure:
    """Pictures of one piece of ground with the best results of a query marked, and a piece of it around each of them.

    `pictures` and `grounds` go together: each picture in full resolution, and the Dataset that it was made of. Pieces
    are cut from the first one.

    >>> import pandas as pd, xarray as xr
    >>> from pyproj import CRS
    >>> along = 10.0 * np.arange(64)
    >>> ground = xr.Dataset(coords={"y": 1000 - along, "x": 500_000 + along, "spatial_ref": 0})
    >>> ground["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32631).to_wkt()
    >>> grey = Panel("a", "", "Grey", np.full((64, 64, 3), 128, "uint8"), np.ones((64, 64), bool))
    >>> found = pd.DataFrame({"score": [0.9], "key": [7], "lon": [3.003], "lat": [0.006]})
    >>> matches_figure(found, [grey], [ground], credit="", title=None).texts[0].get_text()
    'The place that is most alike'
    """
    first = grounds[0]
    rows, cols = _cells_of(found, first)
    inside = (rows > 0) & (rows < first.sizes["y"]) & (cols > 0) & (cols < first.sizes["x"])
    if not inside.any():
        raise InputError(
            f"None of the {len(found)} results lies on the picture; show them with the patch that was searched."
        )
    shown = np.flatnonzero(inside)[:MARKED]
    aspect = first.sizes["x"] / first.sizes["y"]
    width_in = min(MAP_IN, MAP_IN * aspect)
    height_in = width_in / aspect
    thumbs_left = MARGIN_IN + len(pictures) * (width_in + GAP_IN) + GAP_IN / 2
    room_in = PAGE_WIDTH_IN - MARGIN_IN - thumbs_left
    columns = max(1, min(2 * THUMB_COLUMNS, int((room_in + 0.12) / 1.15)))
    thumb_in = min((room_in + 0.12) / columns - 0.12, 1.6)
    lines = -(-len(shown) // columns)
    body_in = max(
        height_in + (BAR_IN if any(p.bar or p.channels for p in pictures) else 0.1), lines * (thumb_in + LABEL_IN)
    )
    words = f"{len(shown)} places that are" if len(shown) > 1 else "place that is"
    fig = slides.page(
        HEAD_IN + TITLE_IN + body_in + FOOT_IN,
        title or f"The {words} most alike",
        _asked(found),
        footer=slides.place(first),
        credit=credit,
    )
    for index, (picture, ground) in enumerate(zip(pictures, grounds, strict=True)):
        left_in = MARGIN_IN + index * (width_in + GAP_IN)
        axes = _picture(fig, picture, left_in, HEAD_IN, width_in, height_in)
        at_rows, at_cols = _cells_of(found, ground)
        for rank, at in enumerate(shown, start=1):
            _mark(axes, at_cols[at] / ground.sizes["x"], at_rows[at] / ground.sizes["y"], rank)
        if index == 0:
            slides.scale_bar(axes, slides.metres_per_px(first)[1] * first.sizes["x"])
            slides.north_arrow(axes)
    side_m = max(THUMB_M, *(THUMB_CELLS * slides.metres_per_px(ground)[1] for ground in grounds))
    half = max(2, round(side_m / slides.metres_per_px(first)[1] / 2))
    head = f"around each, {2 * half * slides.metres_per_px(first)[1]:.0f} m wide"
    _label(fig, thumbs_left, HEAD_IN + 0.14, "The best", size=11.5, weight="bold")
    _label(fig, thumbs_left, HEAD_IN + 0.37, head, size=8, color=FAINT)
    scores = found["score"].to_numpy("float64")
    for rank, at in enumerate(shown):
        line, column = divmod(rank, columns)
        x_in = thumbs_left + column * (thumb_in + 0.12)
        y_in = HEAD_IN + TITLE_IN + line * (thumb_in + LABEL_IN)
        axes = slides.bare(slides.axes_in(fig, x_in, y_in, thumb_in, thumb_in))
        # A large picture has fewer pixels than the ground it shows.
        scale = pictures[0].image.shape[0] / first.sizes["y"]
        row, col = round(float(rows[at]) * scale), round(float(cols[at]) * scale)
        axes.imshow(_cut(pictures[0], row, col, max(2, round(half * scale))), aspect="auto")
        _label(fig, x_in, y_in + thumb_in + 0.1, f"{rank + 1}", size=8.5, weight="bold")
        _label(fig, x_in + thumb_in, y_in + thumb_in + 0.1, f"{scores[at]:.3f}", size=8.5, color=FAINT, ha="right")
    return fig


def _asked(found: Any) -> str:
    scores = found["score"].to_numpy("float64")
    return f"of {slides.counted(len(found), 'result')}, scores from {scores.max():.3f} down to {scores.min():.3f}"


def _cells_of(found: Any, ground: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Where the results lie on a grid, in rows and columns from its outer corner."""
    from pyproj import CRS, Transformer

    attrs = ground["spatial_ref"].attrs
    crs = CRS.from_wkt(attrs.get("crs_wkt") or attrs["spatial_ref"])
    to_grid = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_grid.transform(found["lon"].to_numpy("float64"), found["lat"].to_numpy("float64"))
    steps = []
    for axis, at in (("y", np.asarray(y)), ("x", np.asarray(x))):
        values = ground[axis].values
        step = (values[-1] - values[0]) / (values.size - 1)
        steps.append((at - values[0]) / step + 0.5)
    return steps[0], steps[1]


def _cut(picture: Panel, row: int, col: int, half: int) -> np.ndarray:
    """A square around a pixel; see-through where it leaves the picture or knows nothing."""
    rgba = np.dstack([picture.image, np.where(picture.known, 255, 0).astype("uint8")])
    padded = np.pad(rgba, ((half, half), (half, half), (0, 0)))
    return padded[row : row + 2 * half, col : col + 2 * half]


def _picture(fig: Figure, picture: Panel, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
    sensor = {"S1": "Sentinel-1 ", "S2": "Sentinel-2 "}.get(picture.sensor, "")
    _label(fig, left_in, top_in + 0.14, f"{sensor}{picture.heading}", size=11.5, weight="bold")
    notes = slides.fitting(list(picture.notes), width_in, 8) if picture.notes else ""
    _label(fig, left_in, top_in + 0.37, notes, size=8, color=FAINT)
    axes = slides.bare(slides.axes_in(fig, left_in, top_in + TITLE_IN, width_in, height_in))
    axes.imshow(np.dstack([picture.image, np.where(picture.known, 255, 0).astype("uint8")]), aspect="auto")
    foot_in = top_in + TITLE_IN + height_in + 0.09
    if picture.bar:
        low, high, unit = picture.bar
        bar = slides.axes_in(fig, left_in, foot_in, width_in * 0.6, 0.11)
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=picture.scale, aspect="auto", extent=(low, high, 0, 1))
        bar.set_yticks([])
        bar.locator_params(axis="x", nbins=4)
        bar.tick_params(labelsize=8, length=2, pad=1, colors=FAINT)
        _label(fig, left_in + width_in * 0.64, foot_in + 0.06, unit, size=8)
    elif picture.channels:
        _label(fig, left_in, foot_in + 0.06, "red, green, blue: " + ", ".join(picture.channels), size=8, color=FAINT)
    return axes


def _mark(axes: Axes, x: float, y: float, rank: int) -> None:
    from matplotlib.patheffects import withStroke

    at: dict[str, Any] = {"transform": axes.transAxes, "zorder": 6}
    halo = [withStroke(linewidth=3, foreground=INK)]
    axes.plot([x], [1 - y], "o", ms=14, mfc="none", mec=ORANGE, mew=1.5, path_effects=halo, **at)
    axes.text(
        x, 1 - y, str(rank), size=8, weight="bold", color="white", ha="center", va="center", path_effects=halo, **at
    )


def _label(fig: Figure, x_in: float, y_in: float, text: str, **options: Any) -> None:
    width, height = fig.get_size_inches()
    fig.text(x_in / width, 1 - y_in / height, text, va="center", **{"color": INK, **options})
