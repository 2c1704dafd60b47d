"""From a job file to a FederatedJob, and back to text."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from fedjob.api import problems
from fedjob.api.document import AMBIGUOUS, FLOAT, READERS
from fedjob.api.job import FederatedJob
from fedjob.api.problems import JobFileError, Problem, Spot
from fedjob.api.schema import FieldPath

MAX_FILE_BYTES = 1_048_576


def load(path: str | os.PathLike[str]) -> FederatedJob:
    """The job in a file: YAML, JSON or TOML by its suffix.

    Raises JobFileError, with one line for each problem, whatever is wrong with the file.
    """
    source = os.fspath(path)
    if "\0" in source:
        raise JobFileError(source, [Problem("no such file: a NUL character in its name")])
    return loads(_decoded(_read(source), source), source)


def loads(text: str, source: str = "job.yaml") -> FederatedJob:
    """The job in `text`. source: a file name for messages; its suffix tells the format. Raises JobFileError."""
    reader = READERS.get(Path(source).suffix.lower())
    if reader is None:
        raise JobFileError(source, [Problem(f"cannot tell the format, allowed: a name that ends with {_suffixes()}")])
    if not _encodable(text):
        raise JobFileError(source, [Problem("got a lone surrogate, allowed: text that UTF-8 can hold")])
    document, spots = reader(text, source)
    if document in (None, {}):
        raise JobFileError(source, [Problem("empty, allowed: a FederatedJob")])
    return validate(document, source, spots)


def validate(document: object, source: str = "job", spots: Mapping[FieldPath, Spot] | None = None) -> FederatedJob:
    """The job in a document of plain mappings, lists and scalars, with camelCase names. Raises JobFileError.

    spots: where in `source` the values stand, for messages.
    """
    if not isinstance(document, dict):
        message = f"got {problems.shown(document)}, allowed: a mapping with the fields apiVersion, kind, metadata, spec"
        raise JobFileError(source, [Problem(message)])
    try:
        return FederatedJob.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise problems.from_validation(error, source, spots or {}) from None


def to_yaml(job: FederatedJob) -> str:
    """The job as YAML, camelCase, with every default that applies written out. `loads` gives the same job back."""
    return dumped(job.model_dump(mode="json", by_alias=True, exclude_none=True))


def dumped(document: Mapping[str, object]) -> str:
    """A document as YAML in which every text is read back as it is, byte for byte, by us and by kubectl."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _read(source: str) -> bytes:
    try:
        status = Path(source).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait for ever
            raise JobFileError(source, [Problem("not a regular file, allowed: a job file")])
        with Path(source).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        meant = _namesake(Path(source)) if isinstance(error, FileNotFoundError) else ""
        raise JobFileError(source, [Problem(f"cannot be read: {error.strerror}{meant}")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise JobFileError(source, [Problem(f"too large, allowed: at most {MAX_FILE_BYTES} bytes")])
    return data


def _namesake(missing: Path) -> str:
    """The file that was probably meant: of the same name, in another format."""
    others = [path for suffix in READERS if missing.name and (path := missing.with_suffix(suffix)).is_file()]
    return f"; did you mean {others[0]}?" if others else ""


def _decoded(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"got the byte 0x{data[error.start]:02x}, allowed: text in UTF-8"
        raise JobFileError(source, [Problem(message, (), line)]) from None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffixes() -> str:
    *others, last = READERS
    return f"{', '.join(others)} or {last}"


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader would take for a number; writes scripts as blocks of text."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None
    if not text.replace("\n", "").replace("\t", "").isprintable():
        style = '"'  # PyYAML would fold a next-line character (U+0085) into a space
    elif "\n" in text:
        style = "|"
    elif AMBIGUOUS.fullmatch(text):
        style = "'"  # such as 0o17, of which YAML's versions make different things
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
