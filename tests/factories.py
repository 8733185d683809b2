"""Patches, series and tables made to the contract: small, seeded, and with a look that a person can judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

S2_TIME = np.datetime64("2018-07-04T10:57:00", "ns")
S1_TIME = np.datetime64("2018-07-04T17:56:12", "ns")
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
# Reflectance of water, forest, crop and town in B01 .. B12 (L2A order): round numbers, the right way round.
SPECTRA = {
    "water": (0.03, 0.035, 0.04, 0.025, 0.02, 0.018, 0.018, 0.015, 0.014, 0.013, 0.008, 0.006),
    "forest": (0.02, 0.025, 0.045, 0.025, 0.06, 0.18, 0.23, 0.25, 0.27, 0.27, 0.12, 0.05),
    "crop": (0.04, 0.06, 0.09, 0.08, 0.14, 0.26, 0.31, 0.34, 0.36, 0.36, 0.24, 0.15),
    "town": (0.10, 0.12, 0.14, 0.15, 0.17, 0.19, 0.20, 0.21, 0.22, 0.22, 0.24, 0.21),
}
BACKSCATTER_DB = {"water": (-20.0, -27.0), "forest": (-8.5, -14.0), "crop": (-11.0, -18.5), "town": (-3.0, -10.0)}
SCL_CODE = {"water": 6, "forest": 4, "crop": 4, "town": 5}


def grid(shape: tuple[int, int] = (96, 96), *, epsg: int = 32631, resolution_m: float = 10.0) -> GeoBox:
    """A north-up grid with a round corner."""
    return GeoBox(shape, Affine(resolution_m, 0, 575_000, 0, -resolution_m, 5_460_000), f"EPSG:{epsg}")


def with_grid(variables: dict[str, tuple], geobox: GeoBox, **coords: object) -> xr.Dataset:
    """A Dataset with the coordinates that place it, written by hand so that no accessor has to be trusted."""
    a, rows, cols = geobox.affine, *geobox.shape
    crs = CRS.from_user_input(str(geobox.crs))
    place = xr.DataArray(
        0, attrs={"crs_wkt": crs.to_wkt(), "GeoTransform": " ".join(map(str, (a.c, a.a, a.b, a.f, a.d, a.e)))}
    )
    return xr.Dataset(
        variables,
        coords={
            "y": a.f + a.e * (np.arange(rows) + 0.5),
            "x": a.c + a.a * (np.arange(cols) + 0.5),
            "spatial_ref": place,
            **coords,
        },
    )


def make_patch(
    shape: tuple[int, int] = (96, 96),
    seed: int = 0,
    *,
    sensors: tuple[str, ...] = ("S1", "S2"),
    scl: bool = True,
    angle: bool = False,
    nodata: bool = False,
    epsg: int = 32631,
    resolution_m: float = 10.0,
    source: str = "test",
) -> xr.Dataset:
    """A river, woods, fields and a town. `nodata` cuts a corner off S2 and an edge off S1."""
    rng = np.random.default_rng(seed)
    rows, cols = shape
    v, u = np.mgrid[0:rows, 0:cols] / max(shape)
    names = np.array(list(SPECTRA))
    cover = np.full(shape, 2)
    cover[(np.sin(7 * u + 1) + np.cos(9 * v)) > 0.9] = 1
    cover[(abs(u - 0.75) < 0.12) & (abs(v - 0.3) < 0.1)] = 3
    cover[abs(v - 0.6 - 0.1 * np.sin(6 * u)) < 0.05] = 0
    vigour = rng.normal(1, 0.15, (8, 8)).repeat(-(-rows // 8), 0).repeat(-(-cols // 8), 1)[:rows, :cols]
    variables: dict[str, tuple] = {}
    attrs: dict[str, object] = {"source": source}
    coords: dict[str, object] = {}
    if "S2" in sensors:
        table = np.array([SPECTRA[name] for name in names])
        hole = (u + v < 0.25) if nodata else np.zeros(shape, bool)
        for index, band in enumerate(L2A):
            dn = table[cover, index] * vigour * rng.normal(1, 0.05, shape) * 10_000
            variables[band] = (("y", "x"), np.where(hole, 0, np.clip(dn, 1, 20_000)).astype("uint16"))
        if scl:
            codes = np.array([SCL_CODE[name] for name in names], "uint8")[cover]
            variables["SCL"] = (("y", "x"), np.where(hole, 0, codes).astype("uint8"))
        attrs |= {"level": "L2A", "baseline": "05.00", "offset_removed": 1000}
        attrs |= {"s2_id": "S2B_MSIL2A_20180704T105700_R094_T31UCQ"}
        coords["s2_time"] = S2_TIME
    if "S1" in sensors:
        table = np.array([BACKSCATTER_DB[name] for name in names])
        hole = (u > 0.9) if nodata else np.zeros(shape, bool)
        for index, band in enumerate(("VV", "VH")):
            power = 10 ** (table[cover, index] / 10) * rng.gamma(4.4, 1 / 4.4, shape)
            variables[band] = (("y", "x"), np.where(hole, np.nan, 10 * np.log10(power)).astype("float32"))
        if angle:
            variables["angle"] = (("y", "x"), (34 + 4 * u).astype("float32"))
        attrs |= {"backscatter": "gamma0_rtc", "orbit": "ascending", "s1_id": "S1A_IW_GRDH_1SDV_20180704T175612"}
        coords["s1_time"] = S1_TIME
    if len(coords) == 2:
        attrs["gap_hours"] = float((S1_TIME - S2_TIME) / np.timedelta64(1, "h"))
    patch = with_grid(variables, grid(shape, epsg=epsg, resolution_m=resolution_m), **coords)
    return patch.assign_attrs(attrs)


def make_series(n_s2: int = 6, n_s1: int = 8, shape: tuple[int, int] = (48, 48), seed: int = 0) -> xr.Dataset:
    """A series whose odd S2 dates lie half under a cloud, so that its shares are known: 0 or 50 %."""
    start = np.datetime64("2018-05-01T10:57:00", "ns")
    s2, s1 = [], []
    for n in range(n_s2):
        one = make_patch(shape, seed + n, sensors=("S2",)).drop_vars("s2_time")
        if n % 2:
            half = shape[0] // 2
            one["SCL"][:half] = 9
            for band in L2A:
                one[band][:half] = 6500
        s2.append(one.expand_dims(s2_time=[start + np.timedelta64(10 * n, "D")]))
    for n in range(n_s1):
        one = make_patch(shape, seed + n, sensors=("S1",)).drop_vars("s1_time")
        s1.append(one.expand_dims(s1_time=[start + np.timedelta64(6 * n, "D") + np.timedelta64(7, "h")]))
    parts = [xr.concat(part, dim) for part, dim in ((s2, "s2_time"), (s1, "s1_time")) if part]
    merged = xr.merge(parts, compat="override", combine_attrs="drop_conflicts")
    keep = {"s1_id", "s2_id", "gap_hours"}
    return merged.assign_attrs({k: v for part in parts for k, v in part.attrs.items() if k not in keep})


def make_scenes(n_s2: int = 24, n_s1: int = 40, seed: int = 0):
    """A scenes table over a summer, with two S1 orbit directions."""
    import geopandas as gpd
    from shapely.geometry import box

    rng = np.random.default_rng(seed)
    rows = []
    for n in range(n_s2):
        time = pd.Timestamp("2018-05-01T10:57:00Z") + pd.Timedelta(days=5 * n)
        rows.append({"id": f"S2_{n}", "sensor": "S2", "time": time, "cloud_cover": float(rng.beta(0.6, 0.7) * 100)})
    for n in range(n_s1):
        up = n % 2 == 0
        hour = "17:56:00Z" if up else "06:12:00Z"
        time = pd.Timestamp(f"2018-05-02T{hour}") + pd.Timedelta(days=6 * (n // 2) + (0 if up else 2))
        orbit = "ascending" if up else "descending"
        rows.append({"id": f"S1_{n}", "sensor": "S1", "time": time, "cloud_cover": np.nan, "orbit": orbit})
    frame = pd.DataFrame(rows).sort_values(["time", "id"], ignore_index=True)
    table = gpd.GeoDataFrame(frame, geometry=[box(0, 49, 0.2, 49.2)] * len(frame), crs="EPSG:4326")
    table.attrs = {"source": "test", "searched": "S1 and S2 from 2018-05-01 to 2018-08-31"}
    return table


def make_pairs(scenes):
    """Every S1 within three days of every S2, by two plain loops."""
    import geopandas as gpd

    rows = []
    s1, s2 = (scenes[scenes.sensor == name] for name in ("S1", "S2"))
    for a in s1.itertuples():
        for b in s2.itertuples():
            gap_hours = (a.time - b.time).total_seconds() / 3600
            if abs(gap_hours) <= 72:
                rows.append(
                    {
                        "s1_id": a.id,
                        "s2_id": b.id,
                        "s1_time": a.time,
                        "s2_time": b.time,
                        "gap_hours": gap_hours,
                        "overlap": 1.0,
                        "cloud_cover": b.cloud_cover,
                        "orbit": a.orbit,
                        "geometry": b.geometry,
                    }
                )
    return gpd.GeoDataFrame(rows, crs="EPSG:4326")


def _read(path: Path) -> tuple[np.ndarray, object, object]:
    import rasterio

    with rasterio.open(path) as file:
        return file.read(), file.transform, file.crs


def terramind(real: Path, place: str) -> xr.Dataset:
    """One of the two real TerraMind places as a Patch: level 2A and terrain-corrected backscatter."""
    s1, transform, crs = _read(real / f"terramind/S1RTC/{place}.tif")
    s2, _, _ = _read(real / f"terramind/S2L2A/{place}.tif")
    geobox = GeoBox(s2.shape[1:], transform, str(crs))
    variables = {name: (("y", "x"), s2[i].astype("uint16")) for i, name in enumerate(L2A)}
    variables |= {name: (("y", "x"), s1[i].astype("float32")) for i, name in enumerate(("VV", "VH"))}
    times = {
        "637U_59R_1_3": ("2017-10-30T05:32:30", "2017-10-30T10:41:51"),
        "282D_485L_3_3": ("2021-07-21T08:40:10", "2021-07-23T13:22:41"),
    }[place]
    s1_time, s2_time = (np.datetime64(t, "ns") for t in times)
    patch = with_grid(variables, geobox, s1_time=s1_time, s2_time=s2_time)
    gap_hours = float((s1_time - s2_time) / np.timedelta64(1, "h"))
    return patch.assign_attrs(source="samples", level="L2A", backscatter="gamma0_rtc", gap_hours=gap_hours)


def bigearthnet(real: Path, tail: str) -> xr.Dataset:
    """One real BigEarthNet pair on its 10 m grid, coarser bands repeated."""
    from datetime import datetime

    s2_folder = next((real / "bigearthnet/S2").glob(f"*_{tail.split('_', 1)[1]}"))
    s1_folder = next((real / "bigearthnet/S1").glob(f"*_{tail}"))
    variables = {}
    transform = crs = None
    for name in L2A:
        data, its, crs = _read(s2_folder / f"{s2_folder.name}_{name}.tif")
        if name == "B02":
            transform = its
        factor = 120 // data.shape[1]
        variables[name] = (("y", "x"), data[0].repeat(factor, 0).repeat(factor, 1))
    for name in ("VV", "VH"):
        data, _, _ = _read(s1_folder / f"{s1_folder.name}_{name}.tif")
        variables[name] = (("y", "x"), data[0].astype("float32"))
    s2_time, s1_time = (
        np.datetime64(datetime.strptime(stamp, "%Y%m%dT%H%M%S"), "ns")
        for stamp in (s2_folder.name.split("_")[2], s1_folder.name.split("_")[4])
    )
    patch = with_grid(variables, GeoBox((120, 120), transform, str(crs)), s1_time=s1_time, s2_time=s2_time)
    gap_hours = float((s1_time - s2_time) / np.timedelta64(1, "h"))
    return patch.assign_attrs(source="BigEarthNet", level="L2A", backscatter="sigma0", gap_hours=gap_hours)
