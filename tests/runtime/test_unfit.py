"""Values that cannot travel: each is refused by the tensor's name, its type and the next step; excluded, it is not looked at."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict, UserList, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fedjob.codec import Inflow, flatten
from fedjob.errors import CodecError
from fedjob.narrow import chooser


def travelled(tree: Any, forms: Mapping[str, str] | None = None) -> Any:
    outflow, inflow = flatten(tree), Inflow(forms)
    inflow.write(outflow.read(0, outflow.layout.size))
    return inflow.tree()


class Colour(enum.IntEnum):
    """A number of another class."""

    RED = 1


class Name(str):
    """A text of another class."""

    __slots__ = ()


@dataclass
class State:
    """Fields, and no tree."""

    step: int = 0


class Rows(list[Any]):
    """A list of another class."""


class Jax:
    """What a library's array that is none of numpy's looks like."""

    def __array__(self) -> Any:
        return np.ones(2)


class Packed(torch.nn.Parameter):
    """A quantised parameter as libraries make them: packed bytes behind a class that answers for another dtype."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2)


def released() -> torch.Tensor:
    """What a sharded trainer leaves of a parameter between its uses."""
    tensor = torch.ones(4)
    tensor.untyped_storage().resize_(0)
    return tensor


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "a masked array": (lambda: np.ma.array([1.0, 2.0], mask=[False, True]), "a MaskedArray .*its mask would be lost"),
    "a matrix": (lambda: np.matrix([[1.0]]), r"a matrix cannot travel.*send numpy\.array"),
    "strings": (lambda: np.array(["x"]), "dtype <U1 cannot travel"),
    "one string": (lambda: np.str_("x"), "dtype <U1 cannot travel"),
    "objects": (lambda: np.array([None]), "dtype object cannot travel: its items are Python objects"),
    "dates": (lambda: np.array(["2026-01-01"], "M8[D]"), "dtype datetime64.* send value.astype"),
    "one date": (lambda: np.datetime64("2026-01-01"), "dtype datetime64.* send value.astype"),
    "a record": (lambda: np.zeros(2, "i4,f4"), "cannot travel: send each of its fields"),
    "a long double": (lambda: np.ones(2, np.longdouble), r"send value.astype\('float64'\)"),
    "complex numbers": (lambda: np.ones(2, np.complex64), "dtype complex64 cannot travel: send value.real"),
    "a complex number": (lambda: 1j, "a complex cannot travel: send value.real"),
    "a member of an enumeration": (lambda: Colour.RED, r"a Colour cannot travel: .*send int\(value\)"),
    "a text of another class": (lambda: Name("x"), r"a Name cannot travel: .*send str\(value\)"),
    "a decimal": (lambda: Decimal("0.5"), "a Decimal cannot travel"),
    "a fraction": (lambda: Fraction(1, 2), "a Fraction cannot travel"),
    "bytes": (lambda: b"x", "a bytes cannot travel"),
    "an array of another library": (Jax, r"a Jax cannot travel: send numpy\.asarray"),
    "a dataclass": (State, "a State cannot travel: send its fields as a dict"),
    "a module": (lambda: torch.nn.Linear(1, 1), r"a Linear cannot travel: send value.state_dict\(\)"),
    "a list of another class": (lambda: Rows([1.0]), r"a Rows cannot travel: .*send list\(value\)"),
    "what wraps a list": (lambda: UserList([1.0]), "a UserList cannot travel"),
    "a size": (lambda: torch.Size([1]), r"a Size cannot travel: it would arrive as a tuple; send tuple\(value\)"),
    "what torch.max gives": (lambda: torch.ones(1, 2).max(0), "a max cannot travel: it would arrive as a tuple"),
    "a dtype": (lambda: torch.float32, "a dtype cannot travel"),
    "a sparse tensor": (lambda: torch.eye(2).to_sparse(), r"sparse_coo .*send value.to_dense\(\)"),
    "a tensor without memory": (lambda: torch.ones(2, device="meta"), "on meta cannot travel: it holds no data"),
    "a complex tensor": (lambda: torch.ones(2, dtype=torch.complex64), r"complex64 .*view_as_real"),
    "a quantised tensor": (quantised, r"quint8 .*send value.dequantize\(\)"),
    "a packed parameter": (lambda: Packed(torch.ones(2)), "a Packed cannot travel"),
    "a fake tensor": (fake, "a FakeTensor cannot travel: it holds no data"),
    "a masked tensor": (lambda: torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False])), "its mask"),
    "a nested tensor": (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "a nested tensor cannot"),
    "a jagged tensor": (
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        "a NestedTensor cannot travel: its rows differ",
    ),
    "a lazy parameter": (torch.nn.UninitializedParameter, "run one batch through the model first"),
    "a lazy buffer": (torch.nn.UninitializedBuffer, "run one batch through the model first"),
    "a tensor whose memory is released": (released, "its memory has been released"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message"), ODD.values(), ids=ODD)
def test_what_cannot_travel_is_refused_by_its_name_with_the_next_step(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(CodecError, match=f"base/w: .*{message}"):
        flatten({"base": {"w": make()}, "lora": torch.ones(1)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [make for make, _ in ODD.values()], ids=ODD)
def test_what_is_excluded_is_not_looked_at(make: Callable[[], Any]) -> None:
    tree = {"base": {"w": make(), 1.5: object()}, "lora": torch.ones(1), ("a", "tuple"): make()}
    for patterns in (["lora*"], ["!base*"]):
        outflow = flatten(tree, chooser(patterns))
        assert list(outflow.layout.by_name) == ["lora"]


def test_a_tensor_over_several_devices_is_refused_by_its_name() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        value = DTensor.from_local(torch.ones(2), init_device_mesh("cpu", (1,)))
        with pytest.raises(CodecError, match=r"w: a DTensor cannot travel: .*send value.full_tensor\(\)"):
            flatten({"w": value})
        assert flatten({"w": value.full_tensor()}).layout.by_name["w"].shape == (2,)
    finally:
        dist.destroy_process_group()


class Buffer(torch.nn.Parameter):
    """A class that adds attributes and changes nothing of how the elements lie."""


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        pytest.param(torch.nn.Parameter(torch.ones(2)), torch.ones(2), id="a parameter"),
        pytest.param(Buffer(torch.ones(2)), torch.ones(2), id="a parameter of another class"),
        pytest.param(torch.ones(2, dtype=torch.complex64).conj().real, torch.ones(2), id="a part of a complex tensor"),
        pytest.param(torch.ones(1).expand(3), torch.ones(3), id="an expanded tensor"),
        pytest.param(np.float64(2.5), np.float64(2.5), id="a number of numpy"),
        pytest.param(np.bool_(True), np.bool_(True), id="a truth value of numpy"),
        pytest.param(True, True, id="a truth value"),
        pytest.param(float("nan"), float("nan"), id="not a number"),
    ],
)
def test_what_can_travel_arrives_as_what_it_stands_for(value: Any, arrives: Any) -> None:
    got = travelled({"w": value})["w"]
    assert type(got) is type(arrives)
    np.testing.assert_array_equal(got, arrives)


class Frozen(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> Any:
        return {"w": 1.5}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["w"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "mapping",
    [OrderedDict(w=1.5), defaultdict(list, w=1.5), UserDict(w=1.5), MappingProxyType({"w": 1.5}), Frozen()],
    ids=lambda m: type(m).__name__,
)
def test_a_mapping_of_any_class_arrives_as_a_dict(mapping: Mapping[str, Any]) -> None:
    got = travelled(mapping)
    assert type(got) is dict
    assert got == {"w": 1.5}


def test_an_object_with_attributes_is_no_tree() -> None:
    with pytest.raises(CodecError, match="the value itself: a SimpleNamespace cannot travel"):
        flatten(SimpleNamespace(w=1.0))
