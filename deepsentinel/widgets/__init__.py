"""What a person touches: `Map` and its panels. They compute nothing: every number comes from a function below."""

from importlib.util import find_spec

from deepsentinel.errors import InputError

_missing = [name for name in ("anywidget", "ipyleaflet", "ipywidgets") if find_spec(name) is None]
if _missing:
    raise InputError(f"The map needs {', '.join(_missing)}: pip install 'deepsentinel[map]'")
