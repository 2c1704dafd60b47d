"""Whether what a job chose is among what an administrator lists: a toleration, an image.  PURE"""

from __future__ import annotations

from fedjob.api.globs import fits_path

from ..observed import Raw


def covers(entry: Raw, toleration: Raw) -> bool:
    """Whether every taint that `toleration` puts up with, `entry` does as well."""
    if entry.get("key") is not None and entry["key"] != toleration.get("key"):
        return False
    if entry.get("effect") is not None and entry["effect"] != toleration.get("effect"):
        return False
    if entry.get("operator") == "Exists":
        return True
    same = bool((entry.get("value") or "") == (toleration.get("value") or ""))
    return same and toleration.get("operator", "Equal") == "Equal"


def image_fits(entry: Raw, image: str) -> bool:
    """Whether an entry allows an image; digests, if given, must hold the image's own, beside which a tag says nothing."""
    repository, _, given = image.partition("@")
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    digests = entry.get("digests")
    return fits_path(entry["repository"], repository) and (not digests or given in digests)


def taint(toleration: Raw) -> str:
    """A toleration for a message."""
    return f"{{{', '.join(f'{key}: {value}' for key, value in sorted(toleration.items()))}}}"
