"""Which encoders can be used at once: their packages are installed, and their weights are on this machine."""

from __future__ import annotations

from importlib.util import find_spec

from deepsentinel.files import cache_dir

from .registry import registry
from .spec import EncoderSpec


def ready_encoders() -> list[EncoderSpec]:
    """Encoders of maps that need no network: those shipped with the package, those fetched before, and baselines.

    >>> [spec.name for spec in ready_encoders()][0]
    'fusion-nano'
    """
    return [spec for spec in registry().values() if spec.dense and _here(spec)]


def _here(spec: EncoderSpec) -> bool:
    needs = ("torch", *spec.needs)
    if any(find_spec(name.replace("-", "_").partition("[")[0]) is None for name in needs):
        return False
    if spec.shipped or not spec.parameters:
        return True
    return bool(spec.url) and (cache_dir("weights") / spec.file).is_file()
