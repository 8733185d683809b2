"""Checkpoints: fetched once from their public home, checked, and read without running anything they may hold.

A checkpoint saved by torch is a pickle, and a pickle can name any function to call. So it is read by torch's restricted
reader (`weights_only=True`), which knows tensors and plain containers and nothing else; safetensors files hold no code.
That reader had holes before torch 2.10, and there only files whose checksum is known are read with it.
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
import re
import sys
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deepsentinel.errors import SourceError
from deepsentinel.files import atomic_path, cache_dir
from deepsentinel.progress import progress
from deepsentinel.sources.web import shown

from .spec import EncoderSpec

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
TRIES = 5
# Under one of these a checkpoint may hold the whole model.
WRAPPERS = ("model", "state_dict", "teacher")
# Where the Hugging Face hub tells the SHA-256 of what it is about to send, on the redirect to it.
HUB_HEADER = "X-Linked-Etag"
# Before this version a pickle could get past the restricted reader: CVE-2025-32434 (2.6), CVE-2026-24747 (2.10).
SAFE_TORCH = (2, 10)
PICKLE_HEADS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def fetch(spec: EncoderSpec) -> Path:
    """The file with an encoder's weights, fetched if it is not in the cache; an interrupted fetch goes on.

    >>> from deepsentinel.encoders.registry import find
    >>> spec = find("presto")
    >>> path = cache_dir("weights") / spec.file    # put there by hand, it is used as it is
    """
    folder = cache_dir("weights")
    path = folder / spec.file
    stamp = path.with_name(path.name + ".sha256")
    if path.is_file():
        if not _stamped(stamp, path):
            _check(
                path,
                spec.sha256,
                f"{path} is not the file that is meant for {spec.name}; delete it, or {_by_hand(spec, folder)}",
            )
            _stamp(stamp, path)
        return path
    part = path.with_name(path.name + ".part")
    sys.stderr.write(f"Fetching the weights of {spec.name} ({spec.license}) from {shown(spec.url)}\n")
    promised = _download(spec, part, folder)
    expected = spec.sha256 or promised
    complaint = (
        f"{shown(spec.url)} did not send the file that was expected: a proxy may have answered in its place. Nothing "
        f"was kept; {_by_hand(spec, folder)}"
    )
    try:
        _check(part, expected, complaint)
    except SourceError:
        part.unlink()
        raise
    part.replace(path)
    _stamp(stamp, path)
    return path


def _by_hand(spec: EncoderSpec, folder: Path) -> str:
    return f"fetch {spec.url} elsewhere and put it into {folder} as {spec.file}, or name its place in weights=."


def _stamped(stamp: Path, path: Path) -> bool:
    """Whether this very file was checked before: hashing a gigabyte at every start would be felt."""
    try:
        return stamp.read_text() == _identity(path)
    except OSError:
        return False


def _stamp(stamp: Path, path: Path) -> None:
    with atomic_path(stamp, sync=False) as temporary:
        temporary.write_text(_identity(path))


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _check(path: Path, expected: str, complaint: str) -> None:
    """Compare with the SHA-256, or with as many digits of it as are known."""
    if not expected:
        return
    found = _sha256(path)
    if not found.startswith(expected.lower()):
        raise SourceError(f"SHA-256 {found[:12]}.. instead of {expected[:12]}..: {complaint}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_pinned(spec: EncoderSpec) -> bool:
    """Whether all digits of a checksum are known: the first few are easily met by a file made to meet them.

    >>> from deepsentinel.encoders.registry import find
    >>> is_pinned(find("presto"))
    True
    """
    return len(spec.sha256) == hashlib.sha256().digest_size * 2


def checked(path: Path, spec: EncoderSpec, others: Iterable[EncoderSpec]) -> bool:
    """Whether a file is the very one that the encoder's authors published; one that is another encoder's is refused.

    Encoders of one architecture have weights of the same names and shapes, which only their checksums tell apart.

    >>> from deepsentinel.encoders.registry import find
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.pt"
    >>> path.write_bytes(b"weights")
    7
    >>> checked(path, find("presto"), [])
    False
    """
    try:
        found = _sha256(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    if spec.sha256 and found.startswith(spec.sha256.lower()):
        return is_pinned(spec)
    owner = next((one.name for one in others if one.sha256 and found.startswith(one.sha256.lower())), None)
    if owner is not None:
        raise SourceError(f"{path} holds the weights of {owner}, not those of {spec.name}.")
    return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and remembers the checksum that the hub tells on the way."""

    def __init__(self) -> None:
        self.promised = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Urllib's own, and the note."""
        told = (headers.get(HUB_HEADER) or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", told):
            self.promised = told
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(spec: EncoderSpec, part: Path, folder: Path) -> str:
    """Fetch into `part`, going on where it ends; the checksum that the server promised, or ""."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    for attempt in range(1, TRIES + 1):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _append(opener, spec, part, before)
            return redirects.promised
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
            if status == 416 and before:  # it ends where we are, or before: begin again
                part.unlink()
                continue
            reason, final = f"it answered {status} {error.reason}", status < 500 and status != 429
        except (OSError, http.client.HTTPException) as error:
            reason, final = str(getattr(error, "reason", error)), False
        grown = part.is_file() and part.stat().st_size > before
        # A line that breaks after having brought something is tried again; one that brings nothing, once more.
        if final or (attempt >= 2 and not grown) or attempt == TRIES:
            raise SourceError(
                f"The weights of {spec.name} could not be fetched from {spec.url}: {reason}. Without a network, "
                f"{_by_hand(spec, folder)}"
            )
    raise SourceError(f"{spec.url} does not stand by its own sizes. Without it, {_by_hand(spec, folder)}")


def _append(opener: urllib.request.OpenerDirector, spec: EncoderSpec, part: Path, before: int) -> None:
    headers = {"User-Agent": "deepsentinel", **({"Range": f"bytes={before}-"} if before else {})}
    with opener.open(urllib.request.Request(spec.url, headers=headers), timeout=TIMEOUT_S) as answer:
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        chunks = -(-int(length) // CHUNK_BYTES) if length else 0
        with part.open("ab" if resumed else "wb") as file:
            pieces = progress(_chunks(answer), total=chunks, what=spec.file, unit="MB")
            written = sum(file.write(piece) for piece in pieces)
        if length and written < int(length):
            raise http.client.IncompleteRead(b"", int(length) - written)


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK_BYTES):
        yield chunk


def read_state(path: Path, *, known: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU; nested groups become "group.name". Nothing in it is run.

    `known` says that its checksum was compared: an older torch, whose restricted reader has holes, reads no other file
    of its own format.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "a.pt"
    >>> torch.save({"model": {"weight": torch.ones(2)}}, path)
    >>> read_state(path)
    {'weight': tensor([1., 1.])}
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        loaded: Any = _read_safetensors(path)
    elif _is_zip(path) or head.startswith(PICKLE_HEADS):
        _check_torch(path, known)
        loaded = _read_torch(path)
    elif head.startswith(b"PK"):
        raise SourceError(f"{path} is truncated: the end of a checkpoint is missing. Delete it and fetch it again.")
    else:
        raise SourceError(
            f"{path} is not a checkpoint (it begins with {head!r}): neither safetensors nor torch's format."
        )
    state = dict(_tensors(loaded))
    for wrapper in WRAPPERS:
        if state and all(name.startswith(wrapper + ".") for name in state):
            state = {name.removeprefix(wrapper + "."): value for name, value in state.items()}
    if not state:
        raise SourceError(f"{path} holds no tensors by name: it is a checkpoint of something else.")
    return state


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is truncated or damaged: {error}. Delete it and fetch it again.") from error


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # a damaged directory can make it fail in any way
        return path.read_bytes()[:2] == b"PK"


def _check_torch(path: Path, known: bool) -> None:
    import torch

    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH and not known:
        raise SourceError(
            f"{path} is not read: torch {torch.__version__} is known to let checkpoints run code or write where they "
            f"should not. pip install 'torch>={'.'.join(map(str, SAFE_TORCH))}', or use a .safetensors file."
        )


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # Of pickle protocols that its restricted reader may not know all of: then it refuses, which is enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|Unsupported (?:global|class|operand)[^\w]*)\s*([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise SourceError(
            f"{path} holds more than tensors{what}: a pickle that would run code when loaded. It was refused and "
            "nothing in it was run. Only safetensors and files of plain tensors are read."
        ) from error
    except Exception as error:  # a damaged file can make it fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(f"{path} is truncated or damaged: {reason}. Delete it and fetch it again.") from error


def _tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors below nested dicts; numbers beside them (epochs, settings) are no weights."""
    import torch

    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, torch.Tensor) and name:
        yield name, value
