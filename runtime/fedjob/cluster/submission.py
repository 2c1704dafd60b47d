"""From a job file to what is sent to a cluster: the job as the user wrote it, with the code of its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..api import FederatedJob, load, validate
from ..api.job import MAX_FILES_BYTES
from ..api.load import dumped
from .failures import ClusterError

_MAX_FILES = 64
_ANNOTATION_BYTES = 262_144  # of all annotations of an object: the API server's bound
_CODE = frozenset({".py", ".sh", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg"})  # and no table of patients
_LEFT_OUT = frozenset({"__pycache__", "runs", "node_modules", "site-packages"})


class Refused(ClusterError):  # noqa: N818 - the job file is refused
    """A job file that cannot go to a cluster as it is."""

    exit_code = 2


@dataclass(frozen=True)
class Source:
    """A job file, and the files beside it that go along, name to text."""

    path: Path
    job: FederatedJob
    code: Mapping[str, str]


def parsed(path: Path, patterns: Sequence[str]) -> Source:
    """The job in a file, with its code. patterns: of files to send along; none: the Python code, if the job has no other.

    Raises JobFileError for a file that is wrong, Refused for a job that a cluster cannot run as it is.
    """
    job = load(path)
    initial = job.spec.model.initial
    if initial is not None and initial.path is not None:
        raise Refused(f"{path}: spec.model.initial.path: a cluster does not see this file, allowed: object")
    source = Source(path, job, _code(job, path, patterns))
    validate(_document(source), str(path))  # the files keep the rules for files
    return source


def addressed(source: Source, asked: str | None, default: str) -> dict[str, Any]:
    """What is sent: what the user wrote, and the code. asked: the namespace of the command line; default: of the context.

    Raises Refused if the file and the command line name two namespaces.
    """
    metadata = source.job.metadata
    said = metadata.namespace if "namespace" in metadata.model_fields_set else None
    if asked is not None and said not in (None, asked):
        raise Refused(f"{source.path}: metadata.namespace: got {said}, and -n says {asked}; take one of them away")
    document = _document(source)
    document["metadata"]["namespace"] = said or asked or default
    return document


def one_file(source: Source, image: str | None) -> str:
    """The job and its code as one YAML document, which `kubectl apply` takes and `fedjob run` too.

    image: of the training script, instead of what the job names. Raises JobFileError for an image that is none.
    """
    document = _document(source)
    if image is not None:
        document["spec"]["trainer"] = {"image": image, **_without(document["spec"]["trainer"], "image")}
        validate(document, str(source.path))
    return dumped(document)


def needs_server_side(document: str) -> bool:
    """Whether a plain `kubectl apply` of this YAML would be refused: it keeps the object as JSON in an annotation."""
    text = json.dumps(yaml.safe_load(document), ensure_ascii=False, separators=(",", ":"))
    escaped = sum(map(text.count, "<>&"))  # as Go writes them, in six bytes
    return len(text.encode()) + 5 * escaped > _ANNOTATION_BYTES


def left_behind(source: Source) -> str:
    """The script beside the job file that `run` starts and a cluster does not get, as the job names an image; "" if there is none."""
    trainer, folder = source.job.spec.trainer, source.path.resolve().parent
    if trainer.image is None or trainer.files or source.code:
        return ""
    return next((word for word in trainer.command if _is_code(folder, word)), "")


def _without(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != key}


def _document(source: Source) -> dict[str, Any]:
    document: dict[str, Any] = source.job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if source.code:
        trainer = document["spec"]["trainer"]
        trainer["files"] = {**(trainer.get("files") or {}), **source.code}
    return document


def _code(job: FederatedJob, path: Path, patterns: Sequence[str]) -> dict[str, str]:
    """The files to send along, name to text: those that are asked for, else the Python code beside the job file.

    Nothing but code is taken unasked: what else lies in a folder may be data, which is to stay where it is.
    """
    trainer, folder = job.spec.trainer, path.resolve().parent
    if patterns:
        found = {name for pattern in patterns for name in _matching(folder, pattern)}
    elif trainer.files or trainer.image is not None:
        return {}
    else:
        found = set(_python_files(folder)) | {word for word in trainer.command if _is_code(folder, word)}
        script = next((word for word in trainer.command if word.endswith(".py")), None)
        if script is not None and script not in found:
            raise Refused(
                f"{path}: spec.trainer.command: {script} is not in {folder}; put it there, or name an image that has it"
            )
    return _texts(path, folder, sorted(found))


def _matching(folder: Path, pattern: str) -> list[str]:
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise Refused(f"--files {pattern}: allowed: a pattern within the job file's folder, such as lib/*.py")
    found = [file.relative_to(folder).as_posix() for file in folder.glob(pattern) if file.is_file()]
    if not found:
        raise Refused(f"--files {pattern}: fits no file in {folder}")
    return found


def _python_files(folder: Path) -> Iterator[str]:
    """Python files below a folder, without hidden folders, virtual environments and what tools leave."""
    for place, folders, files in os.walk(folder):
        if Path(place, "pyvenv.cfg").exists():
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        yield from (Path(place, name).relative_to(folder).as_posix() for name in files if name.endswith(".py"))


def _is_code(folder: Path, word: str) -> bool:
    """Whether a word of the command is a script or a configuration of the folder, such as run.sh or config.json."""
    path = Path(word)
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and path.suffix in _CODE and (folder / path).is_file()


def _texts(path: Path, folder: Path, names: Sequence[str]) -> dict[str, str]:
    size = sum((folder / name).stat().st_size for name in names)
    if len(names) > _MAX_FILES or size > MAX_FILES_BYTES:
        how = f"{len(names)} files of {size} bytes, at most {_MAX_FILES} of {MAX_FILES_BYTES}"
        raise Refused(f"{path}: the code in {folder} is {how}: choose with --files, or build an image of it")
    texts = {}
    for name in names:
        try:
            texts[name] = (folder / name).read_bytes().decode()  # read_text would make LF of CRLF
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(f"{folder / name}: cannot be sent along: {e}") from None
    return texts


def code_text(document: Mapping[str, Any]) -> str:
    """Where the code comes from, in one line."""
    trainer = document["spec"]["trainer"]
    files = trainer.get("files") or {}
    if not files:
        return f"in the image {trainer['image']}"
    size = sum(len(text.encode()) for text in files.values())
    names = sorted(files)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{', '.join(names[:6])}{more} ({size / 1024:.1f} KiB)"
