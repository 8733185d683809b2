"""Every example in a docstring is run, and the docstrings of the public verbs have one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import deepsentinel

MODULES = [
    m.name for m in pkgutil.walk_packages(deepsentinel.__path__, "deepsentinel.") if not m.name.endswith("__main__")
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.mark.parametrize("name", ["deepsentinel", *MODULES])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("verb", sorted(set(deepsentinel.__all__) - {"__version__"}))
def test_public_verbs_show_an_example(verb: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(deepsentinel, verb)) or ""), f"ds.{verb} has no example"
