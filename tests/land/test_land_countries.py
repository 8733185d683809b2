"""Countries by code: fetched once from a server, kept, and without one an error that says what to put where."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from deepsentinel.errors import InputError, SourceError
from deepsentinel.land import countries, cover, sample_land
from deepsentinel.land.regions import region_of

# code2, code3, own, name, box; as Natural Earth has them: France and Norway without a code in one of the columns.
WORLD = [
    ("DE", "DEU", "DEU", "Germany", (6, 47, 15, 55)), ("FR", "FRA", "FRA", "France", (-4, 43, 6, 51)),
    ("GF", "GUF", "FRA", "French Guiana", (-54, 2, -51, 6)), ("GB", "GBR", "GBR", "England", (-5, 50, 1, 55)),
    ("GB", "GBR", "GBR", "Scotland", (-6, 55, -2, 59)), ("NO", "NOR", "NOR", "Norway", (5, 58, 12, 71)),
    ("FJ", "FJI", "FJI", "Fiji", None), ("AQ", "ATA", "ATA", "Antarctica", (-180, -90, 180, -65)),
    ("DK", "DNK", "DNK", "Denmark", (8, 55, 12, 57)),
]  # fmt: skip


def feature(code2: str, code3: str, own: str, name: str, box: tuple[float, ...] | None) -> dict[str, object]:
    shape = (
        shapely.box(*box)
        if box
        else shapely.union_all([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -179, -16)])
    )
    iso = {"ISO_A2": "-99" if name in ("France", "Norway") else code2, "ISO_A2_EH": code2}
    properties = {
        **iso,
        "ISO_A3": "-99" if name == "France" else code3,
        "ISO_A3_EH": code3,
        "ADM0_A3": own,
        "NAME": name,
    }
    return {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(shape))}


def world() -> bytes:
    """Enough countries to be the world: the ones above, the rest of the EU and the agency's, and many more."""
    rows = list(WORLD)
    have = {row[0] for row in rows}
    for number, code in enumerate(code for code in countries.GROUPS["EEA39"] if code not in have):
        west = 20 + number % 8
        rows.append(
            (code, f"{code}Q", f"{code}Q", f"Land {code}", (west, 40 + number // 8, west + 1, 41 + number // 8))
        )
    for number in range(160):
        name = f"{chr(65 + number // 26)}{chr(65 + number % 26)}"
        rows.append(("", f"Y{name}", f"Y{name}", f"Isle {name}", (100 + number / 10, 0, 100.1 + number / 10, 0.1)))
    return json.dumps({"type": "FeatureCollection", "features": [feature(*row) for row in rows]}).encode()


class Home:
    """A server of one file that counts how often it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body, self.asked = body, []


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Home]:
    state = Home(world())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(countries, "HOME", f"http://127.0.0.1:{server.server_port}/geojson")
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    yield state
    server.shutdown()
    server.server_close()


def bounds(points: gpd.GeoDataFrame) -> tuple[float, ...]:
    return tuple(points.total_bounds)


def test_the_file_is_fetched_once_and_kept(home, tmp_path, capsys):
    sample_land(10, "DE")
    sample_land(10, "GB")
    assert home.asked == [f"/geojson/{countries.FILE}"]
    assert (tmp_path / "naturalearth" / countries.FILE).read_bytes() == home.body
    assert "Natural Earth" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "names"), [
    ("DE", ["Germany"]), ("deu", ["Germany"]), ("de + FR", ["Germany", "France"]), ("NO", ["Norway"]),
    ("UK", ["England", "Scotland"]), ("GF", ["French Guiana"]), ("FRA", ["France"]),
    ("FR+FRA", ["France"]), ("FJ", ["Fiji"]),
])  # fmt: skip
def test_codes_name_their_ground_and_no_other(home, text, names):
    points = sample_land(400, text, seed=1)
    ground = shapely.union_all(
        [shapely.from_geojson(json.dumps(feature(*row)["geometry"])) for row in WORLD if row[3] in names]
    )
    assert shapely.covers(ground, points.geometry.to_numpy()).all()
    # And all of it: points come near to its edges.
    assert np.abs(np.array(bounds(points)) - ground.bounds).max() < 1.5


def test_groups_and_sums(home):
    eu = region_of("EU27")
    both = region_of("EU27+GB")
    assert len(both.parts) == len(eu.parts) + 2
    assert len(region_of("EEA39").parts) == 40
    assert region_of(["DE", "FR"]).geometry().equals(region_of("DE+FR").geometry())
    assert both.name == "EU27+GB"
    assert len(set(countries.GROUPS["EU27"])) == 27
    assert len(set(countries.GROUPS["EEA39"])) == 39
    assert sample_land(5, "eu27+gb").attrs["region"] == "EU27+GB"


def test_antarctica_is_sampled_where_it_is_asked_for(home):
    assert sample_land(50, "AQ").total_bounds[3] <= -65


def test_a_country_is_covered_with_windows(home):
    windows = cover("DK", size_px=1024)
    assert windows.geometry.union_all().covers(shapely.box(8, 55, 12, 57))


@pytest.mark.parametrize(("text", "near"), [
    ("GBX", "'GB' \\(England\\)|'GB'"), ("Germany", "'DE' \\(Germany\\)"), ("Germny", "'DE' \\(Germany\\)"),
    ("EU28+DE", "'EU27'"),
    ("DE+ZZ", "codes of two or three letters"),
])  # fmt: skip
def test_an_unknown_country_is_answered_with_those_near_it(home, text, near):
    sample_land(1, "DE")
    with pytest.raises(InputError, match=near) as caught:
        sample_land(5, text)
    assert "There is no country or group" in str(caught.value)


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SourceError) as caught:
        sample_land(5, "DE")
    said = str(caught.value)
    assert f"{countries.HOME}/{countries.FILE}" in said
    assert str(tmp_path / "naturalearth") in said
    assert not list((tmp_path / "naturalearth").iterdir())
    # An area needs none of it, and neither has all land.
    assert len(sample_land(5, (2, 48, 3, 49))) == len(sample_land(5)) == 5


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"{}", b'{"features": []}', world()[:-5000]])
def test_something_else_in_its_place_is_not_kept(home, tmp_path, body):
    home.body = body
    with pytest.raises(SourceError, match="not the file that was expected"):
        sample_land(5, "DE")
    assert not (tmp_path / "naturalearth" / countries.FILE).exists()
    few = json.loads(world())
    home.body = json.dumps({**few, "features": few["features"][:20]}).encode()
    with pytest.raises(SourceError, match="20 features"):
        sample_land(5, "DE")


@pytest.mark.parametrize(
    "name", ["ne_10m_admin_0_countries.zip", "ne_110m_admin_0_map_units.geojson", "ne_50m_admin_0_countries.shp"]
)
def test_a_file_put_there_by_hand_is_used_whatever_its_scale(monkeypatch, tmp_path, name):
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    folder = tmp_path / "naturalearth"
    folder.mkdir()
    table = gpd.GeoDataFrame.from_features(json.loads(world()), crs="EPSG:4326")
    table.to_file(folder / name.replace(".zip", ".shp")) if not name.endswith(".geojson") else table.to_file(
        folder / name
    )
    if name.endswith(".zip"):
        import zipfile

        with zipfile.ZipFile(folder / name, "w") as archive:
            for part in sorted(folder.glob("*.*")):
                if part.suffix != ".zip":
                    archive.write(part, part.name)
                    part.unlink()
    points = sample_land(50, "GB+FR")
    assert points.total_bounds[0] >= -6


def test_older_files_without_the_columns_of_everyday_codes_are_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    (tmp_path / "naturalearth").mkdir()
    table = gpd.GeoDataFrame.from_features(json.loads(world()), crs="EPSG:4326").drop(
        columns=["ISO_A2_EH", "ISO_A3_EH"]
    )
    table.columns = [name.lower() for name in table.columns]
    table.to_file(tmp_path / "naturalearth" / "ne_50m_admin_0_countries.geojson")
    for code in ("FR", "FRA", "NO", "NOR"):
        assert len(sample_land(5, code)) == 5


def test_a_broken_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    (tmp_path / "naturalearth").mkdir()
    (tmp_path / "naturalearth" / countries.FILE).write_text("nothing")
    with pytest.raises(SourceError, match=f"{countries.FILE} cannot be read"):
        sample_land(5, "DE")
