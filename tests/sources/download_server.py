"""A provider of downloads on this machine, as EODAG's cop_dataspace speaks to one: OData, tokens, products, an archive.

The real EODAG is pointed at it by its own configuration file. Filters are evaluated and not recognised by their words,
tokens are signed and expire, products come in ranges, and every request is in the log.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import jwt
import shapely
from cryptography.hazmat.primitives.asymmetric import rsa

USER, PASSWORD = "somebody", "pass-word-8431"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def manifest(name: str, members: dict[str, bytes], algorithm: str = "MD5") -> bytes:
    """The list of a product's files as its makers write it; `members` are named from the product's own folder."""
    sums = {"MD5": hashlib.md5, "SHA3-256": hashlib.sha3_256}
    listed = "".join(
        f'<dataObject ID="n{n}"><byteStream mimeType="text/xml" size="{len(data)}">'
        f'<fileLocation locatorType="URL" href="./{member}"/>'
        f'<checksum checksumName="{algorithm}">{sums[algorithm](data).hexdigest().upper()}</checksum>'
        "</byteStream></dataObject>"
        for n, (member, data) in enumerate(members.items())
    )
    space = 'xmlns:xfdu="urn:ccsds:schema:xfdu:1"'
    return f"<xfdu:XFDU {space}><dataObjectSection>{listed}</dataObjectSection></xfdu:XFDU>".encode()


def product_zip(name: str, size: int = 300_000, inside: dict[str, bytes] | None = None) -> bytes:
    """An archive that looks like a product from outside, with bytes of its own."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        sign = re.search(r"MSI(L1C|L2A)", name)
        archive.writestr(f"{name}.SAFE/{f'MTD_MSI{sign[1]}.xml' if sign else 'measurement/none.txt'}", b"<x/>")
        archive.writestr(f"{name}.SAFE/manifest.safe", b"<x/>")
        archive.writestr(f"{name}.SAFE/bytes.bin", random.Random(name).randbytes(size))
        for member, data in (inside or {}).items():
            archive.writestr(member, data)
    return out.getvalue()


@dataclass
class Held:
    """A product that the provider keeps."""

    name: str
    data: bytes
    start: str
    geometry: Any = field(default_factory=lambda: shapely.box(0, 49, 1, 50))
    online: bool = True
    md5: str | None = ""
    """Empty: the true one."""
    size: int | None = None
    """What the catalog says; None for the truth."""
    published: str = "2024-01-01T00:00:00.000Z"
    s3_path: str = "/eodata/none"

    @property
    def uid(self) -> str:
        return hashlib.md5(self.name.encode()).hexdigest()

    @property
    def kind(self) -> str:
        found = re.search(r"MSI(L1C|L2A)", self.name)
        return {"L1C": "S2MSI1C", "L2A": "S2MSI2A"}[found[1]] if found else "GRD"


@dataclass
class Request:
    method: str
    path: str
    first: int = 0
    sent: int = 0
    status: int = 0
    at: float = field(default_factory=time.monotonic)
    """When it came."""
    product: str = ""


Mood = Callable[[str, int], str | None]


@dataclass
class DownloadServer:
    """`mood(product, nth download of it)` may answer "cut 5000", "503", "429 0", "html", "stall 3", "flip" ..."""

    products: list[Held] = field(default_factory=list)
    mood: Mood = lambda name, nth: None
    ranges: bool = True
    etags: bool = True
    tokens_last_s: float = 600.0
    wrong_password: bool = False
    order_takes: int = 2
    """How many questions an order takes to be ready."""
    log: list[Request] = field(default_factory=list)
    orders: dict[str, int] = field(default_factory=dict)
    """uid -> how often it was asked after."""
    tokens: list[str] = field(default_factory=list)
    refused_tokens: set[str] = field(default_factory=set)
    asked_with: list[dict[str, str]] = field(default_factory=list)
    """Headers of each download."""
    at_once: int = 0
    most_at_once: int = 0
    slow_s: float = 0.0
    search_moods: list[int] = field(default_factory=list)
    page: int = 1000
    """How many rows an answer to a search holds at most."""
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def downloads(self, name: str = "") -> list[Request]:
        return [one for one in self.log if one.product and one.product.startswith(name)]

    def bytes_sent(self, name: str = "") -> int:
        return sum(one.sent for one in self.downloads(name))

    def searches(self) -> list[Request]:
        return [one for one in self.log if one.path == "/odata/v1/Products"]

    def token(self) -> str:
        claims = {"exp": time.time() + self.tokens_last_s, "aud": ["CLOUDFERRO_PUBLIC"], "n": len(self.tokens)}
        made = jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "one"})
        self.tokens.append(made)
        return made

    def keys(self) -> dict[str, Any]:
        def number(value: int) -> str:
            return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()

        public = KEY.public_key().public_numbers()
        about = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one"}
        return {"keys": [{**about, "n": number(public.n), "e": number(public.e)}]}

    def find(self, query: str) -> list[Held]:
        """The products that an OData filter lets through; a condition that is not understood raises."""
        found = list(self.products)
        for condition in re.split(r" and (?!att/)", query):
            found = [one for one in found if _holds(condition, one)]
        return found

    def row(self, one: Held) -> dict[str, Any]:
        md5 = hashlib.md5(one.data).hexdigest() if one.md5 == "" else one.md5
        ewkt = f"geography'SRID=4326;{one.geometry.wkt}'"
        return {
            "Id": one.uid,
            "Name": f"{one.name}.SAFE",
            "ContentType": "application/octet-stream",
            "ContentLength": len(one.data) if one.size is None else one.size,
            "PublicationDate": one.published,
            "ModificationDate": one.published,
            "Online": one.online,
            "S3Path": one.s3_path,
            "Checksum": [{"Value": md5, "Algorithm": "MD5"}] if md5 else [{}],
            "ContentDate": {"Start": one.start, "End": one.start},
            "Footprint": ewkt,
            "Attributes": [
                {"Name": "productType", "Value": one.kind},
                {"Name": "platformSerialIdentifier", "Value": one.name[2]},
            ],
            "Assets": [],
        }

    def configuration(
        self, folder: Path, *, orders: bool = False, password: str = PASSWORD, header: bool = False
    ) -> Path:
        """EODAG's configuration file that makes it take this server for Copernicus."""
        import yaml

        mapping: dict[str, Any] = {"eodag:download_link": f"{self.url}/odata/v1/Products({{uid}})/$value"}
        download: dict[str, Any] = {}
        if orders:
            mapping["eodag:order_link"] = f"{self.url}/order?id={{uid}}"
            download = {
                "order_enabled": True,
                "order_method": "GET",
                "order_on_response": {
                    "metadata_mapping": {
                        "eodag:order_id": "$.json.order",
                        "eodag:status_link": f"{self.url}/orders/{{eodag:order_id}}",
                    }
                },
                "order_status": {
                    "request": {"method": "GET"},
                    "metadata_mapping": {"eodag:order_status": "$.json.state"},
                    "success": {"eodag:order_status": "ready"},
                    "error": {"eodag:order_status": "lost"},
                },
            }
        told = {
            "cop_dataspace": {
                "search": {"api_endpoint": f"{self.url}/odata/v1/Products", "metadata_mapping": mapping},
                "download": download,
                "auth": {
                    "matching_url": self.url,
                    "oidc_config_url": f"{self.url}/openid",
                    "credentials": {"username": USER, "password": password},
                    **({"token_provision": "header"} if header else {}),
                },
            }
        }
        path = folder / "eodag.yml"
        path.write_text(yaml.safe_dump(told))
        return path


def _holds(condition: str, one: Held) -> bool:
    condition = condition.strip()
    if match := re.fullmatch(r"Collection/Name eq '(\S+)'", condition):
        return match[1] == ("SENTINEL-1" if one.kind == "GRD" else "SENTINEL-2")
    if match := re.fullmatch(r"OData.CSC.Intersects\(area=geography'SRID=4326;(.+)'\)", condition):
        return bool(shapely.from_wkt(match[1]).intersects(one.geometry))
    if match := re.fullmatch(r"Attributes/.*att/Name eq 'productType' and .*Value eq '([\w-]+)'\)", condition):
        return match[1] == one.kind
    if match := re.fullmatch(r"ContentDate/(Start|End) (lt|gt) (\S+)", condition):
        when, limit = _moment(one.start), _moment(match[3])
        return when < limit if match[2] == "lt" else when > limit
    raise ValueError(f"what is {condition!r}?")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: DownloadServer

    def log_message(self, *_: object) -> None:
        pass

    def _json(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        owner = self.owner
        asked = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        owner.log.append(Request("POST", self.path))
        if self.path != "/token":
            self._json({}, 404)
        elif asked.get("grant_type") == "password" and (
            owner.wrong_password or (asked.get("username"), asked.get("password")) != (USER, PASSWORD)
        ):
            self._json({"error": "invalid_grant", "error_description": "Invalid user credentials"}, 401)
        else:
            self._json({"access_token": owner.token(), "refresh_token": "refresh", "refresh_expires_in": 3600})

    def do_GET(self) -> None:
        owner, parts = self.owner, urlsplit(self.path)
        request = Request("GET", parts.path)
        with owner.lock:
            owner.log.append(request)
        query = parse_qs(parts.query)
        if parts.path == "/openid":
            ends = {"jwks_uri": "keys", "token_endpoint": "token", "authorization_endpoint": "authorise"}
            about = {name: f"{owner.url}/{end}" for name, end in ends.items()}
            self._json({**about, "id_token_signing_alg_values_supported": ["RS256"]})
        elif parts.path == "/keys":
            self._json(owner.keys())
        elif parts.path == "/odata/v1/Products":
            self._search(unquote(parts.query))
        elif parts.path == "/order":
            uid = query["id"][0]
            with owner.lock:
                again = uid in owner.orders
                owner.orders.setdefault(uid, 0)
            self._json({"order": uid}, 409 if again else 200)
        elif parts.path.startswith("/orders/"):
            self._status(parts.path.split("/")[2])
        elif match := re.fullmatch(r"/odata/v1/Products\((\w+)\)/\$value", unquote(parts.path)):
            # As the real one does: on to another host, the token in the address coming along.
            self.send_response(301)
            host = owner.url.replace("127.0.0.1", "localhost")
            self.send_header("Location", f"{host}/zipper/{match[1]}?{urlencode(query, doseq=True)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif parts.path.startswith("/zipper/"):
            one = next(held for held in owner.products if held.uid == parts.path.split("/")[2])
            self._product(request, one, query)
        else:
            self._json({}, 404)

    def _search(self, query: str) -> None:
        owner = self.owner
        if owner.search_moods:
            self._json({"detail": "busy"}, owner.search_moods.pop(0))
            return
        wanted = re.search(r"\$filter=(.*?)(?:&\$|$)", query.replace("%20", " "))
        try:
            found = owner.find(wanted[1]) if wanted else owner.products
        except ValueError as error:
            self._json({"detail": str(error)}, 400)
            return
        top = int(re.search(r"\$top=(\d+)", query)[1])
        self._json({"value": [owner.row(one) for one in found[: min(top, owner.page)]]})

    def _status(self, uid: str) -> None:
        owner = self.owner
        with owner.lock:
            if uid not in owner.orders:
                self._json({"state": "lost"})
                return
            owner.orders[uid] += 1
            ready = owner.orders[uid] >= owner.order_takes
        if ready:
            next(one for one in owner.products if one.uid == uid).online = True
        self._json({"state": "ready" if ready else "waiting"})

    def _product(self, request: Request, one: Held, query: dict[str, list[str]]) -> None:
        owner = self.owner
        with owner.lock:
            request.product = one.name
            nth = len(owner.downloads(one.name))
            owner.at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner.at_once)
            owner.asked_with.append(dict(self.headers))
        try:
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            token = query.get("token", [bearer])[0]
            request.status = 401 if token not in owner.tokens or token in owner.refused_tokens else 200
            mood = (owner.mood(one.name, nth) or "").split()
            if request.status == 401 or not one.online:
                request.status = request.status if request.status == 401 else 404
                self._plain(request.status)
            else:
                time.sleep(owner.slow_s)
                self._send(request, one.data, mood)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with owner.lock:
                owner.at_once -= 1

    def _plain(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _send(self, request: Request, data: bytes, mood: list[str]) -> None:
        owner, act = self.owner, mood[0] if mood else ""
        if act.isdigit():
            request.status = int(act)
            self._plain(int(act), **({"Retry_After": mood[1]} if len(mood) > 1 else {}))
            return
        if act == "html":
            body = b"<html>Sign in</html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if act == "flip":
            data = data[:-60] + bytes([data[-60] ^ 255]) + data[-59:]
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if owner.ranges else None
        if asked and self.headers.get("If-Range") not in (None, tag):
            asked = None
        first = int(asked[1]) if asked else 0
        if asked and first >= len(data):
            request.status = 416
            self._plain(416, Content_Range=f"bytes */{len(data)}")
            return
        request.first, request.status = first, 206 if asked else 200
        self.send_response(request.status)
        self.send_header("Content-Type", "application/zip")
        if act != "unsized":
            self.send_header("Content-Length", str(len(data) - first + (1000 if act == "longer" else 0)))
        if owner.etags:
            self.send_header("ETag", tag)
        if asked:
            shown = first + 7 if act == "elsewhere" else first
            self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = min(len(data), first + int(mood[1])) if act in ("cut", "stall") else len(data)
        for start in range(first, end, 65_536):
            piece = data[start : min(start + 65_536, end)]
            self.wfile.write(piece)
            request.sent += len(piece)
        self.wfile.flush()
        if act == "stall":
            time.sleep(float(mood[2]))
        if act in ("cut", "stall", "longer", "unsized"):
            self.close_connection = True


@contextmanager
def serving(server: DownloadServer) -> Iterator[DownloadServer]:
    handler = type("Handler", (_Handler,), {"owner": server})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    server.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
