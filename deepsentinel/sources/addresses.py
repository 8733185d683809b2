"""Addresses: which may be opened, and what of them may be said.

An address may hold a key (a signature, a token, a password), so nothing but host and path ever reaches a message or a
log. And an address that somebody else wrote, in a catalog or in a redirection, must not make us open anything but what
it is for.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from urllib.parse import urlsplit

from deepsentinel.errors import SourceError

# What stands before the first slash where nobody is named: a host, and perhaps its port. One word and a number may as
# well be a user and a password.
_HOST = re.compile(r"(?:localhost|[^:@]*\.[^:@]*|\[[^]@]*\])(?::\d{0,5})?", re.I)
_AT_HOST = re.compile(r"@(?:localhost|\[|[\w.-]+:\d|\d+(?:\.\d+){3}|(?:[\w-]+\.)+[^\W\d])", re.I)
_QUERY = re.compile(r"\?[^\s\"'<>()]*=[^\s\"'<>()]*")
_NAMED = re.compile(
    r"(?i)\b((?:x-amz-|x-goog-)[\w-]+|awsaccesskeyid|[\w-]*(?:signature|token|secret|passw(?:or)?d|api[_-]?key|"
    r"subscription-key|credential)[\w-]*|sig|authorization|stringtosign|pwd)([\"']?\s*[=:>]\s*[\"']?)"
    r"(?:(?:bearer|basic)\s+)?[^\s&\"'<>,;]+"
)


def shown(url: str) -> str:
    """An address fit for a message: without its query, which may hold keys and signatures, and without a password.

    >>> shown("https://me:word@a.org/b.tif?sig=secret")
    'https://a.org/b.tif'
    """
    return _nameless(url).partition("?")[0]


def _nameless(text: str) -> str:
    """Addresses in a row, whatever parts them, without users and passwords.

    A password may hold an "@" and, written as it should not be, a slash, a quote or another address, so that where it
    ends is a guess: better too much is left out than a part of it said.

    >>> _nameless("https://me:p@ss/word@a.org/b.tif"), _nameless("https://a.org/b,https://me:word@c.org/d")
    ('https://a.org/b.tif', 'https://a.org/b,https://c.org/d')
    """
    pieces = text.split("://")
    last = max((at for at, piece in enumerate(pieces) if "@" in piece), default=0)
    for at in range(1, last + 1):
        colon = ":" * (at + 1 < len(pieces))
        kept = _without_user(pieces[at - 1][-5:].lower(), pieces[at] + colon, more=at < last)
        if kept is None:
            return "://".join([*pieces[:at], pieces[last].rpartition("@")[2], *pieces[last + 1 :]])
        pieces[at] = kept.removesuffix(colon)
    return "://".join(pieces)


def _without_user(scheme: str, rest: str, *, more: bool = False) -> str | None:
    """What follows "://", without a user; None where it may begin with a password. `more`: whether an "@" comes later.

    >>> _without_user("http", "a.org:80/2020@v1/b.tif"), _without_user("http", "me@a.org/x@y")
    ('a.org:80/2020@v1/b.tif', 'a.org/x@y')
    >>> _without_user("http", "me:12/word@a.org/b.tif") is None
    True
    """
    before = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in before and ":" not in before:
        return _without_user(scheme, rest[before.rindex("@") + 1 :], more=more)
    if scheme.endswith("file") and not before:
        return rest
    if ":" in before and (more or not _HOST.fullmatch(before)):  # what looks like a port may be how a password begins
        return None
    if scheme.endswith(("http", "https")) and not _HOST.fullmatch(before):  # elsewhere single words are buckets
        return None
    path, _, query = rest[len(before) :].partition("?")
    if ":" in before or "=" not in query.partition("@")[0]:  # else it is a query, whatever is in it
        path = rest[len(before) :]
    return None if ":" in path.rpartition("@")[0] or _AT_HOST.search(path) else rest


def redacted(text: str) -> str:
    """Somebody else's message without what may be a key: queries of addresses, passwords, and what is called one.

    >>> redacted("GET https://a.org/b.tif?sig=x failed: token=abc is wrong")
    'GET https://a.org/b.tif failed: token=... is wrong'
    """
    return _NAMED.sub(r"\1\2...", _QUERY.sub("", re.sub(r"\S+", lambda found: _nameless(found[0]), text)))


class _Discreet(logging.Filter):
    """urllib3 writes whole addresses into its log, signatures and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        with suppress(TypeError, ValueError):
            record.msg, record.args = redacted(record.getMessage()), ()
        return True


DISCREET = _Discreet()


def check_web(url: str) -> None:
    """Refuse what is no address on the web.

    >>> check_web("file:///etc/passwd")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.SourceError: file:///etc/passwd is not opened: only http and https addresses are fetched. ...
    """
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise SourceError(
            f"{shown(url)} is not opened: only http and https addresses are fetched. Who lists it may be mistaken, or "
            "up to no good."
        )


# -- what may be opened ------------------------------------------------------------------------------------------------

STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
ON_AZURE = re.compile(r"abfss?://([^@/]+)@([a-z0-9-]+)\.(?:dfs|blob)\.core\.windows\.net/(.+)", re.I)
# GDAL opens far more than files by their names: archives and stores, but also databases, services and whole recipes.
ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/")
DRIVER_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]+:(?!//)")


def check_href(href: str, *, files: bool, who: str) -> str:
    """The href of an asset or a link, if it may be opened; `files` says whether files on this machine may.

    On the web (http, https) and in stores (s3, gs, az, abfs) anything may; files only where the catalog that names them
    is the user's own.

    >>> check_href("https://a.org/b.tif", files=False, who="Asset 'B02'")
    'https://a.org/b.tif'
    >>> check_href("/etc/passwd", files=False, who="Asset 'B02'")
    Traceback (most recent call last):
    ...
    deepsentinel.errors.SourceError: Asset 'B02' points to /etc/passwd, which is not opened: ...
    """
    scheme = urlsplit(href).scheme.lower() if "://" in href else ""
    if scheme in ("http", "https"):
        check_web(href)
        return href
    if scheme in STORES or ON_AZURE.fullmatch(href.partition("?")[0]):
        return href
    if files and _is_file(href, scheme):
        return href
    raise SourceError(
        f"{who} points to {shown(href)[:200]}, which is not opened: "
        + (
            "a file's path, or an address of http, https, s3, gs, az or abfs is."
            if files
            else "a catalog on the web may point to http, https, s3, gs, az and abfs, and to no file on this machine. "
            "If you trust it, keep a copy of the catalog here."
        )
    )


def _is_file(href: str, scheme: str) -> bool:
    """Whether GDAL will take it for a file on this machine, or for one in an archive there."""
    if scheme:
        return scheme == "file" and urlsplit(href).netloc in ("", "localhost")
    inner = href
    while prefix := next((one for one in ARCHIVES if inner.startswith(one)), None):
        inner = inner.removeprefix(prefix).removeprefix("{")
    if inner.startswith("/vsi") or "<" in inner or "\n" in inner:
        return False
    # A Windows drive is one letter; longer words before a colon are the names of drivers.
    return DRIVER_PREFIX.match(inner) is None
