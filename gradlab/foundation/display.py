"""How samples, moments, truths and problems show themselves:
one line, or a small table in a notebook.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

Facts = dict[str, str]


class Shown(ABC):
    """What has `facts` to show instead of its numbers."""

    @abstractmethod
    def facts(self) -> Facts:
        """What there is to know at a glance, by name."""

    def __repr__(self) -> str:
        return line(type(self).__name__, self.facts())

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th style='text-align:left'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>"
            for k, v in self.facts().items()
        )
        return (
            f"<table><caption>{html.escape(type(self).__name__)}</caption>{''.join(rows)}</table>"
        )


def line(name: str, facts: Facts) -> str:
    """`Name(key: value, key: value)`."""
    return f"{name}({', '.join(f'{key}: {value}' for key, value in facts.items())})"


def leaves(params: Mapping[str, Tensor]) -> str:
    """How many parameters, in how many tensors."""
    size = sum(value.numel() for value in params.values())
    return f"{size:,} in {len(params)} tensors"


def norm(params: Mapping[str, Tensor]) -> str:
    """The length of a gradient."""
    return f"{sum(float(v.double().square().sum()) for v in params.values()) ** 0.5:.4g}"
