"""Truths as plain tensors, so that they can be kept in safetensors files."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from gradlab.statistics.moments import Moments
from gradlab.statistics.streams import Stream
from gradlab.statistics.truth import OracleGradient

_DICTS = ("block_sum", "half_m2", "norm_mean", "norm_m2", "norm_m3", "norm_m4", "pilot")

_DEVIATION, _SCALE = "block_deviation", "block_scale"  # of compact files, in place of block_sum


def to_tensors(truth: OracleGradient, prefix: str = "", compact: bool = False) -> dict[str, Tensor]:
    """Everything of a truth but its name and time, under names that start with `prefix`.

    With `compact` the mean stays float64, and what its standard error comes from is rounded: block
    means about the mean to float16 (in units of the largest of their leaf), the rest to float32.
    That is a quarter of the size, and moves standard errors by less than a part in a thousand.
    """
    tensors = {f"{prefix}mean/{leaf}": value for leaf, value in truth.mean.items()}
    moments = truth.moments
    if moments is None:
        return tensors
    for name in _DICTS:
        for leaf, value in getattr(moments, name).items():
            tensors[f"{prefix}{name}/{leaf}"] = value.float() if compact else value
    for leaf in moments.block_sum if compact else ():
        deviation = moments.block_mean[leaf] - truth.mean[leaf]
        scale = deviation.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        del tensors[f"{prefix}block_sum/{leaf}"]
        tensors[f"{prefix}{_SCALE}/{leaf}"] = scale
        tensors[f"{prefix}{_DEVIATION}/{leaf}"] = (deviation / scale).half()
    tensors[f"{prefix}block_count"] = moments.block_count
    tensors[f"{prefix}counts"] = torch.tensor([moments.nonfinite, moments.group])
    if moments.streams:
        text = json.dumps(moments.streams).encode()
        tensors[f"{prefix}streams"] = torch.tensor(list(text), dtype=torch.uint8)
    return tensors


def from_tensors(
    tensors: dict[str, Tensor], metadata: dict[str, Any], prefix: str = ""
) -> OracleGradient:
    """What `to_tensors` took apart; `metadata` has the truth's `name` and `seconds`.

    Files without the higher powers of the norms or without streams are read: the first count as
    unknown (the longest intervals of a variance), the second as no stream.
    """
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
        parts = {name: _double(leaves(name)) for name in _DICTS}
        for leaf, deviation in leaves(_DEVIATION).items():
            count = mine["block_count"].double().reshape(-1, *[1] * (deviation.ndim - 1))
            about = count * deviation.double() * leaves(_SCALE)[leaf]
            about -= count * (about.sum(0) / count.sum())  # rounding left a mean of its own
            parts["block_sum"][leaf] = about + count * leaves("mean")[leaf]
        for name in ("norm_m3", "norm_m4"):
            unknown = {part: torch.full_like(x, torch.nan) for part, x in parts["norm_m2"].items()}
            parts[name] = parts[name] or unknown
        text = bytes(mine["streams"].tolist()) if "streams" in mine else b"[]"
        moments = Moments(
            block_count=mine["block_count"],
            **parts,
            nonfinite=nonfinite,
            group=group,
            streams=tuple(Stream(*each) for each in json.loads(text)),
        )
    return OracleGradient(leaves("mean"), metadata["name"], moments, metadata["seconds"])


def _double(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    return {leaf: value.double() for leaf, value in leaves.items()}
