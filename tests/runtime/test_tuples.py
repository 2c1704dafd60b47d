"""Named tuples come back as what they were; a name that came from elsewhere runs nothing."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from fedjob import skeleton
from fedjob.codec import Inflow, flatten, parse
from fedjob.errors import CodecError
from fedjob.narrow import chooser

Pair = namedtuple("Pair", ["mean", "var"])


class Adam(NamedTuple):
    """As optimizers for JAX keep their state."""

    count: Any
    mu: Any
    nu: Any = None


class Holder:
    """Has a class inside."""

    class Inner(NamedTuple):
        """In a class."""

        w: Any


def travelled(tree: Any, patterns: tuple[str, ...] = ()) -> Any:
    outflow, inflow = flatten(tree, chooser(patterns)), Inflow()
    inflow.write(outflow.read(0, outflow.layout.size))
    return inflow.tree()


def test_a_named_tuple_comes_back_as_one() -> None:
    tree = (Adam(3, {"w": np.ones(2)}), Pair(1.0, torch.ones(1)), Holder.Inner(()), (1, 2))
    got = travelled(tree)
    assert [type(part) for part in got] == [Adam, Pair, Holder.Inner, tuple]
    assert got[0].count == 3
    assert got[0].nu is None
    assert (got[0].mu["w"] == 1).all()
    assert got[1].var == torch.ones(1)


def test_its_tensors_are_named_by_its_fields() -> None:
    assert list(flatten({"opt": Adam(1, np.ones(1))}).layout.by_name) == ["opt/count", "opt/mu"]


def test_what_is_left_out_of_one_leaves_none_in_its_place() -> None:
    got = travelled({"opt": Adam(1, np.ones(1), np.zeros(1))}, ("opt/mu",))
    assert type(got["opt"]) is Adam
    assert (got["opt"].count, got["opt"].nu) == (None, None)


def test_one_that_is_made_inside_of_a_function_is_refused_by_name() -> None:
    class Local(NamedTuple):
        w: Any

    with pytest.raises(CodecError, match=r"opt: a Local cannot travel: its class cannot be found.*_asdict"):
        flatten({"opt": Local(1.0)})


def renamed(name: list[Any]) -> Any:
    return skeleton.put_together({"t": [{"v": 1}], "n": name}, lambda _: None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(["no_such_module:T", "w"], id="a module that is not loaded"),
        pytest.param(["os:system", "w"], id="a function"),
        pytest.param(["collections:OrderedDict", "w"], id="a class that is no tuple"),
        pytest.param(["builtins:tuple", "w"], id="a tuple without fields"),
        pytest.param([f"{__name__}:Pair", "w"], id="a tuple with other fields"),
        pytest.param(["", "w"], id="nothing"),
    ],
)
def test_a_class_that_is_not_here_is_refused_with_the_next_step(name: list[str]) -> None:
    with pytest.raises(CodecError, match=r"import or define it before fedjob.receive\(\)"):
        renamed(name)


def test_a_name_from_elsewhere_imports_nothing_and_calls_nothing() -> None:
    class Trap(tuple):
        __slots__ = ()
        _fields = ("w",)

        def __new__(cls, *_: Any) -> Any:
            raise AssertionError("a constructor was called")

    Trap.__module__, Trap.__qualname__ = "a_trap", "Trap"
    module = type(sys)("a_trap")
    module.Trap = Trap  # type: ignore[attr-defined]
    module.__getattr__ = lambda _: pytest.fail("a module's own __getattr__ was called")  # type: ignore[method-assign]
    sys.modules["a_trap"] = module
    try:
        assert renamed(["a_trap:Trap", "w"]) == (1,)
        with pytest.raises(CodecError):
            renamed(["a_trap:other", "w"])
        with pytest.raises(CodecError):
            renamed(["this.not_loaded:T", "w"])
    finally:
        del sys.modules["a_trap"]
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", [1, [], ["m:T"], ["m:T", 3], ["m:T", "a", "b"]], ids=str)
def test_a_skeleton_with_an_odd_name_is_refused(name: Any) -> None:
    text = json.dumps({"t": [{"x": "a", "f": "torch"}], "n": name})
    header = json.dumps({"__metadata__": {"fedjob": text}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})
    with pytest.raises(CodecError, match="not the skeleton"):
        parse(len(header).to_bytes(8, "little") + header.encode())
