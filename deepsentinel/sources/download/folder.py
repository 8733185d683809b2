"""A folder that products are downloaded into: what is there whole, what came halfway, and what was ordered.

    S2A_MSIL2A_..._T32TPS_....zip              whole, checked, never touched again
    .downloads/S2A_MSIL2A_..._T32TPS_....part  what has come of another one
    .downloads/S2A_MSIL2A_..._T32TPS_....json  what is known of each: scenes, provider, size, order

A product gets its name when it is whole and checked, so a reader never sees half of one, whatever is killed and when.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from deepsentinel.errors import InputError, SourceError
from deepsentinel.files import atomic_folder, write_text
from deepsentinel.sources.safe.files import SIGNS, Product, open_product, without_dots
from deepsentinel.sources.safe.optical import PRODUCT_XML, TILE_XML

from .placing import BEFORE, flush, put_in_place

WORK = ".downloads"
# How STAC writes checksums: a number for the algorithm, the length in bytes, then the digest.
MULTIHASHES = {"d50110": "md5", "1114": "sha1", "1220": "sha256", "1340": "sha512", "1e20": "blake3"}
# For people to look at: a product is whole without them, and not every provider keeps them.
EXTRAS = re.compile(r"(HTML|rep_info|preview|support)/|INSPIRE\.xml$")
# What scenes are read from: a product without one of them is not whole.
READ = re.compile(
    rf"{PRODUCT_XML}|GRANULE/[^/]+/({TILE_XML}|IMG_DATA/.+)|annotation/([^/]+|calibration/[^/]+)|measurement/.+"
)
PIECE = 1 << 20

_busy: set[Path] = set()
_busy_lock = Lock()


class Damaged(SourceError):
    """What came is not what the provider has."""


class Incomplete(Damaged):
    """A file that is read did not come: no checksum is to blame."""


class Busy(SourceError):
    """Another process is downloading the same product into the same folder."""


class Folder:
    """Where products go.

    >>> import tempfile
    >>> Folder(tempfile.mkdtemp()).present("S2A_MSIL2A_20230602T100601_N0509_R022_T32TPS_20230602T162001") is None
    True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give a folder for the products to go into.")
        self._products: dict[str, dict[str, str]] | None = None

    def make(self) -> None:
        """Create it, with its own folder for what is under way."""
        try:
            (self.path / WORK).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made: {error}. Give a folder that may be written.") from error

    def part(self, name: str) -> Path:
        """Where a product grows."""
        return self.path / WORK / f"{name}.part"

    def drop(self, name: str) -> None:
        """Throw away what has grown."""
        if self.part(name).is_dir():
            shutil.rmtree(self.part(name), ignore_errors=True)
        else:
            self.part(name).unlink(missing_ok=True)

    def note(self, name: str) -> dict[str, Any]:
        """What was noted of a product; nothing is an empty dict."""
        return _noted(self.path / WORK / f"{name}.json")

    def keep(self, name: str, **facts: Any) -> None:
        """Note facts of a product beside those noted before; None forgets one."""
        note = {key: value for key, value in {**self.note(name), **facts}.items() if value is not None}
        self._products = None
        write_text(self.path / WORK / f"{name}.json", json.dumps(note, indent=1, sort_keys=True))

    def notes(self) -> dict[str, dict[str, Any]]:
        """Everything noted, by product."""
        return {path.stem: _noted(path) for path in sorted((self.path / WORK).glob("S*.json"))}

    def product_of(self, scene: str, provider: str) -> str | None:
        """The product that a scene was found to be earlier."""
        if self._products is None:  # all notes are read once, not once for each scene
            self._products = {}
            for name, note in self.notes().items():
                for found in note.get("scenes", ()):
                    self._products.setdefault(str(note.get("provider")), {}).setdefault(found, name)
        return self._products.get(provider, {}).get(scene)

    def present(self, name: str) -> Path | None:
        """The product, where it is there as a whole: as it was left, or however else it came here."""
        folder = self.path / f"{name}.SAFE"
        if (folder / "manifest.safe").is_file():
            return folder
        note = self.note(name)
        size = note.get("bytes") if note.get("whole") else None
        for path in (self.path / f"{name}.zip", self.path / f"{name}.SAFE.zip"):
            # Without a note: an archive that was cut short lacks its end, where the list of its members is.
            if path.is_file() and (path.stat().st_size == size if size is not None else zipfile.is_zipfile(path)):
                return path
        return folder if folder.is_dir() and note.get("whole") else None

    def rate(self, provider: str) -> float | None:
        """Bytes a second that earlier products came with, each by itself."""
        found = self.notes().values()
        rates = [n["bytes"] / n["seconds"] for n in found if n.get("provider") == provider and n.get("seconds")]
        return float(np.median(rates)) if rates else None

    @contextmanager
    def mine(self, name: str) -> Iterator[None]:
        """Nobody else downloads this product here meanwhile; `Busy` where somebody does."""
        path = self.path / WORK / f"{name}.lock"
        with _busy_lock:
            if path in _busy:
                raise Busy(f"{name} is being downloaded by another call of this process.")
            _busy.add(path)
        handle = None
        try:
            handle = _locked(path)
            yield
        finally:
            _busy.discard(path)
            if handle is not None:
                with suppress(OSError):
                    path.unlink()
                os.close(handle)

    def finish(self, name: str, *, extract: bool, made: Path | None = None) -> Path:
        """The product that has grown to its end, or that lies `made` elsewhere as one file, gets its name."""
        part = made or self.part(name)
        target = self.path / f"{name}.zip"
        if not extract:
            flush(part)
            put_in_place(part, target)
            return target
        target = self.path / f"{name}.SAFE"
        product = open_product(part)
        made = self.path / WORK / target.name
        with atomic_folder(made, replace=True) as folder, zipfile.ZipFile(part) as archive:
            # Names that lead outside have been refused; each member is opened by us and written where we say.
            for member in product.sizes:
                file = folder / member
                if not file.resolve().is_relative_to(folder.resolve()):
                    raise Damaged(f"{name} holds {member!r}, which leads out of the archive. No product does.")
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(product.member(member)) as data, file.open("wb") as out:
                    shutil.copyfileobj(data, out, PIECE)
        put_in_place(made, target)
        part.unlink()
        return target

    def adopt(self, name: str, made: Path, *, extract: bool) -> Path:
        """A product that was not fetched as one file gets its name; `made` is it, somewhere in its part."""
        target = self.path / f"{name}.SAFE"
        if made.is_file():
            target = self.finish(name, extract=extract, made=made)
        else:
            flushed = self.path / WORK / target.name
            with atomic_folder(flushed, replace=True) as folder:
                folder.rmdir()
                made.rename(folder)
            put_in_place(flushed, target)
        shutil.rmtree(self.part(name), ignore_errors=True)
        return target

    def remark(self, name: str, path: Path) -> str:
        """What there is to say of a product that has come to a path."""
        said = []
        if path.is_dir():
            with suppress(SourceError):
                product = open_product(path)
                listed = [member for member, (size, *_) in _listed(product).items() if size != 0]
                lacks = [one for one in listed if not product.sizes.get(one) and not READ.fullmatch(one)]
                if lacks := [one for one in lacks if not EXTRAS.match(one)]:
                    more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
                    said.append(f"came without {', '.join(lacks[:3])}{more}, from which nothing is read")
        if kept := sorted(self.path.glob(f"{glob.escape(path.name)}{BEFORE}*")):
            said.append(f"what else lay in {path.name} is kept in {', '.join(other.name for other in kept)}")
        return "; ".join(said)


# -- checks ------------------------------------------------------------------------------------------------------------


def check_whole(path: Path, name: str, checksum: str | None, tick: Callable[[], None] = lambda: None) -> str:
    """Whether a file is the product that was meant, as `Damaged` if not; how that was told, if it is.

    By the provider's checksum where there is one that we can compute, else by the sums that the archive holds of each
    of its members. `tick` is called now and then.
    """
    known = digest_of(checksum)
    if known is not None:
        algorithm, wanted = known
        has = _digest(path, algorithm, tick)
        if has != wanted:
            raise Damaged(f"{name} came with {algorithm} {has}, and the provider has {wanted}.")
    try:
        product = open_product(path)
    except SourceError as error:
        raise Damaged(f"{name} came as something else than a product: {error}") from error
    if not any(SIGNS.search(member) for member in product.sizes):
        raise Damaged(f"{name} came as an archive that holds no product.")
    if known is not None:
        return known[0]
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as data:
                    while data.read(PIECE):
                        tick()
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise Damaged(f"{name} came damaged ({error}).") from error
    except Exception as error:  # zlib.error and lzma.LZMAError derive from nothing better
        if type(error).__module__ not in ("zlib", "_lzma", "lzma"):
            raise
        raise Damaged(f"{name} came damaged ({error}).") from error
    return "crc32"


def check_folder(
    path: Path, name: str, *, sums: bool, announced: int | None, tick: Callable[[], None] = lambda: None
) -> str:
    """Whether a folder that came file by file is the product that was meant, as `Damaged` if not; how that was told.

    By what the product's own manifest lists: that each file that is read is there (not every provider keeps the rest),
    the size of all that is there, and its checksum if `sums`. Where it lists nothing, or with `sums=False`, by the
    bytes that the provider `announced`. What it says is what was compared: "md5", "size", or "nothing" where nobody
    states anything.
    """
    try:
        product = open_product(path)
        listed = _listed(product)
    except SourceError as error:
        raise Damaged(f"{name} came damaged: {error}") from error
    if not any(SIGNS.search(member) for member in product.sizes):
        raise Damaged(f"{name} came without anything that is a product in it.")
    told = set()
    for member, (size, algorithm, digest) in listed.items():
        has = product.sizes.get(member, 0)
        if not has and size != 0 and READ.fullmatch(member):
            raise Incomplete(f"{name} came without {member}, which its manifest lists.")
        if not has:
            continue
        if not sums and announced is not None:
            continue
        if size is not None and has != size:
            raise Damaged(f"{name}: {member} came with {has} bytes, and its manifest lists {size}.")
        if sums and _hasher(algorithm) is not None:
            told.add(algorithm)
            found = _digest(path / member, algorithm, tick)
            if found != digest:
                raise Damaged(f"{name}: {member} came with {algorithm} {found}, and its manifest lists {digest}.")
        elif size is not None:
            told.add("size")
    if announced is not None and not told:
        told.add("size")
        has = sum(product.sizes.values())
        if has < announced:
            raise Damaged(f"{name} came with {has} bytes of the {announced} that were announced.")
    return ", ".join(sorted(told)) or "nothing"


def _listed(product: Product) -> dict[str, tuple[int | None, str, str]]:
    """What a product's manifest says of its files: bytes, algorithm and digest; empty where it says nothing."""
    if not product.matching(r"manifest\.safe"):
        return {}
    listed = {}
    for stream in product.xml("manifest.safe").iter("byteStream"):
        place, said = stream.find("fileLocation"), stream.find("checksum")
        if place is None:
            continue
        size = stream.get("size", "")
        algorithm = (
            "" if said is None else said.get("checksumName", "").lower().replace("sha-", "sha").replace("-", "_")
        )
        digest = "" if said is None else (said.text or "").strip().lower()
        member = without_dots(place.get("href", ""))
        listed[member] = (int(size) if size.isdigit() else None, algorithm, digest)
    return listed


def digest_of(said: str | None) -> tuple[str, str] | None:
    """Algorithm and digest of a checksum as providers write it; None for what cannot be computed here.

    >>> digest_of("B1946AC92492D2347C6235B4D2611184")
    ('md5', 'b1946ac92492d2347c6235b4d2611184')
    >>> digest_of("d50110b1946ac92492d2347c6235b4d2611184")[0], digest_of("1234")
    ('md5', None)
    """
    text = (said or "").strip().lower()
    algorithm, _, rest = text.rpartition(":")
    found: tuple[str, str] | None = None
    if algorithm:
        found = (algorithm, rest)
    elif re.fullmatch(r"[0-9a-f]{32}", text):
        found = ("md5", text)
    else:
        for prefix, name in MULTIHASHES.items():
            if text.startswith(prefix) and len(text) == len(prefix) + 2 * int(prefix[-2:], 16):
                found = (name, text.removeprefix(prefix))
    return found if found is not None and _hasher(found[0]) is not None else None


def _hasher(algorithm: str) -> Any:
    if algorithm == "blake3":
        try:
            import blake3
        except ImportError:
            return None
        return blake3.blake3()
    try:
        return hashlib.new(algorithm, usedforsecurity=False)
    except ValueError:
        return None


def _digest(path: Path, algorithm: str, tick: Callable[[], None]) -> str:
    hasher = _hasher(algorithm)
    with path.open("rb") as file:
        while data := file.read(PIECE):
            hasher.update(data)
            tick()
    return str(hasher.hexdigest())


def _noted(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, Mapping) else {}  # type: ignore[return-value]


def _locked(path: Path) -> int | None:
    """The open lock; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Busy(f"{path.stem} is being downloaded by another process.") from None
        except OSError:  # a file system without locks
            os.close(handle)
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # whoever had it has removed it since it was opened
