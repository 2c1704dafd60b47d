"""The table of fixed limits: what a stranger can influence and no field of a resource bounds.

One line for each, with the reason for its value and what happens beyond it. Code takes `NAME.value`; `python -m fedjob.api.reference
limits > docs/limits.md` prints the page. A bound that a user may want to change is a field of a resource instead.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limit:
    """One limit.

    scope: whose doing it bounds, a heading of the page. what: the thing that is counted, with per what. value: in `unit`.
    reason: why this value. beyond: what happens past it.
    """

    scope: str
    what: str
    value: int
    unit: str
    reason: str
    beyond: str


_SITE: Final = "What a site sends to its server"

LOGGED_VALUES: Final = Limit(
    _SITE,
    "scalars that a site logs, per round",
    10_000,
    "values",
    "they lie in the server's memory and in the report",
    "later ones are dropped and counted",
)
OPEN_FETCHES: Final = Limit(
    _SITE,
    "downloads that a site has open at once",
    8,
    "streams",
    "a site needs one, and an old one takes a moment to end",
    "the call is refused as ResourceExhausted",
)
METRIC_SERIES: Final = Limit(
    _SITE,
    "metric names per job in Prometheus",
    64,
    "names",
    "each is a time series for every site",
    "further names are left out and counted",
)


def table() -> tuple[Limit, ...]:
    """Every limit of this module, in the order of its definition."""
    return tuple(value for value in globals().values() if isinstance(value, Limit))
