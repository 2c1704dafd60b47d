"""What a script and its log are told once a task is answered."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from fedjob import client
from fedjob import wire_pb2 as wire
from fedjob.client import Receipt, _put_aside
from fedjob.tally import ClientTally


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


def test_what_is_logged_after_an_answer_is_of_the_round_answered_last(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, said = [wire.Task(key=wire.Key(kind="Train", round=7)), None], list[wire.Upward]()
    uplink = SimpleNamespace(
        tally=ClientTally(), tell=said.append, next_task=lambda _: tasks.pop(0), done=lambda _: None
    )
    config = SimpleNamespace(site="a", include=())
    session: Any = SimpleNamespace(uplink=uplink, config=config, gang=None, task=None, model=None, offered=None)
    monkeypatch.setattr(client, "_session", session)
    assert client.is_running()
    client.log("loss", 0.5)
    _put_aside(session, Receipt(True))
    client.log("loss", 0.25)
    assert not client.is_running()
    client.log("loss", 0.125)
    assert [(each.value.round, each.value.value) for each in said] == [(7, 0.5), (7, 0.25), (7, 0.125)]
