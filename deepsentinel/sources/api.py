"""STAC APIs, by pystac-client: pages, retries, and errors that name the service. Imported only when an API is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from deepsentinel.errors import SourceError

from . import items as facts
from .assets import Item, slim

IDS_AT_ONCE = 100
ISO = "%Y-%m-%dT%H:%M:%S.%fZ"


class Api:
    """One STAC API."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        page_items: int = 250,
        tries: int = 6,
        timeout_s: float = 60.0,
        backoff_s: float = 0.8,
    ) -> None:
        self.url = url
        self.name = name
        self._page_items = page_items
        self._tries = tries
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s
        self._opened: Any = None
        self._known: list[dict[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}  # connections do not travel

    def _client(self) -> Any:
        if self._opened is None:
            import pystac_client
            from pystac_client.stac_api_io import StacApiIO
            from urllib3 import Retry

            # Searches are POSTed, and a search that is asked twice does no harm; urllib3 retries only GET by itself.
            retry = Retry(
                total=self._tries,
                connect=1,  # a host that is not there at all seldom comes up meanwhile
                backoff_factor=self._backoff_s,
                status_forcelist=[429, 500, 502, 503, 504],
                allowed_methods=None,
                respect_retry_after_header=True,
            )
            self._opened = self._guard(
                lambda: pystac_client.Client.open(
                    self.url, stac_io=StacApiIO(max_retries=retry, timeout=self._timeout_s)
                )
            )
        return self._opened

    def _guard(self, call: Any) -> Any:
        """Run a call to the service; whatever goes wrong becomes one error that names it."""
        import warnings

        import requests
        from pystac_client.exceptions import APIError

        try:
            with warnings.catch_warnings():
                # It warns of every small way in which a service departs from the standard; none of them is the user's.
                warnings.filterwarnings("ignore", module="pystac")
                warnings.filterwarnings("ignore", module="pystac_client")
                return call()
        except (APIError, requests.RequestException, OSError) as error:
            raise SourceError(
                f"{self.name} ({self.url}) does not answer as a STAC API: {_short(error)} "
                "Check the address and the network; if the service is busy, try again in some minutes."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{self.name} ({self.url}) answers, but not with STAC: {_short(error)} Give the root of a STAC API "
                "or a catalog.json."
            ) from error

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
        client = self._client()
        if ids is None:
            return self._guard(lambda: [slim(item) for item in client.search(**asked).items_as_dicts()])
        found: list[Item] = []
        for start in range(0, len(ids), IDS_AT_ONCE):
            some = list(ids[start : start + IDS_AT_ONCE])
            found += self._guard(
                lambda some=some: [slim(item) for item in client.search(**asked, ids=some).items_as_dicts()]
            )
        return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text[:240] + " ..." if len(text) > 240 else text) or type(error).__name__
