"""Earth Engine's client: signed in when it is first needed, asked with patience, and its refusals put in words.

The client is one for the whole process. Who has initialised it already (a notebook, geemap) is left alone and used as
it is; else it is initialised here, at the high-volume endpoint, over a transport of our own (`wire`).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from deepsentinel.errors import InputError, ReadError, SourceError
from deepsentinel.sources.web import BUSY

from .wire import TIMEOUT_S, Transport, plain

HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
# What Earth Engine allows a project at once is 40, and less on its free tiers.
MOST_THREADS = 20
THREADS = 10
# An answer that is no such thing may be a proxy's, or cut off.
BROKEN_TRIES = 3

Kind = Literal["too large", "absent", "busy", "denied", "offline", "other"]
Found = TypeVar("Found")

_SIGN_IN = (
    "Sign in once with `import ee; ee.Authenticate()` in a notebook (or `earthengine authenticate` in a shell), or "
    "give the key file of a service account: open_source('earth-engine', credentials='key.json')."
)
_PROJECT = (
    "Name a Google Cloud project of yours that is registered for Earth Engine (https://code.earthengine.google.com/"
    "register): open_source('earth-engine', project='my-project')."
)
# In the words of the service, which its client hands on without their status. The order matters: a computation that
# timed out is not a busy service.
_WORDS: tuple[tuple[Kind, str], ...] = (
    ("too large", r"memory (limit|capacity) exceeded|out of memory|total request size|computation timed out"),
    ("absent", r"asset '[^']*' not found|did not match any bands"),
    ("busy", r"too many (concurrent )?(requests|aggregations)|rate.?limit|resource.?exhausted|unavailable|try again"),
    ("busy", r"internal (server )?error|an internal error|deadline exceeded|timed out"),
    ("denied", r"permission|not (registered|signed up|authorized|authenticated)|unauthenticated|invalid.?grant"),
    ("denied", r"has not been used in project|is disabled|no project found|project .*not found|authorize access"),
)


class Refusal(SourceError):
    """Earth Engine did not answer what was asked; `kind` says in which way."""

    def __init__(self, message: str, kind: Kind = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Session:
    """Who asks Earth Engine, and how many at once. Nothing is asked before the first `call`.

    >>> Session(project="my-project").threads
    10
    """

    # One for the process, as the client is: what it was initialised with from here, if it was.
    _lock = threading.RLock()
    _mine: tuple[Any, ...] | None = None

    def __init__(
        self,
        *,
        project: str | None = None,
        credentials: Any = None,
        url: str | None = None,
        threads: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if project is not None and (not isinstance(project, str) or not project.strip()):
            raise InputError(f"project={project!r}: the id of a Google Cloud project is meant, such as 'my-project'.")
        if isinstance(threads, bool) or not (threads is None or isinstance(threads, int)):
            raise InputError(f"threads={threads!r}: a whole number from 1 to {MOST_THREADS} is meant.")
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise InputError(
                f"threads={threads}: Earth Engine turns away who asks too much at once; give 1 to {MOST_THREADS}."
            )
        if not isinstance(timeout_s, int | float) or not timeout_s > 0:
            raise InputError(f"timeout_s={timeout_s!r}: give the seconds that one answer may take, such as 300.")
        self.project = project
        self.url = _checked_url(url)
        self.threads = threads or THREADS
        self._timeout_s = float(timeout_s)
        self._key_file, self._credentials = _checked_credentials(credentials)
        self._left_behind = False
        self._slots = threading.BoundedSemaphore(self.threads)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: the place of a key travels, a key does not."""
        state = {**vars(self), "_slots": None, "_credentials": None}
        state["_left_behind"] = self._left_behind or self._credentials is not None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _slots=threading.BoundedSemaphore(state["threads"]))

    def call(self, doing: str, ask: Callable[[Any], Found]) -> Found:
        """What `ask` makes of the client, signed in; what goes wrong becomes a `Refusal` that says what was done."""
        ee = self.client()
        for attempt in range(1, BROKEN_TRIES + 1):
            try:
                return self._asked(ee, doing, ask)
            except (ValueError, EOFError) as error:
                if attempt < BROKEN_TRIES:
                    continue
                raise Refusal(
                    f"{doing} failed: what Earth Engine sent is cut off, or something else than was asked for "
                    f"({type(error).__name__}: {plain(error)}). Try again later.",
                    "busy",
                ) from _fit(error)
        raise AssertionError("the last try returns or raises")

    def _asked(self, ee: Any, doing: str, ask: Callable[[Any], Found]) -> Found:
        from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            with self._slots:
                return ask(ee)
        except ee.EEException as error:
            raise _refusal(doing, str(error), _status(error), offline=_is_offline(error)) from _fit(error)
        except GoogleAuthError as error:
            raise _refusal(doing, str(error), 401, offline=isinstance(error, TransportError)) from _fit(error)
        except ReadError:  # nobody waits for it any more
            raise
        except OSError as error:  # of the network
            raise _refusal(doing, plain(error), None, offline=True) from None

    def client(self) -> Any:
        """The module `ee`, initialised."""
        try:
            import ee
        except ImportError as error:
            raise SourceError(
                "Earth Engine needs its client: pip install 'deepsentinel[gee]' (or earthengine-api)."
            ) from error
        with self._lock:
            asked = (self.project, self._key_file, id(self._credentials) if self._credentials else None, self.url)
            signed_in = bool(ee.data.is_initialized())
            # Initialised anew by somebody meanwhile, it is theirs.
            own = Session._mine if signed_in and isinstance(_transport_in(ee), Transport) else None
            explicit = self._key_file is not None or self._credentials is not None
            if signed_in and (own == asked or (not explicit and (own is None or _fits(own, asked)))):
                return ee
            if own is not None:
                raise SourceError(
                    "Earth Engine's client serves one project and one account in a process, and was signed in with "
                    "others by a source opened before. Open both with the same project= and credentials=, or call "
                    "ee.Reset() first."
                )
            self._sign_in(ee)
            Session._mine = asked
            return ee

    def _sign_in(self, ee: Any) -> None:
        from google.auth.exceptions import GoogleAuthError, TransportError

        if self._left_behind:
            raise SourceError(
                "The credentials that this source was opened with are an object, which stays in the process that made "
                "it. Give the path of a key file instead, or sign in with ee.Authenticate() on the machine of the "
                "workers."
            )
        doing = "Signing in to Earth Engine"
        try:
            credentials = self._credentials or (_from_file(ee, self._key_file) if self._key_file else "persistent")
            transport = Transport(max(self.threads, THREADS), timeout_s=self._timeout_s)
            ee.Initialize(credentials, url=self.url or HIGH_VOLUME_URL, project=self.project, http_transport=transport)
        except ee.EEException as error:
            _forget(ee)
            raise _refusal(doing, str(error), _status(error), offline=_is_offline(error)) from _fit(error)
        except GoogleAuthError as error:
            _forget(ee)
            raise _refusal(doing, str(error), 401, offline=isinstance(error, TransportError)) from _fit(error)
        except ReadError:
            _forget(ee)
            raise
        except OSError as error:
            _forget(ee)
            raise _refusal(doing, plain(error), None, offline=True) from None


def _transport_in(ee: Any) -> Any:
    """What the client sends over now; None where it does not tell."""
    state = getattr(ee.data, "_get_state", None)  # since its version 1.7
    return getattr(state(), "http_transport", None) if state else getattr(ee.data, "_http_transport", None)


def _forget(ee: Any) -> None:
    """Half signed in is worse than not at all: the next call would take it for signed in."""
    ee.Reset()


def _fits(own: tuple[Any, ...], asked: tuple[Any, ...]) -> bool:
    """Whether a client initialised here serves a source that says no more than nothing about it."""
    return all(want is None or have == want for have, want in zip(own, asked, strict=True))


def _from_file(ee: Any, path: str) -> Any:
    try:
        return ee.ServiceAccountCredentials(key_file=path)
    except ValueError:  # its own words may hold a part of the key
        raise InputError(
            f"credentials={path!r} holds no private key that can be used: the file is damaged or was edited. Make a "
            "new JSON key of the service account, and give its path."
        ) from None


def _checked_url(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(str(url))
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise InputError(f"url={url!r}: credentials are sent there, so it must be an https address.")
    return str(url).rstrip("/")


def _checked_credentials(credentials: Any) -> tuple[str | None, Any]:
    """The path of a key file, or an object of credentials."""
    if credentials is None:
        return None, None
    if not isinstance(credentials, str | Path):
        if not hasattr(credentials, "before_request"):
            raise InputError(
                f"credentials= is a {type(credentials).__name__}: the path of a service account's key file is meant, "
                "or an object of google.auth credentials."
            )
        return None, credentials
    text, said = str(credentials), None
    advice = "give the path of a service account's JSON key file"
    if "{" in text or "-----" in text or len(text) > 1000:  # it must not stand in a message
        raise InputError(f"credentials= is no path; of a key itself, write it to a file and {advice}.")
    path = Path(text).expanduser()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        # What is no path may be a token.
        named = repr(text) if path.suffix == ".json" else "what was given"
        raise InputError(f"credentials=: {named} cannot be read as a file ({error.strerror}): {advice}.") from None
    except ValueError:
        pass
    if not isinstance(said, dict) or said.get("type") != "service_account":
        kind = f"of type {said.get('type')!r}" if isinstance(said, dict) else "no JSON"
        raise InputError(
            f"credentials={text!r} is {kind}, and the JSON key of a service account is meant. Without "
            "credentials= the state of ee.Authenticate() is used."
        )
    return str(path.resolve()), None


def _is_offline(error: Exception) -> bool:
    return bool(getattr(error, "offline", False))


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error of the client, which tells its text alone."""
    known = getattr(error, "status", None)
    if isinstance(known, int):
        return known
    behind = getattr(error.__context__, "resp", None)
    try:
        return int(behind.status) if behind is not None else None
    except (TypeError, ValueError, AttributeError):
        return None


def _kind(text: str, status: int | None) -> Kind:
    found = next((kind for kind, words in _WORDS if re.search(words, text, re.I)), None)
    if found is not None and found != "denied":
        return found
    if status in BUSY:
        return "busy"
    return "denied" if status in (401, 403) else found or "other"


def _refusal(doing: str, text: str, status: int | None, *, offline: bool = False) -> Refusal:
    kind: Kind = "offline" if offline else _kind(text, status)
    said = plain(text)
    if kind == "offline":
        return Refusal(f"{doing} failed: Earth Engine does not answer ({said}). Check the network, try again.", kind)
    if kind == "denied":
        advice = _PROJECT if re.search(r"project", said, re.I) and status != 401 else _SIGN_IN
        return Refusal(f"{doing} failed: {said} {advice}", kind)
    advice = {
        "busy": "Try again later, or with fewer threads= in open_source.",
        "too large": "Ask for a smaller grid, or fewer bands.",
        "absent": "Was the scene removed, or the table made from another source?",
    }.get(kind, "")
    return Refusal(f"{doing} failed: Earth Engine says {said!r}. {advice}".strip(), kind)


def _fit(error: Exception) -> Exception | None:
    """The error as a cause, unless it, or what it came from, shows a key in an address."""
    seen: BaseException | None = error
    while seen is not None:
        if re.search(r"[?&](key|access_token)=|bearer ", str(seen), re.I):
            return None
        seen = seen.__cause__ or seen.__context__
    return error
