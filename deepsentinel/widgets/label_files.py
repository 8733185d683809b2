"""Labels and maps as files: written beside the notebook, read from there, and offered as a link."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from deepsentinel.errors import InputError

from .controls import Upload
from .uploads import FORMATS, WORDS, free_path, kept, whole

if TYPE_CHECKING:
    from .labelling import LabelPanel
    from .state import Made

# A file that a page can hold in a link.
MOST_BYTES = 20_000_000
MIME = {
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".tif": "image/tiff; application=geotiff",
}


class LabelFiles:
    """The lower rows of the tab of labels."""

    def __init__(self, panel: LabelPanel) -> None:
        self.panel = panel
        self._read: Path | None = None
        self._asked = ""
        self._wrote: set[Path] = set()
        self.file = panel.control(ipywidgets.Text, "File", value="labels.gpkg", continuous_update=False)
        self.save = panel.button("Save labels", self.write_labels, tip="GeoPackage (.gpkg) or GeoJSON (.geojson)")
        self.load = panel.button("Add from file", self.read_labels, tip="Labels of any format that read_labels knows")
        self.upload = Upload(description="Upload …", accept=FORMATS, tooltip=f"Add labels from your machine: {WORDS}")
        panel.listen(self.upload, self.uploaded, "file")
        self.folder = panel.control(ipywidgets.Text, "Folder", value="map", continuous_update=False)
        self.keep = panel.button("Save map", self.write_map, tip="GeoTIFFs (COG) and a GeoPackage")
        self.link = ipywidgets.HTML()
        self.link.add_class("ds-note")
        for each in (self.file, self.folder):
            each.layout.width = "210px"
        self.rows = (
            panel.row(self.file, self.save, self.load, self.upload),
            panel.row(self.folder, self.keep),
            self.link,
        )
        panel.watch("imported", self._imported)

    def write_labels(self) -> None:
        """Write the labels, and offer the file as a link; files that this panel has not written stay as they are."""
        asked = self._path()
        path = str(free_path(Path(asked), self._taken))
        # Before it is there: whoever presses twice has one file.
        self._wrote.add(whole(path))
        line = "ds.save_labels(examples, {path})"
        self.panel.run("labels_file", line, text="Writing", then=partial(self._offer, asked), path=path)

    def _taken(self, path: Path) -> bool:
        # The cell reads what labels here came from first, and would find there what it writes last.
        read = bool(self.panel.book.imported) and whole(path) == self._read
        return read or (whole(path) not in self._wrote and path.expanduser().exists())

    def read_labels(self) -> None:
        """Read labels of a file beside those made here."""
        self._take(self._path())

    def _take(self, path: str) -> None:
        # Labels of one file at a time: another that is still being read gives way.
        other = self._asked if self.panel.jobs.running("imported") else ""
        self._asked = path
        box = ", bbox=aoi" if "aoi" in self.panel.state else ""
        line = f"ds.read_labels({{path}}{box})"

        def keep(name: str, made: Made) -> bool:
            # Labels that are here go only for others that have come.
            if not len(made.value):
                raise InputError(f"{path} has no labels on this ground.")
            return self.panel.state.keep(name, made)

        self.panel.run(
            "imported",
            line,
            text="Reading",
            then=lambda table: self._loaded(table, path, other),
            keep=keep,
            lost=lambda _: self._not_added(path),
            path=path,
        )

    def uploaded(self, file: Mapping[str, Any]) -> None:
        """Keep a file of the reader's machine beside the notebook, and read its labels."""
        if file:
            self.upload.file = {}
            self._take(kept(file).as_posix())

    def write_map(self) -> None:
        """Write the map as rasters and polygons; a map that this panel has not written stays as it is."""
        asked = str(self.folder.value).strip()
        if not asked:
            raise InputError("Give a folder for the map, such as 'map'.")
        folder = str(free_path(Path(asked), self._has_map))
        self._wrote.add(whole(folder))
        line = "ds.save_map(label_map, {folder})"
        self.panel.run("map_files", line, text="Writing", then=partial(self._written, asked), folder=folder)

    def _has_map(self, folder: Path) -> bool:
        from deepsentinel.export_map import CLASSES, DOUBT

        # Other things in a folder are in nobody's way.
        names = (CLASSES, DOUBT)
        return whole(folder) not in self._wrote and any(any(whole(folder).glob(f"{name}.*")) for name in names)

    def _path(self) -> str:
        path = str(self.file.value).strip()
        if not path:
            raise InputError("Give the name of a file, such as labels.gpkg.")
        return path

    def _loaded(self, table: Any, path: str, other: str) -> None:
        from deepsentinel.labels.making import legend_of_labels

        if not other and self.panel.book.imported and self._read is not None:
            other = self._read.name
        instead = f", in place of those of {other}" if other and whole(other) != whole(path) else ""
        self._read = whole(path)
        self.panel.book.take_in(legend_of_labels(table), table["ground_truth"])
        self.panel.changed()
        if self.panel.book.imported:
            self.panel.say(f"{len(table):,} label{'' if len(table) == 1 else 's'} added from {path}{instead}.")
        else:  # another area, drawn at this very moment, has taken them away again
            self._not_added(path)

    def _not_added(self, path: str) -> None:
        self.panel.say(f"The area is another one by now; no labels were added from {path}.")

    def _imported(self, table: Any) -> None:
        # What was read within an area goes with the area, even while something else is being read: nobody knows yet
        # whether that will be kept.
        if table is None and self.panel.book.imported:
            self.panel.changed()

    def _offer(self, asked: str, file: Path) -> None:
        self.link.value = links_to([file])
        self.panel.say(f"Labels written to {file.resolve()}.{self._beside(asked, file, self.file)}")

    def _written(self, asked: str, files: list[Path]) -> None:
        self.link.value = links_to(files)
        names, folder = ", ".join(path.name for path in files), files[0].parent
        self.panel.say(f"Written to {folder.resolve()}: {names}.{self._beside(asked, folder, self.folder)}")

    def _beside(self, asked: str, written: Path, box: ipywidgets.Text) -> str:
        """What is said of what was there, if it went beside that; the box has the new name then."""
        if whole(asked) == whole(written):
            return ""
        if box.value.strip() == asked:
            box.value = str(written)
        return f" {Path(asked).name} was there already, and stays as it is."


def links_to(files: Sequence[Path]) -> str:
    """Links, as HTML, that hold the files themselves, so that they come to the reader's machine; none for large ones.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mine.geojson"
    >>> file.write_text("{}")
    2
    >>> links_to([file])
    '<a download="mine.geojson" href="data:application/geo+json;base64,e30=">Download mine.geojson</a>'
    """
    found = []
    for file in files:
        if file.stat().st_size > MOST_BYTES:
            continue
        name, kind = html.escape(file.name), MIME.get(file.suffix.lower(), "application/octet-stream")
        address = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        found.append(f'<a download="{name}" href="{address}">Download {name}</a>')
    return " · ".join(found)
