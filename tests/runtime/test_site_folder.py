"""A site's working folder: what lies beside the job file is there, small things as copies, and stays apart."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.api.limits import WORKING_BYTES, WORKING_FILES
from fedjob.site_folder import beside, fill, fill_with_texts


def made(root: Path, sizes: dict[str, int]) -> Path:
    """A folder beside a job file; of large files only the size is there."""
    for name, size in sizes.items():
        path = root / "job" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)
    return root / "job"


def filled(job: Path, site: str) -> Path:
    folder = job / "runs" / "x-01" / "sites" / site
    fill(folder, beside(job, job / "runs" / "x-01"))
    return folder


def test_what_two_sites_write_over_is_each_ones_own_and_the_original_stays(tmp_path: Path) -> None:
    job = made(tmp_path, {"best.pth": 5, "out/best.pth": 7, "pkg/__init__.py": 0, "data.csv": 3})
    a, b = filled(job, "a"), filled(job, "b")
    for folder, text in ((a, "of a"), (b, "of b")):
        for name in ("best.pth", "out/best.pth", "out/new.pth"):
            (folder / name).write_text(text)
    for name in ("best.pth", "out/best.pth", "out/new.pth"):
        assert ((a / name).read_text(), (b / name).read_text()) == ("of a", "of b")
    assert (job / "best.pth").stat().st_size == 5
    assert not (job / "out" / "new.pth").exists()
    assert (a / "pkg" / "__init__.py").is_file()
    assert (a / "data.csv").is_file()


def test_what_is_too_large_is_a_link_that_is_named(tmp_path: Path) -> None:
    many = {f"images/{i}.png": 1 for i in range(WORKING_FILES.value + 1)}
    job = made(tmp_path, {"train.py": 10, "data.bin": WORKING_BYTES.value + 1, ".venv/x": 1, **many})
    folder = filled(job, "a")
    assert {p.name for p in folder.iterdir() if p.is_symlink()} == {"data.bin", "images", ".venv"}
    assert not (folder / "train.py").is_symlink()
    assert sorted(beside(job, job / "runs" / "x-01").shared) == ["data.bin", "images"]
    assert (folder / "images" / "7.png").exists()


def test_the_runs_themselves_are_left_out_also_through_a_link(tmp_path: Path) -> None:
    job = made(tmp_path, {"train.py": 1, "elsewhere/old-01/model": 5})
    (job / "runs").symlink_to(job / "elsewhere")
    folder = job / "elsewhere" / "x-01" / "sites" / "a"
    fill(folder, beside(job, job / "elsewhere" / "x-01"))
    assert [p.name for p in folder.iterdir()] == ["train.py"]


def test_keys_in_a_tmpdir_beside_the_job_file_are_left_out(tmp_path: Path) -> None:
    job = made(tmp_path, {"train.py": 1, "tmp/fedjob-x/a/tls.key": 5})
    assert beside(job, job / "runs" / "x-01", job / "tmp" / "fedjob-x").copies == (Path("train.py"),)


def test_a_resumed_run_gets_what_is_newer_and_keeps_what_the_script_wrote(tmp_path: Path) -> None:
    job = made(tmp_path, {"train.py": 1, "best.pth": 1})
    folder = filled(job, "a")
    (folder / "best.pth").write_text("trained")
    (folder / "own").write_text("trained")
    later = (job / "train.py").stat().st_mtime_ns + 5_000_000_000
    (job / "train.py").write_text("mended")
    os.utime(job / "train.py", ns=(later, later))
    filled(job, "a")
    assert (folder / "train.py").read_text() == "mended"
    assert [(folder / name).read_text() for name in ("best.pth", "own")] == ["trained"] * 2


def test_files_that_the_job_carries_arrive_byte_for_byte(tmp_path: Path) -> None:
    fill_with_texts(tmp_path / "a", {"train.py": "# Übung\r\n", "pkg/x.txt": "\r"})
    assert (tmp_path / "a" / "train.py").read_bytes() == "# Übung\r\n".encode()
    assert (tmp_path / "a" / "pkg" / "x.txt").read_bytes() == b"\r"


NAMES = st.sampled_from(["a", "b.py", "c/d", "c/e/f", "g/h"])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES, st.sampled_from([0, 1, WORKING_BYTES.value // 2, WORKING_BYTES.value + 1])))
def test_everything_beside_is_there_and_the_copies_are_within_bounds(sizes: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        job = made(Path(root), {"job.yaml": 1, **sizes})
        what = beside(job, job / "runs" / "x-01")
        folder = job / "runs" / "x-01" / "sites" / "a"
        fill(folder, what)
        for name, size in sizes.items():
            assert (folder / name).stat().st_size == size
        assert sum((job / name).stat().st_size for name in what.copies) <= WORKING_BYTES.value
        assert len(what.copies) <= WORKING_FILES.value


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_a_link(tmp_path: Path) -> None:
    job = made(tmp_path, {"secret": 1})
    (job / "secret").chmod(0)
    assert filled(job, "a").joinpath("secret").is_symlink()


def test_a_pipe_is_not_said_to_be_too_large(tmp_path: Path) -> None:
    job = made(tmp_path, {"train.py": 1})
    os.mkfifo(job / "pipe")
    what = beside(job, job / "runs" / "x-01")
    assert (what.links, what.shared) == ((Path("pipe"),), [])
