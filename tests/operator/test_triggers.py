"""What surrounds kopf's streams: kopf begins anew when it ends, and asks at a pace."""

from __future__ import annotations

import asyncio
from typing import Any

from yarl import URL

from fedjob_operator.triggers import Pace


class _Request:
    def __init__(self, url: str) -> None:
        self.url = URL(url)


def sent(*urls: str) -> list[tuple[float, str]]:
    """When each of the calls, all asked for at once, goes out."""

    async def story() -> list[tuple[float, str]]:
        pace, loop = Pace(), asyncio.get_running_loop()
        out: list[tuple[float, str]] = []

        async def handler(request: Any) -> Any:
            out.append((loop.time(), str(request.url)))

        await asyncio.gather(*(pace(_Request(url), handler) for url in urls))  # type: ignore[arg-type]
        return out

    return asyncio.run(story())


def test_watches_of_one_kind_are_a_second_apart_and_nothing_else_waits() -> None:
    pods, jobs = "https://api/api/v1/pods?watch=true", "https://api/apis/batch/v1/jobs?watch=true"
    listing = "https://api/api/v1/pods?limit=200"
    out = sent(pods, pods, jobs, listing, listing)
    assert [url for _, url in out] == [listing, listing, pods, jobs, pods] or out[-1][1] == pods
    moments = [when for when, url in out if url == pods]
    assert moments[1] - moments[0] > 0.9  # it is a pause that we make ourselves
