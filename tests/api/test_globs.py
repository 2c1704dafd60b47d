"""Globs say what a regular expression says, and take no longer for a hostile pattern."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fedjob.api import globs
from fedjob.api.globs import fits_name, fits_path


def texts(alphabet: str) -> st.SearchStrategy[str]:
    return st.text(alphabet, max_size=12)


@given(texts("ab*/"), texts("ab/"))
@example("a*/b", "a/b/b")
@example("a*a", "a")
def test_a_path_pattern_is_the_expression_with_anything_but_a_slash_for_a_star(pattern: str, text: str) -> None:
    expression = "[^/]*".join(map(re.escape, pattern.split("*")))
    assert fits_path(pattern, text) == (re.fullmatch(expression, text) is not None)


@given(texts(".+$^(|)\\?[]\n"))
def test_in_a_path_pattern_all_but_the_star_stands_for_itself(text: str) -> None:
    assert fits_path(text, text)
    assert not fits_path(text, text + "\n")


@given(texts("ab*?[!-]"), texts("ab-!]\n"))
@example("a*b?[!a-b]", "ab\n-")
@example("[]a]", "]")
@example("[ab", "[ab")
@example("[!]", "[!]")
@example("*[ab]?*", "ab")
def test_a_name_pattern_is_the_shells(pattern: str, name: str) -> None:
    assume("!" not in pattern.replace("[!", ""))  # fnmatch takes the ! of [b-a!c] for the one of [!c]
    assert fits_name(pattern, name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("--widths=*,*,*,*,*", "--widths=" + "," * 4000 + "/", False),
        ("a" + "*a" * 2000 + "b", "a" * 4096, False),
        ("a" + "*a" * 2000, "a" * 4096, True),
    ],
    ids=["commas", "stars", "stars that fit"],
)
def test_what_takes_a_backtracking_matcher_for_ever_takes_one_look_at_each_piece(
    pattern: str, text: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    find = globs._Literal.find

    def counted(piece: globs._Literal, text: str, start: int, stop: int) -> int:
        nonlocal looks
        looks += 1
        return find(piece, text, start, stop)

    monkeypatch.setattr(globs._Literal, "find", counted)
    assert fits_path(pattern, text) == fits
    assert looks <= pattern.count("*")


def test_a_class_in_the_pattern_costs_one_step_for_each_character() -> None:
    """The text is read once, left to right, although every place of it might begin the piece."""
    reads = 0

    class Counted(str):
        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            nonlocal reads
            reads += isinstance(at, int)
            return super().__getitem__(at)

    name = Counted("a" * 4000)
    assert not fits_name("*" + "[ab]" * 100 + "c*", name)
    assert reads == len(name)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_may_be_a_pattern(pattern: str, text: str) -> None:
    assert fits_name(pattern, text) in (True, False)
    assert fits_path(pattern, pattern.replace("*", "x"))
