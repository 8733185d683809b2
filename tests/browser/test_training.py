"""A run in a real browser: its curves are drawn while the kernel answers, and it ends when somebody says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.long]

CORPUS = """import warnings
warnings.simplefilter("ignore")
import deepsentinel as ds
src = ds.open_source("demo", size_px=256)
places = ds.cover((-0.0286, 49.2381, 0.0079, 49.262), 64)
plan = ds.plan_corpus(places, src, start="2018-05-01", end="2018-08-31", size_px=64, per_place=2, choose="random")
built = ds.build_corpus(plan, "corpus.zarr", {"osm": src.labels["osm"]}, progress=False)"""
MAP = """m = ds.Map(src)
panel = m.open("Train")
panel.path.value = "corpus.zarr"
panel.weights.value = "random"
m"""
# With nothing else to do it is milliseconds; other tests share the machine.
ANSWER_S = 3.0


def test_curves_grow_while_the_kernel_answers(notebook: Callable[..., Any]) -> None:
    book = notebook(CORPUS, MAP, "m", width=1300, height=1400)
    page = book.page
    book.run(0)
    book.idle(240)
    book.run(1)
    book.idle()
    book.until("m.wait(60)")
    page.get_by_role("button", name="Open", exact=True).click()
    book.until("m.state['corpus'] is not None and panel.labels.value")
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".ds-curves path.ds-loss").wait_for(state="attached")
    page.locator(".ds-glimpses img").nth(2).wait_for()
    answers = []
    page.evaluate(
        """() => {
          window.redrawn = 0;
          const svg = document.querySelector('.ds-curves svg');
          new MutationObserver(() => window.redrawn++).observe(svg, { childList: true });
        }"""
    )
    began = time.monotonic()
    for _ in range(10):
        asked = time.monotonic()
        assert book.ask("1 + 1") == 2
        answers.append(time.monotonic() - asked)
        page.wait_for_timeout(200)
    redrawn, seconds = page.evaluate("() => window.redrawn"), time.monotonic() - began
    print(f"answers: {sorted(answers)[5] * 1000:.0f} ms in the middle, {max(answers) * 1000:.0f} at most; "
          f"{redrawn / seconds:.1f} drawings a second")  # fmt: skip
    assert book.ask("m.jobs.running('model')")
    # Another view of the map shows the same run.
    book.run(2)
    page.locator(".ds-curves path.ds-loss").nth(1).wait_for(state="attached")
    page.locator(".ds-glimpses img").nth(5).wait_for(state="attached")
    page.get_by_role("button", name="Pause").first.click()
    page.locator("text=Waiting. Step").first.wait_for()
    page.get_by_role("button", name="Go on").first.click()
    page.get_by_role("button", name="Stop").first.click()
    page.locator("[role=status] >> text=Stopped at step").first.wait_for()
    assert book.ask("m.model is not None")
    assert max(answers) < ANSWER_S
    assert 0 < redrawn <= 12 * seconds
