"""What is done to a line: mutmut's own operators, and three that it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import libcst as cst
from mutmut.mutation import file_mutation, mutators


def install() -> None:
    """Let mutmut use them. Texts for people are not changed: what they say is held by the tests of the words."""
    own = [(kind, _tokens if how is mutators.operator_string else how) for kind, how in mutators.mutation_operators]
    own += [(cst.Expr, _without_statement), (cst.Raise, _without_statement), (cst.If, _negated), (cst.While, _negated)]
    vars(file_mutation)["mutation_operators"] = own  # the name by which it is used there


def _tokens(node: Any) -> Iterable[Any]:
    """A key, a name or a word of a protocol becomes another; one change for each, as its case is as good as its letters."""
    if isinstance(node, cst.SimpleString) and " " not in node.value:
        yield from list(mutators.operator_string(node))[:1]


def _without_statement(node: Any) -> Iterable[Any]:
    """A call for its effect, or an error, is left out."""
    if not isinstance(node, cst.Expr) or not isinstance(node.value, cst.SimpleString | cst.ConcatenatedString):
        yield cst.Pass()


def _negated(node: Any) -> Iterable[Any]:
    """A condition is turned round."""
    bracketed = node.test.with_changes(
        lpar=[*node.test.lpar, cst.LeftParen()], rpar=[*node.test.rpar, cst.RightParen()]
    )
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), bracketed))
