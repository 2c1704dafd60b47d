"""Kubernetes quantities as numbers.  PURE"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_FACTORS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate(("K", "M", "G", "T", "P", "E"), 1)},
}


def number(quantity: str) -> Decimal:
    """ "500m" is 0.5, "2Gi" is 2147483648. Raises ValueError for anything else than a quantity."""
    digits = quantity.rstrip("mkKMGTPEi")
    factor = _FACTORS.get(quantity[len(digits) :])
    if factor is None or not digits:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity such as 500m or 2Gi")
    try:
        return Decimal(digits) * factor
    except ArithmeticError:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity such as 500m or 2Gi") from None
