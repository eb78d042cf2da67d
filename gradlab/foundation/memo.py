"""Results that several users have in common, each made once: they hand the object to each other.

Nothing finds it but through the hands it is given to, and it lives as long as they work together:
the parts of a sum have one for each chunk of episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Memo:
    """Results by what they were made of.

    A key is a sequence of inputs. Tensors are the same where they are the same memory, not written
    to since; numbers and the like by their value, and everything else where it is the same object.
    So a result is never found for other inputs, though it may be missed for equal ones.
    """

    def __init__(self) -> None:
        self.saved = 0.0  # time that the results which were found had taken to make [s]
        # by identities of the inputs, which are kept so that no other gets their memory
        self._known: dict[tuple[Any, ...], tuple[Any, float, Sequence[Any]]] = {}

    def keep(self, key: Sequence[Any], result: Any, seconds: float) -> None:
        """Remember a result that took `seconds` to make."""
        self._known[tuple(map(_identity, key))] = result, seconds, key

    def find(self, key: Sequence[Any]) -> Any | None:
        """The result of these inputs, or None."""
        known = self._known.get(tuple(map(_identity, key)))
        if known is None:
            return None
        result, seconds, _ = known
        self.saved += seconds
        return result


def _identity(part: Any) -> tuple[Any, ...]:
    if isinstance(part, int | float | str | torch.dtype):
        return type(part), part
    # a tensor inside a transform has no place, one of inference mode no version
    if (
        not isinstance(part, Tensor)
        or part.is_inference()
        or torch.func.debug_unwrap(part) is not part
    ):
        return object, id(part)
    place = (part.data_ptr(), part._version) if part.numel() else ()
    return Tensor, *place, part.dtype, part.device, part.shape, part.stride()
