"""What a script may still call once its session is over."""

from __future__ import annotations

import logging
import threading

import pytest

from fedjob import client
from fedjob.errors import LocalProtocolError


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_session", None), ("_left", True), ("_unsent", 0), ("_dying", False)):
        monkeypatch.setattr(client, name, value)


@pytest.mark.usefixtures("left")
def test_values_logged_after_the_end_are_dropped_from_any_thread(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedjob"):
        client.log("loss", 0.5)
        thread = threading.Thread(target=client.log, args=("loss", 0.5))
        thread.start()
        thread.join()
    assert caplog.messages == [
        "fedjob.log('loss'): this process has left the job; this value and later ones are not sent"
    ]
    assert client._unsent == 2
    with pytest.raises(TypeError, match="value is a str"):
        client.log("loss", "high")


@pytest.mark.usefixtures("left")
def test_a_dying_process_keeps_its_last_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_dying", True)
    with caplog.at_level(logging.WARNING, "fedjob"):
        client.log("loss", 0.5)
    assert caplog.messages == []


@pytest.mark.usefixtures("left")
def test_what_needs_a_session_says_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalProtocolError, match="has left the job"):
        client.get_site_name()
    monkeypatch.setattr(client, "_left", False)
    with pytest.raises(LocalProtocolError, match=r"call fedjob\.init\(\) first"):
        client.log("loss", 0.5)
