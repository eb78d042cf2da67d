"""The command `gradlab`. Each of its commands is a module of this package with a function `run`.

It is inside `gradlab` so that no other folder named `studies` or `estimators` can take its place.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from gradlab.foundation import siblings
from gradlab.foundation.errors import GradlabError, UnknownName
from gradlab.foundation.pipes import readers_may_leave, say
from gradlab.version import __version__

COMMANDS = {
    "study": "Runs a study (the same as python -m studies.NAME), or lists them.",
    "compare": "Compares estimators on a problem: my_file.py:problem --estimators fog pg mine.py:Mine.",
    "doctor": "Says which versions, devices and compiler there are, and whether anything is in the way.",
}

NEEDED = {
    "study": ("estimators", "studies"),
    "compare": ("estimators",),
}  # doctor tells what it finds


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command line (default: this process's).

    Exits with 2 after one line for anything that the user can mend, with 1 where what is printed
    cannot be written, with 130 when interrupted; `doctor` with 1 where it found something wrong.
    """
    with readers_may_leave():
        try:
            _run(sys.argv[1:] if args is None else list(args))
        except GradlabError as error:
            say(f"gradlab: {' '.join(str(error).split())}")
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            say("gradlab: stopped")
            raise SystemExit(130) from None


def _run(args: Sequence[str]) -> None:
    # `python -m` looks in this folder too; last, so that nothing in it hides a package
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return
    if args[0] == "--version":
        print(f"gradlab {__version__}")
        return
    if args[0] not in COMMANDS:
        raise UnknownName("command", args[0], [*COMMANDS, "--help", "--version"])
    siblings.check(*NEEDED.get(args[0], ()))
    # imported now: help, a version and a wrong name need no torch
    importlib.import_module(f"gradlab.commands.{args[0]}").run(args[1:])


def _help() -> str:
    return "\n".join(
        [
            "Measures policy-gradient estimators in differentiable simulators.",
            "",
            *(f"  gradlab {name:8} {line}" for name, line in COMMANDS.items()),
            "",
            "Each has --help. gradlab --version says which this is.",
        ]
    )


if __name__ == "__main__":
    main()
