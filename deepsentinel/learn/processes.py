"""Several processes that train one model, as `torchrun` starts them: which one this is, and what is its own."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.distributed

from deepsentinel.errors import InputError


def rank_and_replicas(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Which of how many processes this is, as a `Feed` wants to know it.

    >>> rank_and_replicas({"RANK": "1", "WORLD_SIZE": "4"})
    (1, 4)
    """
    given = os.environ if environment is None else environment
    return int(given.get("RANK", "0")), int(given.get("WORLD_SIZE", "1"))


def alone(what: str, environment: Mapping[str, str] | None = None) -> None:
    """Refuse what trains one model after another, where several processes would each train all of them.

    >>> alone("evaluate", {"WORLD_SIZE": "2"})
    Traceback (most recent call last):
    deepsentinel.errors.InputError: evaluate() is for one process, and torchrun started 2: run it in a script ...
    """
    if (count := rank_and_replicas(environment)[1]) > 1:
        raise InputError(
            f"{what}() is for one process, and torchrun started {count}: run it in a script of its own, without "
            "torchrun."
        )


def own_device(device: torch.device, environment: Mapping[str, str] | None = None) -> torch.device:
    """The GPU that is this process's, of those of its machine; alone, or on a CPU, the device that was meant.

    >>> own_device(torch.device("cuda"), {"LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    device(type='cuda', index=1)
    """
    given = os.environ if environment is None else environment
    if device.type == "cpu" or int(given.get("WORLD_SIZE", "1")) == 1:
        return device
    return torch.device(device.type, int(given.get("LOCAL_RANK", "0")))


def together() -> None:
    """Wait until all processes are here, so that none reads what another is still writing; alone there is no wait."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
