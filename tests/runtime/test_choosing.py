"""What of a tree travels: what was chosen, read when it is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedjob.codec import Inflow, flatten
from fedjob.errors import CodecError, OutOfRange
from fedjob.narrow import chooser


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        pytest.param(["a*"], ["a", "ab"], id="those that a pattern fits"),
        pytest.param(["!ab"], ["a", "b"], id="all but one"),
        pytest.param(["a*", "!ab"], ["a"], id="those that one fits, without those that another excludes"),
        pytest.param(["!a*", "ab"], [], id="what is excluded stays so, in whatever order"),
        pytest.param(["!x"], ["a", "ab", "b"], id="nothing is excluded"),
    ],
)
def test_patterns_choose_and_exclude(patterns: list[str], names: list[str]) -> None:
    outflow = flatten({"a": np.ones(2), "ab": np.ones(3), "b": np.ones(4)}, chooser(patterns))
    assert list(outflow.layout.by_name) == names
    assert sorted([*outflow.layout.by_name, *outflow.left]) == ["a", "ab", "b"]
    assert outflow.layout.data_size + outflow.left_bytes == 8 * (2 + 3 + 4)


def test_what_is_left_out_of_a_list_leaves_none_in_its_place_and_text_goes_with_its_tensor() -> None:
    tree = {"m": [torch.ones(1), "secret", torch.zeros(1)], "n": [torch.ones(1)], "kind": "nf4"}
    outflow, inflow = flatten(tree, chooser(["m/2"])), Inflow()
    inflow.write(outflow.read(0, outflow.layout.size))
    got = inflow.tree()
    assert got == {"m": [None, None, torch.zeros(1)]}
    assert b"secret" not in outflow.layout.header


@pytest.mark.parametrize(
    ("tree", "patterns", "arrives", "left"),
    [
        pytest.param({2.5: "x", True: 1, "w": 1.5}, ["w"], {"w": 1.5}, [], id="no pattern names an odd key"),
        pytest.param({"w": 1.5, "o": object()}, ["!o"], {"w": 1.5}, ["o"], id="what is left is not looked at"),
        pytest.param({"w": 1.5, "o": {"x": 1, "y": [2]}}, ["w"], {"w": 1.5}, ["o/x", "o/y/0"], id="a dict of nothing goes"),
        pytest.param({"w": 1.5, "e": {}, "l": [], "t": ()}, ["w"], {"w": 1.5, "e": {}}, [], id="an empty list goes"),
        pytest.param({"w": 1.5, "e": {}, "l": [], "t": ()}, [], {"w": 1.5, "e": {}, "l": [], "t": ()}, [],
                     id="empty ones stay where all is chosen"),
        pytest.param({"l": [None, 1.5, "x"]}, ["l/1"], {"l": [None, 1.5, None]}, ["l/0", "l/2"], id="a place in a list stays"),
        pytest.param({"w": 1.5}, ["x"], {}, ["w"], id="nothing is chosen"),
        pytest.param(1.5, ["value"], 1.5, [], id="a number alone is called value"),
    ],
)  # fmt: skip
def test_a_part_of_a_tree_arrives_as_a_tree(tree: Any, patterns: list[str], arrives: Any, left: list[str]) -> None:
    outflow, inflow = flatten(tree, chooser(patterns)), Inflow()
    inflow.write(outflow.read(0, outflow.layout.size))
    assert inflow.tree() == arrives
    assert list(outflow.left) == left


# ------------------------------------------------------------------------------------------------- read as it is sent


def test_bytes_that_cannot_be_read_are_named() -> None:
    """A tensor that was right when the tree was taken apart, and is gone when its bytes are sent."""
    tensor = torch.ones(4)
    outflow = flatten({"w": tensor})
    tensor.untyped_storage().resize_(0)
    with pytest.raises(CodecError, match=r"w: its bytes cannot be read: RuntimeError: .*storage"):
        outflow.read(0, outflow.layout.size)


def test_an_error_that_names_its_tensor_is_raised_as_it_is() -> None:
    def refused(start: int, stop: int) -> bytes:
        raise OutOfRange("w holds a number beyond the largest")

    outflow = flatten({"w": np.ones(3)})
    outflow = replace(outflow, sources=tuple((spec, refused) for spec, _ in outflow.sources))
    with pytest.raises(OutOfRange, match=r"^w holds a number beyond the largest$"):
        outflow.read(0, outflow.layout.size)
