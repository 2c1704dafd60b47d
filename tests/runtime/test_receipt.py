"""What a script's log says of the server's verdict."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from fedjob.client import Receipt, _put_aside


@pytest.mark.parametrize(
    ("receipt", "said"),
    [
        (Receipt(True), []),
        (Receipt(True, "Declined", "no data today"), []),  # the script said so itself
        (Receipt(True, "", "3 of 67 metrics are left out"), ["answer accepted; 3 of 67 metrics are left out"]),
        (Receipt(False, "PastRound", "it is over"), ["answer not accepted: PastRound: it is over"]),
    ],
)
def test_what_did_not_count_is_said(receipt: Receipt, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    session: Any = SimpleNamespace(uplink=None, task=None, model=None)
    with caplog.at_level(logging.WARNING, "fedjob"):
        assert _put_aside(session, receipt) is receipt
    assert caplog.messages == said
