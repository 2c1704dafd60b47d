"""Job files altered at will: a job, or JobFileError, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from fedjob.api import JobFileError, loads
from fuzz.bounds import allocating_at_most
from fuzz.hostile import JSON, altered

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
TEXT = (Path(__file__).parents[1] / "api" / "ten-lines.yaml").read_text()
CONSTANT, MULTIPLE = 8 << 20, 2000  # bytes, and of Python's and YAML's objects for each character
BOMBS = {
    "aliases of aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    "a list that holds itself": "spec: &s [*s]",
    "a tag that runs code": "spec: !!python/object/apply:os.getcwd []",
    "a tag nobody knows": "spec: !x {}",
    "brackets without end": "[" * 3_000,
    "many digits": TEXT + "\nx: " + "9" * 5_000,
    "a binary number of many digits": "metadata: 0b" + "1" * 20_000,
    "a time that is none": "metadata: 2030-99-99",
    "NUL": "a: \0",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_within_bounds(bomb: str) -> None:
    text = BOMBS[bomb]
    with allocating_at_most(CONSTANT + MULTIPLE * len(text)), pytest.raises(JobFileError) as refused:
        loads(text)
    assert len(str(refused.value)) <= 20_000


@settings(deadline=None, max_examples=EXAMPLES)
@given(JSON | altered(yaml.safe_load(TEXT)))
def test_any_document_is_a_job_or_refused(document: Any) -> None:
    text = json.dumps(document)
    with allocating_at_most(CONSTANT + MULTIPLE * len(text)), contextlib.suppress(JobFileError):
        loads(text)
