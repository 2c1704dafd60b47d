"""What a template writes is text where text was given, whatever the text looks like: 007, no, 1e3, null."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted(path for path in (ROOT / "charts").glob("*/templates/**/*") if path.suffix in (".yaml", ".tpl"))
CONTROL = {"if", "else", "with", "range", "end", "define"}
TYPED = {"quote", "int64", "toJson", "toYaml"}  # what writes a scalar or a block with its type
_COMMENT = re.compile(r"\{\{-? */\*.*?\*/ *-?\}\}", re.S)
_ACTION = re.compile(r"\{\{-?\s*(.+?)\s*-?\}\}")
_ENTRY = re.compile(r"\s*(- |\S+: )")


def untyped(line: str, blocks: frozenset[str]) -> Iterator[str]:
    """Each action of a line of YAML that writes bare text. blocks: named templates whose own lines are looked at."""
    for action in _ACTION.finditer(line):
        stages = action[1].split(" | ")
        words = stages[0].split()
        if words[0] in CONTROL or (words[0].startswith("$") and words[1:2] in (["="], [":="])):
            continue
        indented = stages.pop() if stages[-1].startswith(("indent ", "nindent ")) else ""
        if words[0] == "include" and words[1].strip('"') in blocks and (indented or action[0] == line.strip()):
            continue
        alone = re.match(r"[ ,:}\]]|$", line[action.end() :]) and not line[: action.start()].endswith(('"', "'", "="))
        if not (alone and TYPED & {stages[-1].split()[0], words[0] if len(stages) == 1 else ""}):
            yield action[1]


def definitions(text: str) -> dict[str, str]:
    """The named templates of a file, by name."""
    found = re.split(r'\{\{-? define "([^"]+)" -?\}\}', text)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def _entries(text: str) -> list[str]:
    """The lines of a named template that are entries of a mapping or a list."""
    return [line for line in text.splitlines() if _ENTRY.match(re.sub(r"\{\{.*?\}\}", "x", line))]


NAMED = {name: body for path in TEMPLATES for name, body in definitions(_COMMENT.sub("", path.read_text())).items()}
# Those that write entries, and those that write nothing but may refuse; all others write text, to be quoted where they are included.
BLOCKS = frozenset(
    name for name, body in NAMED.items() if _entries(body) or "| toYaml" in body or "{{- fail " in body
)  # fmt: skip


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "charts")))
def test_every_value_that_a_template_writes_has_its_type(path: Path) -> None:
    text = _COMMENT.sub("", path.read_text())
    lines = (
        text.splitlines()
        if path.suffix == ".yaml"
        else [line for b in definitions(text).values() for line in _entries(b)]
    )
    assert [found for line in lines for found in untyped(line, BLOCKS)] == []


@pytest.mark.parametrize(
    "line",
    [
        "name: {{ .Values.site.name }}",
        "- --workers={{ .Values.workers }}",
        '- name: {{ include "fedjob.operator" . }}',
        'name: {{ include "fedjob.operator" . | quote }}-metrics',
        "  - {port: {{ . }}}",
        "replicas: {{ .Values.replicas | default 2 }}",
        'value: "{{ .Values.x }}"',
        'value: "{{ .Values.x | quote }}"',
    ],
)
def test_a_bare_value_would_be_found(line: str) -> None:
    assert list(untyped(line, BLOCKS))
