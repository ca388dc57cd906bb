"""Every key of the configuration: its names, its value and where it came from, its JSON Schema."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from etl.config.settings import Settings
from etl.config.values import yaml_text, yaml_value

ENV_PREFIX: Final = "AHT_ETL_"
Kind = Literal["flag", "environment", "secret file", "YAML", "default"]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
# The last column at which the comments are aligned; longer values move their own.
_COMMENT_COLUMN: Final = 40


def all_keys(
    model: type[BaseModel] = Settings, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that holds a value, dotted (`window.from`), with the model's field."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from all_keys(kind, f"{key}.")
        else:
            yield key, field


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value: its kind, and the value's name there (empty for a default)."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "secret file":
            return f"secret file {self.name}"
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Layer:
    """One source: its values, nested by key, and the name of each dotted key there.

    A key without a name has the name of its section, or at last the name of "".
    """

    kind: Kind
    values: Mapping[str, Any]
    names: Mapping[str, str]

    def origin(self, key: str) -> Origin | None:
        """Return the origin of a key's value, or None if this source does not set it."""
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, Mapping):
                break  # an entry of a list has the origin of the list
            if part not in value:
                return None
            value = value[part]
        while key not in self.names and key:
            key = key.rpartition(".")[0]
        return Origin(self.kind, self.names.get(key, ""))


@dataclass(frozen=True, slots=True)
class Origins:
    """The sources of a configuration, strongest first."""

    layers: tuple[Layer, ...] = ()

    def of(self, key: str) -> Origin:
        """Return the origin of a dotted key's value."""
        found = (layer.origin(key) for layer in self.layers)
        return next((origin for origin in found if origin is not None), Origin("default"))


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value in its YAML form (`yaml_value`), with its origin; it holds no secret."""

    key: str
    value: Any
    origin: Origin

    @property
    def text(self) -> str:
        """The value as text, `unset` for None."""
        return "unset" if self.value is None else yaml_text(self.value)


def shown_values(settings: Settings, origins: Origins) -> Iterator[ShownValue]:
    """Yield every value of the configuration, in the model's order; secrets are hidden."""
    for key, _ in all_keys():
        # Not of model_dump, which returns sizes as plain integers.
        value: Any = settings
        for part in key.split("."):
            names = {field.alias or name: name for name, field in type(value).model_fields.items()}
            value = getattr(value, names[part])
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                option = f"{key}.{name}"
                yield ShownValue(option, yaml_value(inner), origins.of(option))
        else:
            yield ShownValue(key, yaml_value(value), origins.of(key))


def to_yaml(values: Iterable[ShownValue]) -> str:
    """Return the values as a YAML document; a comment after each value names its origin."""
    lines: list[tuple[str, str]] = []
    above: list[str] = []
    for value in values:
        *sections, name = value.key.split(".")
        for depth, section in enumerate(sections):
            if above[: depth + 1] != sections[: depth + 1]:
                lines.append((f"{'  ' * depth}{section}:", ""))
        above = sections
        shown = "" if value.value is None else f" {yaml_text(value.value)}"
        text = f"{'  ' * len(sections)}{yaml_text(name)}:{shown}"
        unset = value.key.startswith("auth.") and value.value is None
        lines.append((text, "unset" if unset else str(value.origin)))
    width = min(_COMMENT_COLUMN, max(len(text) for text, origin in lines if origin))
    return "".join(
        f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines
    )


class _YamlSchema(GenerateJsonSchema):
    """Writes defaults as people write them in YAML, and no titles, which would repeat the keys."""

    def encode_default(self, dft: Any) -> Any:
        return super().encode_default(yaml_value(dft))

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def config_schema() -> JsonSchemaValue:
    """Return the schema of the YAML (draft 2020-12): every key, its description, its values.

    It refuses unknown keys. It lacks the rules between keys, such as an incomplete OAuth 1.0a
    scheme, because the other keys may come from another source.
    """
    schema = Settings.model_json_schema(schema_generator=_YamlSchema)
    for name, field in schema["properties"].items():
        if "$ref" in field:
            # `section:` with no value is an empty section.
            inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
            schema["properties"][name] = {
                "description": inner.pop("description"),
                "anyOf": [{"$ref": field["$ref"]}, {"type": "null"}],
            }
    for inner in schema["$defs"].values():
        inner.pop("title", None)
    return {
        "$schema": _DRAFT,
        **schema,
        "title": "aht-etl",
        "description": "The configuration of aht-etl: aht-etl run --config FILE",
    }
