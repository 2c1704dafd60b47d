"""The building blocks of the resource: the strict base class, the constrained types, and broken rules that span fields.

A constrained string carries a `title`: the phrase that says to a person what its pattern allows. Error messages and the
field reference print the title; the pattern is for machines.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

RULES_BROKEN = "rules_broken"
MAX_SECONDS = 31_536_000
MAX_ROUND_SECONDS = 2_592_000

JobName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=40,  # leaves room in a Kubernetes name, 63 characters, for what the operator appends
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        title="lower-case letters, digits and '-', beginning with a letter, not ending with '-'",
    ),
]
_JOB_NAME: TypeAdapter[str] = TypeAdapter(JobName)


def can_be_job(name: str) -> bool:
    """Whether a job may have this name."""
    try:
        _JOB_NAME.validate_python(name)
    except ValidationError:
        return False
    return True


# Names of namespaces, sites and data may begin with a digit, as DNS labels do (RFC 1123).
DnsLabel = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        title="lower-case letters, digits and '-', neither first nor last '-'",
    ),
]
DnsName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        title="a DNS name: lower-case letters, digits, '-' and '.'",
    ),
]
Address = Annotated[
    str,
    Field(
        min_length=3,
        max_length=512,
        pattern=r"^[^\s/]+:[0-9]{1,5}$",
        title="host:port",
    ),
]
Uid = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", title="the UID that the API server gave")
]
Sha256 = Annotated[
    str, Field(min_length=71, max_length=71, pattern=r"^sha256:[0-9a-f]{64}$", title="sha256: and 64 digits")
]
Pem = Annotated[str, Field(max_length=65_536, title="certificates in PEM")]
Timestamp = Annotated[
    str,
    Field(
        min_length=20,
        max_length=35,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$",
        title="a time such as 2026-01-31T12:00:00Z",
        json_schema_extra={"format": "date-time"},
    ),
]
Word = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$", title="one word of letters and digits")
]
Sentence = Annotated[str, Field(max_length=4096, title="text")]
Note = Annotated[str, Field(max_length=1024, title="text")]
GroupId = Annotated[int, Field(ge=1, le=2**31 - 1)]
ExitCode = Annotated[int, Field(ge=1, le=255)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        title="a Kubernetes label name, such as team or example.com/team",
    ),
]
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        title="letters, digits, '-', '_' and '.', first and last a letter or digit",
    ),
]
AnnotationValue = Annotated[str, Field(max_length=65_536, title="text")]
EnvName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        title="letters, digits and '_', not beginning with a digit",
    ),
]
EnvValue = Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$", title="text without NUL characters")]
Argument = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$", title="text without NUL characters")]
ArgumentPattern = Annotated[
    str,
    Field(
        max_length=4096,
        pattern=r"^([^\x00*][^\x00]*)?$",
        title="text that does not begin with *; further on, * stands for any text without /",
    ),
]
CommandPattern = Annotated[tuple[ArgumentPattern, ...], Field(strict=False, min_length=1, max_length=64)]
ImagePattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[^\s\x00*/@]+(/[^\s\x00/@:]+)*$",
        title="a repository without tag and digest; after the first /, * stands for any text without /",
    ),
]
ImageName = Annotated[
    str, Field(min_length=1, max_length=512, pattern=r"^[^\s\x00]+$", title="an image reference without spaces")
]
ResourceName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        title="a Kubernetes resource name, such as cpu, memory or nvidia.com/gpu",
    ),
]
Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$",
        title='a Kubernetes quantity in quotes, such as "2", "500m" or "20Gi"',
    ),
]
ByteCount = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(k|[MGTPE]|[KMGTPE]i)?$",
        title='a number of bytes in quotes, such as "500M" or "4Gi"',
    ),
]
TensorPattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[^\x00]+$",
        title="a pattern over tensor names with *, ? and [], such as *lora*",
    ),
]
ConfigKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
        title="a key of a ConfigMap: letters, digits, '_', '-' and '.'",
    ),
]
FileName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^\.?[A-Za-z0-9_][A-Za-z0-9_.-]*(/\.?[A-Za-z0-9_][A-Za-z0-9_.-]*)*$",
        title="a relative file name of letters, digits, '_', '-', '.' and '/', without '..'",
    ),
]
FileText = Annotated[str, Field(max_length=262_144, title="text")]
ModelPath = Annotated[
    str,
    Field(
        min_length=13,
        max_length=1024,
        pattern=r"^[^\x00]+\.safetensors$",
        title="the name of a .safetensors file",
    ),
]
ObjectName = Annotated[
    str,
    Field(
        min_length=3,
        max_length=256,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$",
        title="module:name, such as train:initial_state",
    ),
]
MetricName = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00]+$", title="the name of a metric, without spaces")
]


@dataclass(frozen=True)
class Broken:
    """A rule between fields that does not hold.

    path: camelCase names and list positions, from the part that checks the rule to the field to change.
    given: the value found there; None where a value is missing.
    allowed: what would be right, as a phrase that can follow "allowed: ".
    """

    path: tuple[str | int, ...]
    given: object
    allowed: str


def _refuse(broken: Iterable[Broken]) -> None:
    """Raise, inside a validator, one error that carries every broken rule; do nothing if there is none."""
    found = tuple(broken)
    if found:
        text = "; ".join(f"{'.'.join(map(str, rule.path))}: allowed: {rule.allowed}" for rule in found)
        raise PydanticCustomError(RULES_BROKEN, "{text}", {"text": text, "broken": found})


class Part(BaseModel):
    """A part of the resource: frozen, camelCase in files, unknown fields refused, no conversion between types."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        _refuse(self._broken_rules())
        return self

    def _broken_rules(self) -> Iterable[Broken]:
        """The rules between fields that do not hold, all of them; looked at once every field is right by itself."""
        return ()


def byte_count(quantity: str) -> int:
    """Bytes that a `ByteCount` stands for, rounded down: "4Gi" is 4 × 2^30, "500M" 500 × 10^6."""
    number = quantity.rstrip("kKMGTPEi")
    power = "kMGTPE".find(quantity[len(number) :].replace("K", "k")[:1] or " ") + 1
    return int(Fraction(number) * (1024 if quantity.endswith("i") else 1000) ** power)


def repeated(names: Sequence[str], path: tuple[str, ...], what: str) -> Iterable[Broken]:
    """A broken rule for each entry of the list at `path` whose `name` an earlier entry has already."""
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in first:
            where = f"{path[-1]}[{first[name]}]"
            yield Broken((*path, position, "name"), name, f"each {what} once; {where} has this name already")
        first.setdefault(name, position)
