"""Random generators whose whole state comes from a name.

`torch.Generator().manual_seed(seed)` keeps the low 32 bits of a seed on the CPU, so that of 200,000
hashed seeds about five pairs give the same numbers. The generators here are ordinary
`torch.Generator`s whose 19,968 bits of Mersenne state are set one by one.
"""

from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import torch

from gradlab.foundation.errors import Missing

WORDS = 624  # 32-bit words of the state of MT19937
FIRST_WORD = 3  # where they begin in torch's state, which keeps each in 64 bits


def generator(*names: str | int) -> torch.Generator:
    """A CPU generator for whatever `names` names, e.g. `generator("noise", seed, block)`.

    Equal names give equal numbers on every machine; other names or another order give an unrelated
    stream. The state is SHAKE-256 of the names, so that two streams coincide with a probability
    that nobody has to think about, however many there are. Integers of any size and sign are told
    apart.

    Raises `Missing` if torch keeps the state of its generators in a form that is not known here.
    """
    key = json.dumps(names, separators=(",", ":")).encode()
    digest = hashlib.shake_256(key).digest(4 * WORDS)
    words = _fresh_state()
    words[0] = int.from_bytes(digest[:8], "little") >> 1  # what `initial_seed` shows, nothing more
    words[FIRST_WORD : FIRST_WORD + WORDS] = np.frombuffer(digest, dtype="<u4")
    made = torch.Generator()
    made.set_state(torch.from_numpy(words.view(np.uint8)))
    return made


def _fresh_state() -> np.ndarray:
    """The state of a CPU generator that has drawn nothing, as 64-bit words."""
    return np.frombuffer(_template(), dtype=np.int64).copy()


@functools.cache
def _template() -> bytes:
    """The same as bytes, checked: words 0 and 1 of MT19937 after the seed 1 are known numbers."""
    state = torch.Generator().manual_seed(1).get_state().numpy()
    words = state.view(np.int64) if state.nbytes % 8 == 0 else np.zeros(0, dtype=np.int64)
    known = [1, 1812433254]  # s_0 = 1, s_1 = 1812433253 (s_0 xor s_0 >> 30) + 1
    if words[FIRST_WORD : FIRST_WORD + 2].tolist() != known or len(words) < FIRST_WORD + WORDS:
        raise Missing(
            f"the state of torch {torch.__version__}'s CPU generator is not laid out as expected; "
            "try another version of torch (2.11 to 2.14 are known to work)"
        )
    return state.tobytes()
