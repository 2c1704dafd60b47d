"""Loading: a wrong job file gives one line for each problem, and never another error."""

import contextlib
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.api import JobFileError, load, loads, to_yaml, validate
from fedjob.api.document import MAX_DEPTH
from fedjob.api.load import MAX_FILE_BYTES

HERE = Path(__file__).parent
TEN_LINES = (HERE / "ten-lines.yaml").read_text()
FULL = (HERE / "full.yaml").read_text()
FULL_DOCUMENT: dict[str, Any] = yaml.safe_load(FULL)

PLAIN_TOML = """\
apiVersion = "fedjob.dev/v1alpha1"
kind = "FederatedJob"
metadata.name = "digits"

[spec]
workflow.rounds = 10
trainer.command = ["python", "train.py"]
sites = [{ name = "hospital-a" }, { name = "hospital-b" }]
"""


def problems(text: str, source: str = "job.yaml") -> str:
    with pytest.raises(JobFileError) as error:
        loads(text, source)
    return str(error.value)


def edited(old: str, new: str) -> str:
    assert old in TEN_LINES
    return problems(TEN_LINES.replace(old, new))


def test_the_same_job_reads_from_yaml_json_and_toml(tmp_path: Path) -> None:
    texts = {"yaml": TEN_LINES, "yml": TEN_LINES, "json": json.dumps(yaml.safe_load(TEN_LINES)), "toml": PLAIN_TOML}
    jobs = []
    for suffix, text in texts.items():
        path = tmp_path / f"job.{suffix}"
        path.write_text(text)
        jobs.append(load(path))
    assert jobs == [loads(TEN_LINES)] * 4


def test_a_job_written_out_reads_back_as_the_same_job() -> None:
    job = validate(FULL_DOCUMENT)
    assert loads(to_yaml(job)) == job
    assert "train.py: |\n" in to_yaml(job)
    assert "roundTimeoutSeconds: 3600" in to_yaml(loads(TEN_LINES))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "rounds: 10",
            'rounds: "ten"',
            'job.yaml:5: spec.workflow.rounds: got "ten", allowed: a whole number from 1 to 100000',
            id="a word is not a number",
        ),
        pytest.param(
            "rounds: 10",
            'rounds: "10"',
            'job.yaml:5: spec.workflow.rounds: got "10", allowed: a whole number from 1 to 100000, without quotes',
            id="text is not a number",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 10.0",
            "job.yaml:5: spec.workflow.rounds: got 10.0, allowed: a whole number from 1 to 100000, without a decimal point",
            id="a fraction is not a whole number",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: true",
            "job.yaml:5: spec.workflow.rounds: got true, allowed: a whole number from 1 to 100000",
            id="a boolean is not a number",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 0",
            "job.yaml:5: spec.workflow.rounds: got 0, allowed: a whole number from 1 to 100000",
            id="a bound is named",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 010",
            "job.yaml:5: spec.workflow.rounds: got 010, allowed: a plain decimal number, or text in quotes",
            id="a number that readers of YAML disagree on is refused",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 1, stopWhen: {metric: loss, value: .nan}",
            "job.yaml:5: spec.workflow.stopWhen.value: got .nan, allowed: a number",
            id="NaN is not a number",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 10, close: Never",
            'job.yaml:5: spec.workflow.close: got "Never", allowed: Deadline or Quorum',
            id="the choices are named",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 10, quorumm: 1",
            "job.yaml:5: spec.workflow.quorumm: unknown field, did you mean quorum?",
            id="a typing error gets a suggestion",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 10, round_timeout_seconds: 1",
            "job.yaml:5: spec.workflow.round_timeout_seconds: unknown field, did you mean roundTimeoutSeconds?",
            id="a name in another case gets a suggestion",
        ),
        pytest.param(
            "  trainer",
            "  quorum: 1\n  trainer",
            "job.yaml:6: spec.quorum: unknown field, did you mean spec.workflow.quorum?",
            id="a field in the wrong place gets a suggestion",
        ),
        pytest.param(
            "rounds: 10",
            "rounds: 10, rounds: 11",
            "job.yaml:5: spec.workflow.rounds: given twice, first on line 5, allowed: once",
            id="a field is given once",
        ),
        pytest.param(
            "hospital-b",
            "no",
            "job.yaml:9: spec.sites[1].name: got no, allowed: lower-case letters, digits and '-', neither first nor last "
            "'-' (at most 63 characters), in quotes",
            id="a word that YAML takes for a boolean is shown as written",
        ),
        pytest.param(
            "[python, train.py]",
            "python train.py",
            'job.yaml:6: spec.trainer.command: got "python train.py", allowed: a list of 1 to 64 strings',
            id="a command is a list",
        ),
        pytest.param(
            "  sites:",
            "  sites: 3\n  model:",
            "job.yaml:7: spec.sites: got 3, allowed: a list of 1 to 256 entries\n"
            "job.yaml:8: spec.model: got a list of 2, allowed: a mapping with the fields initial, exchange",
            id="several problems take a line each, in the order of the file",
        ),
        pytest.param(
            "{rounds: 10}",
            "{round: 10}",
            "job.yaml:5: spec.workflow.round: unknown field, did you mean rounds?\n"
            "job.yaml:5: spec.workflow.rounds: missing, allowed: a whole number from 1 to 100000",
            id="a misspelt field comes before what is missing for it",
        ),
        pytest.param(
            "{rounds: 10}",
            "",
            "job.yaml:5: spec.workflow: got nothing, allowed: a mapping with the fields type, rounds, quorum, "
            "clientsPerRound, close, roundTimeoutSeconds, maxExamples, seed, stopWhen, options",
            id="an empty mapping",
        ),
        pytest.param(
            "kind: FederatedJob",
            "kind: Deployment",
            'job.yaml:2: kind: got "Deployment", allowed: FederatedJob',
            id="another kind",
        ),
        pytest.param(
            "v1alpha1",
            "v1",
            'job.yaml:1: apiVersion: got "fedjob.dev/v1", allowed: fedjob.dev/v1alpha1',
            id="another version",
        ),
        pytest.param("kind: FederatedJob\n", "", "job.yaml:1: kind: missing, allowed: FederatedJob", id="no kind"),
        pytest.param(
            "spec:",
            "---\nspec:",
            "job.yaml:4: a second document, allowed: one job in a file",
            id="one document in a file",
        ),
        pytest.param(
            "{rounds: 10}",
            "&w {rounds: 10, options: *w}",
            "job.yaml:5: spec.workflow.options: got the alias *w, allowed: an alias of a value that is complete above",
            id="a value cannot hold itself",
        ),
        pytest.param(
            "{rounds: 10}",
            "{<<: {rounds: 10}}",
            "job.yaml:5: spec.workflow: got a merge key <<, allowed: every field written out",
            id="no merge keys",
        ),
        pytest.param(
            "{rounds: 10}",
            "!!python/object:os.system {}",
            'job.yaml:5: spec.workflow: got the tag "tag:yaml.org,2002:python/object:os.system", allowed: no tags',
            id="no tags",
        ),
        pytest.param(
            "spec:",
            "spec",
            "job.yaml:5:11: not valid YAML: while scanning a simple key, could not find expected ':'",
            id="a syntax error has a line and a column",
        ),
        pytest.param(
            "digits",
            '"di\\x01gits"',
            "job.yaml:3: metadata.name: got \"di\\u0001gits\", allowed: lower-case letters, digits and '-', beginning with a "
            "letter, not ending with '-' (at most 40 characters)",
            id="control characters do not reach the terminal",
        ),
    ],
)
def test_a_wrong_file_gives_the_place_what_was_given_and_what_is_allowed(old: str, new: str, message: str) -> None:
    assert edited(old, new) == message


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        pytest.param(
            "j.json", '{"a": 1, "a": 2}', "j.json:1: a: given twice, first on line 1, allowed: once", id="twice"
        ),
        pytest.param(
            "j.json",
            '{\n"a": }',
            "j.json:2:6: not valid JSON: Expecting value",
            id="a JSON syntax error has its place",
        ),
        pytest.param(
            "j.json",
            '{"apiVersion":\n"x", "kind":\t"Job"}',
            'j.json:1: apiVersion: got "x", allowed: fedjob.dev/v1alpha1\nj.json:2: kind: got "Job", allowed: FederatedJob',
            id="fields of a JSON file have lines",
        ),
        pytest.param(
            "j.toml",
            "a = 1\nb = [",
            "j.toml: not valid TOML: Invalid value (at end of document)",
            id="TOML, unfinished",
        ),
        pytest.param(
            "j.toml", "a = 1\na = 2\n", "j.toml:2:6: not valid TOML: Cannot overwrite a value", id="a TOML key twice"
        ),
        pytest.param(
            "job.yaml",
            "a:\n\tb: 1\n",
            "job.yaml:2:1: not valid YAML: got a tab, allowed: spaces, for indentation and before a value",
            id="a tab",
        ),
        pytest.param(
            "job.yaml",
            "a: \ud800",
            "job.yaml: got a lone surrogate, allowed: text that UTF-8 can hold",
            id="a surrogate",
        ),
        pytest.param("job.yaml", "", "job.yaml: empty, allowed: a FederatedJob", id="nothing"),
        pytest.param("job.yaml", "# only a remark\n", "job.yaml: empty, allowed: a FederatedJob", id="only a remark"),
        pytest.param("j.toml", "", "j.toml: empty, allowed: a FederatedJob", id="an empty TOML file"),
        pytest.param(
            "job.yaml",
            "- a",
            'job.yaml: got ["a"], allowed: a mapping with the fields apiVersion, kind, metadata, spec',
            id="a list",
        ),
        pytest.param(
            "job.txt",
            "",
            "job.txt: cannot tell the format, allowed: a name that ends with .yaml, .yml, .json or .toml",
            id="another suffix",
        ),
    ],
)
def test_each_format_says_what_is_wrong(source: str, text: str, message: str) -> None:
    assert problems(text, source) == message


def test_an_invalid_entry_of_a_list_is_one_problem() -> None:
    assert edited("- name: hospital-a", "- name: Hospital").count("\n") == 0
    only = TEN_LINES[: TEN_LINES.index("    - name:")] + "    - name: Hospital\n"
    assert "spec.sites[0].name" in problems(only)
    assert "\n" not in problems(only)


def test_a_toml_file_has_lines_too() -> None:
    text = PLAIN_TOML.replace("rounds = 10", "rounds = 0")
    assert problems(text, "j.toml").startswith("j.toml:6: spec.workflow.rounds: got 0,")
    tables = '''apiVersion = "fedjob.dev/v1alpha1"
kind = "FederatedJob"
[metadata]
name = "digits"
labels = { a = """
[spec.workflow]
rounds = 7
""" }
[spec.workflow]
rounds = 0
[spec.trainer]
command = ["python", "train.py"]
[[spec.sites]]
name = "a"
[[spec.sites]]
name = "B"
'''
    found = problems(tables, "j.toml").splitlines()
    assert [line.split(": got")[0] for line in found] == [
        "j.toml:5: metadata.labels.a",
        "j.toml:10: spec.workflow.rounds",
        "j.toml:16: spec.sites[1].name",
    ]


@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_deep_nesting_is_refused(suffix: str) -> None:
    for depth in (MAX_DEPTH + 1, 100_000):
        text = "[" * depth + "]" * depth
        assert "nested too deep, allowed: at most 32 levels" in problems(
            f"a = {text}" if suffix == "toml" else text, f"job.{suffix}"
        )


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert problems("\n".join(lines)) == "job.yaml:5: too many values, aliases expanded, allowed: at most 100000"


def test_a_sane_alias_is_the_value_it_stands_for() -> None:
    text = TEN_LINES.replace("hospital-a", "hospital-a\n      env: &env [{name: A, value: x}]")
    job = loads(text.replace("hospital-b", "hospital-b\n      env: *env"))
    assert job.spec.sites[0].env == job.spec.sites[1].env != ()


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"a: 1\nb: \xff\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    expected = {
        tmp_path / "none.yaml": "{}: cannot be read: No such file or directory",
        tmp_path: "{}: not a regular file, allowed: a job file",
        broken: "{}:2: got the byte 0xff, allowed: text in UTF-8",
        large: "{}: too large, allowed: at most 1048576 bytes",
        loop: "{}: cannot be read: Too many levels of symbolic links",
    }
    for path, message in expected.items():
        with pytest.raises(JobFileError) as error:
            load(path)
        assert str(error.value) == message.format(path)
    with pytest.raises(JobFileError, match="no such file"):
        load("a\0b.yaml")


def test_a_flood_of_problems_is_cut_short() -> None:
    lines = problems("\n".join(f"x{n}: 1" for n in range(100))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "job.yaml: and 84 more"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "10", "[key]", "\x00", "\ud800", "é\u2028", "a" * 300, 10**70, "Quorum", "server"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a document, the document itself left out."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [found for key, inner in pairs for found in ((*path, key), *places(inner, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The full document with a few values replaced, removed or renamed."""
    document = copy.deepcopy(FULL_DOCUMENT)
    for _ in range(draw(st.integers(1, 3))):
        found = places(document)
        if not found:
            break
        *parents, last = draw(st.sampled_from(found))
        place: Any = document
        for step in parents:
            place = place[step]
        match draw(st.sampled_from(["replace", "remove", "rename"])):
            case "replace":
                place[last] = draw(VALUES)
            case "remove":
                del place[last]
            case _ if isinstance(place, dict):
                place[draw(st.text(max_size=9) | st.sampled_from(["[key]", "rounds", "\ud800"]))] = place.pop(last)
    return document


def check(text: str, source: str) -> None:
    """Reading gives a job that survives being written, or errors of one line each that a terminal can show."""
    try:
        job = loads(text, source)
    except JobFileError as error:
        lines = str(error).split("\n")
        assert 1 <= len(lines) <= 21
        assert all(line.startswith(source) and line.isprintable() for line in lines)
        assert all(len(line) < 700 for line in lines)
    else:
        assert loads(to_yaml(job)) == job


@settings(deadline=None, max_examples=300)
@given(mutated())
def test_a_mutated_document_is_a_job_or_a_clear_error(document: dict[str, Any]) -> None:
    check(json.dumps(document), "job.json")
    check(yaml.dump(document, allow_unicode=False), "job.yaml")
    with contextlib.suppress(JobFileError):
        validate(document)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([TEN_LINES, json.dumps(FULL_DOCUMENT, indent=1), PLAIN_TOML, FULL]),
    st.sampled_from(["job.yaml", "job.json", "job.toml"]),
    st.data(),
)
def test_a_mutated_text_is_a_job_or_a_clear_error(text: str, source: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 8))
        snippets = st.text(max_size=8) | st.sampled_from(
            ["*a", "&a ", "!!x ", "<<: ", "\t", "[", "{", "- ", ": ", "? ", "---\n"]
        )
        text = text[:start] + data.draw(snippets) + text[end:]
    check(text, source)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(["yaml", "json", "toml"]))
def test_arbitrary_bytes_are_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    path.write_bytes(data)
    with pytest.raises(JobFileError) as error:
        load(path)
    assert str(error.value).isprintable() or "\n" in str(error.value)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_any_text_survives_being_written_and_read(text: str) -> None:
    document = copy.deepcopy(FULL_DOCUMENT)
    document["metadata"]["annotations"] = {"note": text}
    document["spec"]["trainer"]["files"] = {"train.py": text}
    document["spec"]["trainer"]["env"] = [{"name": "A", "value": text}]
    job = validate(document)
    assert loads(to_yaml(job)) == job


@pytest.mark.parametrize("name", ["123", "1e3", "0123", "0x10"])
def test_quotes_are_advised_only_where_they_help(name: str) -> None:
    """The name of a job begins with a letter, that of a site need not."""
    job = Path(__file__).with_name("ten-lines.yaml").read_text()
    said = problems(re.sub(r"name: [\w-]+", f"name: {name}", job, count=1))
    assert "beginning with a letter" in said
    assert "quotes" not in said
    assert problems(re.sub(r"- name: [\w-]+", f"- name: {name}", job, count=1)).endswith("in quotes")
