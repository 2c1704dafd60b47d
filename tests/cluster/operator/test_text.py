"""What a person wrote, as the API server keeps it and as a kubelet reads it: byte for byte, however odd."""

from __future__ import annotations

import re
from typing import Any

from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

ODD = "a$b $$ $(HOME) $$(HOME) $(X \"q\" 'q' ü \u2028 \t #: {}"
FILES = {"train.py": "print('x')\r\ny = 1\rz\n\n---\n", "blank.txt": "  lead and trail  \n", "dollar.sh": f"{ODD}\n"}
ENV = {"ODD": ODD, "NUMBER": "0o17", "YES": "yes", "EMPTY": ""}


def read(text: str, variables: dict[str, str]) -> str:
    """As a kubelet reads a command, an argument or a value: $$ is a dollar, $(NAME) a variable that is known."""
    found = re.finditer(r"\$\$|\$\(([^)]*)\)|[^$]+|\$", text)
    return "".join(
        "$" if part[0] == "$$" else variables.get(part[1], part[0]) if part[1] is not None else part[0]
        for part in found
    )


def test_commands_variables_and_files_reach_a_pod_as_they_were_written(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any
) -> None:
    rule = {
        "name": "all",
        "images": [{"repository": "example/runtime"}],
        "inlineCode": "Allow",
        "approval": "Automatic",
    }
    admin.patch(names.SITE_POLICY, namespace, "default", {"spec": {"rules": [{**rule, "env": list(ENV)}]}})
    start_operator()
    env = [{"name": name, "value": value} for name, value in ENV.items()]
    job = submit(trainer={"command": ["python", "train.py", ODD, ""], "files": FILES, "env": env})
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    for pod in kubelet.run(CLIENT, 2):
        (container,) = pod["spec"]["containers"]
        seen: dict[str, str] = {}
        for variable in container["env"]:
            seen[variable["name"]] = read(variable.get("value", ""), seen)
        assert {name: seen[name] for name in ENV} == ENV
        assert [read(word, seen) for word in container["command"]] == ["python", "train.py", ODD, ""]
        (volume,) = [v["configMap"] for v in pod["spec"]["volumes"] if v["name"] == "trainer"]
        data = admin.get(names.CONFIG_MAP, namespace, volume["name"])["data"]
        assert {item["path"]: data[item["key"]] for item in volume["items"]} == FILES
