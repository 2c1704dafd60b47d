"""Why sites gave no answer, as people read it: the cause first, the same one once for all sites that it hit.  PURE

Machines read the words in front, as they stand in histories and conditions. People would have to read several of them, each of which
follows from the one behind it, before the first that tells them anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from .quantities import names_text, plural
from .text import one_line

_MOST_BYTES = 400
_MOST_CAUSES = 5
DEATHS = ("RestartBudgetExhausted", "SiteFailedByRule", "ScriptFailed", "ScriptEnded")  # how a script ended
# That a site is gone, and who noticed: no reason of its own. Refusals are: "NotFinite: …" says what the words behind it do not.
_FOLLOWS = ("PeerLost", *DEATHS)


def cause(why: str) -> str:
    """What lies behind the words in front, on one line of bounded length. why: reasons and a message, joined by ": "."""
    word, separator, behind = why.partition(": ")
    while separator and word in _FOLLOWS:
        why = behind
        word, separator, behind = why.partition(": ")
    return one_line(why, _MOST_BYTES)


def grouped(whys: Iterable[tuple[str, str]]) -> str:
    """One clause for each cause, with its sites, the cause of the most sites first. whys: (site, why), as of `cause`."""
    sites: dict[str, list[str]] = {}
    for site, why in whys:
        sites.setdefault(cause(why), []).append(site)
    ranked = sorted(sites.items(), key=lambda each: -len(each[1]))
    told = [f"{names_text(names)}: {why}" for why, names in ranked[:_MOST_CAUSES]]
    more = sum(len(names) for _, names in ranked[_MOST_CAUSES:])
    return "; ".join(told) + (f"; and {plural(more, 'more site')} for other causes" if more else "")
