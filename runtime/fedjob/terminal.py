"""The way to the terminal for plain lines: all but documents is made harmless first (`text`), whoever wrote it. Views: `screen`."""

from __future__ import annotations

import os

import typer

from .text import lines


def say(message: object, *, err: bool = False) -> None:
    """Print a line, or several. err: on the standard error."""
    typer.echo(lines(str(message)), err=err)


def emit(document: str) -> None:
    """Write a document that a program will read, or text that was filtered before, as it is."""
    typer.echo(document, nl=False)


def confirmed(question: str) -> bool:
    """Ask on the standard error whether to do something; no is the default."""
    return typer.confirm(lines(question), err=True)


def discard_output() -> None:
    """Let the standard output lead nowhere: what is still in Python's buffer goes there, and raises no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
