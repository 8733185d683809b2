"""What `make notebooks` does last: no view of a widget whose kernel is gone is saved, and no answer to an exercise.

python tests/tidy_notebooks.py notebooks/*.ipynb
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"


def tidied(notebook: dict) -> dict:
    """The same notebook without what must not be saved."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] != "code":
            continue
        if "solution" in cell["metadata"].get("tags", []):
            cell["outputs"], cell["execution_count"] = [], None
        cell["outputs"] = [each for each in cell["outputs"] if WIDGET not in each.get("data", {})]
    return notebook


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        told = json.dumps(tidied(json.loads(path.read_text())), indent=1, ensure_ascii=False)
        path.write_text(told + "\n")
