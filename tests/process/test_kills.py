"""SIGKILL at any moment: the job finishes by itself, with the bytes of the undisturbed run, and nobody trains in vain."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedjob.stored import file_digest

if TYPE_CHECKING:
    from conftest import Job, Started

SITES = ("a", "b", "c")
ROUNDS = 8
SEED = 20231
KILLS = 7
STATE = ["checkpoint", "conclusion.json", "departures.json", "lock", "run.json"]  # what a job that is over keeps

# The state is a function of round and site alone. A site trains for as long as the file hold-SITE-ROUND is there.
SCRIPT = """
import os, time
from pathlib import Path
import numpy as np
import fedjob

SIZE = 2_000_000
fedjob.init({"w": np.zeros(SIZE, np.float32), "steps": np.int64(0)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    number = model.current_round
    with open("trainings", "a") as f:
        f.write(f"{number} {site} {os.getpid()}\\n")
    while Path(f"hold-{site}-{number}").exists():
        time.sleep(0.002)
    noise = np.random.default_rng([number, ord(site)]).standard_normal(SIZE, np.float32)
    params = {"w": np.float32(0.9) * model.params["w"] + noise, "steps": model.params["steps"] + 1}
    score = {"mean": float(model.params["w"].mean())}
    fedjob.send(fedjob.FLModel(params=params, metrics=score, meta={"num_examples": 10 + ord(site)}))
"""


def federation(new_job: Callable[..., Job], rounds: int = ROUNDS, **spec: Any) -> Job:
    return new_job(SCRIPT, SITES, workflow={"rounds": rounds, "quorum": 3}, **spec)


def hold(job: Job, number: int, *sites: str) -> Iterator[Path]:
    """Let sites train until the files are removed; gives them."""
    for site in sites:
        path = job / f"hold-{site}-{number}"
        path.touch()
        yield path


def trainings(job: Job) -> Counter[tuple[int, str]]:
    """How often each site began to train in each round."""
    return Counter((int(number), site) for number, site, _ in (line.split() for line in job.lines("trainings")))


def assert_as_undisturbed(run: Started, undisturbed: Started) -> None:
    """The same model after as many rounds, every round told once, and no state but that of the last one."""
    rounds = len(run.history)
    assert [r.round for r in run.history] == list(range(rounds))
    assert [r.model_digest for r in run.history] == [r.model_digest for r in undisturbed.history[:rounds]]
    assert file_digest(run.folder / "model.safetensors") == undisturbed.history[rounds - 1].model_digest
    assert sorted(p.name for p in (run.folder / "state").iterdir()) == STATE


@pytest.fixture(scope="module")
def undisturbed(shared_job: Callable[..., Job]) -> Started:
    return shared_job(SCRIPT, SITES, workflow={"rounds": ROUNDS, "quorum": 3}).run()


def test_the_undisturbed_run_trains_every_site_once_in_each_round(undisturbed: Started) -> None:
    assert len(undisturbed.history) == ROUNDS
    assert_as_undisturbed(undisturbed, undisturbed)
    assert trainings(undisturbed.job) == {(number, site): 1 for number in range(ROUNDS) for site in SITES}


def test_server_and_scripts_killed_while_sites_train(
    new_job: Callable[..., Job], undisturbed: Started, until: Callable[..., Any]
) -> None:
    job = federation(new_job, rounds=4)
    schedule = ((1, "bc", ["server"]), (2, "b", ["b"]), (3, "bc", ["server", "b"]))
    gates = {number: list(hold(job, number, *held)) for number, held, _ in schedule}
    run = job.start()
    for number, held, victims in schedule:
        until(partial(round_is_on, run, number, held))
        run.kill(*victims)
        until(lambda times=2 if "b" in victims else 1, n=number: trainings(job)[n, "b"] == times)
        for path in gates[number]:
            path.unlink()
    assert run.wait() == 0, run.story()
    assert_as_undisturbed(run, undisturbed)
    again = {place: times for place, times in trainings(job).items() if times != 1}
    assert again == {(2, "b"): 2, (3, "b"): 2}, "only a script that died while it trained begins again"
    assert [run.site(name)["restarts"] for name in SITES] == [0, 2, 0]


def round_is_on(run: Started, number: int, held: str) -> bool:
    """Whether the held sites train in this round, and site a has answered."""
    return all(trainings(run.job)[number, site] for site in held) and run.is_held(number, held, "a")


@pytest.mark.parametrize("victim", ["server", "both"])
def test_killed_while_an_update_is_on_its_way(
    victim: str, new_job: Callable[..., Job], undisturbed: Started, until: Callable[..., Any]
) -> None:
    """Site c holds the round open, so that what site a has sent stays where it is until it is seen."""
    job = federation(new_job, rounds=2)
    gate, last = hold(job, 1, "a", "c")
    run = job.start()
    until(lambda: trainings(job)[1, "a"] and trainings(job)[1, "c"] and run.is_held(1, "ac", "b"))
    server, site = run.pid("server"), run.pid("a")
    gate.unlink()
    spool = run.folder / "state" / "round-000001"
    until(lambda: any(p.stat().st_size for p in spool.glob("Train.0.a.*.params")), pause=0)
    for pid in {"server": [server], "both": [server, site]}[victim]:
        os.kill(pid, signal.SIGKILL)
    last.unlink()
    assert run.wait() == 0, run.story()
    assert_as_undisturbed(run, undisturbed)
    assert trainings(job)[1, "b"] == trainings(job)[1, "c"] == 1


def test_a_seeded_schedule_of_kills(
    new_job: Callable[..., Job], undisturbed: Started, until: Callable[..., Any]
) -> None:
    print(f"seed {SEED}")  # noqa: T201 - shown when the test fails
    chance = random.Random(SEED)
    job = federation(new_job, failurePolicy={"serverRestarts": 50, "siteRestarts": 50})
    run = job.start()
    for begun in sorted(chance.sample(range(1, ROUNDS * len(SITES)), KILLS)):
        victims = chance.choice([["server"], ["server"], ["a"], ["b"], ["c"], ["server", chance.choice(SITES)]])
        moment = chance.uniform(0.0, 0.15)
        until(lambda n=begun: len(job.lines("trainings")) >= n)
        time.sleep(moment)  # waits for nothing: the kill shall fall into whatever the processes are at by then
        if run.popen.poll() is None and run.status.get("state") != "Complete":
            print(f"after training {begun} and {moment:.3f} s: {victims}")  # noqa: T201
            run.kill(*victims)
    assert run.wait() == 0, run.story()
    assert_as_undisturbed(run, undisturbed)
    assert run.model == undisturbed.model


def test_a_round_that_could_not_be_told_runs_again(
    new_job: Callable[..., Job], undisturbed: Started, until: Callable[..., Any]
) -> None:
    job = federation(new_job, rounds=3)
    (gate,) = hold(job, 1, "a")
    run = job.start()
    until(lambda: trainings(job)[1, "a"])
    history, kept = run.folder / "history.jsonl", run.folder / "history.kept"
    history.rename(kept)
    history.mkdir()  # the server cannot write into it, and crashes
    run.popen.send_signal(signal.SIGSTOP)  # nobody starts it again before the file is back
    gate.unlink()
    until(lambda: "the server cannot go on" in run.log("server"))
    history.rmdir()
    kept.rename(history)
    run.popen.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.story()
    assert_as_undisturbed(run, undisturbed)
    assert set(trainings(job).values()) == {1}
