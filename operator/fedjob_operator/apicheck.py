"""Whether an installation works: `python -m fedjob_operator.apicheck`, which `helm test` runs in a pod.

It asks the API server as a user would, without a change (`dryRun`): a good job must be taken, a bad one refused with the name of its
field. Then the operator: a replica must hold the Lease now, and be ready. Prints a line for each, and exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import names
from .lease import NAME as LEASE_NAME

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECONDS = 10
_FIELD = "spec.workflow.rounds"


class Wrong(Exception):  # noqa: N818
    """Something is not as it should be; the message says what, and what to do."""


@dataclass(frozen=True)
class Api:
    """The API server, for whoever holds the token."""

    url: str
    token: str
    trust: ssl.SSLContext

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """HTTP code and answer. Raises Wrong without an answer."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self.trust) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            with e:
                return e.code, _json(e.read())
        except OSError as e:
            raise Wrong(f"the API server at {self.url} does not answer: {e}") from e


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}


def good_job(api: Api, namespace: str) -> str:
    """The API server knows FederatedJobs."""
    code, said = _submit(api, namespace, rounds=1)
    if code != 201:
        raise Wrong(f"a FederatedJob is refused: {code} {said.get('message')}; are the definitions installed?")
    return "the API server takes a FederatedJob"


def bad_job(api: Api, namespace: str) -> str:
    """The API server checks FederatedJobs."""
    code, said = _submit(api, namespace, rounds=0)
    if code != 422 or _FIELD not in str(said.get("message")):
        raise Wrong(
            f"{_FIELD}: 0 is not refused by name: {code} {said.get('message')}; are the definitions of this version?"
        )
    return f"it refuses {_FIELD}: 0 by name"


def _submit(api: Api, namespace: str, rounds: int) -> tuple[int, Any]:
    spec = {
        "workflow": {"rounds": rounds},
        "trainer": {"command": ["python", "train.py"]},
        "sites": [{"name": "a-site"}],
    }
    metadata = {"generateName": "fedjob-check-"}
    body = {"apiVersion": names.API_VERSION, "kind": names.FEDERATED_JOB.name, "metadata": metadata, "spec": spec}
    return api.call("POST", f"{names.FEDERATED_JOB.path(namespace)}?dryRun=All&fieldValidation=Strict", body)


def leader(api: Api, namespace: str, now: datetime) -> str:
    """A replica acts."""
    code, lease = api.call("GET", names.LEASE.path(namespace, LEASE_NAME))
    if code != 200:
        raise Wrong(f"no operator has taken the Lease {LEASE_NAME}: {code}; see the operator's log")
    spec = lease["spec"]
    age = now - datetime.fromisoformat(spec["renewTime"])
    if not spec.get("holderIdentity") or age > timedelta(seconds=3 * spec["leaseDurationSeconds"]):
        raise Wrong(
            f"nobody holds the Lease {LEASE_NAME} (renewed {age.total_seconds():.0f} s ago); see the operator's log"
        )
    return f"{spec['holderIdentity']} acts"


def ready(url: str) -> str:
    """The operator answers."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=_TIMEOUT_SECONDS) as answer:
            answer.read()
    except OSError as e:
        raise Wrong(f"the operator at {url} is not ready: {e}; see the operator's log") from e
    return "the operator is ready"


def run(checks: Sequence[Callable[[], str]]) -> Iterator[tuple[bool, str]]:
    """Whether each check passes, and its line."""
    for check in checks:
        try:
            yield True, check()
        except Wrong as e:
            yield False, str(e)


def main() -> int:
    """Run every check; returns the exit code."""
    parser = argparse.ArgumentParser("fedjob-apicheck", description="Checks that an installation works.")
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    host = f"[{host}]" if ":" in host else host
    parser.add_argument("--namespace", required=True, help="the operator's own")
    parser.add_argument("--operator", required=True, help="http://host:port of its metrics")
    parser.add_argument(
        "--server", default=f"https://{host}:{port}", help="the API server; default: of the pod's cluster"
    )
    parser.add_argument("--token", type=Path, default=_ACCOUNT / "token", help="file with a token")
    parser.add_argument("--ca", type=Path, default=_ACCOUNT / "ca.crt", help="file with the API server's authority")
    given = parser.parse_args()
    api = Api(
        given.server, given.token.read_text(encoding="utf-8").strip(), ssl.create_default_context(cafile=str(given.ca))
    )
    results = list(
        run(
            (
                lambda: good_job(api, given.namespace),
                lambda: bad_job(api, given.namespace),
                lambda: leader(api, given.namespace, datetime.now(UTC)),
                lambda: ready(given.operator),
            )
        )
    )
    for passed, line in results:
        print("ok  " if passed else "FAIL", line)  # noqa: T201 - what it is for
    return 0 if all(passed for passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
