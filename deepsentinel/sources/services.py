"""What each public service needs beyond STAC before a file opens: tokens that last a while, or keys of the user's own.

How long a token lasts has changed over the years (45 minutes, 8 hours, a day), so its own `msft:expiry` is what counts.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from deepsentinel.errors import SourceError

from .assets import Item
from .presets import Preset
from .stac import StacSource
from .web import BUSY, HttpError, get_bytes, is_json, shown
from .wire import LEFT_ALONE_S

BLOB_HOST = re.compile(r"([a-z0-9]+)\.blob\.core\.windows\.net$")
# A read that starts with this much left is over before the token is.
SPARE_S = 60.0


@dataclass(frozen=True)
class Token:
    """One container's key, as a query string."""

    query: str
    expires_s: float
    """Seconds since 1970."""

    def __repr__(self) -> str:
        return f"<Token until {self.expires_s:.0f}>"


class TokenSigner:
    """Signs hrefs with one token for each storage container. Safe to use from several threads.

    >>> signer = TokenSigner("https://example.org/token", clock=lambda: 0.0)
    >>> signer.container("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/06/V/B02.tif")
    ('sentinel2l2a01', 'sentinel2-l2')
    """

    def __init__(
        self,
        url: str,
        *,
        host: re.Pattern[str] = BLOB_HOST,
        key: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._url = (os.environ.get("PC_SDK_SAS_URL") or url).rstrip("/")
        self._host = host
        self._key = key
        self._clock = clock
        self._sleep = sleep
        self._tokens: dict[tuple[str, str], Token] = {}
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}
        self._locks: dict[tuple[str, str], Lock] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:  # tokens go along: workers that each asked for their own would be turned away
            return {**vars(self), "_tokens": dict(self._tokens), "_failed": {}, "_locks": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def container(self, href: str) -> tuple[str, str] | None:
        """The storage account and container of an href; None for what needs no signature."""
        parts = urlsplit(href)
        match = self._host.match(parts.netloc)
        container = parts.path.strip("/").split("/")[0]
        return (match[1], container) if match and container else None

    def sign(self, href: str) -> str:
        """The href with a token that lasts at least another minute; unchanged where none is needed or one is there."""
        place = self.container(href)
        if place is None or "sig=" in urlsplit(href).query:
            return href
        return f"{href}{'&' if '?' in href else '?'}{self._token(place).query}"

    def forget(self) -> None:
        """Drop every token: they were refused."""
        with self._lock:
            self._tokens.clear()
            self._failed.clear()

    def _token(self, place: tuple[str, str]) -> Token:
        with self._lock:
            lock = self._locks.setdefault(place, Lock())
        # One request for each container, however many threads wait for it.
        with lock:
            token = self._tokens.get(place)
            if token is None or token.expires_s - self._clock() < SPARE_S:
                # All tries take two minutes: the next file of a long table need not take them again.
                since, told = self._failed.get(place, (-math.inf, ""))
                if time.monotonic() - since < LEFT_ALONE_S:
                    raise SourceError(f"{told} It is asked again after {LEFT_ALONE_S:.0f} s.")
                try:
                    token = self._tokens[place] = self._fetch(place)
                except SourceError as error:
                    # What was refused for good, such as a wrong key, is refused at once, and may be mended at once.
                    if not isinstance(error.__cause__, HttpError) or error.__cause__.status in BUSY:
                        self._failed[place] = time.monotonic(), str(error)
                    raise
            return token

    def _fetch(self, place: tuple[str, str]) -> Token:
        url = f"{self._url}/{place[0]}/{place[1]}"
        key = self._key or os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
        headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
        try:
            told = get_bytes(url, headers=headers, tries=8, sleep=self._sleep, likely=is_json)
        except HttpError as error:
            raise SourceError(f"No token for the files of {place[0]}/{place[1]}: {error}") from error
        problem = ""
        try:
            answer = json.loads(told)
            expiry = datetime.fromisoformat(str(answer["msft:expiry"]).replace("Z", "+00:00"))
            expiry = expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)
            return Token(str(answer["token"]), expiry.timestamp())
        except (ValueError, KeyError, TypeError) as error:
            problem = type(error).__name__  # and no more of it: half a token is still a secret
        raise SourceError(
            f"{shown(url)} answered with something that is no token ({problem}). Try again later, or set "
            "PC_SDK_SAS_URL if the service has moved."
        )


class SignedSource(StacSource):
    """A service whose files open only with a token: Planetary Computer."""

    def __init__(
        self, location: str | None, *, preset: Preset, signer: TokenSigner | None = None, **options: Any
    ) -> None:
        super().__init__(location, preset=preset, **options)
        self._signer = signer or TokenSigner(str(preset.signing_url))

    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """The href, signed."""
        return self._signer.sign(href)

    def renew(self) -> bool:
        """Forget all tokens; the next `resolve` fetches new ones."""
        self._signer.forget()
        return True


class S3Source(StacSource):
    """A service whose files lie on an S3 store that wants keys of the user's own: CDSE."""

    def gdal_options(self) -> dict[str, str]:
        """The endpoint; GDAL takes the keys from the environment by itself."""
        assert self.preset is not None
        # Amazon's own tools look there for profiles; GDAL has another name for it.
        profiles = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
        return {**self.preset.gdal, **({"CPL_AWS_CREDENTIALS_FILE": profiles} if profiles else {})}

    def resolve(self, href: str, item: Item, asset_key: str) -> str:
        """The href as it is, once there are keys to open it with."""
        if href.startswith("s3://") and not _has_keys():
            assert self.preset is not None
            raise SourceError(
                f"{self.preset.title} keeps its files on S3 and wants keys: set {' and '.join(KEYS)} (make them for "
                "free at https://eodata-s3keysmanager.dataspace.copernicus.eu; they expire), or AWS_PROFILE to a "
                "profile of ~/.aws/credentials that has them. Searching needs none."
            )
        return href


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _has_keys() -> bool:
    """Whether GDAL will find keys by itself; which they are is none of our business."""
    if all(os.environ.get(name) for name in KEYS) or os.environ.get("AWS_PROFILE"):
        return True
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser().is_file()


def open_preset(preset: Preset, location: str | None = None, **options: Any) -> StacSource:
    """The source for a preset, at its own address or another."""
    if preset.signing_url:
        return SignedSource(location, preset=preset, **options)
    if preset.needs_s3_keys:
        return S3Source(location, preset=preset, **options)
    return StacSource(location, preset=preset, **options)
