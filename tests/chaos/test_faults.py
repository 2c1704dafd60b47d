"""A schedule is a function of its seed, holds every kind of fault, and ends before its job does."""

from __future__ import annotations

import pytest

from chaos.damage import altered
from chaos.faults import INTRUSIONS, SITES, STATE_FILES, Damage, Fault, Freeze, Intrude, Vanish, plan
from chaos.intruder import intrude

PLANS = [plan(5, number) for number in range(60)]
FAULTS = [fault for each in PLANS for fault in each.faults]


def test_the_same_seed_and_number_give_the_same_plan_and_others_another() -> None:
    assert plan(5, 3) == plan(5, 3)
    assert plan(5, 3).faults != plan(6, 3).faults
    assert plan(5, 3).faults != plan(5, 6).faults


def test_a_long_schedule_holds_every_kind_of_fault_against_every_process() -> None:
    kinds = {type(f.action).__name__ for f in FAULTS}
    assert kinds == {
        "Kill", "Freeze", "Cut", "Flip", "Lose", "HalfClose", "Delay", "Throttle", "Stall", "Vanish", "Intrude", "Damage",
    }  # fmt: skip
    assert {"server", "runner", *SITES} <= {t for f in FAULTS for t in f.action.targets}
    assert {f.action.what for f in FAULTS if isinstance(f.action, Intrude)} == set(INTRUSIONS)
    assert {f.action.targets[0] for f in FAULTS if isinstance(f.action, Damage)} == set(STATE_FILES)


def test_moments_are_in_order_and_before_the_last_round() -> None:
    for each in PLANS:
        moments = [fault.trainings for fault in each.faults]
        assert moments == sorted(moments)
        assert moments[-1] < (each.shape.rounds - 1) * len(SITES)


def test_a_brief_plan_has_the_same_moments_and_nothing_that_takes_long_by_its_nature() -> None:
    brief = plan(5, 4, brief=True)
    assert [f.trainings for f in brief.faults] == [f.trainings for f in plan(5, 4).faults]
    assert not [f for number in range(60) for f in plan(5, number, brief=True).faults if _takes_long(f)]


def _takes_long(fault: Fault) -> bool:
    return isinstance(fault.action, Vanish) or (isinstance(fault.action, Freeze) and fault.action.seconds > 1)


def test_an_unknown_intrusion_is_an_error_of_the_plan() -> None:
    with pytest.raises(KeyError):
        intrude("polite request", ("127.0.0.1", 1), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "after"), [("flip", b"abcdefg\x60ij"), ("truncate", b"abcdefg"), ("append", b'abcdefghij{"torn')]
)
def test_damage_alters_the_place_that_the_plan_names(how: str, after: bytes) -> None:
    fault = Damage(("answer",), how, 0.7)  # type: ignore[arg-type]
    got = altered(b"abcdefghij", fault)
    assert got[:7] == b"abcdefg"
    assert len(got) == len(after)
    assert got != b"abcdefghij"
