"""What images install is pinned to the byte: each lock is the closure of what pyproject.toml asks for, with hashes, and nothing goes by it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "images").glob("**/*.txt"))
EXAMPLES = ["scikit-learn"]


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """Name, version and number of hashes of each pin."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text()):
        if named := re.match(r"([\w.-]+)==([^\s;\\]+)", block):
            found[canonicalize_name(named[1])] = (named[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block)))
    return found


def asked(*extras: str) -> set[str]:
    """What pyproject.toml asks for with these extras."""
    found: set[str] = set()
    for text in [*PROJECT["dependencies"], *(t for extra in extras for t in PROJECT["optional-dependencies"][extra])]:
        requirement = Requirement(text)
        found |= asked(*requirement.extras) if requirement.name == PROJECT["name"] else {text}
    return found


def closure(texts: Iterable[str]) -> set[str]:
    """Names of all that these requirements bring, as they are installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in texts]
    while waiting:
        requirement = waiting.pop()
        for extra in requirement.extras or {""}:
            key = (canonicalize_name(requirement.name), extra)
            if key in found:
                continue
            found.add(key)
            more = [Requirement(text) for text in requires(requirement.name) or ()]
            waiting += [r for r in more if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_pin_has_hashes_and_the_version_that_is_tested(path: Path) -> None:
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "hack" / "constraints.txt").read_text(), re.M))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    found = pins(path)
    assert found
    for name, (version, hashes) in found.items():
        assert hashes, name
        assert tested.get(name, version) == version.partition("+")[0], name


@pytest.mark.parametrize(
    ("names", "texts", "elsewhere"),
    [
        (["operator/requirements"], asked("operator"), set()),
        (["runtime/requirements", "runtime/torch-cpu"], asked("runtime", "torch"), set()),
        (["examples/requirements"], EXAMPLES, set()),
    ],
    ids=["operator", "runtime", "examples"],
)
def test_a_lock_is_what_is_asked_for_and_all_that_it_brings(
    names: list[str], texts: Iterable[str], elsewhere: set[str]
) -> None:
    found = {name for lock in names for name in pins(ROOT / "images" / f"{lock}.txt")}
    assert found - elsewhere == closure(texts), "run make lock PART=hashes"
    versions = {name: pin[0] for lock in names for name, pin in pins(ROOT / "images" / f"{lock}.txt").items()}
    for text in texts:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


def _installs(text: str) -> list[str]:
    """Each `pip install` of a program or page, with what follows it."""
    text = re.sub(r"\\\n\s*", " ", text)
    return [
        re.split(r"&&|;|\n|`", told)[0].strip() for told in re.split(r"\bpip(?:3|\s--python \S+)? install\b", text)[1:]
    ]


PLACES = [
    path
    for folder in ("images", "hack", "docs", "examples", "charts", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix in ("", ".md", ".sh", ".yaml", ".tpl", ".txt")
] + [ROOT / "Makefile", ROOT / "README.md"]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_second_index_is_asked_for_a_name(path: Path) -> None:
    assert "extra-index-url" not in path.read_text(errors="replace")


@pytest.mark.parametrize("path", sorted((ROOT / "images").glob("*/Containerfile")), ids=lambda path: path.parent.name)
def test_an_image_takes_only_files_whose_hash_is_known(path: Path) -> None:
    found = _installs(path.read_text())
    assert found
    for told in found:
        assert "--require-hashes" in told.split() or "--no-index" in told.split(), told


def test_an_install_without_hashes_would_be_found() -> None:
    assert _installs("RUN /opt/venv/bin/pip install \\\n  numpy && pip --python x install a") == ["numpy", "a"]
