"""An image of one static program, made without any builder: it holds pods' namespaces, makes volumes' folders, and is there to try things."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import Any

NAME = "localhost/busybox:1"
PROGRAM = Path("/bin/busybox")  # of Debian's package busybox-static

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOREVER = ["/bin/sleep", "2147483647"]


def write(archive: Path) -> None:
    """Write the image as an OCI archive; the same program gives the same bytes."""
    applets = subprocess.run([str(PROGRAM), "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = _layer(applets)
    packed = gzip.compress(layer, mtime=0)
    configuration = _json(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Cmd": _FOREVER, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    blob = "application/vnd.oci.image"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{blob}.manifest.v1+json",
            "config": _descriptor(configuration, f"{blob}.config.v1+json"),
            "layers": [_descriptor(packed, f"{blob}.layer.v1.tar+gzip")],
        }
    )
    name = {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME}
    entry = {**_descriptor(manifest, f"{blob}.manifest.v1+json"), "annotations": name}
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for content in (configuration, packed, manifest):
            _add(tar, f"blobs/sha256/{_digest(content).partition(':')[2]}", content)


def _layer(applets: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "bin/busybox", PROGRAM.read_bytes(), mode=0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}
