"""The JSON schema of the resource, and what it says in words: the one place that knows what a field allows.

Editors read the schema itself; error messages and the field reference are made from it.
"""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from fedjob.api.job import FederatedJob

Schema = dict[str, Any]
FieldPath = tuple[str | int, ...]

KEY = "[key]"  # pydantic's last step in the place of an error that is about a mapping's key, not about its value


class _Generator(GenerateJsonSchema):
    """Without the titles that pydantic makes from names: a title here is the phrase that explains a pattern."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # an optional field is left out, not written as null

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        json_schema: Schema = {
            "type": "object",
            "additionalProperties": self.generate_inner(schema["values_schema"]),
            "propertyNames": self.generate_inner(schema["keys_schema"]),
        }
        self.update_with_validations(json_schema, schema, self.ValidationsMapping.object)
        return json_schema


def json_schema(model: type[BaseModel] = FederatedJob) -> Schema:
    """JSON schema (draft 2020-12) of a job file, or of another model, with camelCase names and a description of every field."""
    schema = model.model_json_schema(schema_generator=_Generator)
    for part in (schema, *schema["$defs"].values()):
        part.pop("title", None)
        for field in part["properties"].values():
            if field.get("default", ...) is None:
                del field["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": model.__name__, **schema}


def inlined(model: type[BaseModel]) -> Schema:
    """The JSON schema of a model without references: each part stands where it is used."""
    schema = json_schema(model)
    definitions: dict[str, Schema] = schema.pop("$defs")

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"].removeprefix("#/$defs/")]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return {key: inline(value) for key, value in node.items()}

    found: Schema = inline(schema)
    return found


@cache
def _schema() -> Schema:
    return json_schema()


def resolve(node: Schema) -> Schema:
    """The schema that `node` stands for, if it is a reference; with the description and default given beside it."""
    if "$ref" not in node:
        return node
    target: Schema = _schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def find(path: FieldPath) -> Schema | None:
    """The schema of the value at `path`, or None if there is no such field.

    A path that ends with a mapping's key and KEY asks about the key itself.
    """
    if is_key(path):
        return resolve((find(path[:-2]) or {})["propertyNames"])
    node = _schema()
    for name in path:
        inner = _inner(node, name)
        if inner is None:
            return None
        node = resolve(inner)
    return node


def is_key(path: FieldPath) -> bool:
    """Whether `path` is about a mapping's key, not about a value."""
    return path[-1:] == (KEY,) and "propertyNames" in (find(path[:-2]) or {})


def _inner(node: Schema, step: str | int) -> Schema | None:
    if "properties" in node:
        found: Schema | None = node["properties"].get(step)
    elif "additionalProperties" in node:
        found = node["additionalProperties"]
    else:
        found = node.get("items") if isinstance(step, int) else None
    return found


def fields(node: Schema | None = None, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Schema, bool]]:
    """Every field, in the order of the models: its path, its schema, and whether it must be given.

    A field inside a list has the step "[]" in its path. An entry of a mapping has no path of its own.
    """
    node = _schema() if node is None else node
    for name, field in node.get("properties", {}).items():
        here, field = (*path, name), resolve(field)
        yield here, field, name in node.get("required", ())
        yield from fields(field, here)
        if "items" in field:
            yield from fields(resolve(field["items"]), (*here, "[]"))


def allowed(node: Schema) -> str:
    """What a value may be, as a phrase that can follow "allowed: "."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        *others, last = node["enum"]
        return f"{', '.join(others)} or {last}"
    return _PHRASES[node["type"]](node)


def _whole_number(node: Schema) -> str:
    return f"a whole number from {node['minimum']} to {node['maximum']}"


def _text(node: Schema) -> str:
    return f"{node.get('title', 'text')} (at most {node['maxLength']} characters)"


def _list(node: Schema) -> str:
    what = "strings" if resolve(node["items"])["type"] == "string" else "entries"
    return f"a list of {node.get('minItems', 0)} to {node['maxItems']} {what}"


def _mapping(node: Schema) -> str:
    if "properties" in node:
        return f"a mapping with the fields {', '.join(node['properties'])}"
    return f"a mapping of at most {node['maxProperties']} names to strings"


_PHRASES = {
    "integer": _whole_number,
    "number": lambda _: "a number",
    "boolean": lambda _: "true or false",
    "string": _text,
    "array": _list,
    "object": _mapping,
}


def fits(node: Schema | None, text: str) -> bool:
    """Whether a text has the pattern of a field; one without a pattern takes any. By pydantic, whose engine does not backtrack."""
    pattern = node.get("pattern") if node else None
    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python(text)
    except ValidationError:
        return False
    return True
