"""The way to the terminal for tables and live views: rich, behind the filter of `text`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.control import Control
from rich.segment import Segment

from .text import lines


class Harmless:
    """A renderable whose text is made harmless once it is laid out; a `rich.live.Live` needs it by name."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """What rich prints."""
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(lines(segment.text), segment.style)


class _Filter(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Each thing that is about to be printed, but for rich's own movements of the cursor."""
        return [each if isinstance(each, Control) else Harmless(each) for each in renderables]


def console(**options: Any) -> Console:
    """A console whose every output is filtered. options: of `rich.console.Console`."""
    made = Console(**options)
    made.push_render_hook(_Filter())
    return made
