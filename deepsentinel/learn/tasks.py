"""What can be learnt, in words that need no torch: reports and figures are read where nothing is trained."""

from __future__ import annotations

OBJECT_TASKS = ("detection", "instances")
TASKS = ("segmentation", "classification", "fractions", "regression", *OBJECT_TASKS)

IGNORE = 255
"""Stands for pixels that teach nothing."""
