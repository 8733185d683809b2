"""What a person does on the map, with the mouse alone: the same in JupyterLab and in Voila, for tests and pictures.

Each function takes a page and returns once what it asked for is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Point = tuple[float, float]
MAP = ".leaflet-container"
# A picture of the map tells when it is painted, in milliseconds, and the page when the mouse was let go.
WATCH = """() => {
  window.painted = {};
  window.clicked = 0;
  window.watching?.disconnect();
  window.watching = new MutationObserver((changes) => changes.forEach(async ({ type, target, addedNodes }) => {
    for (const image of type === 'attributes' ? [target] : addedNodes) {
      if (image.tagName !== 'IMG') continue;
      await image.decode().catch(() => null);
      requestAnimationFrame(() => {
        const pane = image.parentElement?.className.match(/deepsentinel-(\\w+)-pane/)?.[1];
        window.painted[pane] = Date.now();
      });
    }
  }));
  window.watching.observe(document.querySelector('.leaflet-map-pane'),
    { subtree: true, childList: true, attributes: true, attributeFilter: ['src'] });
  if (window.listening) return;
  window.listening = true;
  document.addEventListener('mouseup', () => { window.clicked = Date.now(); window.painted = {} }, true);
}"""


def at(page: Any, across: float, down: float) -> Point:
    """A place on the map, given as shares of its width and height, in pixels of the page."""
    box = page.locator(MAP).first.bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def click(page: Any, across: float, down: float) -> None:
    """Click a place on the map."""
    page.mouse.click(*at(page, across, down))


def pane(key: str) -> str:
    """A selector of the picture in one of our panes."""
    return f".leaflet-deepsentinel-{key}-pane img"


def tab(page: Any, title: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=title, exact=True).first.click()
    page.wait_for_timeout(200)


def draw(page: Any, start: Point, end: Point) -> float:
    """Draw a rectangle from corner to corner; when the button was let go, in seconds."""
    page.locator(".leaflet-draw-draw-rectangle").first.click()
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *((a + b) / 2 for a, b in zip(start, end, strict=True))))
    page.mouse.move(*at(page, *end))
    when = float(page.evaluate("()=>Date.now()")) / 1000
    page.mouse.up()
    return when


def read_pair(page: Any, row: int = 0) -> None:
    """Take a pair of the list in the first tab, and read it."""
    page.locator(".ds-mark").first.wait_for(state="attached")
    page.locator(".ds-pairs option").nth(row).wait_for(state="attached")
    if row:
        page.locator(".ds-pairs select").select_option(index=row)
    page.get_by_role("button", name="Read this pair").click()
    page.locator(".ds-swipe-handle").wait_for()
    page.locator(pane("s2")).wait_for(state="attached")


def swipe(page: Any, by_px: float) -> None:
    """Take the handle of the swipe, and move it."""
    place = page.locator(".ds-swipe-handle").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by_px / 2, y, steps=3)
    page.mouse.move(x + by_px, y, steps=3)
    page.mouse.up()


def spectrum(page: Any, across: float, down: float) -> None:
    """Click a pixel, and have its spectrum."""
    click(page, across, down)
    page.locator(".ds-spectrum circle").first.wait_for()


def burn(page: Any, labels: str | None = None) -> None:
    """Have labels burnt, in the third tab."""
    if labels is not None:
        page.locator(".ds-map").get_by_label("Labels", exact=True).first.select_option(labels)
    page.get_by_role("button", name="Make masks").click()
    page.locator(pane("masks")).wait_for(state="attached")
    page.locator(".ds-legend-row").first.wait_for()


def embed(page: Any, sensors: str | None = None, patience_s: float = 180) -> None:
    """Embed the pair, in the fourth tab."""
    if sensors is not None:
        page.locator(".ds-map").get_by_label("Sensors", exact=True).first.select_option(sensors)
    page.get_by_role("button", name="Embed this pair").first.click()
    page.locator(pane("embedding")).wait_for(state="attached", timeout=patience_s * 1000)


def add_class(page: Any, name: str) -> None:
    """One more class, in the fifth tab."""
    page.get_by_label("Name of a new class").fill(name)
    page.get_by_role("button", name="Add class").click()
    page.get_by_label(f"Label with {name}").wait_for()


def label(page: Any, name: str, *places: Point) -> None:
    """Label places with a class."""
    radio = page.get_by_label(f"Label with {name}")
    radio.click()
    page.wait_for_timeout(250)
    for place in places:
        before = counted(page)
        click(page, *place)
        page.wait_for_function(
            "(before) => [...document.querySelectorAll('.ds-class-count')].map((e) => e.textContent).join() !== before",
            arg=before,
        )


def counted(page: Any) -> str:
    """How many labels each class has, as it is written."""
    return ",".join(page.locator(".ds-class-count").all_text_contents())


def unfold(page: Any, title: str) -> None:
    """Open a fold of the sixth tab, or close it."""
    page.locator(".jupyter-widget-Collapse-header", has_text=title).first.click()


def build_corpus(page: Any, patience_s: float = 120) -> None:
    """Build a corpus of the area, in the sixth tab."""
    unfold(page, "Build one of this area")
    page.get_by_role("button", name="Build", exact=True).click()
    page.get_by_text("samples of").first.wait_for(timeout=patience_s * 1000)


def start_run(page: Any, patience_s: float = 90) -> None:
    """Start a run, and see its first curve."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".ds-curves path.ds-loss").first.wait_for(state="attached", timeout=patience_s * 1000)


def stop_run(page: Any, patience_s: float = 60) -> None:
    """Stop it, and be told where it ended."""
    page.get_by_role("button", name="Stop", exact=True).first.click()
    page.locator("[role=status] >> text=Stopped at step").first.wait_for(timeout=patience_s * 1000)


def painted_at(page: Any, key: str, patience_s: float = 20) -> float:
    """When a picture was painted, in milliseconds since 1970 (`WATCH` was evaluated before)."""
    page.wait_for_function(f"() => window.painted['{key}']", timeout=patience_s * 1000)
    return float(page.evaluate("(key) => window.painted[key]", key))


def painted(page: Any, key: str, act: Callable[[], object], patience_s: float = 20) -> float:
    """Milliseconds from letting go of the mouse until a picture is seen."""
    act()
    return painted_at(page, key, patience_s) - float(page.evaluate("() => window.clicked"))
