"""Margins over time: their running maxima, those of repeating events, and cuts between windows."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.events import running_maximum, running_maximum_since_switch
from gradlab.foundation.tensors import flags
from gradlab.problems.problem import Problem

# a cut every n steps, or where the flag of an episode's step is True
Cuts: TypeAlias = int | Bool[Tensor, "*batch T"] | None


def running_margins(
    problem: Problem, margins: Tensor, cuts: Cuts, carried: Tensor | None
) -> tuple[Tensor, Tensor]:
    """M_t of every event, and where a repeating one has just started afresh."""
    running = running_maximum(margins, cuts, carried)
    fresh = torch.zeros_like(margins, dtype=torch.bool)
    if not any(event.switches for event in problem.task.events):
        return running, fresh
    before = None if carried is None else afresh(problem, carried)
    columns, starts = [], []
    for i, event in enumerate(problem.task.events):
        margin = margins[..., i]
        if not event.switches:
            columns.append(running[..., i])
            starts.append(fresh[..., i])
            continue
        hit = (margin.detach() > 0).to(margin.dtype)
        visit = hit.cumsum(-1) - hit  # occurrences before step t
        own = None if before is None else before[..., i]
        columns.append(running_maximum_since_switch(margin, visit, cuts, own))
        new = visit[..., 1:] != visit[..., :-1]
        first = torch.zeros_like(fresh[..., :1, i])
        if carried is not None:
            first = carried[..., i : i + 1] > 0
        starts.append(torch.cat([first, new], dim=-1))
    return torch.stack(columns, dim=-1), torch.stack(starts, dim=-1)


def afresh(problem: Problem, running: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
    """M as the next step sees it: −inf for a repeating event that has just happened."""
    repeats = [event.switches for event in problem.task.events]
    if not any(repeats):
        return running
    again = (running > 0) & flags(repeats, running)
    return torch.where(again, -torch.inf, running)


def cut_between(carried: Tensor, cuts: Cuts) -> Tensor:
    """Detach what is carried into each window but the first; `carried` is [..., T, E]."""
    if cuts is None:
        return carried
    index = torch.arange(carried.shape[-2], device=carried.device)
    begins = cuts if isinstance(cuts, Tensor) else index % cuts == 0
    first = ((index > 0) & begins)[..., None]
    return torch.where(first, carried.detach(), carried)
