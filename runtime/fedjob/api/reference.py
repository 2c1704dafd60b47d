"""The field reference of job files, printed from the models: `python -m fedjob.api.reference > docs/job-reference.md`."""

import json
import sys

from fedjob.api.schema import FieldPath, Schema, allowed, fields

_HEAD = """\
# Job reference

Every field of a job file, `apiVersion: fedjob.dev/v1alpha1`, `kind: FederatedJob`. Files are YAML, JSON or TOML. A field that
is not here is refused. `[]` stands for each entry of a list. Generated from the models by
`python -m fedjob.api.reference`; a test compares.

| Field | Allowed | Default | Meaning |
|---|---|---|---|
"""


def markdown() -> str:
    """The reference as one page of Markdown."""
    return _HEAD + "".join(_row(path, node, required) for path, node, required in fields())


def _row(path: FieldPath, node: Schema, required: bool) -> str:
    name = ".".join(map(str, path)).replace(".[]", "[]")
    phrase = "a mapping" if "properties" in node else allowed(node)
    cells = [f"`{name}`", phrase, _default(node, required), node["description"]]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(node: Schema, required: bool) -> str:
    if required:
        return "required"
    if "default" not in node or node["default"] in ([], {}):
        return ""
    default = node["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
