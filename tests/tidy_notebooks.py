"""What `make notebooks` does last: no view of a widget whose kernel is gone is saved, and no answer to an exercise.

python tests/tidy_notebooks.py notebooks/0*.ipynb           # tidy them
python tests/tidy_notebooks.py --check notebooks/0*.ipynb   # say what is not as a run would leave it
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_BYTES = 2_500_000
"""Of a notebook as it is saved; pictures make it large."""
MOST_PICTURE_BYTES = 400_000
# Paths of whoever ran it last, and addresses in memory, which are others each time.
MACHINE = re.compile(
    r"(/home/\w+|/root/|/tmp/|/var/folders/|/Users/\w+|C:\\Users|site-packages|<\w+ object at 0x|ipykernel_\d)"
)


def tidied(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook without what must not be saved, and with a note of what it was that ran."""
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"]["deepsentinel"] = {"ran": code_of(notebook)}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] != "code":
            continue
        if is_solution(cell):
            cell["outputs"], cell["execution_count"] = [], None
        cell["outputs"] = [each for each in cell["outputs"] if WIDGET not in each.get("data", {})]
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                # Warnings name the temporary file that a cell was run from.
                text = re.sub(r"\S*ipykernel_\d+/\d+\.py:\d+: ", "", "".join(output["text"]))
                output["text"] = text.splitlines(keepends=True)
    number = 0
    for cell in notebook["cells"]:
        # Counted as a reader sees them: cells whose output is not kept are not among them.
        if cell["cell_type"] == "code" and not is_solution(cell) and cell["execution_count"] is not None:
            number += 1
            cell["execution_count"] = number
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = number
    return notebook


def code_of(notebook: dict[str, Any]) -> str:
    """A short word that changes with any of the code."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def is_solution(cell: dict[str, Any]) -> bool:
    """Whether this is the folded answer to an exercise."""
    return "solution" in cell["metadata"].get("tags", [])


def shows_something(source: str) -> bool:
    """Whether a cell, once it ran, has something below it: an expression at its end, or something printed.

    >>> shows_something("a = 1"), shows_something("a = 1\\na"), shows_something("a;"), shows_something("print(1)")
    (False, True, False, True)
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic
        return False
    if not tree.body:
        return False
    last = tree.body[-1]
    quiet = source.rstrip().endswith(";")
    return (isinstance(last, ast.Expr) and not quiet) or any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for statement in tree.body
        if not isinstance(statement, ast.FunctionDef | ast.Try | ast.If)
        for node in ast.walk(statement)
    )


def faults_of(notebook: dict[str, Any], *, bytes_saved: int = 0) -> Iterator[str]:
    """What is not as `make notebooks` leaves it, in words."""
    if bytes_saved > MOST_BYTES:
        yield f"{bytes_saved:,} bytes are much to keep; make its pictures smaller"
    if "widgets" in notebook["metadata"]:
        yield "the state of widgets was saved"
    if notebook["metadata"].get("deepsentinel", {}).get("ran") != code_of(notebook):
        yield "its code has changed since it was run"
    expected = 0
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        source, where = "".join(cell["source"]), f"cell {number}"
        if "execution" in cell["metadata"]:
            yield f"{where}: the times of its run were saved"
        if is_solution(cell):
            if cell["outputs"] or cell["execution_count"] is not None:
                yield f"{where}: a solution shows its answer"
            if "assert" not in source:
                yield f"{where}: a solution asserts nothing"
            if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
                yield f"{where}: a solution is not folded away"
            continue
        expected += 1
        if cell["execution_count"] != expected:
            yield f"{where}: ran as number {cell['execution_count']}, and not as {expected}"
        kinds = [output["output_type"] for output in cell["outputs"]]
        if "error" in kinds:
            yield f"{where}: ended in an error"
        if any(WIDGET in output.get("data", {}) for output in cell["outputs"]):
            yield f"{where}: the view of a widget was saved"
        elif not kinds and shows_something(source) and not shows_a_widget(source):
            yield f"{where}: shows something, and nothing was saved"
        for output in cell["outputs"]:
            if found := MACHINE.search(text_of(output)):
                yield f"{where}: its output has {found[0]!r} in it"
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/") and len(data) * 3 // 4 > MOST_PICTURE_BYTES:
                    yield f"{where}: a picture of {len(data) * 3 // 4:,} bytes"


def shows_a_widget(source: str) -> bool:
    """Whether what a cell shows is a map, whose view is not kept."""
    return "ds.Map(" in source


def text_of(output: dict[str, Any]) -> str:
    """All that an output says in words."""
    parts = [output.get("text", ""), *(data for kind, data in output.get("data", {}).items() if kind[:5] == "text/")]
    return "\n".join("".join(part) for part in parts)


def main(words: list[str]) -> int:
    """Tidy the notebooks, or say what is wrong with them."""
    check = "--check" in words
    wrong = 0
    for path in (Path(word) for word in words if word != "--check"):
        text = path.read_text()
        notebook = json.loads(text)
        if not check:
            path.write_text(json.dumps(tidied(notebook), indent=1, ensure_ascii=False) + "\n")
            continue
        for fault in faults_of(notebook, bytes_saved=len(text)):
            print(f"{path}: {fault}")
            wrong += 1
    if wrong:
        print("`make notebooks` runs them and saves what they show.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
