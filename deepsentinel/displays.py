"""Inside IPython our objects show themselves as cards; what draws them is imported when the first one is shown."""

from __future__ import annotations

from typing import Any

# Where each kind says that it lives; a name that is not imported costs nothing.
KINDS = (
    ("xarray.core.dataset", "Dataset"),
    ("geopandas.geodataframe", "GeoDataFrame"),
    ("deepsentinel.learn.report", "Report"),
)


def install(shell: Any) -> None:
    """Have a shell of IPython show cards in notebooks; types that somebody else shows in a way of their own stay.

    >>> from IPython.core.interactiveshell import InteractiveShell
    >>> shell = InteractiveShell()
    >>> install(shell)
    >>> ("geopandas.geodataframe", "GeoDataFrame") in shell.display_formatter.formatters["text/html"].deferred_printers
    True
    """
    formatter = getattr(getattr(shell, "display_formatter", None), "formatters", {}).get("text/html")
    if formatter is None:
        return
    for module, name in KINDS:
        if not _taken(formatter, f"{module}.{name}"):
            formatter.for_type_by_name(module, name, shown)


def shown(obj: Any) -> str | None:
    """The card of an object, or else what it says of itself."""
    from deepsentinel.figures.cards import card_or_own

    return card_or_own(obj)


def _taken(formatter: Any, name: str) -> bool:
    try:
        formatter.lookup_by_type(name)
    except KeyError:
        return False
    return True
