"""Compiling the step of a rollout, as an option with a clear message where it is not available."""

from __future__ import annotations

import platform
import shutil
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from gradlab.foundation.errors import Unavailable

Function = TypeVar("Function", bound=Callable)

# What torch says of its own code while it compiles: 2.13 the first, 2.11 the others.
OF_TORCH_ITSELF = (
    ("`torch._prims_common.check` is deprecated", FutureWarning),
    ("The .grad attribute of a Tensor that is not a leaf", UserWarning),
    ("`torch.jit.script_method` is deprecated", DeprecationWarning),
)
VERSIONS = 64  # compiled steps kept in a process: one per problem, number of episodes and grad mode


def compile_step(function: Function) -> Function:
    """`torch.compile` with static shapes; the compiled code is cached on disk between runs.

    The index and the number of steps do not matter to it, the number of episodes does. The cache is
    torch's own: `TORCHINDUCTOR_CACHE_DIR`, by default a folder of the system's temporary one.
    Only ordinary autograd goes through compiled code: `engine="vmap"` runs the step eagerly.
    Raises `Unavailable` where there is no C++ compiler (CPU code needs one) or no inductor.
    """
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise Unavailable(
            "compile=True needs a C++ compiler and none was found on the PATH; "
            "install g++, or use compile=False"
        )
    if platform.system() == "Windows":
        raise Unavailable("compile=True is not supported on Windows; use compile=False")
    for text, kind in OF_TORCH_ITSELF:
        warnings.filterwarnings("ignore", text, kind)
    # torch keeps 8 versions by default, and raises for the ninth of a full graph
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VERSIONS)
    return torch.compile(function, dynamic=False, fullgraph=True)  # type: ignore[return-value]
