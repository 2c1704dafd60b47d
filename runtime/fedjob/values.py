"""What a script says beside its tensors: scores, weights, notes, logged numbers, reasons; each checked by its name.  PURE"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

_TEXTS = (str, bytes, bytearray)
_MOST_STEPS = 1 << 63


def legible(text: str) -> str:
    """A text as it can travel: half a surrogate pair, as in a file's name that is no UTF-8, is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def name(value: Any, what: str) -> str:
    """The name of a number. what: where it is given. Raises TypeError for anything but text, ValueError for blank text."""
    if isinstance(value, Mapping):
        raise TypeError(f"{what}: the name is a dict; log each item: for name, value in items: fedjob.log(name, value)")
    if not isinstance(value, str):
        raise TypeError(f"{what}: the name is {_kind(value)}, allowed: text")
    if not value.strip():
        raise ValueError(f"{what}: the name {value!r} is blank, allowed: text that says what the number is")
    return legible(value)


def number(value: Any, what: str) -> float:
    """One number, of Python, or of an array or tensor with one element; bools count as 0 and 1. what: its name, for messages.

    Raises TypeError or ValueError, with the name and the next step.
    """
    found = f"{what} is {_kind(value)}"
    try:
        item = getattr(value, "item", None)
        single = item() if callable(item) else value
        if single is None or isinstance(single, _TEXTS) or isinstance(value, Mapping):
            raise TypeError
        return float(single)
    except OverflowError:
        raise ValueError(f"{found} beyond the largest float, {1.797e308}") from None
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise TypeError(f"{found}, allowed: one number{_instead(value)}") from None


def scores(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """`FLModel.metrics` as they travel. Raises TypeError or ValueError with the metric's name."""
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics is {_kind(metrics)}, allowed: a dict of name -> number")
    return {name(key, "metrics"): number(value, f"metrics[{key!r}]") for key, value in metrics.items()}


def examples(meta: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    """The weight that `meta` states under the first of `keys` that is there and not None; else 1. Raises as `number`."""
    for key in keys:
        if (value := meta.get(key)) is not None:
            if isinstance(value, bool):
                raise TypeError(f"meta[{key!r}] is {value}, allowed: how many examples the update was trained on")
            return number(value, f"meta[{key!r}]")
    return 1.0


def step(value: Any, what: str) -> int | None:
    """A step of training, or None. Raises TypeError or ValueError with its name."""
    if value is None:
        return None
    try:
        at = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} is {_kind(value)}, allowed: a whole number from 0") from None
    if not 0 <= at < _MOST_STEPS:
        raise ValueError(f"{what} is {at}, allowed: a whole number from 0 to {_MOST_STEPS - 1}")
    return at


def notes(meta: Mapping[str, Any] | None) -> dict[str, Any]:
    """`FLModel.meta` as it travels, in JSON: tuples become lists, numbers of other libraries Python's.

    Raises TypeError with the place of what JSON cannot hold: it would arrive as text.
    """
    return dict(_note(meta or {}, "meta", ()))


def _note(value: Any, what: str, outer: tuple[int, ...]) -> Any:
    if id(value) in outer:
        raise ValueError(f"{what} holds itself")
    if isinstance(value, Mapping):
        return {_key(k, what): _note(v, f"{what}[{k!r}]", (*outer, id(value))) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_note(v, f"{what}[{i}]", (*outer, id(value))) for i, v in enumerate(value)]
    if isinstance(value, str):
        return legible(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        single = item()  # a number of numpy, or a tensor without dimensions
        if isinstance(single, bool | int | float):
            return single
    raise TypeError(f"{what} is {_kind(value)}, which meta cannot hold: it travels as JSON{_instead_of_note(value)}")


def _key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{what}: the key {key!r} is {_kind(key)}, allowed: text, as in JSON")
    return legible(key)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    size = f" of shape {list(shape)}" if isinstance(shape, tuple) and shape else ""
    return f"{'an' if kind.lower().startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'} {kind}{size}"


def _instead(value: Any) -> str:
    if value is None:
        return "; leave out what was not measured"
    if isinstance(value, Mapping):
        return "; give each of its items a name of its own"
    if isinstance(value, list | tuple | set) or getattr(value, "shape", None):
        return "; send its mean, or each item under a name of its own"
    return ""


def _instead_of_note(value: Any) -> str:
    if hasattr(value, "shape"):
        return "; send a tensor in params, a short array as value.tolist()"
    return "; send text, numbers, lists and dicts"
