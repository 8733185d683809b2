"""STAC catalogs that are plain files: a tree of JSON documents, an item collection, or one item, near or far.

They are read as JSON and no more: a static catalog is links and items, and the libraries that model all of STAC cost
more time to import than a small catalog takes to read. Every document is read once; branches whose extent or name
rules them out are not read at all; documents behind http are fetched many at a time.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from deepsentinel.errors import InputError, SourceError, warn

from .addresses import check_href, shown
from .assets import Item, has_href
from .web import get_bytes, is_json

Document = dict[str, Any]
# Prune answers "is this collection worth opening?"
Prune = Callable[[Document], bool]
FETCHES_AT_ONCE = 16
# Set on items that came over the web: they may not point to files on this machine.
FAR = "deepsentinel:far"
KINDS = ("Catalog", "Collection", "FeatureCollection", "Feature")


def is_web(location: str) -> bool:
    """Whether a location is an address on the web.

    >>> is_web("https://a.org/catalog.json"), is_web("/data/catalog.json")
    (True, False)
    """
    return urlsplit(location).scheme in ("http", "https")


def join(base: str, href: str) -> str:
    """An href as seen from the document at `base`, made absolute.

    >>> join("/data/catalog.json", "./items/a.json"), join("https://a.org/c/catalog.json", "../b.tif")
    ('/data/items/a.json', 'https://a.org/b.tif')
    """
    if href.startswith("file://") and not is_web(base):
        return url2pathname(urlsplit(href).path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", href) or not base:
        return href
    if is_web(base):
        return urljoin(base, href)
    if Path(href).is_absolute():
        return href
    folder = Path(base).parent
    return posixpath.normpath(posixpath.join(folder.as_posix(), href))


def parse(text: bytes, location: str) -> Document:
    """A STAC document from its bytes, or an error that says what was there instead.

    >>> parse(b'{"type": "Feature", "id": "a"}', "a.json")["id"]
    'a'
    """
    head = text[:200].decode("utf-8", "replace").strip()
    if head.lower().startswith(("<!doctype", "<html", "<?xml")):
        raise SourceError(
            f"{shown(location)} is a web page, not a STAC catalog. Give the address of its JSON (often "
            ".../catalog.json or .../v1)."
        )
    try:
        document = json.loads(text)
    except ValueError as error:
        if b"\0" in text:
            raise SourceError(
                f"{shown(location)} is no catalog: that would be text (JSON). A source is a catalog or an item "
                "collection, the address of an API, or a folder of downloaded products; ds.read_labels reads labels."
            ) from None
        raise SourceError(
            f"{shown(location)} is not readable JSON ({error}). Is the file complete? Fetch or write it again."
        ) from error
    kind = document.get("type") if isinstance(document, dict) else type(document).__name__
    if kind not in KINDS:
        # Catalogs older than STAC 1.0 have no type.
        if isinstance(document, dict) and "stac_version" in document and "links" in document:
            document["type"] = "Collection" if "extent" in document else "Catalog"
            return document
        raise SourceError(
            f"{shown(location)} is JSON but not STAC (its type is {kind!r}): a {', '.join(KINDS)} is needed."
        )
    return document


class StaticCatalog:
    """A catalog of files, read lazily and once."""

    def __init__(self, location: str | Path | Mapping[str, Any]) -> None:
        self._documents: dict[str, Document] = {}
        self._lock = Lock()
        if isinstance(location, Mapping):
            self.location = ""
            self.root = placed(parse(json.dumps(location).encode(), "the given mapping"), "")
        else:
            self.location = find(location)
            self.root = self.document(self.location)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location or self.root,)

    def document(self, location: str) -> Document:
        """The document at an absolute location."""
        with self._lock:
            if location in self._documents:
                return self._documents[location]
        document = placed(parse(read(location), location), location)
        with self._lock:
            return self._documents.setdefault(location, document)

    def collections(self) -> list[Document]:
        """Every collection of the tree."""
        found: list[Document] = []

        def note(collection: Document) -> bool:
            found.append(collection)
            return False

        for _ in self.items(note):
            pass
        return found

    def items(self, worth: Prune | None = None) -> Iterator[Item]:
        """Every item below collections that are worth opening, its asset hrefs absolute."""
        yield from self._below(self.root, self.location, worth, {self.location})

    def _below(self, document: Document, location: str, worth: Prune | None, seen: set[str]) -> Iterator[Item]:
        kind = document["type"]
        if kind == "Feature":
            yield document
            return
        if kind == "FeatureCollection":
            yield from self._pages(document, location, seen)
            return
        if kind == "Collection" and worth is not None and not worth(document):
            return
        wanted = [
            join(location, link["href"])
            for link in document.get("links") or ()
            if link.get("rel") in ("child", "item", "items") and link.get("href")
        ]
        wanted = [self._linked(href, location) for href in dict.fromkeys(wanted) if href not in seen]
        seen.update(wanted)
        for href, below in zip(wanted, self._all(wanted), strict=True):
            yield from self._below(below, href, worth, seen)

    def _pages(self, document: Document, location: str, seen: set[str]) -> Iterator[Item]:
        """The items of an item collection, and of what follows where a service hands it out in pages."""
        while True:
            yield from document["features"]
            link = next((link for link in document.get("links") or () if link.get("rel") == "next"), None)
            if link is None:
                return
            if not is_web(location) or str(link.get("method", "GET")).upper() != "GET":
                warn(
                    f"{shown(location) or 'The item collection'} is one page of several: only its "
                    f"{len(document['features'])} items are used. Fetch all pages, or open the service itself."
                )
                return
            location = self._linked(join(location, str(link.get("href"))), location)
            if location in seen:
                return
            seen.add(location)
            document = self.document(location)

    def _linked(self, href: str, location: str) -> str:
        """A link's href, if the document it stands in may lead there."""
        return check_href(href, files=not is_web(location), who=f"A link in {shown(location)}")

    def _all(self, locations: list[str]) -> Iterator[Document]:
        # Local files are parsed faster than threads can be fed; far ones wait for the network, so wait together.
        if len(locations) < 2 or not is_web(locations[0]):
            yield from map(self.document, locations)
            return
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            yield from pool.map(self.document, locations)


def placed(document: Document, location: str) -> Document:
    """The document with its items' hrefs absolute: once when it is read, not at every search.

    >>> placed({"type": "FeatureCollection", "features": None}, "/data/a.json")["features"]
    []
    """
    if document["type"] == "Feature":
        return absolute(document, location)
    if document["type"] == "FeatureCollection":
        return {**document, "features": [absolute(item, location) for item in document.get("features") or ()]}
    return document


def absolute(item: Item, location: str) -> Item:
    """The item with its asset hrefs made absolute; the original is left as it is.

    >>> absolute({"id": "a", "assets": {"vv": {"href": "./vv.tif"}}}, "/data/a.json")["assets"]["vv"]["href"]
    '/data/vv.tif'
    """
    if not isinstance(item, dict) or "id" not in item:
        raise SourceError(
            f"{shown(location) or 'The item collection'} holds an item without an id; every STAC item has one. Is it a "
            "GeoJSON file of something else?"
        )
    assets = {
        key: {**asset, "href": join(location, str(asset["href"]))} if has_href(asset) else asset
        for key, asset in (item.get("assets") or {}).items()
    }
    far = {FAR: True} if is_web(location) else {}
    return {**item, **far, "id": str(item["id"]), "assets": assets}


def find(location: str | Path) -> str:
    """The document that a user's location means: a folder means the catalog in it."""
    text = str(location)
    if is_web(text):
        return text
    path = Path(join("", text)).expanduser()
    if path.is_dir():
        for name in ("catalog.json", "collection.json"):
            if (path / name).is_file():
                return (path / name).absolute().as_posix()
        raise InputError(
            f"{path} is a folder without a catalog.json, and holds no downloaded product (.SAFE, zipped or not). Point "
            "at a STAC catalog, collection or item file, or at the folder the products are in."
        )
    if not path.exists():
        raise SourceError(f"There is no file {path}. Check the path; it is seen from {Path.cwd()}.")
    return path.absolute().as_posix()


def read(location: str) -> bytes:
    """The bytes at an absolute location."""
    if is_web(location):
        return get_bytes(location, likely=is_json)
    try:
        return Path(location).read_bytes()
    except OSError as error:
        raise SourceError(
            f"{shown(location)} cannot be read ({error.strerror}). A catalog links to it: is the copy complete?"
        ) from error
