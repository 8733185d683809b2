"""A STAC API, a token service and a file store on 127.0.0.1, as strict and as moody as the real ones."""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import shapely


class FakeService:
    """State and behaviour; `moods` holds the statuses that the next searches answer with before they work."""

    def __init__(self, items: list[dict[str, Any]], files: Path | None = None) -> None:
        self.items = items
        self.files = files
        self.moods: list[int] = []
        self.searches: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.token = "one"
        self.valid_s = 3600.0
        self.now = 1_700_000_000.0
        self.files_need_token = False
        self.url = ""

    def locate(self, path: str) -> Path:
        """The file behind a path below /files."""
        assert self.files is not None
        return self.files / path

    def collections(self) -> list[dict[str, Any]]:
        names = dict.fromkeys(one["collection"] for one in self.items)
        extent = {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2014-10-10T00:00:00Z", None]]},
        }
        common = {"type": "Collection", "stac_version": "1.0.0", "description": "", "license": "other"}
        items = {name: {"rel": "items", "href": f"{self.url}/collections/{name}/items"} for name in names}
        root = {"rel": "root", "href": self.url}
        return [{**common, "id": name, "extent": extent, "links": [root, items[name]]} for name in names]

    def root(self) -> dict[str, Any]:
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "root", "href": self.url},
            {"rel": "data", "href": f"{self.url}/collections"},
            {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
            {"rel": "search", "href": f"{self.url}/search", "method": "GET", "type": "application/geo+json"},
        ]
        conforms = [
            "https://api.stacspec.org/v1.0.0/core",
            "https://api.stacspec.org/v1.0.0/item-search",
            "https://api.stacspec.org/v1.0.0/item-search#query",
            "https://api.stacspec.org/v1.0.0/collections",
            "https://api.stacspec.org/v1.0.0/ogcapi-features",
            "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
        ]
        about = {"type": "Catalog", "id": "fake", "stac_version": "1.0.0", "description": "fake"}
        return {**about, "links": links, "conformsTo": conforms}

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.searches.append(asked)
        found = self.items
        if asked.get("collections"):
            found = [one for one in found if one["collection"] in asked["collections"]]
        if asked.get("ids"):
            found = [one for one in found if one["id"] in asked["ids"]]
        if asked.get("intersects"):
            area = shapely.geometry.shape(asked["intersects"])
            found = [one for one in found if shapely.geometry.shape(one["geometry"]).intersects(area)]
        if asked.get("datetime"):
            first, last = asked["datetime"].split("/")
            found = [one for one in found if first == ".." or one["properties"]["datetime"] >= first]
            found = [one for one in found if last == ".." or one["properties"]["datetime"] <= last]
        cloud = asked.get("query", {}).get("eo:cloud_cover", {}).get("lte")
        if cloud is not None:
            found = [one for one in found if one["properties"].get("eo:cloud_cover", 0) <= cloud]
        start, limit = int(asked.get("token", 0)), int(asked.get("limit", 10))
        page = [_on_the_web(one, self) for one in found[start : start + limit]]
        links = [{"rel": "root", "href": self.url}]
        if start + limit < len(found):
            body = {**asked, "token": start + limit}
            links.append({"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": body})
        return {"type": "FeatureCollection", "features": page, "links": links}


class Handler(BaseHTTPRequestHandler):
    service: FakeService

    def log_message(self, *_: object) -> None:
        pass

    def _json(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._bytes(json.dumps(document).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _bytes(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_posted(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_POST(self) -> None:
        asked = json.loads(self.read_posted())
        if self.service.moods:
            status = self.service.moods.pop(0)
            patience = {"Retry-After": "0"} if status == 429 else {}
            self._json({"message": "Rate limit is exceeded. Try again in 0 seconds."}, status, patience)
            return
        self._json(self.service.search(asked))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        service, parts = self.service, urlsplit(self.path)
        path = parts.path
        service.counts[path] += 1
        if path in ("", "/"):
            self._json(service.root())
        elif path == "/collections":
            self._json({"collections": service.collections(), "links": []})
        elif path.startswith("/collections/"):
            self._json(next(one for one in service.collections() if one["id"] == path.split("/")[2]))
        elif path.startswith("/token/"):
            expiry = datetime.fromtimestamp(service.now + service.valid_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._json({"msft:expiry": expiry, "token": f"sig={service.token}"})
        elif path == "/page.html":
            self._bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>", 200, {"Content-Type": "text/html"})
        elif path.startswith("/eodata/") and service.files is not None:
            # S3 as GDAL speaks it: a listing of the folder is asked for as well, and may be refused.
            signed = "AWS4-HMAC-SHA256" in self.headers.get("Authorization", "")
            if not signed or "prefix=" in parts.query:
                self._bytes(b"<Error><Code>AccessDenied</Code></Error>", 403)
                return
            self._file(service.files / path.removeprefix("/eodata/"))
        elif path.startswith("/files/") and service.files is not None:
            if service.files_need_token and parse_qs(parts.query).get("sig") != [service.token]:
                self._bytes(b"<Error>AuthenticationFailed</Error>", 403)
                return
            self._file(service.locate(path.removeprefix("/files/")))
        else:
            self._json({"code": "NotFound"}, 404)

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._bytes(b"", 404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range")
        version = {"ETag": f'"{zlib.crc32(data):08x}"', "Accept-Ranges": "bytes"}
        if not wanted:
            self._bytes(data, 200, version)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        end = min(int(last or len(data) - 1), len(data) - 1)
        part = data[int(first) : end + 1]
        self._bytes(part, 206 if part else 416, {**version, "Content-Range": f"bytes {first}-{end}/{len(data)}"})


def _on_the_web(item: dict[str, Any], service: FakeService) -> dict[str, Any]:
    """An item whose files lie in the service's folder, as it is told to others: by their addresses."""
    beside = f"{service.files}/"
    assets = {
        key: {**asset, "href": str(asset.get("href", "")).replace(beside, f"{service.url}/files/")}
        for key, asset in item["assets"].items()
    }
    return {**item, "assets": assets}


@contextmanager
def served(service: FakeService) -> Iterator[FakeService]:
    handler = type("Handler", (Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
