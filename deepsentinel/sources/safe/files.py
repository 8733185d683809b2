"""A downloaded product on disk, zipped or not: what is in it, and the bytes of one member. Nothing is ever unpacked.

A product is known by what lies in it and never by paths that it states itself: only names that the folder or archive
really has are opened, archives with names that lead outside are refused, and XML is read without a document type, so
that it can neither pull in other files nor grow in memory.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from deepsentinel.errors import SourceError

# The largest annotation of any Sentinel product has a few MB; an archive may claim anything.
MOST_XML_BYTES = 128 * 1024 * 1024
SIGNS = re.compile(r"(^|/)(MTD_MSIL(1C|2A)\.xml|manifest\.safe|S2\w_(OPER|USER)_MTD_SAFL(1C|2A)_[^/]*\.xml)$")


@dataclass(frozen=True)
class Product:
    """One product: where it lies, and which files are in it."""

    path: Path
    """The .SAFE folder, or the archive."""
    inner: str
    """Where in an archive the product's own folder is, with its slash; empty for folders."""
    sizes: Mapping[str, int]
    """Names seen from the product's own folder -> bytes."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Of an archive that spells some of them otherwise ("./a/b"), those names -> as it spells them."""

    @property
    def is_zip(self) -> bool:
        """Whether it lies in an archive."""
        return self.path.is_file()

    @property
    def name(self) -> str:
        """What the product is called: the name of its folder without .SAFE."""
        own = PurePosixPath(self.inner).name or self.path.name
        return re.sub(r"(\.SAFE|\.zip)+$", "", own, flags=re.I)

    def matching(self, pattern: str) -> list[str]:
        """The names that a regular expression fits as a whole, in order; empty files are not there.

        >>> Product(Path("a.SAFE"), "", {"b/x.xml": 3, "b/y.xml": 0}).matching(r"b/.[.]xml")
        ['b/x.xml']
        """
        return sorted(name for name, size in self.sizes.items() if size and re.fullmatch(pattern, name))

    def member(self, name: str) -> str:
        """What a file is called in the archive.

        >>> Product(Path("a.zip"), "a.SAFE/", {"b": 1, "c": 1}, {"c": "./a.SAFE/c"}).member("b")
        'a.SAFE/b'
        """
        return self.stored.get(name, self.inner + name)

    def gdal(self, name: str) -> str:
        """The path by which GDAL opens a file of the product.

        >>> Product(Path("/d/a.SAFE"), "", {}).gdal("b/x.jp2")
        '/d/a.SAFE/b/x.jp2'
        """
        if self.is_zip:
            # The braces say where the archive ends, whatever it is called. GDAL leaves out "./" by itself.
            return f"/vsizip/{{{self.path.as_posix()}}}/{self.inner}{name}"
        return (self.path / name).as_posix()

    def read(self, name: str) -> bytes:
        """The bytes of a metadata file."""
        if self.sizes.get(name, 0) > MOST_XML_BYTES:
            raise SourceError(f"{self.path.name}: {name} claims {self.sizes[name]} bytes, which no metadata has.")
        try:
            if not self.is_zip:
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member(name)) as file:
                # Not more than it claims: what was counted above is what is held in memory.
                return file.read(MOST_XML_BYTES)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            raise SourceError(
                f"{self.path.name}: {name} cannot be read ({error}). Download the product again."
            ) from error
        except Exception as error:  # zlib.error and lzma.LZMAError derive from nothing better
            raise SourceError(f"{self.path.name}: {name} is damaged ({error}). Download the product again.") from error

    def xml(self, name: str) -> Element:
        """A metadata file as a tree."""
        return parse_xml(self.read(name), f"{self.path.name}: {name}")


def parse_xml(data: bytes, where: str) -> Element:
    """XML as a tree with local names, attributes too. A document type is refused: products have none.

    >>> parse_xml(b"<a:x xmlns:a='u' a:n='1'><y>2</y></a:x>", "x.xml").find("y").text
    '2'
    """
    parser = expat.ParserCreate(namespace_separator="}")
    builder = TreeBuilder()

    def refuse(*_: object) -> None:
        raise SourceError(f"{where} declares a document type, which may pull in other files; no product does. Left.")

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag.rpartition("}")[2], {name.rpartition("}")[2]: value for name, value in attributes.items()})

    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: builder.end(tag.rpartition("}")[2])
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ValueError, AssertionError) as error:
        raise SourceError(f"{where} is not whole XML ({error}). Download the product again.") from error


def text(element: Element | None, *names: str) -> str | None:
    """The text of the first element below that has one of these names and any text.

    >>> text(parse_xml(b"<a><b><c> 5 </c></b></a>", "a.xml"), "d", "c")
    '5'
    """
    for name in names if element is not None else ():
        for found in element.iter(name):  # type: ignore[union-attr]
            if found.text and found.text.strip():
                return found.text.strip()
    return None


def number(element: Element | None, *names: str) -> float | None:
    """The same as a number; None where there is none.

    >>> number(parse_xml(b"<a><b>5.5</b></a>", "a.xml"), "b")
    5.5
    """
    said = text(element, *names)
    try:
        return None if said is None else float(said)
    except ValueError:
        return None


def numbers(said: str | None) -> list[float]:
    """Numbers with blanks between them.

    >>> numbers("1 2.5 nan")[:2]
    [1.0, 2.5]
    """
    return [float(word) for word in (said or "").split()]


# -- images ------------------------------------------------------------------------------------------------------------

# How JPEG 2000 and TIFF files begin. GDAL goes by what is in a file, not by its name, and some of its formats are
# recipes that name other files, here or elsewhere.
BEGINNINGS = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PACKED = re.compile(r"/vsizip/\{(.*)\}/(.*)", re.S)


def is_image(path: str) -> bool:
    """Whether a file (named as `Product.gdal` does) is what images of products are.

    >>> is_image("no/such/image.jp2")
    False
    """
    packed = PACKED.fullmatch(path)
    try:
        if packed:
            with zipfile.ZipFile(packed[1]) as archive:
                stored = next(name for name in archive.namelist() if without_dots(name) == packed[2])
                with archive.open(stored) as file:
                    head = file.read(8)
        else:
            with Path(path).open("rb") as plain:
                head = plain.read(8)
    except Exception:  # whatever is wrong with an archive or a disk, this is no image
        return False
    return head.startswith(BEGINNINGS)


@lru_cache(maxsize=1)
def has_jpeg2000() -> bool:
    """Whether GDAL can read the images of Sentinel-2 products.

    >>> has_jpeg2000()
    True
    """
    import rasterio

    with rasterio.Env() as env:
        return any("JP2" in name or "JPEG2000" in name for name in env.drivers())


# -- products ----------------------------------------------------------------------------------------------------------


def stamp_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Changes when a product does, as far as a look at its top tells.

    >>> stamp_of(Path("no/such/file"))
    ()
    """
    try:
        entries = [path, *(path.iterdir() if path.is_dir() else ())]
        return tuple(sorted((found.st_mtime_ns, found.st_size) for found in map(os.stat, entries)))
    except OSError:
        return ()


def open_product(path: Path) -> Product:
    """The product at a path, or a `SourceError` that says what is wrong with it."""
    return _of_zip(path) if path.is_file() else _of_folder(path)


def _of_folder(path: Path) -> Product:
    sizes = {}
    for folder, _, files in os.walk(path):
        for name in files:
            file = Path(folder, name)
            try:
                sizes[file.relative_to(path).as_posix()] = file.stat().st_size
            except OSError:
                continue  # a link that leads nowhere: the file is not there
    return Product(path, "", sizes)


def leads_out(name: str) -> bool:
    """Whether the name of an archive's member may mean a place outside, also once its first folders are cut off.

    >>> [leads_out(name) for name in ("./a.SAFE/b.xml", "a.SAFE//etc/b", "a/../../b", "a.SAFE/C:/b", "/etc/b")]
    [False, True, True, True, True]
    """
    parts = re.split(r"[/\\]", name)
    # An empty part makes what follows it absolute; a colon is a drive on Windows. A dot leads nowhere: some programs
    # begin every name with one.
    return parts[-1] == "." or any(part in ("", "..") or ":" in part for part in parts)


def without_dots(name: str) -> str:
    """A name in an archive without the parts that mean the folder one is in.

    >>> without_dots("./a.SAFE/./b.xml")
    'a.SAFE/b.xml'
    """
    return "/".join(part for part in name.split("/") if part != ".")


def _of_zip(path: Path) -> Product:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SourceError(
            f"{path.name} is no whole archive ({error}): its download was cut short. Download it again."
        ) from error
    for member in members:
        name = member.filename
        # The upper half of these bits is the kind of file on Unix; 0o12 is a link.
        if leads_out(name) or member.external_attr >> 28 == 0o12:
            raise SourceError(f"{path.name} holds {name!r}, which leads out of the archive. No product does: left out.")
        if member.flag_bits & 1:
            raise SourceError(f"{path.name} is encrypted. Unpack it, and give the folder.")
    # Its own folder: where the metadata lies that is nearest to the top.
    plain = {without_dots(member.filename): member for member in members}
    if len(plain) < len(members):  # which of two is opened would depend on who opens it
        raise SourceError(f"{path.name} holds two files of the same name. No product does: left out.")
    signs = sorted((name for name in plain if SIGNS.search(name)), key=lambda name: (name.count("/"), name))
    tops = {name.split("/", 1)[0] + "/" for name in plain if "/" in name}
    inner = signs[0].rpartition("/")[0] if signs else ""
    inner = f"{inner}/" if inner else tops.pop() if not signs and len(tops) == 1 else ""
    own = {name[len(inner) :]: member for name, member in plain.items() if name.startswith(inner)}
    return Product(
        path,
        inner,
        {name: member.file_size for name, member in own.items()},
        {name: member.filename for name, member in own.items() if member.filename != inner + name},
    )
