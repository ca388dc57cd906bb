"""Every key of the configuration: its name in each source, its value, its JSON Schema."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from etl.config.settings import Settings
from etl.config.values import Origins, ShownValue, yaml_value

ENV_PREFIX: Final = "AHT_ETL_"

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


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
