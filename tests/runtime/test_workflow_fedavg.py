"""FedAvg's laws, and what every network under a workflow must keep: the conformance suite of `Peers`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import FLModel, JobFailed, testing
from fedjob.api import FedAvg, FedAvgOptions

Network = Callable[..., testing.Result]
START = {"w": np.arange(5, dtype=np.float32), "steps": np.int64(0)}


def client(k: int, examples: int = 1) -> testing.Client:
    """Moves w towards k and counts a step; deterministic in what it receives."""

    def train(model: FLModel) -> FLModel:
        w = model.params["w"]
        return FLModel(
            params={"w": w + np.float32(0.3) * (np.float32(k) - w), "steps": np.int64(model.params["steps"] + 1)},
            metrics={"first": float(w[0])},
            meta={"num_examples": examples},
        )

    return train


FOUR = {f"site-{k}": client(k, examples=k + 1) for k in range(4)}


def test_one_round_is_the_weighted_mean_of_the_updates(network: Network) -> None:
    """Σ n_k w_k / Σ n_k, to one rounding, against exact fractions; integers come from the first site."""
    result = network(FedAvg(rounds=1), START, FOUR)
    updates = [(k + 1, FOUR[f"site-{k}"](FLModel(params=START)).params["w"]) for k in range(4)]
    for i in range(5):
        exact = sum(n * Fraction(float(w[i])) for n, w in updates) / sum(n for n, _ in updates)
        assert result.params["w"][i] == np.float32(float(exact))
    assert result.params["steps"] == 1


def test_both_networks_end_with_the_same_bytes(network: Network) -> None:
    """The answer does not depend on what carries it."""
    assert network(FedAvg(rounds=3), START, FOUR).file == testing.run(FedAvg(rounds=3), START, FOUR).file


def test_uniform_weighting_ignores_the_numbers_of_examples(network: Network) -> None:
    uniform = FedAvg(rounds=1, options=FedAvgOptions(weighting="Uniform"))
    equal = {s: client(k, examples=1) for k, s in enumerate(FOUR)}
    assert network(uniform, START, FOUR).file == testing.run(FedAvg(rounds=1), START, equal).file


def test_a_site_that_states_more_examples_than_are_allowed_is_left_out(network: Network) -> None:
    clients = {"good": client(0, examples=1000), "greedy": client(9, examples=1001)}
    result = network(FedAvg(rounds=1, quorum=1, max_examples=1000), START, clients)
    assert result.missing["Train", 0, 0]["greedy"].reason == "BadWeight"
    assert result.file == network(FedAvg(rounds=1), START, {"good": clients["good"]}).file


def test_one_client_gets_its_own_bytes_back(network: Network) -> None:
    result = network(FedAvg(rounds=1), START, {"only": client(7, examples=317)})
    expected = client(7)(FLModel(params=START)).params["w"]
    assert result.params["w"].tobytes() == expected.tobytes()


def test_a_client_that_declines_is_left_out_of_the_round_by_name(network: Network) -> None:
    def declines(_: FLModel) -> FLModel:
        raise testing.Decline("no data today")

    result = network(FedAvg(rounds=2), START, {**FOUR, "site-0": declines})
    assert result.rounds == 2
    assert result.missing["Train", 0, 0]["site-0"].reason == "Declined"


def test_an_update_with_nan_is_refused_by_name_and_the_job_goes_on(network: Network) -> None:
    def diverges(model: FLModel) -> FLModel:
        return FLModel(params={"w": model.params["w"] * np.float32("nan"), "steps": model.params["steps"]})

    result = network(FedAvg(rounds=2), START, {**FOUR, "site-3": diverges})
    assert result.missing["Train", 1, 0]["site-3"].reason == "NotFinite"
    assert np.isfinite(result.params["w"]).all()


def test_an_update_of_another_shape_is_refused_by_name(network: Network) -> None:
    def grows(model: FLModel) -> FLModel:
        return FLModel(params={"w": np.zeros(6, np.float32), "steps": model.params["steps"]})

    result = network(FedAvg(rounds=1), START, {**FOUR, "site-3": grows})
    assert result.missing["Train", 0, 0]["site-3"].reason == "WrongShape"


def test_a_round_without_its_quorum_fails_the_job_and_not_the_model(network: Network) -> None:
    def declines(_: FLModel) -> FLModel:
        raise testing.Decline("no")

    with pytest.raises(JobFailed, match=r"QuorumNotMet.*2 of 2 answers needed.*site-1: Declined"):
        network(FedAvg(rounds=1, quorum=2), START, {"site-0": client(0), "site-1": declines})


def test_a_required_site_must_be_among_the_answers(network: Network) -> None:
    def declines(_: FLModel) -> FLModel:
        raise testing.Decline("no")

    with pytest.raises(JobFailed, match="site-0 required"):
        network(FedAvg(rounds=1), START, {**FOUR, "site-0": declines}, required=["site-0"])


def test_a_sampled_round_asks_only_the_chosen(network: Network) -> None:
    result = network(FedAvg(rounds=3, clients_per_round=2), START, FOUR)
    assert [sum(n for (_, t), n in result.trained.items() if t == i) for i in range(3)] == [2, 2, 2]


def test_the_final_evaluation_is_one_more_ask_and_moves_nothing(network: Network) -> None:
    plain, scored = FedAvg(rounds=2), FedAvg(rounds=2, options=FedAvgOptions(evaluate=True))
    result = network(scored, START, FOUR)
    assert result.rounds == 3
    assert result.file == testing.run(plain, START, FOUR).file


def test_optimizer_params_that_differ_are_dropped_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    def optimises(count: int) -> testing.Client:
        return lambda model: FLModel(params=model.params, optimizer_params={"m": np.zeros(count)})

    testing.run(FedAvg(rounds=2), START, {"a": optimises(2), "b": optimises(3)})
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"round {t + 1}: optimizer_params are dropped, the next round begins without any: b differs from a: 'm' is F64 [3], expected F64 [2]"
        for t in range(2)
    ]


def test_optimizer_params_are_averaged_and_handed_on(network: Network) -> None:
    seen: list[float] = []

    def train(model: FLModel) -> FLModel:
        if model.optimizer_params is not None:
            seen.append(float(model.optimizer_params["state"][0]["momentum"][0]))
        momentum = {"state": {0: {"momentum": np.full(2, 1.0, np.float32)}}, "groups": [{"lr": 0.1, "params": [0]}]}
        return FLModel(params=model.params, optimizer_params=momentum)

    network(FedAvg(rounds=2), START, {"a": train, "b": train})
    assert seen == [1.0, 1.0]


# ------------------------------------------------------------------------- laws that need many runs: in memory only


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), rounds=st.integers(1, 3))
def test_any_order_of_arrival_gives_the_same_bytes(seed: int, rounds: int) -> None:
    workflow = FedAvg(rounds=rounds)
    assert (
        testing.run(workflow, START, FOUR, faults=testing.Faults(seed=seed)).file
        == testing.run(workflow, START, FOUR).file
    )


@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8), n=st.integers(1, 6))
def test_equal_updates_come_back_bit_for_bit(values: list[float], n: int) -> None:
    update = np.array(values, np.float32)
    clients = {
        f"s{k}": lambda _, k=k: FLModel(params={"w": update}, meta={"num_examples": 3 * k + 1}) for k in range(n)
    }
    result = testing.run(FedAvg(rounds=1), {"w": np.zeros_like(update)}, clients)
    assert result.params["w"].tobytes() == update.tobytes()


def test_a_server_killed_before_any_call_ends_with_the_same_bytes_and_nobody_trains_twice() -> None:
    workflow = FedAvg(rounds=3, options=FedAvgOptions(evaluate=True))
    undisturbed = testing.run(workflow, START, FOUR)
    for k in range(undisturbed.calls):
        killed = testing.run(workflow, START, FOUR, faults=testing.Faults(seed=k, kill_before=frozenset({k})))
        assert killed.file == undisturbed.file
        assert killed.trained == undisturbed.trained
        assert set(killed.trained.values()) <= {0, 1}


def test_a_silent_site_is_left_out_at_the_deadline_and_is_back_in_the_next_round() -> None:
    faults = testing.Faults(silent={"site-1": frozenset({0})})
    result = testing.run(FedAvg(rounds=2), START, FOUR, faults=faults)
    assert result.trained["site-1", 0] == 0
    assert result.trained["site-1", 1] == 1


def test_a_round_that_closes_at_its_quorum_takes_the_first_answers_only() -> None:
    result = testing.run(FedAvg(rounds=1, quorum=2, close="Quorum"), START, FOUR)
    assert sum(result.trained.values()) == 2
