"""How long a person waits for the map: in a real Chromium, against a real JupyterLab under a prefix.

    python tests/bench/bench_map.py [--times 5]

Prints the middle and the worst of each, and what was asked of it. Nothing but this should run on the machine: a
browser, a server and a kernel share its cores already. About five minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))

import map_cells
import mouse
from browser_kit import STATUS, Notebook, browsing, find_chromium, lab

IMPORT = "import deepsentinel as ds"
FIRST = f"{IMPORT}\nm = ds.Map()\nm"
BEGIN = 'import time\nimport deepsentinel as ds\nsrc = ds.open_source("demo", size_px=256)'
PAINTED = """() => {
  const picture = document.querySelector('.leaflet-container img.leaflet-image-layer');
  const tools = document.querySelector('.leaflet-draw-draw-rectangle');
  return picture && picture.complete && picture.naturalWidth > 0 && tools ? Date.now() : 0;
}"""
RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
# On the whole tile, in shares of the map's width and height.
PLACES = ((0.42, 0.45), (0.57, 0.6), (0.45, 0.62), (0.6, 0.4), (0.5, 0.5), (0.38, 0.55), (0.55, 0.33), (0.47, 0.38))


def told(what: str, waits: Sequence[float], asked: float) -> bool:
    """Print a figure; whether it holds in the middle."""
    middle, worst = statistics.median(waits), max(waits)
    unit, scale = ("s", 1000.0) if asked >= 3000 else ("ms", 1.0)
    digits = 2 if unit == "s" else 0
    print(
        f"{what:62} {middle / scale:7.{digits}f} {unit:2}   worst {worst / scale:7.{digits}f} {unit:2}"
        f"   asked {asked / scale:g} {unit}   {'holds' if middle <= asked else 'DOES NOT HOLD'}   ({len(waits)} times)",
        flush=True,
    )
    return middle <= asked


def first_maps(book: Notebook, times: int, *, imported: bool) -> list[float]:
    """From running the cell, in a kernel that has just started, to a picture and drawing tools on the screen."""
    waits = []
    for _ in range(times):
        book.write("")
        book.page.evaluate(RESTART)
        book.page.wait_for_function(f"({STATUS})()==='idle'")
        if imported:
            book.tell(IMPORT)
        book.write(FIRST)
        book.page.wait_for_timeout(1000)
        began = book.run(0) * 1000
        waits.append(float(book.page.wait_for_function(PAINTED, polling=20).json_value()) - began)
        book.until("m.wait(60)", 90)
    return waits


def drawn(book: Notebook, times: int) -> list[float]:
    """From letting go of the mouse to the area in Python."""
    book.run_all("drawn = []\nm = ds.Map(src)\n_ = m.state.watch('aoi', lambda aoi: drawn.append(time.time()))\nm")
    book.page.locator(".leaflet-draw-draw-rectangle").wait_for()
    book.until("m.wait(60)")
    waits = []
    for number in range(times):
        let_go = mouse.draw(book.page, (0.3 + 0.02 * number, 0.3), (0.6 + 0.02 * number, 0.6))
        book.until(f"len(drawn) == {number + 1}", 20)
        waits.append(1000 * (book.ask("drawn[-1]") - let_go))
        book.until("m.wait(60)")
        book.page.wait_for_timeout(300)
    return waits


def pairs_painted(book: Notebook, times: int) -> list[float]:
    """From a pair of 1024 x 1024 px in Python to both its pictures on the screen."""
    book.run_all(map_cells.PAIR.replace("{tab}", "Pair"), map_cells.LARGE_PAIRS)
    page, waits = book.page, []
    page.evaluate(mouse.WATCH)
    for turn in range(times):
        page.evaluate("() => { window.painted = {} }")
        began = book.ask(f"[time.time(), m.state.put('patch', large[{turn % 2}], 'large')][0]")
        waits.append(max(mouse.painted_at(page, "s1"), mouse.painted_at(page, "s2")) - 1000 * began)
        page.wait_for_timeout(500)
    return waits


def clicked(book: Notebook, times: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds from a click to what is similar over the whole tile, first and later, and from a label to a map."""
    first: list[float] = []
    later: list[float] = []
    page = book.page
    for number in range(times):
        # Each time a map of its own, so that the first click is a first one but for what Python has loaded by then.
        book.run_all(map_cells.VECTORS.replace("{tab}", "Embedding"), map_cells.WHOLE_TILE, timeout_s=240)
        book.until("m.wait(60)")
        page.locator(mouse.pane("embedding")).wait_for(state="attached")
        page.wait_for_timeout(1000)
        page.evaluate(mouse.WATCH)
        places = PLACES if number == 0 else PLACES[:2]
        waits = []
        for place in places:
            waits.append(mouse.painted(page, "likeness", lambda place=place: mouse.click(page, *place)))
            page.wait_for_timeout(700)
        first.append(waits[0])
        later += waits[1:]
    mouse.tab(page, "Labels")
    mapped = []
    for number, place in enumerate(PLACES):
        if number < 2:
            mouse.add_class(page, f"class {number}")
            page.wait_for_timeout(500)
        page.get_by_label(f"Label with class {number % 2}").click()
        page.wait_for_timeout(250)
        if number:
            mapped.append(mouse.painted(page, "prediction", lambda place=place: mouse.click(page, *place)))
        else:
            mouse.label(page, "class 0", place)
        page.wait_for_timeout(700)
    return first, later, mapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    if (chromium := find_chromium()) is None:
        raise SystemExit("There is no Chromium here; sh tests/browser/ensure_chromium.sh installs one.")
    with (
        tempfile.TemporaryDirectory() as root,
        tempfile.TemporaryDirectory() as home,
        lab(Path(root), Path(home)) as base,
        browsing(chromium) as tabs,
    ):
        book = Notebook(tabs, base, Path(root), "bench.ipynb", width=1400, height=1100)
        book.page.set_default_timeout(90_000)
        told("first map, in a kernel that has imported nothing yet", first_maps(book, times, imported=False), 3000)
        told("first map, where deepsentinel is imported", first_maps(book, times, imported=True), 3000)
        book.tell(BEGIN)
        told("a rectangle drawn with the mouse is in Python", drawn(book, times), 150)
        told("a pair of 1024 px is painted", pairs_painted(book, times + 1), 500)
        first, later, mapped = clicked(book, times)
        print("   the very first click, which loads what searching takes:", f"{first[0]:.0f} ms")
        told("click to similar over a whole tile, first click of a map", first, 300)
        told("click to similar over a whole tile, later clicks", later, 300)
        told("a label to another map of a whole tile", mapped, 1000)
        book.end()
        assert tabs.outside == [], tabs.outside


if __name__ == "__main__":
    main()
