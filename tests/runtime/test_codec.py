"""Trees of tensors as safetensors files: what goes in comes out, and what is not a file says so."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import narrow
from fedjob.codec import Inflow, Outflow, flatten, forms, parse
from fedjob.errors import CodecError
from fedjob.stored import write
from fedjob.trees import in_memory

SPECIAL = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
NUMPY = [np.dtype(t) for t in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", *SPECIAL)]
TORCH = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
]  # fmt: skip
LAW = settings(max_examples=60, deadline=None)


def random_bytes(dtype: str, count: int, seed: int) -> Any:
    """Any bit pattern: NaN payloads, infinities and negative zeros too. A bool has two."""
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, count).astype(np.uint8)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bytes, flat: its own memory where it is contiguous."""
    dense = tensor.detach().contiguous()
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[np.dtype[Any]] = NUMPY) -> Any:
    """numpy arrays and scalars of every dtype, in every memory layout."""
    dtype, seed = draw(st.sampled_from(dtypes)), draw(st.integers(0, 99))
    shape = draw(st.sampled_from([(), (0,), (3, 0, 2), (1,), (5,), (4, 3), (2, 3, 2)]))
    flat = random_bytes(dtype.name, math.prod(shape) * dtype.itemsize, seed).view(dtype)
    array = flat.reshape(shape)
    how = draw(st.sampled_from(["plain", "transposed", "strided", "reversed", "big-endian", "read-only", "scalar"]))
    if how == "transposed":
        return array.T
    if how == "strided" and shape:
        return np.repeat(array, 2, axis=0)[::2]
    if how == "reversed" and shape:
        return array[::-1]
    if how == "big-endian" and dtype.kind in "fiu":
        return array.astype(dtype.newbyteorder(">"))
    if how == "read-only":
        array.setflags(write=False)
    return array[()] if how == "scalar" and not shape else array


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """torch tensors of every dtype, in every memory layout."""
    dtype, seed = draw(st.sampled_from(TORCH)), draw(st.integers(0, 99))
    shape = draw(st.sampled_from([(), (0,), (3, 0, 2), (1,), (5,), (4, 3), (2, 3, 2)]))
    tensor = torch.empty(shape, dtype=dtype)
    raw = random_bytes(str(dtype).removeprefix("torch."), tensor.numel() * dtype.itemsize, seed)
    bits(tensor).copy_(torch.from_numpy(raw))
    how = draw(st.sampled_from(["plain", "transposed", "strided", "one element", "parameter"]))
    if how == "transposed" and len(shape) > 1:
        return tensor.transpose(0, -1)
    if how == "strided" and shape:
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if how == "one element" and tensor.numel():
        return tensor.reshape(-1)[:1].as_strided((1, 1), (7, 5))
    if how == "parameter" and dtype.is_floating_point:
        return tensor.requires_grad_()
    return tensor


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([-0.0, math.inf, -math.inf, math.nan]),
)
KEYS = st.one_of(st.text('abcé."\\ \n🙂', max_size=4), st.integers(-3, 2**40))
TREES = st.recursive(
    st.one_of(arrays(), tensors(), PLAIN),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=4),
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=10,
)


def names_collide(tree: Any) -> bool:
    """Whether two tensors of this tree would have one name in the file, such as those at `1` and `"1"`."""

    def paths(node: Any, path: tuple[str, ...]) -> list[str]:
        if isinstance(node, dict):
            return [p for k, v in node.items() for p in paths(v, (*path, str(k)))]
        if isinstance(node, list | tuple):
            return [p for i, v in enumerate(node) for p in paths(v, (*path, str(i)))]
        return [] if node is None or isinstance(node, str | bool) else ["/".join(path) or "value"]

    found = paths(tree, ())
    return len(set(found)) < len(found)


def same(a: Any, b: Any) -> bool:
    """Whether two trees have equal structure, order, types and bits."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(bits(a), bits(b))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(k) is type(j) for k, j in zip(a, b, strict=True)) and all(
            same(a[k], b[k]) for k in a
        )  # fmt: skip
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray | np.generic):
        little = np.asarray(a).astype(a.dtype.newbyteorder("<"))
        return bool(little.dtype == b.dtype and little.shape == b.shape and little.tobytes() == b.tobytes())
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return bool(a == b)


def whole(outflow: Outflow) -> bytes:
    return outflow.read(0, outflow.layout.size)


def received(data: bytes, *cuts: int, wanted: dict[str, str] | None = None) -> Any:
    """The tree behind `data`, written to an Inflow in pieces that end at `cuts`."""
    inflow = Inflow(wanted)
    ends = sorted({min(c, len(data)) for c in cuts} | {len(data)})
    for start, stop in zip([0, *ends], ends, strict=False):
        inflow.write(data[start:stop])
    assert inflow.complete
    assert inflow.position == len(data)
    return inflow.tree()


# ------------------------------------------------------------------------------------------------------ what travels


@settings(max_examples=250, deadline=None)
@given(TREES, st.lists(st.integers(0, 3000), max_size=6))
def test_any_tree_comes_out_as_it_was_sent_however_its_bytes_are_cut(tree: Any, cuts: list[int]) -> None:
    """Structure, order, types and every bit; or, where two paths have one name, it does not go."""
    if names_collide(tree):
        with pytest.raises(CodecError, match="is taken"):
            flatten(tree)
    else:
        assert same(tree, received(whole(flatten(tree)), *cuts))


@LAW
@given(TREES.filter(lambda t: not names_collide(t)), st.integers(0, 2000), st.integers(0, 2000))
def test_any_range_of_the_bytes_is_that_slice_of_the_whole(tree: Any, a: int, b: int) -> None:
    outflow = flatten(tree)
    start, stop = sorted(min(x, outflow.layout.size) for x in (a, b))
    assert outflow.read(start, stop) == whole(outflow)[start:stop]


def test_one_byte_at_a_time_is_enough() -> None:
    tree = {"w": torch.arange(6.0).reshape(2, 3), "n": 3, "empty": np.empty((0, 2))}
    data = whole(flatten(tree))
    assert same(tree, received(data, *range(len(data))))


def test_an_optimizers_state_dict_loads_after_its_journey() -> None:
    """Integer keys, nested lists, tuples, None and numbers: what torch's own optimizers hold."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = received(whole(flatten(optimizer.state_dict())))
    assert same(optimizer.state_dict(), state)
    torch.optim.AdamW(model.parameters()).load_state_dict(state)


def test_tied_tensors_travel_under_both_names() -> None:
    w = torch.arange(4.0)
    back = received(whole(flatten({"embed": w, "head": w})))
    assert torch.equal(back["embed"], w)
    assert torch.equal(back["head"], w)


def test_a_receiver_may_ask_for_another_form() -> None:
    data = whole(flatten({"a": np.arange(3.0), "b": torch.arange(3)}))
    back = received(data, wanted={"a": "torch", "b": "numpy"})
    assert isinstance(back["a"], torch.Tensor)
    assert isinstance(back["b"], np.ndarray)


def test_the_forms_of_a_file_are_those_in_which_it_was_sent() -> None:
    outflow = flatten({"a": np.zeros(1), "b": [torch.zeros(1), 3, 0.5, np.float16(1)]})
    assert forms(outflow.layout) == {"a": "numpy", "b/0": "torch", "b/1": "int", "b/2": "float", "b/3": "scalar"}


# ---------------------------------------------------------------------------------------------------- no copies made


def test_a_tensor_is_sent_from_its_own_memory() -> None:
    """A change after `flatten` shows: nothing was copied."""
    tensor, array = torch.zeros(1000), np.zeros(1000, np.float32)
    outflow = flatten({"t": tensor, "a": array})
    tensor.fill_(1.0)
    array.fill(2.0)
    back = received(whole(outflow))
    assert back["t"][-1] == 1.0
    assert back["a"][-1] == 2.0


def test_a_range_within_one_tensor_is_a_view_of_its_memory() -> None:
    array = np.arange(100, dtype=np.int64)
    outflow = flatten({"a": array})
    view = outflow.read(outflow.layout.data_start + 8, outflow.layout.data_start + 24)
    assert np.shares_memory(np.frombuffer(view, np.int64), array)
    assert bytes(view) == array[1:3].tobytes()


def test_tensors_arrive_in_the_processors_memory_wherever_a_script_makes_its_own() -> None:
    data = whole(flatten({"w": torch.ones(2)}))
    with torch.device("meta"):
        assert received(data)["w"].device.type == "cpu"


def chunks(outflow: Outflow, size: int = 1 << 16) -> Iterator[bytes]:
    for start in range(0, outflow.layout.size, size):
        yield outflow.read(start, min(start + size, outflow.layout.size))


def test_sending_and_receiving_hold_one_chunk_beside_the_tensors() -> None:
    """12 MB of tensors, 64 KiB at a time."""
    tree = {f"w{i}": np.ones(1_000_000, np.float32) for i in range(3)}
    tracemalloc.start()
    try:
        outflow = flatten(tree)
        for _ in chunks(outflow):
            pass
        sending = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        inflow = Inflow()
        for data in chunks(outflow):
            inflow.write(data)
        receiving = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sending < 1 << 20
    assert receiving < 12_000_000 + (1 << 20)


# ---------------------------------------------------------------------------------------- the reference's readers


@LAW
@given(st.dictionaries(st.text("abé/.", min_size=1, max_size=6), tensors(), min_size=1, max_size=6))
def test_the_reference_reads_torch_tensors_that_we_write(tree: dict[str, torch.Tensor]) -> None:
    assert same({k: tree[k] for k in sorted(tree)}, dict(sorted(safetensors.torch.load(whole(flatten(tree))).items())))


@LAW
@given(
    st.dictionaries(st.text("abé/.", min_size=1, max_size=6), arrays(NUMPY[: -len(SPECIAL)]), min_size=1, max_size=6)
)
def test_the_reference_reads_numpy_arrays_that_we_write(tree: dict[str, Any]) -> None:
    back = safetensors.numpy.load(whole(flatten(tree)))
    assert back.keys() == tree.keys()
    assert all(same(np.asarray(tree[k]), back[k]) for k in tree)


@LAW
@given(st.dictionaries(st.text("abé/.", min_size=1, max_size=6), tensors(), max_size=6), st.integers(0, 500))
def test_we_read_what_the_reference_writes_as_a_flat_dict(tree: dict[str, torch.Tensor], cut: int) -> None:
    tree = {k: v.detach().contiguous() for k, v in tree.items()}
    back = received(safetensors.torch.save(tree, metadata={"format": "pt"}), cut)
    assert same(dict(sorted(tree.items())), dict(sorted(back.items())))


@pytest.mark.parametrize(
    ("tree", "framework"),
    [
        pytest.param({"w": torch.ones(1)}, "pt", id="torch"),
        pytest.param({"deep": [{"w": torch.ones(1)}, np.ones(1)]}, "pt", id="torch and numpy"),
        pytest.param({"w": np.ones(1)}, None, id="numpy"),
    ],
)
def test_other_readers_are_told_whose_tensors_a_file_holds(tree: Any, framework: str | None) -> None:
    """Libraries load no file whose format they do not know; through every form that a model takes on its way."""
    model = in_memory(tree)
    for form in (model, narrow.master_form(model, ["*"]), narrow.wire_form(narrow.master_form(model), "BF16")):
        (length,) = struct.unpack("<Q", form.layout.header[:8])
        metadata = json.loads(form.layout.header[8 : 8 + length])["__metadata__"]
        assert metadata.get("format") == framework
        assert parse(form.layout.header).framework == (framework or "")


def test_tensors_of_a_file_that_says_it_is_torchs_arrive_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the script has not imported torch yet."""
    monkeypatch.setattr("fedjob.torch_module.loaded", lambda: None)
    for metadata, kind in (({"format": "pt"}, torch.Tensor), ({"format": "np"}, np.ndarray), (None, np.ndarray)):
        inflow = Inflow()
        inflow.write(safetensors.numpy.save({"w": np.ones(2, np.float32)}, metadata))
        assert isinstance(inflow.tree()["w"], kind)


def test_data_starts_at_a_multiple_of_eight_and_each_tensor_at_one_of_its_item_size() -> None:
    """So a file can be mapped into memory and used where it lies."""
    outflow = flatten({"u": np.zeros(3, np.uint8), "h": np.zeros(3, np.float16), "d": np.zeros(3), "f": torch.zeros(3)})
    assert outflow.layout.data_start % 8 == 0
    assert {s.name: s.start for s in outflow.layout.specs} == {"d": 0, "f": 24, "h": 36, "u": 42}


def test_the_order_of_the_file_is_the_order_of_the_tree() -> None:
    tree = {"b": np.zeros(1, np.uint8), "a": np.zeros(1), "c": np.zeros(1, np.float32)}
    layout = parse(flatten(tree).layout.header)
    assert [s.name for s in layout.specs] == ["b", "a", "c"]
    assert [s.name for s in layout.data_order] == ["a", "c", "b"]


def test_the_tensors_of_a_range_of_a_file_are_found_with_their_bytes_in_it() -> None:
    """Every range, against what it is: those whose bytes it meets. One without bytes is in none."""
    layout = flatten({"a": np.zeros(3, "f4"), "e": np.zeros(0), "n": np.zeros(5, "u1"), "d": np.zeros(2)}).layout
    first = layout.data_start
    for start in range(first - 2, layout.size + 2):
        for stop in range(start + 1, layout.size + 3):
            met = [(s, max(start - first, s.start), min(stop - first, s.stop)) for s in layout.data_order]
            expected = [(s, a - s.start, b - s.start) for s, a, b in met if a < b]
            assert list(layout.overlapping(start, stop)) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 1 << 18, (1 << 19) + 3])
@pytest.mark.parametrize("form", ["numpy", "torch"])
def test_what_travels_narrow_arrives_in_the_dtype_that_it_was_sent_in(size: int, form: str, tmp_path: Path) -> None:
    """Every number, though it is widened in the memory in which it lies."""
    numbers = (np.arange(size) % 2039 - 1000).astype(np.float32)
    tree = {"d": numbers.astype(np.float64), "w": numbers, "n": np.arange(3)}
    wire = write(tmp_path / "wire", narrow.wire_form(in_memory(tree), "F16")).path.read_bytes()
    got = received(wire, len(wire) // 2, wanted=dict.fromkeys(tree, form))
    assert {name: str(x.dtype).removeprefix("torch.") for name, x in got.items()} == {
        "d": "float64", "w": "float32", "n": "int64",
    }  # fmt: skip
    assert all(np.array_equal(np.asarray(got[name]), tree[name]) for name in tree)


# ------------------------------------------------------------------------------------------------ memory of the sender


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda x: x.T, id="transposed"),
        pytest.param(lambda x: x[:, ::2], id="strided"),
        pytest.param(lambda x: x.reshape(64, 32, -1).swapaxes(0, 2), id="axes swapped"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_tensor_that_is_not_contiguous_is_gathered_a_chunk_at_a_time(view: Any, kind: str) -> None:
    """No second copy of it, however it lies; torch's own memory is counted where it says so: in the pieces' sizes."""
    array = view(np.arange(1 << 20, dtype=np.float32).reshape(1 << 10, 1 << 10))
    tensor = array if kind == "numpy" else torch.from_numpy(array)
    outflow = flatten({"w": tensor})
    size = outflow.layout.size
    tracemalloc.start()
    try:
        got = [bytes(outflow.read(at, min(at + 5000, size))) for at in range(0, 50_000, 5000)]
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    whole = outflow.layout.header + np.ascontiguousarray(array).tobytes()
    assert b"".join(got) == whole[:50_000]
    assert bytes(outflow.read(size - 7, size)) == whole[-7:]


def test_tied_weights_travel_under_each_name_and_share_their_memory_again() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tree = {"embed": shared, "other": shared.clone(), "head": shared, "transposed": shared.T}
    outflow = flatten(tree)
    inflow = Inflow()
    inflow.write(outflow.read(0, outflow.layout.size))
    got = inflow.tree()
    assert {name: torch.equal(got[name], tensor) for name, tensor in tree.items()} == dict.fromkeys(tree, True)
    assert got["head"].data_ptr() == got["embed"].data_ptr()
    assert len({tensor.data_ptr() for tensor in got.values()}) == 3
    file = safetensors.torch.load(bytes(outflow.read(0, outflow.layout.size)))
    assert torch.equal(file["head"], shared), "any reader finds both"


def test_the_data_may_come_in_any_order_behind_the_header() -> None:
    outflow = flatten({"a": np.arange(10, dtype=np.int16), "b": [np.ones(3), 7]})
    start, size = outflow.layout.data_start, outflow.layout.size
    inflow = Inflow()
    inflow.write_at(0, outflow.read(0, start))
    for at in [*range(start + 5, size, 5), start]:
        inflow.write_at(at, outflow.read(at, min(at + 5, size)))
    assert inflow.complete
    assert inflow.tree()["a"].tolist() == list(range(10))
    with pytest.raises(CodecError, match="before the header"):
        Inflow().write_at(3, b"x")
