"""Authorities for what a script calls over HTTPS: a ConfigMap as a file, and the variables by which libraries find it.  PURE

The file replaces what the image trusts. TLS between a client and its server, and between a server and the hub, names its own
authorities and looks at none of this.
"""

from __future__ import annotations

from typing import Any

from .. import names
from ..settings import CaBundle
from .pod import mount

_VOLUME = "ca-bundle"
_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL: Python's ssl and urllib, aiohttp, httpx; Go
    "REQUESTS_CA_BUNDLE",  # requests
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",  # boto3, the AWS command
)


def volume(bundle: CaBundle) -> dict[str, Any]:
    """The volume of a pod. A ConfigMap or key that is missing keeps the pod from starting."""
    items = [{"key": bundle.key, "path": names.CA_FILE}]
    return {"name": _VOLUME, "configMap": {"name": bundle.config_map, "items": items}}


def mounted() -> dict[str, Any]:
    """Where a container sees it; the whole folder, so that certificates that are added reach it while it runs."""
    return mount(_VOLUME, names.CA_FOLDER)


def variables() -> dict[str, str]:
    """What tells libraries of it."""
    return dict.fromkeys(_VARIABLES, f"{names.CA_FOLDER}/{names.CA_FILE}")
