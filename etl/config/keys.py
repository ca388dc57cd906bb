"""Every key of the configuration: its names, its value and where it came from, its JSON Schema."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from etl.config.settings import Settings
from etl.config.values import yaml_text, yaml_value
from etl.model.errors import UsageError

ENV_PREFIX: Final = "AHT_ETL_"
SECRETS_DIR: Final = "AHT_ETL_SECRETS_DIR"
#: How the origin of a secret file's value begins; that of a variable's begins with ENV_PREFIX.
FILE_ORIGIN: Final = "secret file "
#: The origin of a value that no source sets.
DEFAULT: Final = "default"

#: The flag, variable, file or secret file that sets each dotted key.
Origins = Mapping[str, str]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
# The last column at which the comments are aligned; longer values move their own.
_COMMENT_COLUMN: Final = 40


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{key}.")
        else:
            yield key, field


#: Every key that holds a value, dotted (`window.from`), with the model's field.
KEYS: Final[Mapping[str, FieldInfo]] = dict(_fields(Settings))


def is_below(key: str, above: str) -> bool:
    """Return whether a dotted key is another one, or is in its value."""
    return f"{key}.".startswith(f"{above}.")


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def file_name(key: str) -> str:
    """Return the name of the secret file of a dotted key."""
    return key.replace(".", "__")


def missing(key: str, flag: str, user: str | None = None) -> UsageError:
    """Return the error that a key is not set, which `user` needs, and what sets it."""
    needed = f", and {user} needs it" if user else ""
    return UsageError(f"{key}: is missing{needed}; set {flag}, {variable(key)} or the YAML's key")


def origin_of(key: str, origins: Origins) -> str:
    """Return the origin of a dotted key's value, or of the value that it is in."""
    while key not in origins and key:
        key = key.rpartition(".")[0]
    return origins.get(key, DEFAULT)


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value in its YAML form (`yaml_value`), with its origin; it holds no secret."""

    key: str
    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value as text, `unset` for None."""
        return "unset" if self.value is None else yaml_text(self.value)

    @property
    def is_default(self) -> bool:
        """Whether no source sets it."""
        return self.origin == DEFAULT


def shown_values(settings: Settings, origins: Origins) -> Iterator[ShownValue]:
    """Yield every value of the configuration, in the model's order; secrets are hidden."""
    for key in KEYS:
        # Not of model_dump, which returns sizes as plain integers.
        value: Any = settings
        for part in key.split("."):
            names = {field.alias or name: name for name, field in type(value).model_fields.items()}
            value = getattr(value, names[part])
        options = value.items() if isinstance(value, dict) else ()
        for name, each in [(f"{key}.{name}", each) for name, each in options] or [(key, value)]:
            yield ShownValue(name, yaml_value(each), origin_of(name, origins))


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
        lines.append((text, "unset" if unset else value.origin))
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
