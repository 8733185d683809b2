"""EODAG behind a few words: which products a provider has, a key for their addresses, and orders from its archive.

EODAG knows the providers and who may enter; users sign in by its own configuration and nowhere else. What it raises may
carry addresses with tokens in them, so nothing of it is passed on but its redacted words, and never as a cause.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pandas as pd
import shapely

from deepsentinel.errors import InputError, SourceError
from deepsentinel.sources.addresses import DISCREET, redacted

from .names import Candidate, Wanted, choose

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

COLLECTIONS = {"L1C": "S2_MSI_L1C", "L2A": "S2_MSI_L2A", "GRD": "S1_SAR_GRD"}
# What products have been found to weigh, zipped, where a provider does not say.
TYPICAL_BYTES = {"L1C": 700_000_000, "L2A": 1_000_000_000, "GRD": 1_000_000_000}
NO_PRODUCTS = {
    "planetary_computer": "planetary-computer",
    "earth_search": "earth-search",
    "earth_search_gcs": "earth-search",
}
ONLINE = "succeeded"
CONNECTIONS = 4
MOST_ROWS = 500
MOST_WORDS = 200
FULL = (errno.ENOSPC, errno.EDQUOT)
# Scenes of a tile further apart are asked for one by one: in between there may be more than a page of others.
APART = pd.Timedelta(days=40)
# EODAG writes places to four decimals.
MARGIN_DEG = 0.001


class NotSignedIn(SourceError):
    """There are no credentials, or not the right ones: nothing can be had before that is mended."""


@dataclass(eq=False)
class Product:
    """A product as a provider has it."""

    name: str
    """Of its makers, without an ending."""
    size: int | None
    """Bytes, where the provider says."""
    checksum: str | None
    """As the provider writes it."""
    handle: Any
    """EODAG's own object."""
    geometry: BaseGeometry | None = field(default=None)
    """Its footprint."""

    @property
    def is_online(self) -> bool:
        """Whether it can be had at once."""
        return self.handle.properties.get("order:status", ONLINE) == ONLINE

    @property
    def can_order(self) -> bool:
        """Whether the provider takes orders for it, or has taken one."""
        said = self.handle.properties
        return bool(said.get("eodag:order_link") or said.get("eodag:status_link"))

    @property
    def by_http(self) -> bool:
        """Whether it is one file behind one address, which can be fetched in pieces."""
        config = self.handle.downloader.config
        if config.type != "HTTPDownload":
            return False
        own = (getattr(config, "products", None) or {}).get(self.handle.collection, {})
        whole = not self.handle.assets or own.get("ignore_assets", getattr(config, "ignore_assets", False))
        method = self.handle.properties.get("eodag:download_method") or getattr(config, "method", "GET")
        return bool(whole and str(method).upper() == "GET")


class Provider:
    """One of EODAG's providers. Nothing is asked of it before the first `find`."""

    def __init__(self, name: str) -> None:
        if name in NO_PRODUCTS:
            raise InputError(
                f"provider={name!r} keeps rasters and not whole products; read them where they lie, with "
                f"ds.open_source({NO_PRODUCTS[name]!r}), or download from provider='cop_dataspace'."
            )
        self.name = name
        self._gateway = _gateway(name)
        self._lock = Lock()
        config = self._gateway.providers[name].config
        self.most_connections = int(getattr(getattr(config, "download", None), "max_workers", None) or CONNECTIONS)
        """How many downloads at once the provider wants at most."""
        pages = getattr(getattr(config, "search", None), "pagination", None) or {}
        self._page = min(int(pages.get("max_limit") or MOST_ROWS), MOST_ROWS)

    def find(
        self, wanted: Sequence[Wanted], stop: Callable[[], bool] = bool
    ) -> Iterator[tuple[Wanted, Product | SourceError | None]]:
        """The product of each scene; None where the provider has none, an error where it could not be asked.

        One question serves all scenes of a tile that are not far apart in time. They are asked one after another, as
        EODAG's searches share what they are about. `stop` is asked before each.
        """
        for some in _together(wanted):
            yield from self._find(some, stop)

    def _find(
        self, some: Sequence[Wanted], stop: Callable[[], bool]
    ) -> Iterator[tuple[Wanted, Product | SourceError | None]]:
        if stop():
            return
        try:
            with self._told("search"):
                found = self._gateway.search(
                    provider=self.name,
                    collection=COLLECTIONS[some[0].level],
                    start=min(one.time - one.near for one in some).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    end=max(one.time + one.near for one in some).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    geom=_around(some),
                    limit=self._page,
                    raise_errors=True,
                    validate=False,
                )
        except NotSignedIn:
            raise
        except SourceError as error:
            yield from ((one, error) for one in some)
            return
        if len(found) >= self._page and len(some) > 1:
            for half in (some[: len(some) // 2], some[len(some) // 2 :]):
                yield from self._find(half, stop)
            return
        handles = {str(handle.properties.get("title") or handle.properties["id"]): handle for handle in found}
        handles = {name.removesuffix(".SAFE"): handle for name, handle in handles.items()}
        for one in some:
            yield one, _product(one, handles)

    def key(self, product: Product) -> Callable[[str], tuple[str, dict[str, str]]]:
        """What turns the address of a product into one that opens, and headers to go with it.

        Asked for again before each request, it holds for as long as the provider lets it.
        """
        import requests

        plugin, config = product.handle.downloader_auth, product.handle.downloader.config
        auth = None
        if plugin is not None and not getattr(config, "no_auth_download", False):
            with self._lock, self._told("sign in"):  # one thread asks for a token, the others take it from there
                auth = plugin.authenticate()
        params = getattr(config, "dl_url_params", None) or {}

        def prepare(url: str) -> tuple[str, dict[str, str]]:
            request = requests.Request("GET", url, params=params).prepare()
            if auth is not None:
                auth(request)
            return str(request.url), dict(request.headers)

        return prepare

    def renew(self, product: Product) -> None:
        """Forget the token: it was refused."""
        plugin = product.handle.downloader_auth
        with self._lock:
            if hasattr(plugin, "access_token"):
                plugin.access_token = ""

    def order(self, product: Product, remembered: Mapping[str, str]) -> dict[str, str]:
        """Order a product, or ask once how an order of it is getting on; what to remember of it for the next time."""
        said = product.handle.properties
        before = dict(said)
        said.update(remembered)
        plugin = product.handle.downloader_auth
        with self._told("order"), suppress(_not_available()), self._lock:
            # A timeout below nothing: one question, and no waiting inside.
            product.handle.downloader.order(product.handle, plugin.authenticate() if plugin else None, timeout=-1)
        changed = {key: value for key, value in said.items() if value != before.get(key) and isinstance(value, str)}
        return {key: value for key, value in {**remembered, **changed}.items() if _may_be_kept(key, value)}

    def fetch(self, product: Product, folder: Path, on_bytes: Callable[[int], None]) -> tuple[Path, int | None]:
        """A product that is no single file, by EODAG itself; the folder or archive it made, and how many bytes the
        provider said it would be."""
        from eodag.utils import ProgressCallback

        class Told(ProgressCallback):
            def __call__(self, increment: float, total: Any = None) -> None:
                on_bytes(int(increment))

        handle, bar = product.handle, Told(disable=True)
        with self._told("download"):
            made = handle.download(output_dir=str(folder), extract=False, progress_callback=bar, timeout=-1)
        own = (getattr(handle.downloader.config, "products", None) or {}).get(handle.collection, {})
        # Where EODAG puts a product together itself it leaves out some of what is announced.
        return Path(made), None if own.get("build_safe") or not bar.total else int(bar.total)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What EODAG raises, as an error of ours that can be shown to anybody."""
        problem: OSError | None = None
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # EODAG lets through whatever the libraries below it raise
            number = error.errno if isinstance(error, OSError) and error.errno in FULL else None
            # A full disk is nothing of the provider's.
            problem = self._as_ours(what, error) if number is None else OSError(number, os.strerror(number))
        # Outside of the `except`: a cause would be printed along, with whatever it holds.
        if problem is not None:
            raise problem

    def _as_ours(self, what: str, error: Exception) -> SourceError:
        kind = type(error).__name__
        if kind in ("AuthenticationError", "MisconfiguredError", "NoCredentialsError"):
            missing = kind == "MisconfiguredError"
            return NotSignedIn(
                f"{self.name} {'wants credentials' if missing else 'does not accept the credentials'} to {what}. EODAG "
                f"keeps them: {sign_in(self.name)}"
            )
        words = " ".join(redacted(str(error)).split())[:MOST_WORDS]
        if kind.startswith("Unsupported") or "not (yet) supported" in words:
            advice = "Ask another provider=."
        elif re.search(r"(?i)urlopen error|resolv|max retries|connection|timed? ?out|unreachable", str(error)):
            advice = "Check the network, then try again."
        else:
            advice = "Try again later."
        return SourceError(f"{self.name} could not {what} ({kind}: {words}). {advice}")


class _InOurWords(logging.Filter):
    """What goes wrong is told by us; EODAG's own words are for those who have set up logging, and without tracebacks,
    in which whole addresses stand."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).hasHandlers()


_IN_OUR_WORDS = _InOurWords()


def sign_in(provider: str) -> str:
    """How to sign in, in a sentence.

    >>> sign_in("cop_dataspace")[:66]
    'set EODAG__COP_DATASPACE__AUTH__CREDENTIALS__USERNAME and __PASSWO'
    """
    words = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if provider.endswith("_s3") else ("USERNAME", "PASSWORD")
    names = f"EODAG__{provider.upper()}__AUTH__CREDENTIALS__{words[0]} and __{words[1]}"
    return f"set {names} in the environment, or write them into ~/.config/eodag/eodag.yml."


def _gateway(name: str) -> Any:
    try:
        import eodag
    except ImportError as error:
        raise InputError(
            "Downloading products needs EODAG: pip install 'deepsentinel[download]'. Reading pixels where they lie "
            "(ds.open_source) does not."
        ) from error
    problem = ""
    try:
        gateway = eodag.EODataAccessGateway()
        known = list(gateway.providers)
        if name not in known:
            problem = f"EODAG has no provider {name!r}, or no credentials for it to search with ({sign_in(name)})"
            problem += f" It has {', '.join(sorted(known))}."
    except Exception as error:  # whatever may be wrong in somebody's configuration
        problem = f"EODAG cannot start with its configuration ({type(error).__name__}: {redacted(str(error))})."
    if problem:
        raise InputError(problem)
    # At the level of DEBUG it writes whole addresses into its logs, tokens and all.
    for logger in list(logging.root.manager.loggerDict):
        if logger.partition(".")[0] == "eodag" or logger == "urllib3.connectionpool":
            logging.getLogger(logger).addFilter(DISCREET)
        if logger.partition(".")[0] == "eodag":
            logging.getLogger(logger).addFilter(_IN_OUR_WORDS)
    return gateway


def _not_available() -> type[Exception]:
    from eodag.utils.exceptions import NotAvailableError

    kind: type[Exception] = NotAvailableError
    return kind


def _together(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Scenes that one question is enough for: of one tile, or nearly one place, and not far apart in time."""

    def place(one: Wanted) -> tuple[str, ...]:
        spot = one.geometry.representative_point()
        return (one.level, one.said["tile"] if one.sensor == "S2" else f"{spot.x:.0f} {spot.y:.0f}")

    some: list[Wanted] = []
    for one in sorted(wanted, key=lambda one: (place(one), one.time)):
        if some and (place(one) != place(some[-1]) or one.time - some[-1].time > APART):
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _around(some: Sequence[Wanted]) -> BaseGeometry:
    """Ground that all of them show something of: a small box, as points and lines are not taken everywhere."""
    spots = [one.geometry.representative_point() for one in some]
    lon, lat = [spot.x for spot in spots], [spot.y for spot in spots]
    return shapely.box(min(lon) - MARGIN_DEG, min(lat) - MARGIN_DEG, max(lon) + MARGIN_DEG, max(lat) + MARGIN_DEG)


def _product(wanted: Wanted, handles: Mapping[str, Any]) -> Product | None:
    """The product of a scene among what was found near it."""
    chosen = choose(
        wanted,
        (
            Candidate(name, _share(wanted.geometry, handle.geometry), str(handle.properties.get("published", "")))
            for name, handle in handles.items()
        ),
    )
    if chosen is None:
        return None
    handle = handles[chosen.name]
    checksum = handle.properties.get("file:checksum")
    size = _bytes(handle.properties.get("file:size")) or sum(_bytes(a.get("file:size")) for a in handle.assets.values())
    return Product(
        name=chosen.name,
        size=size or None,
        checksum=str(checksum) if checksum else None,
        handle=handle,
        geometry=handle.geometry,
    )


def _share(scene: BaseGeometry, footprint: BaseGeometry | None) -> float:
    if footprint is None or not scene.area:
        return 0.0
    return float(scene.intersection(footprint).area / scene.area)


def _bytes(said: Any) -> int:
    """A size as a number; CDSE writes 0 where it does not know."""
    return int(said) if str(said).isdigit() else 0


def _may_be_kept(key: str, value: str) -> bool:
    """Whether something said of an order may be written to disk: no key, and nothing that will be said anew."""
    plain = value.replace("?", " ")
    return key.startswith(("eodag:", "order:")) and key != "eodag:download_link" and redacted(plain) == plain
