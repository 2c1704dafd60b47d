"""Which sites a round asks: the same for everyone who computes it, and fair in the long run."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fedjob.sampling import rank, sample

NAMES = st.lists(st.text("abcdefgh-0123456789", min_size=1, max_size=8), unique=True, max_size=12)
SEEDS, ROUNDS = st.integers(0, 2**63 - 1), st.integers(0, 10**6)


@given(NAMES, SEEDS, ROUNDS, st.randoms())
def test_the_order_does_not_depend_on_the_order_in_which_names_are_given(
    names: list[str], seed: int, number: int, random: object
) -> None:
    assert rank(names, seed, number) == rank(sorted(names), seed, number) == rank(names[::-1], seed, number)


@given(NAMES, SEEDS, ROUNDS, st.integers(1, 15))
def test_a_sample_has_so_many_different_sites_in_order(names: list[str], seed: int, number: int, count: int) -> None:
    chosen = sample(names, count, seed, number)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(names)
    assert len(chosen) == min(count, len(names))


@given(NAMES, SEEDS, ROUNDS, st.integers(1, 14))
def test_a_larger_sample_contains_the_smaller(names: list[str], seed: int, number: int, count: int) -> None:
    assert set(sample(names, count, seed, number)) <= set(sample(names, count + 1, seed, number))


@given(NAMES, SEEDS, ROUNDS)
def test_a_count_of_zero_asks_everyone(names: list[str], seed: int, number: int) -> None:
    assert sample(names, 0, seed, number) == sorted(names)


def test_the_rank_is_the_order_of_a_hash_that_anyone_can_compute() -> None:
    """So a choice of last year can be checked by hand: sha256sum of "7/3/site-a"."""
    hashes = {n: hashlib.sha256(f"7/3/{n}".encode()).hexdigest() for n in ("site-a", "site-b", "site-c")}
    assert rank(["site-a", "site-b", "site-c"], 7, 3) == sorted(hashes, key=lambda n: hashes[n])


def test_over_many_rounds_every_site_is_asked_about_equally_often() -> None:
    """2 of 8 in 4,000 rounds: 1,000 each; five standard deviations are 137."""
    names = [f"site-{k}" for k in range(8)]
    counts = Counter(n for t in range(4000) for n in sample(names, 2, 0, t))
    assert all(abs(counts[n] - 1000) < 137 for n in names)


def test_another_seed_is_another_choice() -> None:
    names = [f"site-{k}" for k in range(20)]
    assert len({tuple(rank(names, seed, 0)) for seed in range(50)}) == 50


def test_a_sample_is_the_head_of_the_rank() -> None:
    names = [f"site-{k}" for k in range(20)]
    assert all(sample(names, 5, seed, 7) == sorted(rank(names, seed, 7)[:5]) for seed in range(50))
