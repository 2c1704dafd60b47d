"""A Secret in a pod, as the kubelet mounts it: each content in a folder of its own, and one link that goes over to it."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from fedjob.identity import CA_FILE, CERT_FILE, KEY_FILE, Credentials

DATA = "..data"


def mount(credentials: Credentials, folder: Path) -> None:
    """Bring credentials to a pod's folder, the first or renewed ones; the order of steps is the kubelet's."""
    folder.mkdir(parents=True, exist_ok=True)
    old = folder / (folder / DATA).readlink() if (folder / DATA).is_symlink() else None
    new = folder / f"..{uuid.uuid4().hex}"
    new.mkdir(mode=0o700)
    for name, content in (
        (KEY_FILE, credentials.key_pem),
        (CERT_FILE, credentials.cert_pem),
        (CA_FILE, credentials.ca_pem),
    ):
        (new / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(f"{DATA}/{name}")
    (folder / "..data_tmp").symlink_to(new.name)
    (folder / "..data_tmp").replace(folder / DATA)
    if old is not None:
        shutil.rmtree(old)
