"""The proxy between a site and the server does to the bytes what it is told, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chaos.faults import Cut, Flip, Lose
from chaos.proxy import Line

SIZE = 3_000_000
DATA = os.urandom(SIZE)
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def line_to_an_echo() -> AsyncIterator[Line]:
    """A line to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with Line(lambda: address).listening() as line:
        yield line
    server.close()


async def echoed(line: Line, data: bytes = DATA) -> bytes:
    """What comes back of these bytes until the connection ends or all is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)

    async def say() -> None:
        with contextlib.suppress(OSError):
            writer.write(data)
            await writer.drain()

    saying, got = asyncio.create_task(say()), b""
    with contextlib.suppress(OSError):
        while len(got) < len(data) and (piece := await reader.read(1 << 16)):
            got += piece
    saying.cancel()
    writer.close()
    return got


def played(scene: Callable[[Line], Awaitable[None]]) -> None:
    async def play() -> None:
        async with line_to_an_echo() as line:
            await asyncio.wait_for(scene(line), 30)

    asyncio.run(play())


def test_bytes_pass_unaltered() -> None:
    async def scene(line: Line) -> None:
        assert await echoed(line) == DATA
        assert line.made == 1

    played(scene)


@pytest.mark.parametrize("how", ["RST", "FIN"])
def test_a_cut_lets_pass_what_comes_before_it(how: str) -> None:
    async def scene(line: Line) -> None:
        armed = line.arm(Cut(("a",), how, "down", 1_000_000))  # type: ignore[arg-type]
        got = await echoed(line)
        assert armed.struck.is_set()
        assert DATA.startswith(got)
        assert len(got) <= 1_000_000
        assert how == "RST" or len(got) == 1_000_000  # a reset may overtake bytes
        assert await echoed(line) == DATA, "the next connection is whole"

    played(scene)


def test_a_flip_alters_one_bit() -> None:
    async def scene(line: Line) -> None:
        line.arm(Flip(("a",), "up", 1_234_567, 3))
        got = await echoed(line)
        assert [i for i in range(SIZE) if got[i] != DATA[i]] == [1_234_567]
        assert got[1_234_567] == DATA[1_234_567] ^ 8

    played(scene)


def test_lost_bytes_are_missing_and_the_rest_goes_on() -> None:
    async def scene(line: Line) -> None:
        line.arm(Lose(("a",), "up", 0, 100))
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(DATA[:5000])
        writer.write_eof()
        assert await reader.read(-1) == DATA[100:5000]
        writer.close()

    played(scene)


def test_a_stopped_line_forwards_nothing_closes_nothing_and_goes_on() -> None:
    async def scene(line: Line) -> None:
        line.stop()
        going = asyncio.create_task(echoed(line))
        done, _ = await asyncio.wait([going], timeout=0.2)
        assert not done
        assert line.made == 0
        line.go_on()
        assert await going == DATA

    played(scene)


def test_a_half_closed_line_ends_one_way_and_carries_the_other() -> None:
    async def scene(line: Line) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        line.half_close("up")
        assert await reader.read(1) == b"", "the echo has heard the end, and ends in turn"
        writer.close()

    played(scene)


def test_latency_and_rate_cost_at_least_their_time() -> None:
    async def scene(line: Line) -> None:
        began = time.monotonic()
        line.latency = 0.05
        assert await echoed(line, b"x") == b"x"
        assert time.monotonic() - began >= 0.1
        line.latency, line.rate = 0.0, 1_000_000
        began = time.monotonic()
        assert await echoed(line, bytes(200_000)) == bytes(200_000)
        assert time.monotonic() - began >= 0.2

    played(scene)
