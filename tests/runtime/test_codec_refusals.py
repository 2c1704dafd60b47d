"""What the codec refuses: values that cannot travel, bytes that are no tensor file, layouts that differ."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.api import limits
from fedjob.codec import Inflow, difference_between, flatten, header_length, parse
from fedjob.errors import CodecError


def whole(tree: Any) -> bytes:
    outflow = flatten(tree)
    return outflow.read(0, outflow.layout.size)


# --------------------------------------------------------------------------------------------- what cannot travel

NESTED: list[Any] = []
NESTED.append(NESTED)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        pytest.param({"a": [1, {"b": object()}]}, "a/1/b: an object cannot travel", id="an object, named by its path"),
        pytest.param({"a": {3: {1, 2}}}, "a/3: a set cannot travel", id="a set, below a whole-number key"),
        pytest.param({"a": b"x"}, "a: a bytes cannot travel", id="bytes"),
        pytest.param({"a": {True: 1}}, "a: key True is a bool", id="a bool as key"),
        pytest.param({1.5: 1}, "key 1.5 is a float", id="a float as key"),
        pytest.param({"a": {"n": 2**63}}, "a/n: a whole number of 64 bits", id="a number of more than 63 bits"),
        pytest.param({"n": 10**5000}, "n: a whole number of 16610 bits", id="a number too long to print"),
        pytest.param({"a": np.array(["x"])}, "a: dtype <U1 cannot travel", id="an array of strings"),
        pytest.param({"a": np.array([None])}, "a: dtype object cannot travel", id="an array of objects"),
        pytest.param({"a": np.zeros(2, np.complex64)}, "a: dtype complex64 cannot travel", id="complex numbers"),
        pytest.param({"l": {"w": torch.zeros(2).to_sparse()}}, "l/w: a torch.sparse_coo tensor", id="a sparse tensor"),
        pytest.param({"w": torch.zeros(2, device="meta")}, "w: .* on meta cannot travel", id="a tensor without memory"),
        pytest.param({"w": torch.zeros(2, dtype=torch.complex64)}, "w: .*complex64", id="a complex tensor"),
        pytest.param({"a": {"b": 1}, "a/b": 2}, "a/b: the name 'a/b' is taken", id="two paths with one name"),
        pytest.param({1: 1.0, "1": 2.0}, "1: the name '1' is taken", id="a number and its digits as keys"),
        pytest.param({"__metadata__": 1}, "__metadata__", id="the name that safetensors keeps for itself"),
        pytest.param({"\ud800": 1}, "not Unicode text", id="half a surrogate pair in a name"),
        pytest.param(NESTED, "nested more than 100 deep", id="a list that holds itself"),
    ],
)
def test_what_cannot_travel_is_refused_by_its_path(tree: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        flatten(tree)


# ---------------------------------------------------------------------------------------------- what is not a file


def header(entries: Any) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype: Any = "U8", shape: Any = (1,), offsets: Any = (0, 1)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def skeleton(text: str) -> dict[str, Any]:
    return {"__metadata__": {"fedjob": text}, "a": entry()}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        pytest.param(b"{nonsense", "not JSON", id="no JSON"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
        pytest.param(b"[" * 100_000, "not JSON", id="brackets without end"),
        pytest.param([1], "not a JSON object", id="a list"),
        pytest.param({"a": 1}, "'a': entry has no dtype", id="a number where an entry belongs"),
        pytest.param({"a": {"dtype": "U8"}}, "'a': entry has no dtype, shape and data_offsets", id="half an entry"),
        pytest.param({"a": entry(dtype="C64")}, "'a': dtype 'C64' is not known", id="an unknown dtype"),
        pytest.param({"a": entry(dtype=["U8"])}, "'a': dtype .* is not known", id="a list as dtype"),
        pytest.param({"a": entry(shape=[2])}, "does not fill bytes 0 to 1", id="a shape of another size"),
        pytest.param({"a": entry(shape=[-1], offsets=[1, 0])}, "does not fill", id="a negative dimension"),
        pytest.param({"a": entry(shape=[True])}, "does not fill", id="true as a dimension"),
        pytest.param({"a": entry(shape=[1.0])}, "does not fill", id="a float as a dimension"),
        pytest.param({"a": entry(shape=[1] * 65)}, "does not fill", id="65 dimensions"),
        pytest.param({"a": entry(shape=[0, 2**62], offsets=[0, 0], dtype="F32")}, "does not fill", id="a vast emptiness"),
        pytest.param({"a": entry(offsets=[0, 1, 2])}, "'a': entry has no", id="three offsets"),
        pytest.param({"a": entry(offsets=[1, 2])}, "'a' starts at byte 1, expected 0", id="a gap before the first tensor"),
        pytest.param({"a": entry(), "b": entry()}, "starts at byte 0, expected 1", id="two tensors in one place"),
        pytest.param({"\ud800": entry()}, "not Unicode text", id="half a surrogate pair in a name"),
        pytest.param({"__metadata__": {"fedjob": 1}}, "is not a string", id="a number as skeleton"),
        pytest.param(skeleton("nonsense"), "not the skeleton", id="a skeleton that is no JSON"),
        pytest.param(skeleton("[" * 5000), "not the skeleton", id="a skeleton nested too deep"),
        pytest.param(skeleton("[]"), "not the skeleton", id="a skeleton that is a list"),
        pytest.param(skeleton('{"v":1}'), "not the skeleton", id="a skeleton without the file's tensor"),
        pytest.param(skeleton('{"x":"b","f":"torch"}'), "not the skeleton", id="a skeleton of another tensor"),
        pytest.param(skeleton('{"x":"a","f":"int"}'), "not the skeleton", id="a number with a dimension"),
        pytest.param(skeleton('{"d":[[{},{"x":"a","f":"torch"}]]}'), "not the skeleton", id="an object as key"),
    ],
)  # fmt: skip
def test_a_malformed_header_is_refused(entries: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        parse(header(entries))


@pytest.mark.parametrize("length", [0, 1, limits.FILE_HEADER.value + 1, 2**64 - 1])
def test_an_absurd_header_length_is_refused_before_anything_is_read(length: int) -> None:
    with pytest.raises(CodecError, match="not a tensor file: header of"):
        header_length(struct.pack("<Q", length))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(), st.sampled_from(["", "a", "F32", "U8"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "fedjob", "a", "x", "d", "f"]), inner),
    ),
    max_leaves=8,
)
ENTRIES = st.builds(entry, st.one_of(JSON, st.just("U8")), st.one_of(JSON, st.just([4])), JSON)
SKELETONS = JSON.map(json.dumps).map(lambda text: {"fedjob": text})


def parse_or_refuse(data: bytes) -> None:
    """Never another exception, and never memory beyond a few copies of the header."""
    try:
        layout = parse(data)
    except CodecError:
        return
    assert layout.size >= len(data)
    assert layout.header == data


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), st.one_of(ENTRIES, JSON, SKELETONS), max_size=3))
def test_a_header_of_any_json_parses_or_is_refused(entries: Any) -> None:
    parse_or_refuse(header(entries))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_header_with_altered_bytes_parses_or_is_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(flatten({"a": [np.zeros(3), 1.5], "b": {3: torch.zeros(2)}}).layout.header)
    for at, value in changes:
        data[8 + at % (len(data) - 8)] = value
    parse_or_refuse(bytes(data))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_received_or_refused(data: bytes, cut: int) -> None:
    inflow = Inflow()
    try:
        inflow.write(data[:cut])
        inflow.write(data[cut:])
    except CodecError:
        return
    if not inflow.complete:
        with pytest.raises(CodecError, match="not complete"):
            inflow.tree()


def test_a_header_that_claims_much_allocates_nothing_when_it_is_parsed() -> None:
    """An exabyte announced in a hundred bytes."""
    data = header({"a": entry(dtype="F64", shape=[2**57], offsets=[0, 2**60])})
    tracemalloc.start()
    try:
        assert parse(data).size == len(data) + 2**60
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_bytes_past_the_end_are_refused() -> None:
    data = whole({"a": np.zeros(2)})
    with pytest.raises(CodecError, match=f"3 bytes past the end of a file of {len(data)}"):
        Inflow().write(data + b"xyz")


def test_a_tree_is_not_given_out_before_its_last_byte() -> None:
    data = whole({"a": np.zeros(2)})
    inflow = Inflow()
    inflow.write(data[:-1])
    assert not inflow.complete
    with pytest.raises(CodecError, match=f"not complete: {len(data) - 1} bytes"):
        inflow.tree()


@pytest.mark.parametrize("here", [0, 5])
def test_bytes_that_come_before_the_header_are_refused(here: int) -> None:
    inflow = Inflow()
    inflow.write(bytes(here))
    with pytest.raises(CodecError) as refused:
        inflow.write_at(here + 1, b"x")
    assert str(refused.value) == f"bytes at {here + 1} before the header, of which {here} bytes are here"
    assert (inflow.position, inflow.layout) == (here, None)


@pytest.mark.parametrize("at", [0, 3])
def test_bytes_past_the_end_are_counted_wherever_they_begin(at: int) -> None:
    outflow = flatten({"a": np.zeros(2)})
    size, start = outflow.layout.size, outflow.layout.data_start
    inflow = Inflow(size=size)
    inflow.write(outflow.layout.header)
    with pytest.raises(CodecError) as refused:
        inflow.write_at(start + at, bytes(17))
    assert str(refused.value) == f"{at + 1} bytes past the end of a file of {size}"


@pytest.mark.parametrize("length", range(8))
def test_a_file_shorter_than_its_headers_length_says_so(length: int) -> None:
    with pytest.raises(CodecError) as refused:
        header_length(bytes(length))
    assert str(refused.value) == f"not a tensor file: it ends after {length} bytes"


@pytest.mark.parametrize("length", [2, 1000])
def test_a_headers_length_may_be_at_its_bounds(length: int) -> None:
    assert header_length(struct.pack("<Q", length), 1000) == 8 + length


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": entry(dtype="C64")}, "tensor 'a': dtype 'C64' is not known; allowed: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, "
                                    "I64, I32, I16, I8, U64, U32, U16, U8, BOOL"),
        ({"a": entry(shape=[2])}, "tensor 'a': shape [2] of U8 does not fill bytes 0 to 1"),
        ({"a": entry(shape=[1] * 65)}, f"tensor 'a': shape [{'1, ' * 33}… of U8 does not fill bytes 0 to 1"),
        ({"a" * 120: 3}, f"tensor '{'a' * 99}…: entry has no dtype, shape and data_offsets"),
        ({"a": entry(), "b" * 120: entry()}, f"tensor '{'b' * 99}… starts at byte 0, expected 1"),
        (b"[" + b"x" * 3, "not a tensor file: header is not JSON (Expecting value: line 1 column 2 (char 1))"),
    ],
    ids=["a dtype", "a shape", "many dimensions", "a long name", "a long name again", "no JSON"],
)  # fmt: skip
def test_what_is_wrong_with_a_header_is_said_in_few_words(entries: Any, message: str) -> None:
    with pytest.raises(CodecError) as refused:
        parse(header(entries))
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "good",
    [
        pytest.param({"a": entry(shape=[1] * 64)}, id="64 dimensions"),
        pytest.param({"a": entry(shape=[0, 2**62], offsets=[0, 0])}, id="an emptiness that 63 bits can count"),
        pytest.param({"a": entry(dtype="F32", shape=[], offsets=[0, 4])}, id="a number alone"),
        pytest.param({"__metadata__": {"other": "x"}, "a": entry()}, id="what another program notes"),
        pytest.param({"__metadata__": None}, id="no metadata"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_header_at_its_bounds_is_parsed_and_kept_as_it_came(good: dict[str, Any]) -> None:
    layout = parse(header(good))
    assert layout.header == header(good)
    assert [s.name for s in layout.specs] == [name for name in good if name != "__metadata__"]
    assert (layout.skeleton, layout.framework) == ("", "")


# ---------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize(
    ("got", "phrase"),
    [
        pytest.param({"a": np.zeros((2, 3)), "b": np.zeros(1)}, "", id="no difference"),
        pytest.param({"b": np.zeros(1), "a": np.zeros((2, 3))}, "", id="another order is no difference"),
        pytest.param({"b": np.zeros(1)}, "1 of 2 tensors, 0 others; first missing: 'a'", id="one is missing"),
        pytest.param({"a": np.zeros((2, 3)), "b": np.zeros(1), "c": 1}, "2 of 2 tensors, 1 others; not expected: 'c'",
                     id="one is extra"),
        pytest.param({"a": np.zeros((3, 2)), "b": np.zeros(1)}, "'a' is F64 [3, 2], expected F64 [2, 3]", id="a shape"),
        pytest.param({"a": np.zeros((2, 3), "f4"), "b": np.zeros(1)}, "'a' is F32 [2, 3], expected F64 [2, 3]", id="a dtype"),
    ],
)  # fmt: skip
def test_the_first_difference_between_two_layouts_is_a_phrase(got: Any, phrase: str) -> None:
    expected = flatten({"a": np.zeros((2, 3)), "b": np.zeros(1)}).layout
    assert difference_between(expected, flatten(got).layout) == phrase


# -------------------------------------------------------------------------------------------- bounds against malice


def headed(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def test_a_file_of_another_size_than_announced_takes_no_memory() -> None:
    """100 bytes that claim 2^60: the claim is looked at before anything is allocated for it."""
    claim = headed(b'{"w":{"dtype":"F32","shape":[288230376151711744],"data_offsets":[0,1152921504606846976]}}')
    with pytest.raises(CodecError, match=f"a file of {len(claim)} bytes was announced"):
        Inflow(size=len(claim)).write(claim)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param('"' + "n" * 500_000 + '":3', id="a name"),
        pytest.param('"w":{"dtype":"' + "F" * 500_000 + '","shape":[],"data_offsets":[0,4]}', id="a dtype"),
        pytest.param(
            '"w":{"dtype":"F32","shape":[' + "2," * 500_000 + '2],"data_offsets":[0,4]}', id="half a million dimensions"
        ),
    ],
)
def test_a_message_about_a_long_header_is_short(entry: str) -> None:
    with pytest.raises(CodecError) as refused:
        parse(headed(("{" + entry + "}").encode()))
    assert len(str(refused.value)) < 1000


def test_a_header_is_utf_8_and_nothing_else() -> None:
    with pytest.raises(CodecError, match="not JSON"):
        parse(headed('{"__metadata__":{}}'.encode("utf-16")))


def test_a_header_may_be_bounded_more_narrowly() -> None:
    with pytest.raises(CodecError, match="header of 1001 bytes, allowed: 2 to 1000"):
        header_length((1001).to_bytes(8, "little"), 1000)


def flat(count: int, name: str = "") -> bytes:
    """A header of so many empty tensors."""
    return header({f"{name}{i:x}": entry(shape=[0], offsets=[0, 0]) for i in range(count)})


@pytest.fixture
def few_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedjob.api.limits.FILE_TENSORS", replace(limits.FILE_TENSORS, value=100))


@pytest.mark.parametrize(
    "costly",
    [
        pytest.param(flat(101), id="tensors"),
        pytest.param(header(b"[" + b"[]," * 2000 + b"1]"), id="lists"),
        pytest.param(header(b'{"a":[' + b"{}," * 2000 + b"1]}"), id="objects"),
        pytest.param(header(b"{" + b'"a":1,' * 2000 + b'"b":1}'), id="keys"),
    ],
)
def test_what_would_cost_too_much_is_refused_before_it_is_parsed(
    costly: bytes, few_tensors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedjob.codec.json.loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(CodecError, match="more than 100 tensors"):
        parse(costly)


def test_as_many_tensors_as_are_allowed_travel_in_any_nesting(few_tensors: None) -> None:
    for tree in (
        {str(i): np.ones(1) for i in range(100)},
        {"state": {i: {"step": 1.0, "m": np.ones(1), "v": np.ones(1)} for i in range(33)}},
        [[[1.0]]] * 100,
    ):
        parse(flatten(tree).layout.header)
    with pytest.raises(CodecError, match="100: more than 100 tensors; send a list of numbers as one array"):
        flatten([1.0] * 101)


def test_a_name_is_bounded_in_bytes() -> None:
    most = limits.TENSOR_NAME.value
    parse(flatten({"é" * (most // 2): 1}).layout.header)
    with pytest.raises(CodecError, match=f"longer than {most} bytes") as refused:
        flatten({"é" * (most // 2) + "x": 1})
    assert len(str(refused.value)) < 400
    with pytest.raises(CodecError, match=f"longer than {most} bytes"):
        parse(flat(1, "é" * (most // 2)))
