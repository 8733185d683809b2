"""The fifth tab: a few labels by hand, and after each of them a map of all the ground, its doubts and its score."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import ipywidgets

from deepsentinel.errors import InputError
from deepsentinel.figures.shares import class_shares

from .book import SEPARATOR, Book
from .canvas import Canvas
from .charts import Legend
from .controls import Slider
from .embeddings import counted, make_vectors
from .examples import Classes, warm
from .jobs import Jobs
from .label_files import LabelFiles
from .masks import percent
from .panel import Panel
from .shapes import CHOSEN, RING, label_shapes
from .state import State

CLASSES, DOUBT, BOTH, NOTHING = "Classes", "Uncertainty", "Both, to swipe", "Nothing"
NO_VECTORS = "Embed a pair first (tab Embedding, or the button): labels teach the vectors what is what."
START = "Add a class, then click the map where it is, or draw a field with the tools on the map."
MORE = "Label a second class, and a map of all the ground appears."
EMBED = "ds.embed(patch, {encoder}, dense=True)"
ENCODER = "fusion-nano"
PLACES = 5
# A window of the map around a place to look at.
NEAR_DEGREES = 0.004
OURS = ("prediction", "doubt")
VIEWS = {
    "prediction": ("view_label_map", "ds.overlay(label_map, 'class_map')"),
    "doubt": ("view_doubt", "ds.overlay(label_map, 'uncertainty')"),
}
SHAPES = ("labels", "suggestions", "label")


class LabelPanel(Panel):
    """Label, and see at once what that teaches."""

    title: ClassVar[str] = "Labels"

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self._painting = threading.RLock()
        self._front, self._renewing, self._told = True, False, -1
        self._end_taking: Callable[[], object] | None = None
        self.book = Book()
        self.facts = self.note(START)
        self.embed = self.button("Embed this pair", self.make_vectors, main=True, tip="Make vectors, with fusion-nano")
        self.halt = self.stopper("z", "Stop embedding", tip="Give up the embedding that is being made")
        self.classes = Classes()
        self.classes.on_msg(lambda _, message, __: self.guard(self.wished)(message))
        self.labelling = self.control(
            ipywidgets.Checkbox, "Clicks and drawn shapes are labels", lambda _: self._take(), value=True, indent=False
        )
        self.undo = self.button("Undo", self.step_back, tip="Take the last change of the labels back")
        self.table = ipywidgets.Select(options=[], rows=5, description="Labels", layout={"width": "auto"})
        self.table.style.description_width = "initial"
        self.table.add_class("ds-list")
        self.go = self.button("Show on map", self.show_label, tip="Show the chosen label on the map")
        self.remove = self.button("Remove", self.remove_label, tip="Remove the chosen label")
        self.level = self.control(ipywidgets.Dropdown, "Detail", self._start_over, options=[("all", 0)])
        self.view = self.control(
            ipywidgets.Dropdown, "Map", lambda _: self.paint(), options=[CLASSES, DOUBT, BOTH, NOTHING]
        )
        self.opacity = Slider(description="Opacity", value=70, max=100, step=5, unit="%")
        self.listen(self.opacity, lambda _: self._fade())
        self.legend = Legend(fixed=True)
        self.scale = Legend(fixed=True)
        self.next = self.button("Where next?", self.fly, tip="Go to the ground that the labels say least about")
        self.check = self.button("Score", self.score, tip="Each label asked of what labels elsewhere teach")
        self.said = self.note("")
        self.files = LabelFiles(self)
        self._result = ipywidgets.VBox(
            [
                self.row(self.view, self.level, self.opacity),
                self.legend,
                self.scale,
                self.row(self.next, self.check),
                self.said,
            ]
        )
        self._embedding = self.row(self.embed, self.halt)
        self.body.children = (
            self.facts,
            self._embedding,
            self.classes,
            self.row(self.labelling, self.undo),
            self.table,
            self.row(self.go, self.remove),
            self._result,
            *self.files.rows,
        )
        for each, width in ((self.level, "150px"), (self.view, "180px")):
            each.layout.width = width
        self.at_end(canvas.on_click(self.guard(self.clicked)))
        self.at_end(self._stop_taking)
        self.watch("patch", lambda _: self._facts())
        self.watch("z", self._start_over)
        self.watch("label_map", self._mapped)
        self._refresh()
        self._take()
        # The first map is not to wait for what it is made with.
        jobs.start("labelling", lambda _: warm(), done=lambda _: None, failed=lambda _: None)

    @property
    def front(self) -> bool:
        """Whether its tab is the one in front: only then shapes that are drawn are labels, and its map is seen."""
        return self._front

    @front.setter
    def front(self, on: bool) -> None:
        changed, self._front = on != self._front, on
        self._take()
        if changed and not self.closed:
            self.guard(self._draw)()
            self.guard(self.paint if on else self._lift)()

    def complain(self, error: BaseException | str) -> None:
        """Show what went wrong; a map that no longer holds goes."""
        super().complain(error)
        if self._front and "label_map" not in self.state and not self.jobs.running("label_map"):
            self._lift()

    # -- classes -------------------------------------------------------------------------------------------------------

    def wished(self, message: Mapping[str, Any]) -> None:
        """Somebody wants another class, name or colour."""
        before = self.book.labels
        self.book.grant(message)
        # A class without labels changes nothing on the map.
        self.changed() if before or self.book.imported else self._refresh()

    # -- labels --------------------------------------------------------------------------------------------------------

    def clicked(self, lon: float, lat: float) -> None:
        """Somebody clicked the map: that place is of the class at hand."""
        if self.front and self.labelling.value:
            self.label((round(lon, 6), round(lat, 6)))

    def drawn(self, feature: Mapping[str, Any]) -> None:
        """Somebody drew a shape: all of it is of the class at hand."""
        geometry = feature["geometry"]
        rings = [[[round(lon, 6), round(lat, 6)] for lon, lat, *_ in ring] for ring in geometry["coordinates"]]
        self.label({"type": "Polygon", "coordinates": rings})

    def label(self, place: Any) -> None:
        """One more label of the class at hand: a place (lon, lat), or a polygon in GeoJSON."""
        self.book.label(place)
        self.changed()

    def step_back(self) -> None:
        """Take the last change back."""
        self.book.undo()
        self.changed()

    def remove_label(self) -> None:
        """Remove the chosen label."""
        self.book.unlabel(self._chosen())
        self.changed()

    def show_label(self) -> None:
        """Show the chosen label on the map."""
        examples, row = self.state["examples"], self._chosen()
        # Labels of a file stand first.
        place = examples.iloc[[len(examples) - len(self.book.labels) + row]]
        self.canvas.outline("label", place[["geometry"]], CHOSEN)
        self._see(*place.geometry.iloc[0].representative_point().coords[0])

    def _chosen(self) -> int:
        if self.table.index is None:
            raise InputError("No label is chosen: take one in the list.")
        return int(self.table.index)

    def changed(self) -> None:
        """The labels are others now: draw them, and what they teach."""
        if self.book.imported and "imported" not in self.state:
            self.book.give_back()
        more = ", add_to=imported" if self.book.imported else ""
        colors, labels = dict(self.book.colors), list(self.book.labels)
        self._renewing = self._can_predict()
        try:
            if labels or more:
                line = f"ds.make_labels({{labels}}, colors={{colors}}{more})"
                self.state.do("examples", line, labels=labels, colors=colors)
            else:
                self.state.drop("examples")
        finally:
            self._renewing = False
        self._unsay()
        self.canvas.erase("label")
        self._refresh()
        self._draw()
        self.predict()

    def _draw(self) -> None:
        examples = self.state["examples"]
        if examples is None or not len(examples) or not self._front:
            for key in SHAPES:
                self.canvas.erase(key)
            return
        self.canvas.outline("labels", label_shapes(examples), {})

    # -- what they teach -----------------------------------------------------------------------------------------------

    def make_vectors(self) -> None:
        """Embed the pair as it is usually done."""
        if "patch" not in self.state:
            raise InputError("Read a pair first (tab Area): an embedding is made of its pixels.")
        make_vectors(self, self.halt, EMBED, {"encoder": ENCODER})

    def predict(self) -> None:
        """Map all ground by what the labels teach."""
        if not self._can_predict():
            self.state.drop("label_map")
            # It may have gone before, while another was on its way.
            self._mapped(None)
            self._facts()
            return
        self._facts()
        self.run("label_map", f"ds.classify(z, examples{self._detail()})", text="Mapping", **self._detail_value())

    def _can_predict(self) -> bool:
        return "z" in self.state and len(self.book.used()) > 1

    def _detail(self) -> str:
        return ", level={level}" if self.level.value else ""

    def _detail_value(self) -> dict[str, Any]:
        return {"level": self.level.value} if self.level.value else {}

    def _unsay(self) -> None:
        """A score or a place to look at does not outlive what it was made of."""
        self.said.value, self._told = "", -1
        self.state.drop("suggestions")
        self.canvas.erase("suggestions")

    def _start_over(self, _: Any) -> None:
        self._unsay()
        self._facts()
        if "z" in self.state and "examples" in self.state:
            self.predict()

    def _mapped(self, label_map: Any) -> None:
        if label_map is None and self._renewing:
            return  # the next one is on its way, and the map does not flicker
        self._result.layout.display = "none" if label_map is None else None
        if label_map is None:
            if self._front:
                self._lift()
            self.legend.rows = []
            return
        self.paint()
        with self.legend.hold_sync():
            self.legend.title = "The map, share of the cells"
            self.legend.rows = [
                {"code": each.code, "name": each.name, "color": each.color, "share": percent(each.share)}
                for each in class_shares(label_map)
            ]

    def paint(self) -> None:
        """Lay classes or doubts on the map; while another tab is in front, the place is not ours."""
        with self._painting:
            if not self._front or "label_map" not in self.state:
                return
            self.scale.clear()
            kind = self.view.value
            wanted = {CLASSES: OURS[:1], DOUBT: OURS[1:], BOTH: OURS, NOTHING: ()}[kind]
            for key in OURS:
                if key in wanted:
                    drawn = self.state.do(*VIEWS[key])
                    self.canvas.lay(key, drawn, opacity=self.opacity.value / 100)
                    if key == "doubt":
                        self.scale.tell(drawn.panel)
                else:
                    self.canvas.lift(key)
            if kind == BOTH and not self.canvas.swiped(*OURS):
                self.canvas.swipe(*OURS)

    def _fade(self) -> None:
        for key in OURS if self._front else ():
            self.canvas.fade(key, self.opacity.value / 100)

    def _lift(self) -> None:
        with self._painting:
            for key in OURS:
                self.canvas.lift(key)

    # -- how good it is, and what would help ---------------------------------------------------------------------------

    def fly(self) -> None:
        """Go to where a label would help most; again, and it is the next best place."""
        if "examples" not in self.state or "z" not in self.state:
            raise InputError("Label one place first: then it is known what is missing.")
        found = self.state["suggestions"]
        if found is not None and self._told + 1 < len(found):
            self._land(found)
            return
        self._told = -1
        line = f"ds.suggest(z, examples, n={{n}}{self._detail()})"
        self.run("suggestions", line, text="Looking", then=self._land, n=PLACES, **self._detail_value())

    def _land(self, found: Any) -> None:
        self._told += 1
        place = found.iloc[self._told]
        self.canvas.outline("suggestions", found.iloc[[self._told]][["geometry"]], RING)
        guess = f", now taken for {place['class_name']}" if place["class_name"] else ""
        self.said.value = f"Place {self._told + 1} of {len(found)}: doubt {place['doubt']:.2f}{guess}. What is here?"
        self._see(float(place["lon"]), float(place["lat"]))

    def _see(self, lon: float, lat: float) -> None:
        half = NEAR_DEGREES
        # A little above the middle: there the handle of a swipe would lie on it.
        self.canvas.fit(((lat - 1.3 * half, lon - half), (lat + 0.7 * half, lon + half)))

    def score(self) -> None:
        """Ask each label of what labels elsewhere teach."""
        line = f"ds.check_examples(z, examples{self._detail()})"
        self.run("score", line, text="Checking", then=self._scored, **self._detail_value())

    def _scored(self, report: Any) -> None:
        table = report.table.set_index("embedding")
        asked, usual = len(report.predictions), table.loc["majority", "accuracy"]
        self.said.value = (
            f"{percent(table.loc['examples', 'accuracy'])} of {counted(asked, 'label')} named rightly by labels on"
            f" other ground; the most frequent class alone: {percent(usual)}. {'. '.join(report.notes)}."
        )

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Lists and buttons as the labels are now."""
        counts = self.book.counts()
        with self.classes.hold_sync():
            self.classes.classes = [
                {"name": name, "color": color, "text": counted(counts.get(name, 0), "label")}
                for name, color in self.book.colors.items()
            ]
            self.classes.active = self.book.active
        self.table.options = [(text, row) for row, text in enumerate(self.book.lines())]
        if self.table.options:
            self.table.index = len(self.table.options) - 1
        depth = max((name.count(SEPARATOR) + 1 for name in self.book.used()), default=1)
        options = [("all", 0), *((f"level {level}", level) for level in range(1, depth))]
        if list(self.level.options) != options:
            before = self.level.value
            with self.level.hold_trait_notifications():
                self.level.options = options
                self.level.value = before if before in [value for _, value in options] else 0
        nothing = not self.book.labels
        for button, off in (
            (self.undo, not self.book.changes),
            (self.go, nothing),
            (self.remove, nothing),
            (self.files.save, nothing and not self.book.imported),
        ):
            button.disabled = off
        self._facts()

    def _facts(self) -> None:
        has = "z" in self.state
        self._embedding.layout.display = "none" if has else None
        self.embed.disabled = "patch" not in self.state
        used = len(self.book.used())
        self.facts.value = NO_VECTORS if not has else START if not used else MORE if used < 2 else ""
        self.facts.layout.display = None if self.facts.value else "none"
        self.files.keep.disabled = not self._can_predict()
        if "label_map" not in self.state and not self._can_predict():
            self._result.layout.display = "none"

    def _take(self) -> None:
        wanted = self._front and self.labelling.value
        if wanted and self._end_taking is None:
            self._end_taking = self.canvas.drawing.take(self.guard(self.drawn))
        elif not wanted:
            self._stop_taking()

    def _stop_taking(self) -> None:
        if self._end_taking is not None:
            self._end_taking()
            self._end_taking = None

    def close(self) -> None:
        """Take maps and labels off, too."""
        if not self.closed:
            self._lift()
            for key in SHAPES:
                self.canvas.erase(key)
        super().close()
