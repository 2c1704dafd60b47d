"""Files of a certificate that are replaced while the process runs: what is taken, and what is not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedjob import identity
from fedjob.errors import IdentityError, TransportError
from fedjob.identity import CERT_FILE, KEY_FILE, Credentials, Identity
from fedjob.keyring import Keyring, Renewal
from volumes import mount

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
_RENEWALS = 300
OURS = identity.create_authority("job-1", now=NOW, lifetime=HOUR)
A = Identity(identity.TRUST_DOMAIN, "job-1", "a")


def issued(site: str = "a", now: datetime = NOW) -> Credentials:
    return identity.issue(OURS, OURS.site(site), now=now, lifetime=HOUR)


STRANGERS = identity.create_authority("job-1", now=NOW, lifetime=HOUR)
FOREIGN = identity.issue(STRANGERS, STRANGERS.site("a"), now=NOW, lifetime=HOUR)


@pytest.fixture(params=["a folder", "a mounted Secret"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Credentials], Path]:
    """Writes credentials, the first or renewed ones; returns where they are."""

    def write(credentials: Credentials) -> Path:
        if request.param == "a folder":
            identity.write(credentials, tmp_path / "tls")
        else:
            mount(credentials, tmp_path / "tls")
        return tmp_path / "tls"

    return write


def test_what_is_renewed_is_used_from_the_next_look_on(put: Callable[[Credentials], Path]) -> None:
    first, second = issued(), issued()
    keyring = Keyring(put(first), A)
    assert keyring.now() == first
    put(second)
    assert keyring.now() == second


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (replace(issued(), key_pem=issued().key_pem), "is not the key of the certificate"),
        (replace(issued(), cert_pem=issued().cert_pem[:300]), "is not readable as PEM"),
        (replace(issued(), key_pem=b""), "is not readable as PEM"),
        (replace(issued(), ca_pem=b""), "is not readable as PEM"),
        (issued("b"), "was issued to site b"),
        (issued(now=NOW - 3 * HOUR), "the certificate expired at"),
        (replace(issued(), ca_pem=FOREIGN.ca_pem), "was not signed by the authority"),
    ],
)
def test_what_will_not_do_leaves_the_old_one_in_place_and_is_told_once(
    wrong: Credentials, says: str, put: Callable[[Credentials], Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, good = issued(), issued()
    keyring = Keyring(put(first), A)
    put(wrong)
    with caplog.at_level(logging.INFO, "fedjob"):
        assert [keyring.now() for _ in range(3)] == [first] * 3
        told = [r.getMessage() for r in caplog.records]
        assert len(told) == 1
        assert says in told[0]
        assert "the old one stays" in told[0]
        assert "PRIVATE" not in told[0]
        put(good)
        assert keyring.now() == good


def test_files_that_are_missing_for_a_moment_are_waited_for(put: Callable[[Credentials], Path]) -> None:
    first, good = issued(), issued()
    folder = put(first)
    keyring = Keyring(folder, A)
    (folder / KEY_FILE).unlink()
    assert keyring.now() == first
    put(good)
    assert keyring.now() == good


def test_a_pair_that_is_written_file_by_file_is_used_when_it_is_whole(tmp_path: Path) -> None:
    first, second = issued(), issued()
    identity.write(first, tmp_path)
    keyring = Keyring(tmp_path, A)
    (tmp_path / CERT_FILE).write_bytes(second.cert_pem)
    assert keyring.now() == first
    (tmp_path / KEY_FILE).write_bytes(second.key_pem)
    assert keyring.now() == second


def test_a_mounted_secret_is_never_read_half(tmp_path: Path) -> None:
    """While a thread reads, another one renews the Secret, once for each reading: whatever is read is of one issue."""
    issues = [issued() for _ in range(8)]
    mount(issues[0], tmp_path)
    both = threading.Barrier(2, timeout=20)

    def renew() -> None:
        for number in range(_RENEWALS):
            both.wait()
            mount(issues[number % len(issues)], tmp_path)

    writer = threading.Thread(target=renew)
    writer.start()
    seen = set()
    for _ in range(_RENEWALS):
        both.wait()
        read = identity.read(tmp_path)
        assert read in issues
        seen.add(read.cert_pem)
    writer.join()
    assert len(seen) > 1


def test_a_folder_that_cannot_be_read_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"cannot read .*tls\.key"):
        Keyring(tmp_path, A)


def test_what_is_new_is_handed_over_again_until_it_is_taken(
    put: Callable[[Credentials], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedjob.keyring._LOOK_SECONDS", 0.01)
    first, second = issued(), issued()
    keyring = Keyring(put(first), A)
    tries: list[Credentials] = []
    taken = threading.Event()

    def use(credentials: Credentials) -> None:
        tries.append(credentials)
        if len(tries) < 3:
            raise TransportError("the server does not answer")
        taken.set()

    renewal = Renewal(keyring, first, use)
    put(second)
    assert taken.wait(20)
    renewal.close()
    assert tries == [second] * 3
