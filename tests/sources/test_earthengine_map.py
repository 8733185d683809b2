"""geemap's map as the host of ours, with Earth Engine as the source of both."""

from __future__ import annotations

import ee
import pytest
from ee_server import PROJECT, EarthEngine, initialise, served
from source_kinds import END, SIZE_PX, START, World

import deepsentinel as ds
from deepsentinel.sources.demo import DemoSource

geemap = pytest.importorskip("geemap")


def test_geemap_hosts_our_map_and_shares_its_client() -> None:
    world = World(DemoSource(size_px=SIZE_PX))
    with served(EarthEngine(world)) as service:
        initialise(service.url)
        try:
            host = geemap.Map(ee_initialize=False)
            source = ds.open_source("earth-engine", project=PROJECT)
            made = ds.Map(source, aoi=world.area, host=host)
            assert made.wait(60)
            assert made.canvas.map is host
            assert made.src is source
            # One cell makes the same without a map, and has no account in it.
            assert f"ds.open_source('earth-engine', project='{PROJECT}')" in made.code()
            assert len(source.search(made.aoi, START, END)) == len(world.scenes)
            made.close()
        finally:
            ee.Reset()
