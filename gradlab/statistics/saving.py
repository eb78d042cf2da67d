"""Truths as plain tensors, so that they can be kept in safetensors files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradlab.statistics.moments import Moments
from gradlab.statistics.truth import OracleGradient

_DICTS = ("block_sum", "half_m2", "norm_mean", "norm_m2", "pilot")


def to_tensors(truth: OracleGradient, prefix: str = "") -> dict[str, Tensor]:
    """Everything of a truth but its name and time, under names that start with `prefix`."""
    tensors = {f"{prefix}mean/{leaf}": value for leaf, value in truth.mean.items()}
    moments = truth.moments
    if moments is None:
        return tensors
    for name in _DICTS:
        for leaf, value in getattr(moments, name).items():
            tensors[f"{prefix}{name}/{leaf}"] = value
    tensors[f"{prefix}block_count"] = moments.block_count
    tensors[f"{prefix}counts"] = torch.tensor([moments.nonfinite, moments.group])
    return tensors


def from_tensors(
    tensors: dict[str, Tensor], metadata: dict[str, Any], prefix: str = ""
) -> OracleGradient:
    """What `to_tensors` took apart; `metadata` has the truth's `name` and `seconds`."""
    mine = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }

    def leaves(kind: str) -> dict[str, Tensor]:
        start = f"{kind}/"
        return {n.removeprefix(start): v for n, v in mine.items() if n.startswith(start)}

    moments = None
    if "block_count" in mine:
        nonfinite, group = mine["counts"].tolist()
        parts = {name: leaves(name) for name in _DICTS}
        moments = Moments(
            block_count=mine["block_count"], **parts, nonfinite=nonfinite, group=group
        )
    return OracleGradient(leaves("mean"), metadata["name"], moments, metadata["seconds"])
