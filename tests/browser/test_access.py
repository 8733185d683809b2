"""The map for those who see less, or use no mouse: axe on every tab in both themes, and a walk over it with Tab."""

from __future__ import annotations

from typing import Any

import pytest
from map_cells import VECTORS
from mouse import add_class, burn, click, label, pane, tab

pytest.importorskip("axe_playwright_python")
pytestmark = pytest.mark.browser

TITLES = ("Area", "Pair", "Masks", "Embedding", "Labels", "Train")
GUIDELINES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
# Of the other theme only the colours are others.
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}
RULES = {"JupyterLab Dark": CONTRAST, "JupyterLab Light": GUIDELINES}
# What can be reached with Tab: of radio buttons of one name only the chosen one.
CONTROLS = """() => {
  const root = document.querySelector('.ds-map');
  const wanted = 'a[href], button, input, select, summary, textarea, [tabindex="0"]';
  window.controls = [...root.querySelectorAll(wanted)].filter((each) => {
    if (each.disabled || each.tabIndex < 0 || !each.checkVisibility({ visibilityProperty: true })) return false;
    if (each.type === 'radio') return each.checked;
    // An empty box has nothing to be reached.
    return each.getClientRects().length > 0;
  });
  return window.controls.length;
}"""
LOOK = """() => {
  const style = (each) => {
    const of = getComputedStyle(each);
    return [of.outlineStyle, of.outlineWidth, of.boxShadow, of.borderColor, of.backgroundColor];
  };
  // What shows that a hidden file chooser is at hand is the label around it.
  const shown = (each) => each.closest('.ds-upload label') ?? each;
  const name = (each) => [each.tagName.toLowerCase(), each.type ?? '', each.className?.baseVal ?? each.className,
    (each.getAttribute('aria-label') ?? each.title ?? '') + ' ' + (each.textContent ?? '').trim().slice(0, 30)]
    .join(' ');
  const at = document.activeElement;
  if (!at || !document.querySelector('.ds-map').contains(at)) return null;
  const focused = style(shown(at));
  const outlined = focused[0] !== 'none' && parseFloat(focused[1]) > 0;
  const index = window.controls.indexOf(at);
  return { index, name: name(at), seen: outlined || focused[2] !== 'none' };
}"""
NAME = "(index) => window.controls[index].outerHTML.slice(0, 160)"


def full(desk: Any) -> Any:
    """A page with a map on which everything was done that shows something."""
    page = desk.open(VECTORS.replace("{tab}", "Pair"), height=1100)
    page.get_by_label("and its year", exact=True).uncheck()
    page.locator(pane("s2")).wait_for(state="attached")
    click(page, 0.4, 0.5)
    page.locator(".ds-spectrum circle").first.wait_for()
    tab(page, "Masks")
    burn(page)
    tab(page, "Embedding")
    page.locator(pane("embedding")).wait_for(state="attached")
    click(page, 0.45, 0.5)
    page.locator(".ds-strip button").first.wait_for()
    tab(page, "Labels")
    for number, place in enumerate(((0.45, 0.42), (0.55, 0.6))):
        add_class(page, f"class {number}")
        label(page, f"class {number}", place)
    page.locator(pane("prediction")).wait_for(state="attached")
    return page


def test_axe_finds_nothing_in_any_tab_and_every_control_is_reached_with_keys(desk: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, axe, found = full(desk), Axe(), []
    for theme, rules in RULES.items():
        desk.book.theme(theme)
        for title in TITLES:
            tab(page, title)
            desk.book.until(f"m.open({title!r}) is not None and m.wait(60)")
            for broken in axe.run(page, context=".ds-map", options=rules).response["violations"]:
                nodes = [node["html"][:120] + " " + node["failureSummary"][:160] for node in broken["nodes"][:3]]
                found.append((theme, title, broken["id"], len(broken["nodes"]), nodes))
    assert found == []

    lost = []
    for title in TITLES:
        tab(page, title)
        lost += [f"{title}: {each}" for each in walk(page, title)]
    assert lost == []


def walk(page: Any, title: str) -> list[str]:
    """Tab from the map through all of it and out again; what is not reached, or does not show that it is."""
    count = page.evaluate(CONTROLS)
    page.evaluate("() => window.controls[0].focus()")
    reached, unseen = {0}, []
    for _ in range(2 * count + 20):
        page.keyboard.press("Tab")
        at = page.evaluate(LOOK)
        if at is None:
            break
        reached.add(at["index"])
        unseen += [] if at["seen"] else ["no focus seen on " + at["name"]]
    else:
        pytest.fail(f"Tab does not lead out of the map with {title} open")
    return unseen + ["not reached: " + page.evaluate(NAME, index) for index in range(count) if index not in reached]
