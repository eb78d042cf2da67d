"""`gradlab study`: the same as `python -m studies.NAME`, from any folder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from gradlab.foundation.errors import UnknownName


def run(args: Sequence[str]) -> None:
    """Runs a study (the same as python -m studies.NAME), or lists them."""
    # by name, as a user asks for it: nothing in gradlab knows a study
    listing = importlib.import_module("studies.__main__")
    if not args or args[0] in ("-h", "--help"):
        print(listing.text("gradlab study "))
        return
    known = listing.studies()
    if args[0] not in known:
        raise UnknownName("study", args[0], known)
    from gradlab.study.commandline import cli  # brings torch, which a list does not need

    cli(f"studies.{args[0]}", args[1:])
