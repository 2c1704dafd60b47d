"""Who a site is comes from its certificate: a wrong one is refused, and the log of the side that knows says why."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedjob import client, config, identity, local
from fedjob.errors import IdentityError, NotAdmitted
from fedjob.model import FLModel

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Hosted

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


def authority_of(run: local.Run) -> identity.Authority:
    """A new authority in place of the run's, whose key no test can get at; all processes have certificates of it."""
    authority = identity.create_authority(run.uid, now=NOW, lifetime=HOUR)
    server = identity.issue(
        authority, authority.server(), now=NOW, lifetime=HOUR, dns_names=["localhost"], ip_addresses=["127.0.0.1"]
    )
    identity.write(server, run.keys / local.SERVER)
    for site in run.job.spec.sites:
        identity.write(issue(authority, site.name), run.keys / site.name)
    return authority


def issue(authority: identity.Authority, site: str, now: datetime = NOW) -> identity.Credentials:
    return identity.issue(authority, authority.site(site), now=now, lifetime=HOUR)


def wrong_certificates(authority: identity.Authority) -> dict[str, identity.Credentials]:
    """What a site may hold that it should not, by what is wrong with it."""
    good = issue(authority, "a")
    foreign = issue(identity.create_authority(authority.job_uid, now=NOW, lifetime=HOUR), "a")
    yesterday = identity.create_authority(authority.job_uid, now=NOW - 24 * HOUR, lifetime=48 * HOUR)
    return {
        "foreign": replace(foreign, ca_pem=good.ca_pem),
        "distrusting": foreign,
        "expired": issue(yesterday, "a", NOW - 20 * HOUR),
        "other job": issue(replace(authority, job_uid="another-job"), "a"),
        "other site": issue(authority, "z"),
    }


def test_the_server_serves_nobody_with_a_wrong_certificate(
    host: Callable[..., Hosted], until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    made: list[identity.Authority] = []
    run = host("ab", prepare=lambda run: made.append(authority_of(run)), workflow={"rounds": 1})
    good = run.puppet("a")
    good.offer({"w": np.zeros(2, np.float32)})
    with caplog.at_level(logging.WARNING, "fedjob"):
        wrong = {name: run.puppet("b", credentials=held) for name, held in wrong_certificates(made[0]).items()}
        for name, words in (("other job", "of job another-job"), ("other site", "site z of job")):
            with pytest.raises(NotAdmitted, match=f"the server refuses this site: .*{words}"):
                wrong[name].uplink.next_task(30)
        told = (
            "the server refused this site's certificate: the certificate names .* and was not signed by the authority",
            "the server's own certificate is not signed by this job's authority",
        )
        for words in told:
            until(lambda words=words: any(_matches(words, r.getMessage()) for r in caplog.records))
    noted = (
        "refused a call: the caller is site a of job another-job",
        "refused a call: the caller is site z of job .* and the job has no such site",
        "connection from .* refused: its certificate is not of this job's authority",
    )
    for words in noted:
        until(lambda words=words: _matches(words, run.log("server")))
    for puppet in (good, run.puppet("b")):
        task = puppet.task("Train")
        assert puppet.answer(task, FLModel(params=puppet.fetch(task))).accepted
    assert good.uplink.next_task(30) is None
    assert run.wait() == 0
    assert run.history[0].contributors == ("a", "b")


def _matches(words: str, text: str) -> bool:
    return re.search(words, text) is not None


def test_an_expired_certificate_is_refused_on_both_sides(
    host: Callable[..., Hosted], until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = host("ab", prepare=authority_with_an_expired_site, workflow={"rounds": 1})
    with caplog.at_level(logging.WARNING, "fedjob"):
        run.puppet("b")
        until(lambda: "the certificate expired at" in caplog.text)
    until(lambda: _matches("connection from .* refused: its certificate has expired", run.log("server")))


def authority_with_an_expired_site(run: local.Run) -> None:
    """Site b's certificate is of the job's authority, and no longer valid."""
    begun = NOW - 24 * HOUR
    authority = identity.create_authority(run.uid, now=begun, lifetime=48 * HOUR)
    server = identity.issue(authority, authority.server(), now=begun, lifetime=48 * HOUR, dns_names=["localhost"])
    identity.write(server, run.keys / local.SERVER)
    identity.write(issue(authority, "b", begun), run.keys / "b")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("foreign", "was not signed by the authority in ca.crt"),
        ("expired", "the certificate expired at"),
        ("other job", "was issued to site a of job another-job"),
        ("other site", "was issued to site z of job"),
    ],
)
def test_a_script_with_a_wrong_certificate_does_not_even_call(wrong: str, words: str, tmp_path: Path) -> None:
    authority = identity.create_authority("uid", now=NOW, lifetime=HOUR)
    settings = site_settings(tmp_path, wrong_certificates(authority)[wrong])
    with pytest.raises(IdentityError, match=words):
        client.init(config_file=str(settings))


def test_the_script_of_a_site_with_another_sites_certificate_says_so_in_its_log(tmp_path: Path) -> None:
    authority = identity.create_authority("uid", now=NOW, lifetime=HOUR)
    settings = site_settings(tmp_path, issue(authority, "b"))
    environment = {**os.environ, config.CONFIG_VARIABLE: str(settings)}
    ended = subprocess.run(
        [sys.executable, "-c", "import fedjob; fedjob.init()"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "the certificate was issued to site b of job uid" in ended.stderr.splitlines()[-1]
    assert "and this process is site a of job uid" in ended.stderr.splitlines()[-1]


def site_settings(folder: Path, credentials: identity.Credentials) -> Path:
    """The configuration of site a of job "uid", with these keys."""
    identity.write(credentials, folder / "tls")
    settings = config.SiteConfig(
        job="job",
        uid="uid",
        attempt=1,
        trust_domain=identity.TRUST_DOMAIN,
        site="a",
        sites=("a", "b"),
        workflow={"rounds": 1},
        params_type="FULL",
        server="127.0.0.1:1",
        server_name="localhost",
        tls=folder / "tls",
        work=folder,
        server_lost_seconds=1,
    )
    config.write(folder / "a.json", settings)
    return folder / "a.json"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda held: replace(held, key_pem=held.key_pem[:50]), "is not readable as PEM"),
        (lambda held: replace(held, ca_pem=issue(identity.create_authority("x", now=NOW, lifetime=HOUR), "a").ca_pem), "was not signed by"),
    ],
)  # fmt: skip
def test_a_server_with_a_wrong_certificate_says_so_and_does_not_start(
    wrong: Callable[[identity.Credentials], identity.Credentials], words: str, host: Callable[..., Hosted]
) -> None:
    def spoil(run: local.Run) -> None:
        identity.write(wrong(identity.read(run.keys / local.SERVER)), run.keys / local.SERVER)

    run = host("a", prepare=spoil, workflow={"rounds": 1})
    assert run.wait() == 2
    assert words in run.log("server").strip().splitlines()[-1]


def test_a_server_that_starts_with_a_certificate_that_is_over_waits_for_a_renewed_one(
    host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    begun = NOW - 24 * HOUR
    authority: list[identity.Authority] = []

    def age(run: local.Run) -> None:
        authority.append(identity.create_authority(run.uid, now=begun, lifetime=48 * HOUR))
        old = identity.issue(authority[0], authority[0].server(), now=begun, lifetime=HOUR, dns_names=["localhost"])
        identity.write(old, run.keys / local.SERVER)
        identity.write(issue(authority[0], "a"), run.keys / "a")

    run = host("a", prepare=age, workflow={"rounds": 1})
    until(lambda: [c["type"] for c in run.status.get("conditions", ())] == ["CertificateExpired"])
    puppet = run.puppet("a")
    fresh = identity.issue(authority[0], authority[0].server(), now=NOW, lifetime=HOUR, dns_names=["localhost"])
    identity.write(fresh, run.run.keys / local.SERVER)
    puppet.offer({"w": np.zeros(2, np.float32)})
    task = puppet.task("Train")
    until(lambda: not run.status["conditions"])
    assert puppet.answer(task, FLModel(params=puppet.fetch(task))).accepted
    assert puppet.uplink.next_task(30) is None
    assert run.wait() == 0
