"""What source code does, as a hash: comments, docstrings and layout do not count."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path


def hash_source(path: Path) -> str:
    """A hash of what the source does: of its syntax tree, without docstrings."""
    return hash_text(path.read_bytes())


@cache
def hash_text(text: bytes) -> str:
    """The same of a text; of the text itself where it cannot be parsed."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return hashlib.sha256(text).hexdigest()[:16]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # every string that stands alone, so that the notes below fields go too
            node.body = [s for s in body if not _is_text(s)]  # pyright: ignore[reportAttributeAccessIssue]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
