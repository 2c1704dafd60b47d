"""What goes wrong, and when. A plan is a function of seed and number and of nothing else, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

SERVER, RUNNER = "server", "runner"
SITES = ("a", "b", "c")
Direction = Literal["up", "down"]  # from the site to the server, and back
NOTICE_SECONDS = 15.0  # within these the server knows that a peer has vanished


@dataclass(frozen=True)
class Kill:
    """SIGKILL to all targets at once. A runner that is killed takes all others with it; the run is then resumed."""

    targets: tuple[str, ...]

    def __str__(self) -> str:
        return "kill"


@dataclass(frozen=True)
class Freeze:
    """SIGSTOP, and SIGCONT after so many seconds."""

    targets: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"freeze {self.seconds:.1f} s"


@dataclass(frozen=True)
class Cut:
    """The connection ends after so many more bytes: with a reset, or as if the other side had closed it."""

    targets: tuple[str, ...]
    how: Literal["RST", "FIN"]
    direction: Direction
    after_bytes: int

    def __str__(self) -> str:
        return f"cut {self.how} {self.direction} +{self.after_bytes:,} B"


@dataclass(frozen=True)
class Flip:
    """One bit of the stream is altered, after so many more bytes."""

    targets: tuple[str, ...]
    direction: Direction
    after_bytes: int
    bit: int

    def __str__(self) -> str:
        return f"flip {self.direction} +{self.after_bytes:,} B"


@dataclass(frozen=True)
class Lose:
    """Some bytes of the stream are left out, after so many more bytes."""

    targets: tuple[str, ...]
    direction: Direction
    after_bytes: int
    count: int

    def __str__(self) -> str:
        return f"lose {self.count:,} B {self.direction} +{self.after_bytes:,} B"


@dataclass(frozen=True)
class HalfClose:
    """One direction is closed; what is sent into it is lost. The other goes on."""

    targets: tuple[str, ...]
    direction: Direction

    def __str__(self) -> str:
        return f"half-close {self.direction}"


@dataclass(frozen=True)
class Delay:
    """Every byte takes so much longer, in each direction; seconds: for how long."""

    targets: tuple[str, ...]
    latency: float
    seconds: float

    def __str__(self) -> str:
        return f"delay {self.latency * 1000:.0f} ms for {self.seconds:.1f} s"


@dataclass(frozen=True)
class Throttle:
    """So many bytes a second in each direction and no more; seconds: for how long."""

    targets: tuple[str, ...]
    rate: float
    seconds: float

    def __str__(self) -> str:
        return f"throttle {self.rate / 1e6:.1f} MB/s for {self.seconds:.1f} s"


@dataclass(frozen=True)
class Stall:
    """Nothing is forwarded and nothing closed for so many seconds; then all of it goes on."""

    targets: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"stall {self.seconds:.1f} s"


@dataclass(frozen=True)
class Vanish:
    """Nothing is forwarded and nothing closed until the server has noticed, which it must in time."""

    targets: tuple[str, ...]

    def __str__(self) -> str:
        return "vanish without a word"


@dataclass(frozen=True)
class Intrude:
    """A stranger with the site's certificate sends the server something that is no message of ours."""

    targets: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        return f"intruder: {self.what}"


@dataclass(frozen=True)
class Damage:
    """The runner is killed, a file of the state is altered, and the run is resumed. place: where in the file, 0 to 1."""

    targets: tuple[str, ...]
    how: Literal["flip", "truncate", "append"]
    place: float

    def __str__(self) -> str:
        return f"damage: {self.how} {self.targets[0]}"


LineFault = Cut | Flip | Lose | HalfClose | Delay | Throttle | Stall | Vanish
Action = Kill | Freeze | LineFault | Intrude | Damage


@dataclass(frozen=True)
class Fault:
    """An action, `seconds` after so many trainings have begun: all sites' and rounds' together, repeated ones too."""

    trainings: int
    seconds: float
    action: Action

    @property
    def moment(self) -> str:
        """When, for people."""
        return f"training {self.trainings} + {self.seconds:.3f} s"


@dataclass(frozen=True)
class Shape:
    """A job without its faults: two jobs of the same shape end with the same bytes."""

    name: str
    elements: int
    rounds: int
    params: Literal["Full", "Diff"] = "Full"

    @property
    def model_bytes(self) -> int:
        """About how large the model is: float32, and a float16 for each."""
        return self.elements * 6


@dataclass(frozen=True)
class Plan:
    """One job and all that happens to it, in the order of time."""

    number: int
    shape: Shape
    faults: tuple[Fault, ...]

    def first(self, count: int) -> Plan:
        """The same job with only so many faults."""
        return replace(self, faults=self.faults[:count])


SHAPES = (
    Shape("small", 20_000, 20),
    Shape("large", 5_000_000, 12),  # 30 MB
    Shape("difference", 2_000_000, 12, "Diff"),  # 12 MB
)
INTRUSIONS = (
    "not TLS",
    "no handshake",
    "not HTTP/2",
    "unknown call",
    "no protobuf",
    "oversized message",
    "no hello",
    "chunk before announcement",
    "unknown object",
)
STATE_FILES = ("partial answer", "answer", "journal", "checkpoint", "manifest", "history", "status")


def plan(seed: int, number: int, shapes: tuple[Shape, ...] = SHAPES, *, brief: bool = False) -> Plan:
    """The plan with this number. brief: without what takes many seconds by its nature."""
    chance = random.Random(f"{seed}/{number}")
    shape = shapes[number % len(shapes)]
    last = (shape.rounds - 1) * len(SITES)  # the faults shall fall before the end
    moments = sorted(chance.sample(range(1, last), min(shape.rounds, last - 1)))
    return Plan(number, shape, tuple(_fault(chance, shape, n, brief) for n in moments))


def _fault(chance: random.Random, shape: Shape, trainings: int, brief: bool) -> Fault:
    makers, weights = zip(*_MAKERS.items(), strict=True)
    (maker,) = chance.choices(makers, weights)
    action = maker(chance, shape)
    return Fault(trainings, round(chance.uniform(0.0, 0.15), 3), _eased(action) if brief else action)


def _eased(action: Action) -> Action:
    """The same with less waiting."""
    match action:
        case Vanish():
            return Stall(action.targets, 0.8)
        case Freeze() | Stall():
            return replace(action, seconds=min(action.seconds, 0.8))
        case _:
            return action


def _kill(chance: random.Random, _: Shape) -> Action:
    site = chance.choice(SITES)
    victims = [(SERVER,), (SERVER,), (site,), (site,), (SERVER, site), SITES, (SERVER, *SITES), (RUNNER,)]
    return Kill(chance.choice([*victims, (RUNNER, SERVER, *SITES)]))


def _freeze(chance: random.Random, _: Shape) -> Action:
    targets = chance.choice([(SERVER,), (chance.choice(SITES),), (SERVER, *SITES)])
    return Freeze(targets, round(chance.choice([0.2, 1.0, 3.0, 12.0]) * chance.uniform(0.5, 1.1), 2))


def _place(chance: random.Random, shape: Shape) -> tuple[tuple[str, ...], Direction, int]:
    """Whose stream, which way, and after how many bytes: anything from at once to past one transfer of the model."""
    direction: Direction = chance.choice(("up", "down"))
    reach = chance.choice([2_000, shape.model_bytes // 2, shape.model_bytes])
    return (chance.choice(SITES),), direction, chance.randrange(reach)


def _cut(chance: random.Random, shape: Shape) -> Action:
    targets, direction, after = _place(chance, shape)
    return Cut(targets, chance.choice(("RST", "FIN")), direction, after)


def _flip(chance: random.Random, shape: Shape) -> Action:
    targets, direction, after = _place(chance, shape)
    return Flip(targets, direction, after, chance.randrange(8))


def _lose(chance: random.Random, shape: Shape) -> Action:
    targets, direction, after = _place(chance, shape)
    return Lose(targets, direction, after, chance.choice([1, 100, 70_000]))


def _half_close(chance: random.Random, _: Shape) -> Action:
    return HalfClose((chance.choice(SITES),), chance.choice(("up", "down")))


def _delay(chance: random.Random, _: Shape) -> Action:
    latency = chance.choice([0.02, 0.1, 0.6])
    return Delay((chance.choice(SITES),), latency, round(max(chance.uniform(0.5, 2.0), 8 * latency), 2))


def _throttle(chance: random.Random, shape: Shape) -> Action:
    return Throttle((chance.choice(SITES),), shape.model_bytes / chance.uniform(1.0, 4.0), 2.0)


def _stall(chance: random.Random, _: Shape) -> Action:
    return Stall((chance.choice(SITES),), round(chance.uniform(0.2, 4.0), 2))


def _vanish(chance: random.Random, _: Shape) -> Action:
    return Vanish((chance.choice(SITES),))


def _intrude(chance: random.Random, _: Shape) -> Action:
    return Intrude((chance.choice(SITES),), chance.choice(INTRUSIONS))


def _damage(chance: random.Random, _: Shape) -> Action:
    return Damage((chance.choice(STATE_FILES),), chance.choice(("flip", "truncate", "append")), chance.random())


_MAKERS: dict[Callable[[random.Random, Shape], Action], int] = {
    _kill: 12,
    _freeze: 2,
    _cut: 5,
    _flip: 3,
    _lose: 2,
    _half_close: 2,
    _delay: 1,
    _throttle: 1,
    _stall: 1,
    _vanish: 1,
    _intrude: 3,
    _damage: 3,
}
