"""`deepsentinel demo`: from an area to a trained model in front of your eyes, offline.

The demo hides nothing: each step prints the Python line that it runs, then what came of it, so that whoever watches it
once can write a script.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_steps import Row, Steps, say, table
from .errors import InputError, NothingFoundError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

DONE = 0
SHOWN_PAIRS = 5
# Of what is learnt: so many places are drawn, and their middles stay 640 m clear of the ground that the map shows.
PLACES, WINDOW_M = 80, 640.0
# What the encoder says of each sample is remembered, and each pixel counts alike, as it does in the score.
HEAD: dict[str, Any] = {"frozen": True, "decoder": "linear", "balance": 0, "steps": 200}
NOTEBOOK = "notebooks/01_quickstart.ipynb"


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser of the command line."""
    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="area, scenes, pairs, pixels, a figure and GeoTIFFs, step by step; offline by default",
        description="Walk from an area to a matched patch, a figure and GeoTIFFs, on an imaginary coast and offline.",
    )
    demo.add_argument("--out", type=Path, default=Path("deepsentinel-demo"), help="where results go (%(default)s)")
    demo.add_argument("--seed", type=int, help="another seed is another Earth (0; demo only)")
    demo.add_argument(
        "--source", default="demo", help='what to read: "demo", a service, or a STAC catalog (%(default)s)'
    )
    demo.add_argument(
        "--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="the area, in degrees"
    )
    demo.add_argument("--start", default="2018-05-01", help="first day (%(default)s)")
    demo.add_argument("--end", default="2018-08-31", help="last day (%(default)s)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    import deepsentinel as ds

    from .export import to_geotiff
    from .files import atomic_path, cache_dir

    imaginary = options.source == "demo"
    if options.seed is not None and not imaginary:
        raise InputError(f"--seed numbers imaginary Earths, and {options.source} shows the real one; leave it out.")
    seed = {"seed": options.seed or 0} if imaginary else {}
    options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written had better fail before the work
    learns = imaginary and can_learn()
    steps = Steps(7 + imaginary + 2 * learns)
    say(f"deepsentinel {__version__}: from an area to a matched Sentinel-1/Sentinel-2 patch")

    words = "".join(f", {key}={value}" for key, value in seed.items())
    with steps.step("Open a source", "import deepsentinel as ds", f'src = ds.open_source("{options.source}"{words})'):
        if imaginary and not any(cache_dir("demo").glob(f"seed{seed['seed']}-*/catalog.json")):
            say("    building this Earth, which takes some seconds the first time ...")
        src = ds.open_source(options.source, **seed)
        say("    an imaginary coast, made on this machine: no network, no account" if imaginary else f"    {src.name}")

    aoi, aoi_code = _area(src, options.bbox)
    with steps.step("Choose an area and its pixels", f"aoi = {aoi_code}", "grid = ds.geobox(aoi, resolution=10)"):
        grid = ds.geobox(aoi, resolution=10)
        if aoi_code == "src.area":
            say(f"    {aoi}: west, south, east, north")
        say(f"    {grid.shape[1]} x {grid.shape[0]} px of 10 m in {grid.crs}")

    search = f'scenes = src.search(aoi, "{options.start}", "{options.end}")'
    with steps.step("Search: which scenes are there?", search):
        scenes = src.search(aoi, options.start, options.end)
        say(table(_scene_rows(scenes)))

    with steps.step(
        "Match: how many Sentinel-2 dates have a Sentinel-1 partner?",
        "ds.match_rate(scenes, aoi=aoi, max_days=3)",
    ):
        rate = ds.match_rate(scenes, aoi=aoi, max_days=3)
        say(textwrap.indent(repr(rate), "    "))

    with steps.step("Pair: which goes with which? The best come first", "pairs = ds.pair(scenes, aoi=aoi, max_days=3)"):
        pairs = ds.pair(scenes, aoi=aoi, max_days=3)
        if len(pairs) == 0:
            raise NothingFoundError(pairs.attrs.get("hint", "There are no pairs; widen the dates or the area."))
        say(table(_pair_rows(pairs)))
        if len(pairs) > SHOWN_PAIRS:
            say(f"    and {len(pairs) - SHOWN_PAIRS} more")

    with steps.step("Read the pixels of the best pair", "patch = src.read(pairs.iloc[0], grid)"):
        patch = src.read(pairs.iloc[0], grid).load()
        say(table(_band_rows(patch)))

    masks = _label(steps, src, aoi, patch) if imaginary else None
    out = options.out.as_posix()
    drawn: dict[str, tuple[str, Any]] = {"patch.png": ("patch", patch)}
    export = [f'to_geotiff(patch, "{out}")']
    if masks is not None:
        drawn["masks.png"] = ("[patch, masks]", [patch, masks])
        export.append(f'to_geotiff(masks, "{out}")')
    with steps.step(
        "Look at it, and export it for a GIS",
        *(
            f'ds.show({code}).savefig("{(options.out / name).as_posix()}", dpi=150)'
            for name, (code, _) in drawn.items()
        ),
        "from deepsentinel.export import to_geotiff",
        *export,
    ):
        files = []
        for name, (_, what) in drawn.items():
            with atomic_path(options.out / name) as temporary:
                ds.show(what).savefig(temporary, dpi=150, format="png")
            files.append(options.out / name)
        files += to_geotiff(patch, options.out)
        files += [] if masks is None else to_geotiff(masks, options.out)
        say(table([(path.as_posix(), f"{path.stat().st_size / 1e3:,.0f} kB") for path in files]))

    if learns:
        _learn(steps, src, aoi, scenes, pairs.iloc[0], patch, options.out)
    elif imaginary:
        say("\nWith PyTorch it would go on to vectors and a trained model:  pip install 'deepsentinel[learn]'")
    say(f"\nDone in {steps.seconds:.1f} s")
    say(table(_summary(scenes, rate, pairs, patch, masks, options.out)))
    say(f"\nThe same in a notebook:  jupyter lab {NOTEBOOK}   (in a clone of the repository: make lab)")
    return DONE


def _label(steps: Steps, src: Any, aoi: Any, patch: xr.Dataset) -> xr.Dataset:
    """Ground truth of the patch: what the farmers of the demo world declared, with how sure it is."""
    import deepsentinel as ds

    code = 'labels = ds.read_labels(src.labels["parcels_2018"], bbox=aoi)'
    with steps.step(
        "Label: polygons become masks on the same pixels", code, "masks = ds.rasterize(labels, like=patch)"
    ):
        labels = ds.read_labels(src.labels["parcels_2018"], bbox=aoi)
        masks = ds.rasterize(labels, like=patch)
        shares = ds.label_vector(labels, patch, min_share=0.005)
        shares = shares[shares["present"]].sort_values("share", ascending=False)
        rows: list[Row] = [("class", "crop", "share")]
        rows += [(str(code), str(row["name"]), f"{row['share']:.1%}") for code, row in shares.iterrows()]
        say(table(rows))
        say(f"    {_mixed(masks)}; the rest of the patch has no parcel")
    return masks


def can_learn() -> bool:
    """Whether what learning needs is installed; nothing of it is imported to know."""
    return all(find_spec(name) is not None for name in ("torch", "lightning", "safetensors"))


def _learn(steps: Steps, src: Any, aoi: Any, scenes: Any, pair: Any, patch: xr.Dataset, out: Path) -> None:
    """Vectors of the patch, and a small model that never saw this ground, on it."""
    import pandas as pd

    import deepsentinel as ds

    from .corpus.recipes import demo_ground
    from .files import atomic_path
    from .grids import crs_of, grid_of

    def picture(what: Any, name: str) -> None:
        with atomic_path(out / name) as temporary:
            ds.show(what).savefig(temporary, dpi=150, format="png")

    with steps.step(
        "Embed: what is on the ground, as vectors",
        'z = ds.embed(patch, "fusion-nano", dense=True)',
        f'ds.show(ds.pca_rgb(z)).savefig("{(out / "embedding.png").as_posix()}", dpi=150)',
    ):
        z = ds.embed(patch, "fusion-nano", dense=True)
        picture(ds.pca_rgb(z), "embedding.png")
        side_m = abs(float(z["x"][1] - z["x"][0]))
        say(f"    {z.sizes['y']} x {z.sizes['x']} cells of {side_m:.0f} m, {z.sizes['feature']} numbers each")

    day = pair.s2_time.floor("D")
    with steps.step(
        "Train: a small corpus elsewhere on this coast, and a head that tells CORINE's classes",
        "plan = ds.plan_corpus(places, src, start=..., end=..., size_px=64)  # half a kilometre from here at least",
        'ds.build_corpus(plan, "corpus.zarr", {"corine": src.labels["corine"]})',
        f"head = {HEAD}",
        'model = ds.finetune(corpus, "fusion-nano", "segmentation", "corine", **head)',
        f'result = ds.predict(model, patch, out="{(out / "map.tif").as_posix()}")',
    ):
        places = ds.sample_land(PLACES, demo_ground(src, WINDOW_M), seed=0)
        grid = grid_of(patch)
        crs = crs_of(grid).to_wkt()
        metres = places.to_crs(crs)
        both = scenes[scenes["id"].isin([pair.s1_id, pair.s2_id])].geometry.to_crs(crs)
        seen = both.intersection_all().buffer(-WINDOW_M)
        chosen = (metres.distance(grid.extent.geom) > WINDOW_M) & metres.within(seen)
        places = places[chosen.to_numpy()].assign(date=day)
        plan = ds.plan_corpus(places, src, start=day - pd.Timedelta("3D"), end=day + pd.Timedelta("4D"), size_px=64)
        # Another Earth, or other dates, make another corpus and another model.
        made = out / f"learnt-{plan.fingerprint[:8]}"
        ds.build_corpus(plan, made / "corpus.zarr", {"corine": src.labels["corine"]}, progress=False)
        model = ds.finetune(
            ds.open_corpus(made / "corpus.zarr"),
            "fusion-nano",
            "segmentation",
            "corine",
            **HEAD,
            out=made / "head",
        )
        result = ds.predict(model, patch, out=out / "map.tif", progress=False)
        picture([patch, result], "map.png")
        truth = ds.rasterize(ds.read_labels(src.labels["corine"], bbox=aoi), like=patch)["class_map"]
        known = truth.isin(model.classes.codes)
        right = float((result["class_map"] == truth).where(known).mean())
        common = float((truth.where(known) == truth.where(known).to_series().mode().iloc[0]).where(known).mean())
        told = f"{len(plan.samples)} samples, {len(model.classes)} classes, {HEAD['steps']} steps"
        say(f"    {told}, kept in {made.as_posix()}")
        say(f"    right on {right:.0%} of ground that it never saw; its commonest class alone would be on {common:.0%}")
        say("    too little training for a verdict: notebooks/05_train.ipynb goes on, with controls")


def _mixed(masks: xr.Dataset) -> str:
    return (
        f"{float((masks['conflict'] == 1).mean()):.1%} of the pixels are shared by parcels, "
        f"{float((masks['conflict'] == 2).mean()):.1%} claimed twice"
    )


def _area(src: Any, bbox: Sequence[float] | None) -> tuple[Any, str]:
    """The area, and the Python that says it."""
    if bbox is not None:
        return tuple(bbox), f"({', '.join(f'{value:.15g}' for value in bbox)})  # west, south, east, north"
    if getattr(src, "area", None) is None:
        raise InputError("This source has no area of its own; give one with --bbox WEST SOUTH EAST NORTH, in degrees.")
    return src.area, "src.area"


def _scene_rows(scenes: pd.DataFrame) -> list[Row]:
    rows: list[Row] = [("sensor", "scenes", "first", "last", "median cloud")]
    for sensor, held in scenes.groupby("sensor"):
        days = held["time"].dt.strftime("%Y-%m-%d")
        cloud = held["cloud_cover"].dropna().median()  # of nothing but NaN pandas 2 warns
        words = "" if cloud != cloud else f"{cloud:.0f} %"
        rows.append((str(sensor), str(len(held)), days.min(), days.max(), words))
    return rows


def _pair_rows(pairs: pd.DataFrame) -> list[Row]:
    rows: list[Row] = [("Sentinel-2 (UTC)", "Sentinel-1 (UTC)", "gap", "cloud", "overlap", "orbit")]
    row: Any
    for row in pairs.head(SHOWN_PAIRS).itertuples():
        times = (f"{time:%Y-%m-%d %H:%M}" for time in (row.s2_time, row.s1_time))
        cloud = "" if row.cloud_cover != row.cloud_cover else f"{row.cloud_cover:.0f} %"
        rows.append((*times, f"{row.gap_hours:+.1f} h", cloud, f"{row.overlap * 100:.0f} %", row.orbit or ""))
    return rows


def _band_rows(patch: xr.Dataset) -> list[Row]:
    """Each sensor's share of the patch in one line."""
    from .bands import S1_BANDS, S2_BANDS
    from .figures.stretch import has_data

    rows: list[Row] = []
    for sensor, bands, what in (
        ("S2", S2_BANDS, "reflectance x 10000, 0 = no data"),
        ("S1", S1_BANDS, "dB, NaN = no data"),
    ):
        held = [name for name in bands if name in patch.data_vars]
        if held:
            seen = f"{has_data(patch, held).mean() * 100:.0f} % measured"
            rows.append((sensor, " ".join(held), what, seen))
    others = [str(name) for name in patch.data_vars if name not in S1_BANDS and name not in S2_BANDS]
    return [*rows, ("and", " ".join(others))] if others else rows


def _summary(
    scenes: pd.DataFrame, rate: Any, pairs: pd.DataFrame, patch: xr.Dataset, masks: xr.Dataset | None, out: Path
) -> list[Row]:
    best = pairs.iloc[0]
    counts = scenes["sensor"].value_counts()
    return [
        ("scenes", f"{counts.get('S2', 0)} Sentinel-2, {counts.get('S1', 0)} Sentinel-1"),
        (
            "matched",
            f"{rate.matched} of {rate.dates} Sentinel-2 dates ({rate.share:.0%}) within {rate.max_days:g} days",
        ),
        ("pairs", f"{len(pairs)}, median gap {pairs['gap_hours'].abs().median():.1f} h"),
        ("Sentinel-2", f"{best.s2_time:%Y-%m-%d %H:%M} UTC, {patch.attrs.get('level', '')}"),
        ("", str(best.s2_id)),
        ("Sentinel-1", f"{best.s1_time:%Y-%m-%d %H:%M} UTC, {patch.attrs.get('backscatter', '')}"),
        ("", str(best.s1_id)),
        ("gap", f"{best.gap_hours:+.1f} h (positive: Sentinel-1 came later)"),
        ("patch", f"{patch.sizes['x']} x {patch.sizes['y']} px, {len(patch.data_vars)} variables"),
        *([] if masks is None else [("masks", f"{', '.join(map(str, masks.data_vars))}; {_mixed(masks)}")]),
        ("files", str(out.resolve())),
    ]
