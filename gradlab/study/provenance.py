"""Which code made a result."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "joblib",
    "safetensors",
    "mujoco",
    "gymnasium",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def git_revision() -> str:
    """The checked-out commit, with '+changes-HASH' of the difference if tracked files differ from
    it; 'unknown' outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        difference = _git(here, "diff", "HEAD", "--binary")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    if not difference:
        return commit
    return f"{commit}+changes-{hashlib.sha256(difference.encode()).hexdigest()[:12]}"


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    )
    return result.stdout.strip()


def usable_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
