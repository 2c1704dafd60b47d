"""What a tensor file cannot say of the tree in it, as JSON: nesting, order, Python values, the form of each tensor.  PURE

A node is a mapping with one of: d [[key, node], …] a dict, l [node, …] a list, t a tuple, v a value without tensors, x the
name of a tensor. Beside t: n the class and the fields of a named tuple. Beside x: f its form (torch, numpy, int, float, scalar; "" if nobody knows), s the tensor whose memory it
shares, o its own dtype where the file's is another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from . import tuples

Node = Mapping[str, Any]
_BESIDE = ("f", "s", "o", "n")


def plain(names: Collection[str]) -> Node:
    """The skeleton of a file that has none: a flat dict."""
    return {"d": [[name, {"x": name, "f": ""}] for name in names]}


def is_plain(node: Node) -> bool:
    """Whether a file needs no skeleton to say this."""
    children = node.get("d")
    return children is not None and all(child == {"x": key, "f": ""} for key, child in children)


def leaves(node: Node) -> Iterator[Node]:
    """The node of each tensor. Raises ValueError, TypeError, KeyError or AttributeError for what is not a skeleton."""
    ((kind, value),) = ((k, v) for k, v in node.items() if k not in _BESIDE)
    if kind == "x":
        hash((value, node["f"], node.get("s"), node.get("o")))
        yield node
    elif kind in ("l", "t"):
        if "n" in node and ([type(part) for part in node["n"]] != [str] * (len(value) + 1) or kind != "t"):
            raise ValueError("a named tuple has a class, and a name for each field")
        for child in value:
            yield from leaves(child)
    elif kind == "d":
        for key, child in value:
            hash(key)
            yield from leaves(child)
    elif kind != "v":
        raise ValueError(f"unknown kind of node {kind!r}")


def put_together(node: Node, tensor: Callable[[str], Any]) -> Any:
    """The tree, with `tensor(name)` in the place of each tensor. Raises CodecError for a named tuple that is not known here."""
    if "d" in node:
        return {key: put_together(child, tensor) for key, child in node["d"]}
    if "l" in node:
        return [put_together(child, tensor) for child in node["l"]]
    if "t" in node:
        values = tuple(put_together(child, tensor) for child in node["t"])
        return tuples.made(node["n"][0], node["n"][1:], values) if "n" in node else values
    return tensor(node["x"]) if "x" in node else node["v"]


def pruned(node: Node, kept: Collection[str], own: Mapping[str, str]) -> Node | None:
    """A skeleton without the tensors that are not kept, nor what held nothing else; None if nothing is left.

    own: name -> the dtype to note; no other is noted.
    """
    if "x" in node:
        if (name := node["x"]) not in kept:
            return None
        shared = {"s": node["s"]} if node.get("s") in kept else {}
        return {"x": name, "f": node["f"], **shared, **({"o": own[name]} if name in own else {})}
    if "v" in node:
        return node
    ((kind, children),) = ((k, v) for k, v in node.items() if k not in _BESIDE)
    beside = {"n": node["n"]} if "n" in node else {}
    if kind == "d":
        left: list[Any] = [[key, child] for key, old in children if (child := pruned(old, kept, own)) is not None]
    else:  # a place in a list means something: what is not kept leaves None there
        found = [pruned(child, kept, own) for child in children]
        left = [{"v": None} if child is None else child for child in found] if any(found) else []
    return {kind: left, **beside} if left or not children else None
