"""What is learnt from: a corpus that is opened, or one that is built here of the map's own source and area."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets

from deepsentinel.corpus.classes import label_names
from deepsentinel.corpus.cost import cost_table
from deepsentinel.errors import InputError

from .canvas import Canvas
from .jobs import Jobs
from .panel import Panel
from .state import State

if TYPE_CHECKING:
    import xarray as xr

MOST_SAMPLES = 400
TOLD = ("samples", "without", "to read", "to store")
NO_AREA = "Draw an area first (tab Area), or open a corpus that is there already."
NO_CORPUS = "Open a corpus, or build one of the area, to have something to learn from."
BOX: dict[str, Any] = {"continuous_update": False, "layout": {"width": "230px"}}
NUMBER: dict[str, Any] = {"layout": {"width": "130px"}}


class CorpusPanel(Panel):
    """A panel that begins with a corpus."""

    def __init__(self, state: State, canvas: Canvas, jobs: Jobs) -> None:
        super().__init__(state, canvas, jobs)
        self.path = self.control(ipywidgets.Text, "Corpus", placeholder="corpus.zarr", **BOX)
        self.load = self.button("Open", self.open_corpus, tip="Open the corpus at this path")
        self.names = self.control(ipywidgets.SelectMultiple, "Labels to burn", options=[], rows=3)
        self.names.layout.width = "300px"
        sizes = [(f"{size} px", size) for size in (64, 96, 128)]
        self.size = self.control(ipywidgets.Dropdown, "Window", lambda _: self._other(), options=sizes)
        self.size.layout.width = "150px"
        self.dates = self.control(
            ipywidgets.BoundedIntText, "Dates each", lambda _: self._other(), value=3, min=1, max=24, **NUMBER
        )
        self._wanted: tuple[int, int] | None = None
        # A plan that is to be built may be there just when somebody presses Stop, or Build once more.
        self._beginning = threading.Lock()
        self.make_plan = self.button("Plan", self.plan, tip="Count windows and cost, before anything is read")
        self.make = self.button("Build", self.build, main=True, tip="Read pixels and burn labels, into the path above")
        tip = "End the build; what is there stays, and Build goes on from it"
        self.halt = self.button("Stop building", self.stop_building, tip=tip, disabled=True)
        self.planned = self.note()
        building = ipywidgets.VBox(
            [self.names, self.row(self.size, self.dates), self.row(self.make_plan, self.make, self.halt), self.planned]
        )
        self.building = ipywidgets.Accordion([building], titles=["Build one of this area"], selected_index=None)
        self.facts = self.note(NO_CORPUS)
        self.labels = self.control(ipywidgets.Dropdown, "Learn", options=[])
        self.labels.layout.display = "none"
        self.corpus_rows = (self.row(self.path, self.load), self.building, self.facts)
        self.watch("src", self._opened)
        self.watch("plan", self._planned)
        self.watch("corpus", self._found)

    # -- a corpus ------------------------------------------------------------------------------------------------------

    def open_corpus(self) -> None:
        """Open the corpus at the path."""
        path = self.path.value.strip()
        if not path:
            raise InputError("Give the path of a corpus, such as corpus.zarr.")
        self.run("corpus", "ds.open_corpus({path})", text="Opening the corpus", path=path)

    def plan(self) -> None:
        """Windows side by side over the area, each on several dates, and what building them will cost."""
        self._plan(build=False)

    def _plan(self, *, build: bool) -> None:
        self._alone()
        if "aoi" not in self.state:
            raise InputError(NO_AREA)
        self._wanted = self.size.value, self.dates.value
        self.state.do("places", "ds.cover(aoi, {size})", size=self.size.value)
        line = "ds.plan_corpus(places, src, start=start, end=end, size_px={size}, per_place={dates}, choose={how})"
        values = {"size": self.size.value, "dates": self.dates.value, "how": "random"}
        then = self._build_planned if build else None
        # It takes the place of what was being planned before, to be built or not.
        self.halt.disabled = not build
        self.run("plan", line, text="Planning", then=then, failed=self._gave_up, lost=self._not_planned, **values)

    def _not_planned(self, _: Any) -> None:
        self._hold(False)
        self.say("The area or the choices are others by now, so there is no plan: press Plan or Build again.")

    def _alone(self) -> None:
        if self.jobs.running("built"):
            raise InputError("A corpus is being built; stop it first, or wait for it.")

    def _hold(self, on: bool) -> None:
        """Nothing else is planned or built during a build: two into one folder would end each other."""
        self.make_plan.disabled = self.make.disabled = on
        self.halt.disabled = not on

    def _gave_up(self, error: BaseException) -> None:
        self._hold(False)
        self.complain(error)

    def _other(self) -> None:
        """Other windows, or another number of dates: what was planned, or is being planned, is not what is wanted."""
        # A build that is under way goes on with its own plan.
        if not self.jobs.running("built"):
            self.state.drop("places")

    def _planned(self, plan: Any) -> None:
        told = {} if plan is None else dict(cost_table(plan))
        self.planned.value = ". ".join(f"{name.capitalize()}: {told[name]}" for name in TOLD if name in told)

    def build(self) -> None:
        """Plan, if that was not done, and build."""
        self._alone()
        if not self.path.value.strip():
            self.path.value = "corpus.zarr"
        if not self.names.value:
            raise InputError("Choose the labels that are to be learnt; a source without any learns from a corpus only.")
        if "plan" in self.state and self._wanted == (self.size.value, self.dates.value):
            with self._beginning:
                self._alone()
                self._build(self.state["plan"])
        else:
            self._plan(build=True)

    def stop_building(self) -> None:
        """End the build on its way, or before it has begun: while it is still being planned."""
        with self._beginning:
            if self.jobs.running("built"):
                self.jobs.stop("built")
                return
            if not self.jobs.running("plan"):
                return  # it has ended just now
            self.jobs.drop("plan")
            self._hold(False)
        self.say("Stopped; nothing was built.")

    def _build_planned(self, plan: Any) -> None:
        with self._beginning:
            # It may have been stopped meanwhile, or Build pressed once more.
            if self.jobs.running("plan") and not self.jobs.running("built"):
                self._build(plan)

    def _build(self, plan: Any) -> None:
        if len(plan.samples) > MOST_SAMPLES:
            self._hold(False)
            raise InputError(
                f"{len(plan.samples):,} samples are much for a notebook: draw a smaller area, or take fewer dates. "
                "ds.build_corpus builds as many as there is room for."
            )
        each = ", ".join(f"{name!r}: src.labels[{name!r}]" for name in self.names.value)
        # Braces of a dict are doubled, for single ones stand for values.
        line = "ds.build_corpus(plan, {path}, {{" + each + "}})"
        hidden = {"progress": False, "on_progress": self.guard(self._progressed)}
        path, text = self.path.value.strip(), f"Building {len(plan.samples)} samples"
        self.planned.value = ""
        self._hold(True)
        self.run(
            "built",
            line,
            hidden,
            text=text,
            then=partial(self._built, path),
            failed=self._gave_up,
            lost=partial(self._built, path, lost=True),
            stop=self.halt,
            path=path,
        )

    def _progressed(self, progress: Any) -> None:
        self.planned.value = f"{progress.done} of {progress.total} samples, {progress.rate:.1f} a second"

    def _built(self, path: str, report: Any, *, lost: bool = False) -> None:
        """What was built is there, even where its plan is gone (lost), as another area was drawn meanwhile."""
        self._hold(False)
        if report.left:
            # The line by itself would build all of it.
            self.state.drop("built")
            self.planned.value = f"{report.ok} of {report.ok + report.failed + report.left} samples are there"
            # Another plan does not go into the same folder.
            further = "press" if lost else "press Build to go on, or"
            self.say(f"Stopped; {further} Open to take what is in {report.path}.")
            return
        # By its path alone: another area takes the plan away, and neither what is built nor what learnt from it.
        line = "ds.open_corpus({path})  # built before, where no line above builds it"
        self.run("corpus", line, text="Opening the corpus", path=path)
        of_old = ", of the area and dates as they were when it began" if lost else ""
        self.planned.value = f"{report.ok} samples in {report.seconds:.0f} s, {report.failed} failed{of_old}"

    def _opened(self, src: Any) -> None:
        named = [str(name) for name in getattr(src, "labels", {})]
        self.names.options = named
        self.names.value = tuple(named[:1])

    def _found(self, corpus: xr.Dataset | None) -> None:
        held = [] if corpus is None else label_names(corpus)
        others = [] if corpus is None else [str(name) for name in corpus.data_vars if is_number_mask(str(name), held)]
        offer(self.labels, [*held, *others])
        # An empty list asks for nothing but questions.
        self.labels.layout.display = None if self.labels.options else "none"
        if corpus is None:
            self.facts.value = NO_CORPUS
            return
        side = corpus.sizes.get("x", 0)
        what = ", ".join(held) or "no labels"
        self.facts.value = f"{corpus.sizes['sample']:,} samples of {side} × {side} px, labels: {what}"
        self.building.selected_index = None


def is_number_mask(name: str, labels: list[str]) -> bool:
    """Whether an array of a corpus is something to learn besides the classes of its labels.

    >>> is_number_mask("osm_conflict", ["osm"]), is_number_mask("yield_value", [])
    (False, True)
    """
    if name in ("s1", "s2", "scl", "angle"):
        return False
    return not any(name.startswith(f"{each}_") for each in labels)


def offer(chooser: ipywidgets.Dropdown, options: Sequence[Any]) -> None:
    """Give a dropdown other options: what was chosen stays if it is still there, or else it is the first.

    >>> chooser = ipywidgets.Dropdown(options=[])
    >>> offer(chooser, ["a", "b"])
    >>> chooser.value
    'a'
    """
    before = chooser.value
    chooser.options = list(options)
    values = [each[1] if isinstance(each, tuple) else each for each in options]
    chooser.value = before if before in values else next(iter(values), None)
