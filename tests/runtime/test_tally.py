"""What processes count, and the bounds of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedjob import wire_pb2 as wire
from fedjob.api.limits import NAME
from fedjob.chunks import CHUNK_BYTES, Table
from fedjob.codec import flatten
from fedjob.records import Missing, RoundRecord, SiteRound
from fedjob.tally import ACCEPTED, MAX_NAMES, ClientTally, Scalars, ServerTally
from fedjob.text import one_line
from fedjob.uplink import _frames, _Turn


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.dictionaries(st.text(max_size=200), st.floats(), max_size=30)))
)
def test_names_of_metrics_are_bounded_and_nothing_is_lost_uncounted(sent: list[tuple[str, dict[str, float]]]) -> None:
    scalars = Scalars()
    for site, metrics in sent:
        scalars.take(site, metrics)
    assert len(scalars.names) <= MAX_NAMES
    assert len(scalars.last) <= 2 * MAX_NAMES
    assert all(len(name.encode()) <= NAME.value for name in scalars.names)
    kept = sum(one_line(name, NAME.value) in scalars.names for _, metrics in sent for name in metrics)
    assert kept + scalars.dropped == sum(len(metrics) for _, metrics in sent)


def test_the_first_names_stay_when_later_ones_overflow() -> None:
    scalars = Scalars()
    scalars.take("a", {f"m{i}": 0.0 for i in range(MAX_NAMES)})
    scalars.take("b", {"late": 1.0, "m0": 2.0})
    assert scalars.dropped == 1
    assert scalars.last["b", "m0"] == 2.0
    assert ("b", "late") not in scalars.last


def test_a_round_is_told_by_phase_site_and_reason() -> None:
    tally = ServerTally()
    record = RoundRecord(
        0,
        phases={"train": 2.0, "aggregate": 0.5},
        missing=(Missing("b", "DeadlineExceeded", "late"),),
        sites={"a": SiteRound(metrics={"loss": 0.3}, seconds_down=1.0, seconds_train=4.0, seconds_up=2.0)},
        metrics={"loss": 0.3},
    )
    tally.complete(record)
    tally.complete(record)
    assert tally.rounds == {"Train": 2}
    assert (tally.phases["train"].count, tally.phases["train"].seconds) == (2, 4.0)
    assert tally.site_phases["a", "train"].seconds == 8.0
    assert tally.missing["b", "DeadlineExceeded"] == 2
    assert tally.scores.last == {("", "loss"): 0.3, ("a", "loss"): 0.3}


def test_a_verdict_is_counted_under_its_reason() -> None:
    server, client = ServerTally(), ClientTally()
    for accepted, reason in ((True, ""), (False, "NotFinite"), (True, "Declined")):
        server.judged("a", accepted, reason)
        client.judged(accepted, reason)
    assert server.updates == {("a", ACCEPTED): 1, ("a", "NotFinite"): 1, ("a", "Declined"): 1}
    assert client.updates == {ACCEPTED: 1, "NotFinite": 1, "Declined": 1}


def test_a_chunk_that_is_sent_once_more_after_a_cut_is_counted() -> None:
    """The sender's own loop: two streams of one answer, the second for what the server lacks of the first."""
    part = flatten({"w": np.zeros(3 * CHUNK_BYTES // 4, np.float32)})
    size, tally = part.layout.size, ClientTally()
    tables = [Table(size)]

    def stream(*wanted: tuple[int, int]) -> None:
        turn = _Turn([size])
        turn.take(wire.Reply(want=wire.Want(ranges=[wire.Range(part=0, start=a, stop=b) for a, b in wanted])))
        for frame in _frames(wire.Announce(), [part], tables, turn, tally):
            if wire.Frame.FromString(frame).HasField("seal"):
                turn.end()

    stream((0, size))
    assert (tally.bytes_up, tally.chunks_up_again) == (size, 0)
    stream((CHUNK_BYTES, 2 * CHUNK_BYTES))
    assert (tally.bytes_up, tally.chunks_up_again) == (size + CHUNK_BYTES, 1)
