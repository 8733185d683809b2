"""One small patch that is known, read from each live service and compared: does what arrives mean what it should?

The known place is a block of 64 x 64 px of fields in Flanders (UTM 31N, tile 31UES) with a clear Sentinel-2 pass on
5 July 2019 and a Sentinel-1 pass the evening before. Its figures are medians over the block, measured on the public
WorldCereal extract 0000280849BAC91C (MIT licence): Sentinel-2 L2A surface reflectance x 10000 and Sentinel-1 GRD sigma0
in dB, both as Google Earth Engine served them. The services hold other processings of the same passes, hence the
tolerances: another version of the atmospheric correction moves the red by some hundredths of reflectance, and terrain
flattening (gamma0 instead of sigma0) lifts backscatter by about 1 dB here. Mistakes are larger: an offset taken twice
or not at all is 1000, and power or amplitude read as dB is off by ten and more.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from .bands import S2_BANDS, S2_NODATA
from .errors import NothingFoundError

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

Status = Literal["matches", "differs", "nothing", "keys", "unreachable", "failed"]
KNOWN_EPSG = 32631
KNOWN_BOUNDS_M = (574_680.0, 5_621_800.0, 575_320.0, 5_622_440.0)
KNOWN_SIDE_PX = 64
TIMEOUT_S = 60.0
KNOCK_S = 5.0


@dataclass(frozen=True)
class Known:
    """What the known place looked like to one sensor."""

    sensor: Literal["S1", "S2"]
    """Which Sentinel."""
    day: str
    """The date of the pass, UTC."""
    figures: Mapping[str, float]
    """Median of each band over the block, in the units of a Patch."""
    tolerances: Mapping[str, float]
    """How far another processing of the same pass may lie, in the same units."""


KNOWN_S2 = Known("S2", "2019-07-05", {"B04": 526.0, "B08": 4154.0}, {"B04": 150.0, "B08": 623.0})
KNOWN_S1 = Known("S1", "2019-07-04", {"VV": -11.28, "VH": -17.33}, {"VV": 2.5, "VH": 2.5})
# What can be read of each service. The Sentinel-1 of the others is not on a map, so there is nothing to compare.
SERVICES: Mapping[str, tuple[Known, ...]] = {
    "planetary-computer": (KNOWN_S2, KNOWN_S1),
    "earth-search": (KNOWN_S2,),
    "cdse": (KNOWN_S2,),
}
# Anybody may search these; their pixels want S3 keys of one's own.
NEEDS_S3_KEYS = frozenset({"cdse"})


@dataclass(frozen=True)
class Checkup:
    """How one sensor of one service fared."""

    service: str
    """The name `open_source` takes."""
    sensor: str
    """ "S1" or "S2"."""
    status: Status
    """In one word."""
    verdict: str
    """In plain words."""
    measured: Mapping[str, float]
    """Medians as they were read; empty if nothing was."""
    expected: Mapping[str, float]
    """The stored figures."""
    seconds: float
    """How long it took."""


def known_grid() -> GeoBox:
    """The grid of the known place.

    >>> known_grid().shape
    Shape2d(x=64, y=64)
    """
    from affine import Affine
    from odc.geo.geobox import GeoBox

    west, south, east, north = KNOWN_BOUNDS_M
    step_x, step_y = (east - west) / KNOWN_SIDE_PX, (north - south) / KNOWN_SIDE_PX
    transform = Affine(step_x, 0, west, 0, -step_y, north)
    return GeoBox((KNOWN_SIDE_PX, KNOWN_SIDE_PX), transform, f"EPSG:{KNOWN_EPSG}")


def check_services(
    names: Sequence[str] | None = None,
    *,
    open_source: Callable[[str], Any] | None = None,
    knock: Callable[[str], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Checkup]:
    """Read the known patch from each service, all at once; one that hangs or fails costs the others nothing.

    `knock` raises where nobody is at home, so that being offline takes no patience: reading itself tries again for a
    minute. Both it and `open_source` are the package's own unless a test brings others.

    >>> check_services([])
    []
    """
    if open_source is None:
        from .sources import open_source as ours

        open_source = ours
    knock = knock or knock_at
    started = time.monotonic()
    jobs = [(name, known) for name in (SERVICES if names is None else names) for known in SERVICES[name]]
    results: dict[int, Checkup] = {}

    def run(index: int, name: str, known: Known) -> None:
        results[index] = _check(name, known, knock, open_source)

    # Threads that do not hold the process back at its end: a hanging connection cannot be stopped from outside.
    threads = [threading.Thread(target=run, args=(i, *job), daemon=True) for i, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, started + timeout_s - time.monotonic()))
    late = f"no answer within {timeout_s:.0f} s"
    found = [
        results.get(i) or _checkup(name, known, "unreachable", late, started) for i, (name, known) in enumerate(jobs)
    ]
    if found and all(checkup.status == "unreachable" for checkup in found):
        offline = "no network: cannot be checked from here"
        return [Checkup(c.service, c.sensor, c.status, offline, {}, c.expected, c.seconds) for c in found]
    return found


def _check(name: str, known: Known, knock: Callable[[str], None], open_source: Callable[[str], Any]) -> Checkup:
    started = time.monotonic()
    answered = False
    try:
        knock(name)
        source = open_source(name)
        grid = known_grid()
        scenes = source.search(grid, known.day, known.day, sensors=(known.sensor,))
        scenes = scenes[scenes["sensor"] == known.sensor]
        if len(scenes) == 0:
            raise NothingFoundError("the search came back empty")
        answered = True
        # The newest processing of the pass is the last in order of id.
        patch = source.read(scenes.iloc[-1], grid, bands=list(known.figures))
        measured = medians(patch, list(known.figures))
    except NothingFoundError:
        verdict = f"reachable, but it lists no {known.sensor} scene of {known.day} here"
        return _checkup(name, known, "nothing", verdict, started)
    except Exception as error:  # whatever goes wrong in one service is a finding, not a crash
        if is_unreachable(error):
            return _checkup(name, known, "unreachable", f"does not answer ({_brief(error)})", started)
        if not answered:
            return _checkup(name, known, "failed", f"cannot be searched: {_brief(error)}", started)
        if name in NEEDS_S3_KEYS and not (os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE")):
            return _checkup(name, known, "keys", "reachable; reading needs S3 keys of your own, see above", started)
        return _checkup(name, known, "failed", f"reachable, but not readable: {_brief(error)}", started)
    status, verdict = compare(measured, known)
    # NaN is no JSON, and a band in which nothing was measured has no figure.
    return _checkup(name, known, status, verdict, started, {k: v for k, v in measured.items() if not np.isnan(v)})


def _checkup(
    name: str, known: Known, status: Status, verdict: str, started: float, measured: Mapping[str, float] | None = None
) -> Checkup:
    seconds = round(time.monotonic() - started, 1)
    return Checkup(name, known.sensor, status, verdict, measured or {}, dict(known.figures), seconds)


def medians(patch: xr.Dataset, bands: Sequence[str]) -> dict[str, float]:
    """The median of each band over what was measured; NaN where nothing was.

    >>> import xarray as xr
    >>> medians(xr.Dataset({"B04": (("y", "x"), np.array([[0, 500, 520, 540]], "uint16"))}), ["B04"])
    {'B04': 520.0}
    """
    found = {}
    for name in bands:
        values = patch[name].to_numpy()
        known = values[values != S2_NODATA] if name in S2_BANDS else values[~np.isnan(values)]
        found[name] = float(np.median(known)) if known.size else float("nan")
    return found


def compare(measured: Mapping[str, float], known: Known) -> tuple[Status, str]:
    """The verdict on what was read.

    >>> compare({"B04": 530.0, "B08": 4200.0}, KNOWN_S2)
    ('matches', 'matches the stored figure within 1.1 %')
    >>> compare({"B04": 1526.0, "B08": 5154.0}, KNOWN_S2)[1]
    'differs: B04 is 1526 and should be 526 +- 150; B08 is 5154 and should be 4154 +- 623'
    """
    digits = 0 if known.sensor == "S2" else 2
    said = {name: "has no data" if np.isnan(value) else f"is {value:.{digits}f}" for name, value in measured.items()}
    wrong = [
        f"{name} {said[name]} and should be {figure:.{digits}f} +- {known.tolerances[name]:g}"
        for name, figure in known.figures.items()
        if not abs(measured[name] - figure) <= known.tolerances[name]  # so that NaN is wrong
    ]
    if wrong:
        return "differs", "differs: " + "; ".join(wrong)
    away = {name: abs(measured[name] - figure) for name, figure in known.figures.items()}
    if known.sensor == "S1":  # a share of a decibel means nothing
        return "matches", f"matches the stored figure within {max(away.values()):.1f} dB"
    share = max(away[name] / abs(figure) for name, figure in known.figures.items())
    return "matches", f"matches the stored figure within {share * 100:.1f} %"


def knock_at(service: str) -> None:
    """Open and close a connection to a service, through the proxy where one is set; raises `OSError` if nobody answers.

    >>> knock_at("nobody")
    Traceback (most recent call last):
    ...
    KeyError: 'nobody'
    """
    from .sources.presets import PRESETS

    target = urlsplit(PRESETS[service].url)
    host, port = str(target.hostname), target.port or 443
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        through = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        host, port = str(through.hostname), through.port or 80
    socket.create_connection((host, port), timeout=KNOCK_S).close()


UNREACHABLE_TYPES = frozenset(
    {"ConnectionError", "ConnectTimeout", "ReadTimeout", "URLError", "MaxRetryError", "gaierror", "TimeoutError"}
)
UNREACHABLE_WORDS = ("does not answer", "could not resolve", "couldn't connect", "failed to connect", "timed out")


def is_unreachable(error: BaseException) -> bool:
    """Whether an error, or any that it was raised from, means that nobody answered.

    A server that answers with an error is there; libraries differ in how they say so, hence names and words.

    >>> is_unreachable(ConnectionRefusedError()), is_unreachable(ValueError("bad JSON"))
    (True, False)
    """
    for one in _chain(error):
        names = {kind.__name__ for kind in type(one).__mro__}
        if "HTTPError" in names or "HttpError" in names:
            return False
        if names & UNREACHABLE_TYPES or any(word in str(one).lower() for word in UNREACHABLE_WORDS):
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _brief(error: BaseException, most: int = 160) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= most else text[: most - 1] + "…"
