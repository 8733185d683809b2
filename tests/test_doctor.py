"""The doctor, with stand-ins for the services, and its stored figures against the file they were measured on."""

from __future__ import annotations

import json
import threading
import time
import urllib.error

import factories
import numpy as np
import pandas as pd
import pytest

from deepsentinel import checkups, doctor
from deepsentinel.errors import NothingFoundError, ReadError, SourceError


class FakeSource:
    """A service that holds the known passes, with its values shifted by so much."""

    def __init__(self, *, s2_dn: float = 0, s1_db: float = 0, fail: Exception | None = None, at: str = "read"):
        self.s2_dn, self.s1_db, self.fail, self.at = s2_dn, s1_db, fail, at
        self.asked: list[tuple] = []

    def search(self, aoi, start=None, end=None, *, sensors=("S1", "S2"), max_cloud=None):
        if self.fail and self.at == "search":
            raise self.fail
        self.asked.append((start, end, tuple(sensors)))
        return pd.DataFrame({"id": ["older", "newer"], "sensor": [sensors[0]] * 2})

    def read(self, what, grid, *, bands=None, resampling=None):
        if self.fail:
            raise self.fail
        assert what["id"] == "newer"
        known = checkups.KNOWN_S2 if what["sensor"] == "S2" else checkups.KNOWN_S1
        shift, dtype = (self.s2_dn, "uint16") if what["sensor"] == "S2" else (self.s1_db, "float32")
        values = {name: np.full(grid.shape, known.figures[name] + shift).astype(dtype) for name in bands}
        return factories.with_grid({name: (("y", "x"), array) for name, array in values.items()}, grid)


def check(**sources):
    """Each name is one service; the stand-ins are always at home."""
    table = {name.replace("_", "-"): source for name, source in sources.items()}
    found = checkups.check_services(list(table), open_source=table.__getitem__, knock=lambda name: None, timeout_s=5)
    return {(c.service, c.sensor): c for c in found}


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_stored_figures_are_those_of_the_public_extract(real):
    import rasterio

    folder = real / "series/worldcereal_0000280849BAC91C"

    def on(day: str, pattern: str, name: str) -> np.ndarray:
        [path] = folder.glob(pattern)
        with rasterio.open(f"netcdf:{path}:{name}") as file:
            tags = file.tags()
            first = pd.Timestamp(tags["timestamp#units"].split("since ")[1])
            seconds = tags["NETCDF_DIM_timestamp_VALUES"].strip("{}").split(",")
            days = [str((first + pd.Timedelta(seconds=int(s))).date()) for s in seconds]
            # The block is the one whose corners are stored here.
            bounds = tuple(float(n) for n in tags[f"{name}#bounds"].strip("()").split(","))
            assert bounds == checkups.KNOWN_BOUNDS_M
            assert int(tags[f"{name}#epsg"]) == checkups.KNOWN_EPSG
            return file.read(days.index(day) + 1)

    s2 = checkups.KNOWN_S2
    for name, figure in s2.figures.items():
        values = on(s2.day, "S2_L2A_10m*.nc", name)
        assert (values > 0).all()
        assert np.median(values) == figure
    assert np.isin(on(s2.day, "S2_L2A_20m*.nc", "SCL"), (4, 5)).all()  # not a cloud in it
    s1 = checkups.KNOWN_S1
    for name, figure in s1.figures.items():
        assert np.median(on(s1.day, "S1_GRD*.nc", name)) * 1e-4 == pytest.approx(figure, abs=0.005)


def test_tolerances_tell_reprocessing_from_mistakes():
    s2, s1 = checkups.KNOWN_S2, checkups.KNOWN_S1
    assert max(s2.tolerances.values()) < 1000  # an offset taken twice or not at all
    assert max(s1.tolerances.values()) < 3  # half the power
    # Linear power and amplitude of the same pass, mistaken for dB.
    for wrong in ({k: 10 ** (v / 10) for k, v in s1.figures.items()}, {k: -v for k, v in s1.figures.items()}):
        assert checkups.compare(wrong, s1)[0] == "differs"


def test_the_known_grid_is_the_block():
    grid = checkups.known_grid()
    assert tuple(grid.boundingbox) == checkups.KNOWN_BOUNDS_M
    assert grid.shape == (64, 64)
    assert grid.resolution.x == 10


def test_right_values_match_and_say_how_well():
    found = check(planetary_computer=FakeSource(s2_dn=20, s1_db=1.0))
    assert {key: c.status for key, c in found.items()} == {
        ("planetary-computer", "S2"): "matches",
        ("planetary-computer", "S1"): "matches",
    }
    assert found["planetary-computer", "S2"].verdict == "matches the stored figure within 3.8 %"
    assert found["planetary-computer", "S1"].verdict == "matches the stored figure within 1.0 dB"
    assert found["planetary-computer", "S2"].measured == {"B04": 546.0, "B08": 4174.0}


def test_each_pass_is_asked_for_by_its_day_and_sensor():
    source = FakeSource()
    check(planetary_computer=source)
    assert sorted(source.asked) == [("2019-07-04", "2019-07-04", ("S1",)), ("2019-07-05", "2019-07-05", ("S2",))]


@pytest.mark.parametrize("shift", [1000, 200, -400])
def test_an_offset_too_many_differs(shift):
    found = check(earth_search=FakeSource(s2_dn=shift))["earth-search", "S2"]
    assert found.status == "differs"
    assert "B04 is" in found.verdict
    assert "should be 526 +- 150" in found.verdict


def test_a_block_without_data_differs_and_is_no_match():
    class Empty(FakeSource):
        def read(self, what, grid, *, bands=None, resampling=None):
            return super().read(what, grid, bands=bands) * np.uint16(0)

    found = check(earth_search=Empty())["earth-search", "S2"]
    assert found.status == "differs"
    assert "B04 has no data and should be 526" in found.verdict
    assert found.measured == {}  # NaN would make the report no JSON


@pytest.mark.parametrize(
    ("error", "at", "status", "words"),
    [
        (NothingFoundError("no scenes"), "search", "nothing", "reachable, but it lists no S2 scene of 2019-07-05"),
        (ReadError("B04 is truncated"), "read", "failed", "reachable, but not readable: ReadError: B04 is truncated"),
        (SourceError("not a catalog"), "search", "failed", "cannot be searched: SourceError: not a catalog"),
        (ZeroDivisionError("oops"), "read", "failed", "not readable: ZeroDivisionError: oops"),
        (ConnectionRefusedError("refused"), "search", "unreachable", "does not answer"),
        (SourceError("x does not answer (gone). Check"), "search", "unreachable", "does not answer"),
    ],
)
def test_each_failure_has_its_words_and_costs_the_others_nothing(error, at, status, words):
    found = check(earth_search=FakeSource(fail=error, at=at), planetary_computer=FakeSource())
    broken = found.pop(("earth-search", "S2"))
    assert broken.status == status
    assert words in broken.verdict
    assert {c.status for c in found.values()} == {"matches"}


def test_a_server_that_answers_with_an_error_is_not_offline():
    http = urllib.error.HTTPError("https://x", 503, "busy", None, None)  # type: ignore[arg-type]
    assert not checkups.is_unreachable(http)
    wrapped = SourceError("search failed")
    wrapped.__cause__ = urllib.error.URLError(OSError("no route"))
    assert checkups.is_unreachable(wrapped)
    loop = ValueError("round")
    loop.__context__ = loop
    assert not checkups.is_unreachable(loop)


def test_missing_s3_keys_are_not_a_fault(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    refusal = SourceError("wants keys")
    found = check(cdse=FakeSource(fail=refusal))["cdse", "S2"]
    assert found.status == "keys"
    assert "S3 keys" in found.verdict
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    assert check(cdse=FakeSource(fail=refusal))["cdse", "S2"].status == "failed"


def test_a_service_that_hangs_is_given_up_on():
    done = threading.Event()

    class Hangs(FakeSource):
        def search(self, *args, **kwargs):
            done.wait(60)

    began = time.monotonic()
    table = {"earth-search": Hangs(), "planetary-computer": FakeSource()}
    found = checkups.check_services(list(table), open_source=table.__getitem__, knock=lambda name: None, timeout_s=2)
    done.set()
    assert time.monotonic() - began < 30
    assert [c.status for c in found] == ["unreachable", "matches", "matches"]
    assert "no answer within" in found[0].verdict


def test_where_nobody_is_at_home_nothing_is_opened():
    def nobody(name):
        raise TimeoutError("silence")

    def never(name):
        raise AssertionError("opened")

    found = checkups.check_services(open_source=never, knock=nobody, timeout_s=5)
    assert len(found) == 4
    assert {c.status for c in found} == {"unreachable"}


def test_the_proxy_is_knocked_at_where_there_is_one(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        checkups.knock_at("cdse")
    with pytest.raises(OSError):
        checkups.knock_at("cdse")


def test_without_a_network_the_verdict_is_plain_and_quick():
    # The real services, with the network closed as in every test.
    began = time.monotonic()
    report = doctor.diagnose(environment={}, home="/nowhere")
    assert time.monotonic() - began < 30  # reading itself would try again for a minute
    assert {c.service for c in report.services} == {"planetary-computer", "earth-search", "cdse"}
    assert {c.verdict for c in report.services} == {"no network: cannot be checked from here"}
    assert report.ok
    last = "All is well here, but no live service could be asked. The demo world works offline: deepsentinel demo"
    assert report.text().splitlines()[-1] == last


def test_credentials_are_found_by_name_and_never_shown(tmp_path):
    secret = "s3cr3t-value"
    (tmp_path / ".config/earthengine").mkdir(parents=True)
    (tmp_path / ".config/earthengine/credentials").write_text(secret)
    environment = {
        "PC_SDK_SUBSCRIPTION_KEY": secret,
        "AWS_ACCESS_KEY_ID": secret,
        "AWS_SECRET_ACCESS_KEY": "",
        "EODAG__COP_DATASPACE__AUTH__CREDENTIALS__USERNAME": secret,
        "EODAG__COP_DATASPACE__PRIORITY": secret,
        "GOOGLE_APPLICATION_CREDENTIALS": secret,
        "UNRELATED": secret,
    }
    report = doctor.diagnose(services=[], environment=environment, home=tmp_path)
    assert report.credentials["Planetary Computer"] == ("PC_SDK_SUBSCRIPTION_KEY",)
    assert report.credentials["S3 keys (CDSE, AWS)"] == ("AWS_ACCESS_KEY_ID",)
    account = "EODAG__COP_DATASPACE__AUTH__CREDENTIALS__USERNAME"
    assert report.credentials["Copernicus Data Space (EODAG)"] == (account,)
    assert report.credentials["Earth Engine"] == ("~/.config/earthengine/credentials",)
    assert report.credentials["NASA Earthdata"] == ()
    for output in (report.text(), json.dumps(report.as_dict()), repr(report)):
        assert secret not in output
        assert "UNRELATED" not in output


def test_the_report_tells_versions_extras_and_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSENTINEL_CACHE", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "a.tif").write_bytes(bytes(2_500_000))
    report = doctor.diagnose(services=[], environment={}, home=tmp_path)
    assert report.versions["numpy"] == np.__version__
    assert report.cache["parts"] == {"demo": 2_500_000}
    text = report.text()
    assert "2.5 MB" in text
    assert str(tmp_path) in text
    assert "free on this disk" in text
    assert set(report.extras) == {"map", "learn", "cloud", "gee", "download"}
    assert set(report.extras["cloud"]) == {"obstore", "distributed"}
    assert set(report.extras["download"]) == {"eodag"}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["auth:", "  credentials:", "    username:", "    password:"], False),
        (["auth:", "  credentials:", "    username:  # of the portal", "    password:"], False),
        (["auth:", "  credentials:", '    username: ""', '    password: ""'], False),
        (["auth:", "  credentials:", "    username: ''  # of the portal", "    password: ''"], False),
        (["auth:", "  credentials:", "    username: null", "    password: ~"], False),
        (["auth:", "  credentials:", '    username: "s3cr3t"'], True),
        (["auth:", "  credentials:", "    username: nullius_s3cr3t"], True),
        (["auth:", "  credentials:", "    username: s3cr3t", "    password: s3cr3t"], True),
        (["priority: 2", "", "auth:", "  credentials: # mine", "    username: s3cr3t"], True),
        ([], False),
    ],
)
def test_the_account_of_downloads_counts_where_eodag_has_it(tmp_path, lines, found):
    """EODAG lays a file in wait that names every provider and holds no account."""
    file = tmp_path / ".config/eodag/eodag.yml"
    file.parent.mkdir(parents=True)
    own = ["cop_dataspace:", *(f"  {line}" if line else line for line in lines)]
    file.write_text("\n".join(["peps:", "  username: s3cr3t", *own, "usgs:", "  auth:", "    username: s3cr3t", ""]))
    where = ("~/.config/eodag/eodag.yml",) if found else ()
    report = doctor.diagnose(services=[], environment={}, home=tmp_path)
    assert report.credentials["Copernicus Data Space (EODAG)"] == where
    assert "s3cr3t" not in report.text()
    assert found or "none (needed for ds.download from cop_dataspace)" in report.text()


def test_a_missing_library_and_a_wrong_service_make_it_unwell(monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    report = doctor.diagnose(services=[], environment={}, home="/nowhere")
    assert not report.ok
    assert "no-such-library" in report.text().splitlines()[-1]
    monkeypatch.undo()
    report = doctor.diagnose(
        services=["earth-search"],
        open_source=lambda name: FakeSource(s2_dn=1000),
        knock=lambda name: None,
        environment={},
        home="/nowhere",
    )
    assert not report.ok
    assert report.text().splitlines()[-1] == "Look at earth-search S2. Everything else is well."


def test_gpu_words_follow_what_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.describe_gpu() == "none found; torch is not installed"
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X, 1000 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(tool))
    assert doctor.describe_gpu() == "NVIDIA X, 1000 MiB; torch is not installed"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "driver is not loaded" in doctor.describe_gpu()
