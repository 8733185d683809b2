"""The pictures of the map in the README, made with the mouse in a real browser on the demo world.

    python tests/browser/figure_map.py [--out notebooks/images] [--size-px 1024] [--keep FOLDER]

Everything a person does, once: an area is drawn, a pair is read and swiped, a pixel asked, labels burnt, the pair
embedded and searched, classes labelled, a model trained and stopped. Each picture is the map with its tabs and nothing
around it. `--keep` leaves every step there as a PNG, in both themes where it matters, to be looked at. Two minutes.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import mouse
from browser_kit import Notebook, browsing, find_chromium, lab
from PIL import Image

WIDTH_PX = 1200
MOST_BYTES = 150_000
OPEN = """import warnings
warnings.simplefilter("ignore")
import deepsentinel as ds
src = ds.open_source("demo", size_px={size})
m = ds.Map(src)
m"""


class Camera:
    """Takes the map out of a page."""

    def __init__(self, page: Any, out: Path, keep: Path | None) -> None:
        self.page, self.out, self.keep = page, out, keep

    def step(self, name: str) -> bytes:
        """A picture of how things are now."""
        self.page.mouse.move(5, 5)
        self.page.wait_for_timeout(700)
        return self.shot(name)

    def shot(self, name: str) -> bytes:
        """The same, with the pointer where it is."""
        taken = bytes(self.page.locator(".ds-map").first.screenshot())
        if self.keep:
            (self.keep / f"{name}.png").write_bytes(taken)
        return taken

    def publish(self, name: str, taken: bytes) -> None:
        """A picture of the README: as good as it may be large."""
        picture = Image.open(io.BytesIO(taken)).convert("RGB")
        if picture.width > WIDTH_PX:
            picture = picture.resize((WIDTH_PX, round(picture.height * WIDTH_PX / picture.width)), Image.LANCZOS)
        for quality in range(90, 30, -4):
            held = io.BytesIO()
            picture.save(held, "JPEG", quality=quality, optimize=True, progressive=True)
            if held.tell() <= MOST_BYTES:
                break
        (self.out / f"map_{name}.jpg").write_bytes(held.getvalue())
        print(f"map_{name}.jpg: {picture.width} x {picture.height}, {held.tell() / 1000:.0f} kB, quality {quality}")


def control(page: Any, name: str) -> Any:
    """A control of the map by its label: JupyterLab has some of the same name."""
    return page.locator(".ds-map").get_by_label(name, exact=True).first


def tour(book: Notebook, camera: Camera, size_px: int) -> None:
    """All of it."""
    page = book.page
    book.run_all(OPEN.format(size=size_px))
    page.locator(".leaflet-draw-draw-rectangle").wait_for()
    book.until("m.wait(60)")
    camera.step("00_begin")
    mouse.draw(page, (0.26, 0.24), (0.74, 0.76))
    page.locator(".ds-mark").first.wait_for(state="attached")
    book.until("m.wait(60) and m.pairs is not None")
    book.tell("m._area.show_area()")
    camera.publish("area", camera.step("01_drawn"))

    row = book.ask("int((m.pairs.cloud_cover + 5 * (m.pairs.s2_time.dt.month - 6).abs()).to_numpy().argmin())")
    mouse.read_pair(page, row)
    camera.step("02_pair")
    mouse.swipe(page, 40)
    control(page, "Dates").select_option("24")
    mouse.spectrum(page, 0.42, 0.5)
    book.until("m.wait(120) and m.state['point'] is not None", 150)
    camera.step("03_spectrum")
    page.locator(".ds-charts").first.evaluate("(e) => e.scrollIntoView({ block: 'end' })")
    camera.publish("pair", camera.step("03_year"))
    control(page, "Clouds").check()
    control(page, "Show").select_option("Sentinel-1")
    camera.step("04_s1_clouds")
    control(page, "Clouds").uncheck()
    control(page, "Show").select_option(index=0)

    mouse.tab(page, "Masks")
    camera.step("05_masks_begin")
    mouse.burn(page, "parcels_2018")
    book.until("m.wait(60)")
    control(page, "Outlines").check()
    page.wait_for_timeout(500)
    page.mouse.move(*mouse.at(page, 0.45, 0.45))
    page.wait_for_timeout(800)
    camera.publish("masks", camera.shot("06_masks"))
    control(page, "Pixels").select_option(index=2)
    page.locator(mouse.pane("masks_fine")).wait_for(state="attached")
    camera.step("07_masks_finer")
    control(page, "Layer").select_option("Conflict")
    camera.step("08_conflict")
    control(page, "Layer").select_option("Coverage")
    page.wait_for_timeout(2000)
    camera.step("09_coverage")
    control(page, "Outlines").uncheck()

    mouse.tab(page, "Embedding")
    camera.step("10_embedding_begin")
    control(page, "Cells").select_option(index=1)
    mouse.embed(page)
    book.until("m.wait(120)", 150)
    camera.step("11_colours")
    mouse.click(page, 0.42, 0.5)
    page.locator(".ds-strip button").nth(5).wait_for()
    camera.publish("similar", camera.step("12_similar"))
    control(page, "View").select_option("Groups")
    page.locator(".ds-legend-row:visible").nth(3).wait_for()
    camera.step("13_groups")

    mouse.tab(page, "Labels")
    camera.step("14_labels_begin")
    places = {
        "town": ((0.6, 0.5), (0.66, 0.6)),
        "wood": ((0.33, 0.62), (0.38, 0.66)),
        "field / green": ((0.47, 0.54), (0.43, 0.36)),
        "field / bare": ((0.4, 0.27), (0.38, 0.58)),
        "hedges": ((0.53, 0.7), (0.42, 0.68)),
    }
    for name, some in places.items():
        mouse.add_class(page, name)
        mouse.label(page, name, *some)
    page.locator(mouse.pane("prediction")).wait_for(state="attached")
    book.until("m.wait(60)")
    page.get_by_role("button", name="Score").click()
    page.get_by_text("named rightly").wait_for()
    camera.publish("labels", camera.step("15_labels"))
    control(page, "Map").select_option("Both, to swipe")
    camera.step("16_uncertainty")
    page.get_by_role("button", name="Where next?").click()
    page.get_by_text("What is here?").wait_for()
    camera.step("17_where_next")

    mouse.tab(page, "Train")
    book.tell("m._area.show_area()")
    camera.step("18_train_begin")
    mouse.unfold(page, "Build one of this area")
    page.wait_for_timeout(400)
    camera.step("19_build")
    mouse.unfold(page, "Build one of this area")
    mouse.build_corpus(page, 300)
    mouse.start_run(page)
    page.locator(".ds-glimpses img").nth(2).wait_for(timeout=120_000)
    page.wait_for_function("() => /Step (1[0-9][0-9]|[3-9][0-9])/.test(document.body.innerText)", timeout=240_000)
    camera.publish("train", camera.step("20_training"))
    mouse.stop_run(page)
    camera.step("21_stopped")
    page.get_by_role("button", name="Predict the pair").click()
    book.until("m.wait(120)", 150)
    camera.step("22_predicted")
    if camera.keep:
        book.theme("JupyterLab Dark")
        for number, title in enumerate(("Area", "Pair", "Masks", "Embedding", "Labels", "Train")):
            mouse.tab(page, title)
            camera.step(f"3{number}_dark_{title.lower()}")
        book.theme("JupyterLab Light")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("notebooks/images"))
    parser.add_argument("--size-px", type=int, default=1024)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if (chromium := find_chromium()) is None:
        raise SystemExit("There is no Chromium here; sh tests/browser/ensure_chromium.sh installs one.")
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as home:
        folder = Path(root)
        with lab(folder, Path(home)) as base, browsing(chromium) as tabs:
            book = Notebook(tabs, base, folder, "map.ipynb", width=1360, height=1100)
            tour(book, Camera(book.page, given.out, given.keep), given.size_px)
            book.end()
            assert tabs.outside == [], tabs.outside


if __name__ == "__main__":
    main()
