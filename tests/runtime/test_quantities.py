"""Numbers as people read them."""

from collections.abc import Callable

import pytest

from fedjob.quantities import bytes_text, count_text, metric_text, plural, rate_text, seconds_text


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (bytes_text, 0, "0 B"),
        (bytes_text, 1023, "1023 B"),
        (bytes_text, 1024, "1.00 KiB"),
        (bytes_text, 1.25 * 2**20, "1.25 MiB"),
        (bytes_text, 13 * 2**30, "13.0 GiB"),
        (bytes_text, 870 * 2**20, "870 MiB"),
        (rate_text, 2**20, "1.00 MiB/s"),
        (seconds_text, 0.085, "85 ms"),
        (seconds_text, 0.0996, "0.1 s"),
        (seconds_text, 2.1, "2.1 s"),
        (seconds_text, 9.97, "10 s"),
        (seconds_text, 59.6, "1 min 00 s"),
        (seconds_text, 125, "2 min 05 s"),
        (seconds_text, 3900, "1 h 05 min"),
        (seconds_text, 3 * 86400 + 4 * 3600, "3 d 04 h"),
        (metric_text, 0.93, "0.9300"),
        (metric_text, 12.3, "12.30"),
        (metric_text, 1234.5, "1234"),
        (metric_text, 23456.0, "23,456"),
        (metric_text, 0.00001234, "1.234e-05"),
        (metric_text, 0.0, "0"),
        (metric_text, float("nan"), "NaN"),
        (metric_text, float("-inf"), "-∞"),
        (count_text, 12400.0, "12,400"),
        (count_text, 0.5, "0.5"),
    ],
)
def test_a_quantity_reads_as_expected(write: Callable[[float], str], value: float, text: str) -> None:
    assert write(value) == text


def test_one_is_singular() -> None:
    assert [plural(number, "site") for number in (0, 1, 2)] == ["0 sites", "1 site", "2 sites"]
