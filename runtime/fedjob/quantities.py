"""Numbers as people read them, the same in the live view, the final table and the report."""

import math
from collections.abc import Sequence

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def binary_unit(count: float) -> tuple[str, int]:
    """Name and size in bytes of the largest binary unit that `count` bytes fill at least once."""
    exponent = 0
    while count >= 1024 and exponent < len(_BINARY_UNITS) - 1:
        count /= 1024
        exponent += 1
    return _BINARY_UNITS[exponent], 1024**exponent


def bytes_text(count: float) -> str:
    """Bytes with a binary unit and three digits: "512 B", "1.25 MiB", "13.0 GiB"."""
    unit, size = binary_unit(count)
    if size == 1:
        return f"{count:.0f} B"
    scaled = count / size
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"


def rate_text(bytes_per_second: float) -> str:
    """A transfer rate: "1.25 MiB/s"."""
    return f"{bytes_text(bytes_per_second)}/s"


def seconds_text(seconds: float) -> str:
    """A duration: "85 ms", "2.1 s", "14 s", "2 min 05 s", "1 h 05 min", "3 d 04 h"."""
    if not math.isfinite(seconds):
        return metric_text(seconds)
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def metric_text(value: float) -> str:
    """A metric with four significant digits, trailing zeros kept so that columns line up: "0.9300", "12.30"."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if abs(value) >= 10_000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3e}"
    return "0" if value == 0 else f"{value:#.4g}".rstrip(".")


def count_text(value: float) -> str:
    """A number of examples: whole numbers with thousands separators, "12,400"."""
    if not math.isfinite(value):
        return metric_text(value)
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def share_text(part: float, whole: float) -> str:
    """A part of a whole in percent, "12.5 %"; "" where there is no whole."""
    if not whole or not math.isfinite(part / whole):
        return ""
    percent = 100 * part / whole
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.3g} %"


def name_text(name: str, most: int = 24) -> str:
    """A name of a metric or a site in at most so many characters: shortened in its middle, as names differ at their ends."""
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"


def plural(count: int, noun: str) -> str:
    """ "1 site", "3 sites"."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


def names_text(names: Sequence[str], most: int = 4) -> str:
    """Names in a line, the first few: "a, b", "a, b, c, d and 60 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def round_text(number: int) -> str:
    """A round as people count, from 1: "round 1" for number 0 of the API, of histories and of states, which count from 0."""
    return f"round {number + 1}"
