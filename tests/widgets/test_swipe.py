"""The handle between two pictures: which panes it parts, and that it outlives the pictures in them."""

from __future__ import annotations

from collections.abc import Iterator

import ipyleaflet
import pytest
from factories import make_patch
from ipywidgets.widgets.widget import _instances
from traitlets import TraitError

import deepsentinel as ds
from deepsentinel.errors import InputError
from deepsentinel.widgets.canvas import Canvas, pane_of


@pytest.fixture
def canvas() -> Iterator[Canvas]:
    made = Canvas()
    patch = make_patch((32, 32))
    made.lay("s2", ds.overlay(patch, "natural"))
    made.lay("s1", ds.overlay(patch, "VV"))
    yield made
    made.close()


def handles(canvas: Canvas) -> list[ipyleaflet.WidgetControl]:
    return [each for each in canvas.map.controls if isinstance(each, ipyleaflet.WidgetControl)]


def test_two_panes_are_parted_and_put_together_again(canvas: Canvas) -> None:
    assert not canvas.swiped("s2", "s1")
    canvas.swipe("s2", "s1")
    (control,) = handles(canvas)
    assert (control.widget.left, control.widget.right) == (pane_of("s2"), pane_of("s1"))
    assert canvas.swiped("s2", "s1")
    assert not canvas.swiped("s1", "s2")
    canvas.swipe("s1", "s2")
    assert canvas.swiped("s1", "s2")
    assert handles(canvas) == [control]
    canvas.unswipe("clouds")
    assert canvas.swiped("s1", "s2")
    canvas.unswipe("s2")
    assert (control.widget.left, control.widget.right) == ("", "")
    assert not canvas.swiped("s1", "s2")


def test_another_picture_in_the_pane_stays_parted_and_none_does_not(canvas: Canvas) -> None:
    canvas.swipe("s2", "s1")
    canvas.lay("s1", ds.overlay(make_patch((64, 64)), "VH"))
    assert canvas.swiped("s2", "s1")
    canvas.lift("s1")
    assert not canvas.swiped("s2", "s1")
    with pytest.raises(InputError, match="no picture 's1'"):
        canvas.swipe("s2", "s1")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_the_handle_stays_on_the_map(canvas: Canvas, share: float) -> None:
    canvas.swipe("s2", "s1")
    (control,) = handles(canvas)
    with pytest.raises(TraitError, match="share"):
        control.widget.share = share


def test_a_host_gets_its_map_back() -> None:
    host = ipyleaflet.Map(layers=())
    before, controls = len(_instances), host.controls
    canvas = Canvas(host)
    canvas.lay("s2", ds.overlay(make_patch((32, 32)), "natural"))
    canvas.lay("s1", ds.overlay(make_patch((32, 32)), "VV"))
    canvas.swipe("s2", "s1")
    canvas.close()
    assert host.controls == controls
    assert host.layers == ()
    assert len(_instances) == before
    host.close()
