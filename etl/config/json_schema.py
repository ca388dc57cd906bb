"""The JSON Schema of the YAML configuration, for editors: `aht-etl config schema`."""

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from etl.config.origins import written
from etl.config.settings import Settings

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


class _AsInYaml(GenerateJsonSchema):
    """Writes defaults as one would write them in YAML, and no titles, which would repeat keys."""

    def encode_default(self, dft: Any) -> Any:
        return super().encode_default(written(dft))

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def config_schema() -> JsonSchemaValue:
    """Return the schema (draft 2020-12): every key with its description, unknown ones refused.

    What only the whole configuration shows, such as a key of OAuth 1.0a without the others, which
    may come from another source, is not in it.
    """
    schema = Settings.model_json_schema(schema_generator=_AsInYaml)
    for name, field in schema["properties"].items():
        if "$ref" in field:
            # `section:` with nothing behind it is an empty section.
            section = schema["$defs"][field["$ref"].rpartition("/")[2]]
            schema["properties"][name] = {
                "description": section.pop("description"),
                "anyOf": [{"$ref": field["$ref"]}, {"type": "null"}],
            }
    for section in schema["$defs"].values():
        section.pop("title", None)
    return {
        "$schema": _DRAFT,
        **schema,
        "title": "aht-etl",
        "description": "The configuration of aht-etl: aht-etl run --config FILE",
    }
