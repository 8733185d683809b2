"""The folder of a run: where it stands, and what its losses were, so that it can go on after whatever ended it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from deepsentinel.errors import InputError, SourceError, TrainingError
from deepsentinel.files import atomic_path

CHECKPOINT, HISTORY = "checkpoint.pt", "history.csv"
FORMAT = 1


@dataclass(frozen=True)
class Folder:
    """A folder with the checkpoint and the history of one run."""

    path: Path
    """Where it is; it is made when something is written."""
    story: str
    """What makes a run this one; the checkpoint of another is refused."""

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, on a device; None where there is none yet."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            return None
        try:
            held: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds, some of them with a page of advice
            reason = str(error).partition(". ")[0].splitlines()[0][:120]
            raise SourceError(
                f"{path} is no checkpoint, or a broken one ({reason}): move it away to begin anew."
            ) from error
        if held.get("format") != FORMAT or held["story"] != self.story:
            raise InputError(
                f"{self.path} holds another run. What it was: {held.get('story')}. What is asked for: {self.story}. "
                "Name another folder in out=, or pass resume=False to write over it."
            )
        return held

    def write(self, held: dict[str, Any], history: pd.DataFrame) -> None:
        """Write the checkpoint and the history, each whole or not at all."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path / CHECKPOINT) as temporary:
                torch.save({"format": FORMAT, "story": self.story, **held}, temporary)
            with atomic_path(self.path / HISTORY) as temporary:
                history.to_csv(temporary)
        except (OSError, RuntimeError) as error:
            kept = self.kept() if (self.path / CHECKPOINT).is_file() else ""
            raise TrainingError(
                f"The checkpoint of step {held['done']} could not be written into {self.path}: {error}. {kept}Make "
                "room, or name another folder in out=."
            ) from error

    def kept(self) -> str:
        """What is said of the folder when a run ends before its time."""
        return f"The last checkpoint in {self.path} is whole: the run goes on from there. "
