"""The configuration's values as YAML writes them, and the source that each one came from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import ByteSize, SecretStr

from etl.model.times import rfc3339

Kind = Literal["flag", "environment", "secret file", "YAML", "default"]

# Largest first: the unit is the first that is exact.
_SIZES: Final = {
    2**40: "TiB",
    10**12: "TB",
    2**30: "GiB",
    10**9: "GB",
    2**20: "MiB",
    10**6: "MB",
    2**10: "KiB",
    10**3: "kB",
}
_DURATIONS: Final = {86400: "d", 3600: "h", 60: "m", 1: "s"}
# The last column at which the comments are aligned; longer values move their own.
_COMMENT_COLUMN: Final = 40


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


def yaml_value(value: Any) -> Any:
    """Return a value as people write it in YAML: `7d`, `128MiB`; a secret as `set`."""
    match value:
        case SecretStr():
            return "set"
        case ByteSize():
            fitting = (
                f"{value // size}{unit}" for size, unit in _SIZES.items() if not value % size
            )
            return next(fitting, int(value))
        case timedelta():
            return _duration(value)
        case datetime():
            return rfc3339(value)
        case tuple():
            return [yaml_value(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _duration(value: timedelta) -> str:
    for seconds, unit in _DURATIONS.items():
        count, rest = divmod(value, timedelta(seconds=seconds))
        if count and not rest and (count, unit) != (1, "m"):  # people write 60s
            return f"{count}{unit}"
    text = f"{value.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"{text}s"


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


def yaml_text(value: Any) -> str:
    """Return a value as one line of YAML."""
    import yaml  # noqa: PLC0415 - most runs do not need it

    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
