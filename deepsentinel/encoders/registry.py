"""Every encoder by name: gathered from the families' own tables, none of which needs torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from deepsentinel.errors import InputError

from .spec import EncoderSpec

# Modules of this package with a tuple SPECS, in the order of the table.
TABLES = ("specs_own", "specs_conv", "specs_torchgeo", "specs_extras", "specs_baselines")


@cache
def registry() -> Mapping[str, EncoderSpec]:
    """All encoders, by name.

    >>> "presto" in registry()
    True
    """
    specs = [spec for table in TABLES for spec in import_module(f"{__package__}.{table}").SPECS]
    found = {spec.name: spec for spec in specs}
    if len(found) != len(specs):
        raise InputError("Two encoders have the same name: " + ", ".join(sorted(spec.name for spec in specs)))
    return MappingProxyType(found)


def find(name: str) -> EncoderSpec:
    """The spec of an encoder; a name that is none is answered with the nearest that are.

    >>> find("presto").width
    128
    """
    specs = registry()
    if name not in specs:
        near = difflib.get_close_matches(str(name), specs, n=3) or list(specs)
        raise InputError(f"There is no encoder {name!r}; did you mean {', '.join(near)}? list_encoders() has them all.")
    return specs[name]
