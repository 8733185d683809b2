"""Losses for TensorBoard, where somebody asks for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepsentinel.errors import InputError


class Logs:
    """A folder that `tensorboard --logdir` shows; what an earlier try wrote of later steps is not shown any more."""

    def __init__(self, folder: str | os.PathLike[str], done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"logs={os.fspath(folder)!r} needs TensorBoard: pip install tensorboard") from error
        try:
            self._writer: Any = SummaryWriter(str(Path(folder).expanduser()), purge_step=done + 1)
        except OSError as error:
            raise InputError(f"logs={os.fspath(folder)!r}: nothing can be written there ({error}).") from error

    def add(self, row: Mapping[str, float]) -> None:
        """The numbers of one look, each under its name, at its step."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        self._writer.close()
