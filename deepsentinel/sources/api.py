"""STAC APIs, by pystac-client: pages, patience, and errors that name the service. Imported only when an API is asked.

pystac-client knows what to ask; how it is asked is `web`'s: a page that breaks off, crawls, or is no JSON is asked for
again as a whole, so that no item is lost and none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pandas as pd

from deepsentinel.errors import SourceError

from . import items as facts
from .addresses import check_web, redacted, shown
from .assets import Item, slim
from .web import BUSY, GARBLED_TRIES, HttpError, busy, hint, insist
from .wire import HARMLESS_HEADERS, Answer, Trouble, ask

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

T = TypeVar("T")

IDS_AT_ONCE = 100
ISO = "%Y-%m-%dT%H:%M:%S.%fZ"
# Some services filter after they have cut their pages, and send empty ones in between.
MOST_EMPTY_PAGES = 50


class _Circle(ValueError):
    """Pages that lead back to themselves."""


class Asker:
    """Asks a STAC API for JSON, as patiently as everything else is asked for."""

    def __init__(self, url: str, *, tries: int, backoff_s: float) -> None:
        self.host = urlsplit(url).hostname
        self.tries, self.backoff_s = tries, backoff_s

    def json(
        self,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The JSON object at an address."""
        check_web(url)
        post = method.upper() in ("POST", "PUT", "PATCH")
        if urlsplit(url).hostname != self.host:
            # Another host than the one that was opened, which only a link can have led to.
            headers = {name: value for name, value in (headers or {}).items() if name.lower() in HARMLESS_HEADERS}

        def once() -> dict[str, Any]:
            return _understood(
                ask(
                    url,
                    method=method.upper(),
                    headers=headers,
                    params=None if post else parameters,
                    json=(parameters or {}) if post else None,
                )
            )

        def tell(trouble: Trouble) -> Exception:
            tried = f"{trouble.tries} tries in {trouble.waited_s:.0f} s ended with {trouble}."
            return HttpError(tried, trouble.status) if trouble.status else SourceError(tried)

        return insist(once, tell, at=url, tries=self.tries, backoff_s=self.backoff_s)

    def pages(
        self, url: str, method: str = "GET", parameters: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Page after page, each once."""
        at: tuple[str, str, Mapping[str, str], Mapping[str, Any] | None] | None = (url, method, {}, parameters)
        seen: set[str] = set()
        empty = 0
        while at is not None:
            key = json.dumps([at[0], at[1], at[3]], sort_keys=True, default=str)
            if key in seen:
                raise _Circle("its pages lead back to one that was there before.")
            seen.add(key)
            page = self.json(*at)
            found = page.get("features") or page.get("collections") or ()
            empty = 0 if found else empty + 1
            if found:
                yield page
            link = next((one for one in page.get("links") or () if one.get("rel") == "next" and one.get("href")), None)
            at = None if link is None or empty > MOST_EMPTY_PAGES else _following(link, parameters)


def _following(
    link: Mapping[str, Any], parameters: Mapping[str, Any] | None
) -> tuple[str, str, Mapping[str, str], Mapping[str, Any] | None]:
    """What a link to the next page asks for: by POST its own body, merged into ours if it says so; by GET its href."""
    method = str(link.get("method") or "GET").upper()
    headers = {str(name): str(value) for name, value in (link.get("headers") or {}).items()}
    if method != "POST":
        return str(link["href"]), method, headers, None
    body = link.get("body") or {}
    return str(link["href"]), method, headers, {**(parameters or {}), **body} if link.get("merge") else body


def _understood(answer: Answer) -> dict[str, Any]:
    if answer.status in BUSY:
        raise busy(answer)
    if not 200 <= answer.status < 300:
        said = " ".join(redacted(answer.data[:300].decode("utf-8", "replace")).split())
        raise HttpError(f"HTTP {answer.status}. {hint(answer.status)} It says: {said}", answer.status)
    if answer.is_page:
        raise Trouble("a web page instead of JSON", garbled=GARBLED_TRIES)
    try:
        told = json.loads(answer.data)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Trouble("something that is not JSON", garbled=GARBLED_TRIES)
    return told


def _io(asker: Asker) -> StacApiIO:
    """pystac-client's way to the network, made ours."""
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        def request(self, href: str, method: Any = None, headers: Any = None, parameters: Any = None, **_: Any) -> str:
            return json.dumps(asker.json(href, method or "GET", headers, parameters))

        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            link = source if isinstance(source, str) else getattr(source, "href", source)
            check_web(str(link))  # what is no address would be opened as a file
            return str(super().read_text(source, *args, **kwargs))

        def get_pages(self, url: str, method: Any = None, parameters: Any = None) -> Iterator[dict[str, Any]]:
            return asker.pages(url, method or "GET", parameters)

    return PatientIO()


class Api:
    """One STAC API."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        page_items: int = 250,
        tries: int = 6,
        backoff_s: float = 0.8,
    ) -> None:
        self.url = url
        self.name = name
        self._page_items = page_items
        self._asker = Asker(url, tries=tries, backoff_s=backoff_s)
        self._opened: Any = None
        self._known: list[dict[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}  # connections do not travel

    def _client(self) -> Any:
        if self._opened is None:
            import pystac_client

            self._opened = self._guard(lambda: pystac_client.Client.open(self.url, stac_io=_io(self._asker)))
        return self._opened

    def _guard(self, call: Callable[[], T]) -> T:
        """Run a call to the service; whatever goes wrong becomes one error that names it."""
        import warnings

        from pystac_client.exceptions import APIError

        at = f"{self.name} ({shown(self.url)})"
        problem: Exception
        try:
            with warnings.catch_warnings():
                # It warns of every small way in which a service departs from the standard; none of them is the user's.
                warnings.filterwarnings("ignore", module="pystac")
                warnings.filterwarnings("ignore", module="pystac_client")
                return call()
        except (APIError, OSError) as error:
            text = (
                f"{at} does not answer as a STAC API: {_short(error)} Check the address and the network; if the "
                "service is busy, try again in some minutes."
            )
            problem = HttpError(text, error.status) if isinstance(error, HttpError) else SourceError(text)
        except (ValueError, KeyError, TypeError) as error:
            problem = SourceError(
                f"{at} answers, but not with STAC: {_short(error)} Give the root of a STAC API or a catalog.json."
            )
        raise problem

    def collections(self) -> list[dict[str, Any]]:
        """Every collection, as JSON."""
        if self._known is None:
            client = self._client()
            self._known = self._guard(lambda: [collection.to_dict() for collection in client.get_collections()])
        return self._known

    def collections_of(self, sensor: str) -> tuple[str, ...]:
        """The collections that hold usable pixels of a sensor, by their names and summaries."""
        found = []
        for collection in self.collections():
            summaries = collection.get("summaries") or {}
            stand_in: Item = {
                "id": collection["id"],
                "collection": collection["id"],
                "properties": {
                    field: summaries[field][0]
                    for field in ("platform", "constellation", "sar:product_type")
                    if isinstance(summaries.get(field), list) and summaries[field]
                },
            }
            if facts.sensor_of(stand_in) != sensor:
                continue
            if sensor == "S1" and facts.grd_reason(stand_in) is not None:
                continue
            found.append(str(collection["id"]))
        # Most services keep several levels; surface reflectance is what is meant when nothing is said.
        surface = [name for name in found if facts.level({"id": name}) == "L2A"]
        return tuple(surface or found)

    def extents(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The extents of these collections."""
        for collection in self.collections():
            if collection["id"] in names:
                yield collection.get("extent") or {}

    def search(
        self,
        collections: Sequence[str],
        geometry: Mapping[str, Any] | None = None,
        first: pd.Timestamp | None = None,
        last: pd.Timestamp | None = None,
        *,
        max_cloud: float | None = None,
        cloud_filter: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Item]:
        """Items of these collections, page after page."""
        asked: dict[str, Any] = {"collections": list(collections), "limit": self._page_items, "max_items": None}
        if geometry is not None:
            asked["intersects"] = geometry
        if first is not None or last is not None:
            asked["datetime"] = "/".join(stamp.strftime(ISO) if stamp is not None else ".." for stamp in (first, last))
        if max_cloud is not None and cloud_filter == "query":
            asked["query"] = {"eo:cloud_cover": {"lte": max_cloud}}
        elif max_cloud is not None and cloud_filter == "filter":
            asked["filter"] = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, max_cloud]}
            asked["filter_lang"] = "cql2-json"
        if ids is None:
            return self._items(asked)
        portions = (list(ids[start : start + IDS_AT_ONCE]) for start in range(0, len(ids), IDS_AT_ONCE))
        return [item for some in portions for item in self._items({**asked, "ids": some})]

    def _items(self, asked: Mapping[str, Any]) -> list[Item]:
        client = self._client()
        found: dict[tuple[str, str], Item] = {}
        for item in self._guard(lambda: [_item(one) for one in client.search(**asked).items_as_dicts()]):
            # New scenes that come in between two pages push others onto the next one: these come twice.
            found.setdefault((str(item.get("collection")), item["id"]), item)
        return list(found.values())


def _item(told: Any) -> Item:
    if not isinstance(told, dict) or not isinstance(told.get("id"), str):
        raise ValueError("an item without an id is among its results.")
    return slim(told)


def _short(error: Exception) -> str:
    text = " ".join(redacted(str(error)).split())
    return (text[:240] + " ..." if len(text) > 240 else text) or type(error).__name__
