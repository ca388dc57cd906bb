"""Where each value of the configuration came from, and the values as they are shown."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import ByteSize, SecretStr

from etl.config.keys import all_keys
from etl.config.settings import Settings
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
# Where comments stand in a column, unless the value before them is longer.
_COMMENTS_AT_MOST: Final = 40


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: what kind of source, and its name there (empty for a default)."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "secret file":
            return f"secret file {self.name}"
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Layer:
    """One source: what it says, nested by key, and what each dotted key is called there.

    A key that has no name of its own there goes by its section's, at last by that of "".
    """

    kind: Kind
    values: Mapping[str, Any]
    names: Mapping[str, str]

    def origin(self, key: str) -> Origin | None:
        """Return the origin of a value that this source gives, else None."""
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, Mapping):
                break  # an entry of a list: its origin is the list's
            if part not in value:
                return None
            value = value[part]
        while key not in self.names and key:
            key = key.rpartition(".")[0]
        return Origin(self.kind, self.names.get(key, ""))


@dataclass(frozen=True, slots=True)
class Origins:
    """The sources that were read, strongest first."""

    layers: tuple[Layer, ...] = ()

    def of(self, key: str) -> Origin:
        """Return where the value of a dotted key came from."""
        found = (layer.origin(key) for layer in self.layers)
        return next((origin for origin in found if origin is not None), Origin("default"))


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as it may be shown: as it is written in YAML, a secret as `set` or None."""

    key: str
    value: Any
    origin: Origin

    @property
    def text(self) -> str:
        """The value as YAML would have it, `unset` where there is none."""
        return "unset" if self.value is None else flow(self.value)


def shown(settings: Settings, origins: Origins) -> Iterator[Shown]:
    """Yield every value of the configuration, in the model's order; no secret."""
    for key, _ in all_keys():
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, _ATTRIBUTES.get(part, part))
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                option = f"{key}.{name}"
                yield Shown(option, written(inner), origins.of(option))
        else:
            yield Shown(key, written(value), origins.of(key))


def written(value: Any) -> Any:
    """Return a value as one would write it in YAML: `7d`, `128MiB`; a secret as `set`."""
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
            return [written(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _duration(value: timedelta) -> str:
    for seconds, unit in _DURATIONS.items():
        count, rest = divmod(value, timedelta(seconds=seconds))
        if count and not rest and (count, unit) != (1, "m"):  # 60s is how people say it
            return f"{count}{unit}"
    text = f"{value.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"{text}s"


# The two names that are words of Python are called otherwise in the model.
_ATTRIBUTES: Final = {"from": "start", "to": "end"}


def to_yaml(values: Iterable[Shown]) -> str:
    """Return the values as YAML, the origin of each in a comment behind it."""
    lines: list[tuple[str, str]] = []
    above: list[str] = []
    for value in values:
        *sections, name = value.key.split(".")
        for depth, section in enumerate(sections):
            if above[: depth + 1] != sections[: depth + 1]:
                lines.append((f"{'  ' * depth}{section}:", ""))
        above = sections
        text = f"{'  ' * len(sections)}{flow(name)}:{_value(value.value)}"
        unset = value.key.startswith("auth.") and value.value is None
        lines.append((text, "unset" if unset else str(value.origin)))
    width = min(_COMMENTS_AT_MOST, max(len(text) for text, origin in lines if origin))
    return "".join(
        f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines
    )


def _value(value: Any) -> str:
    return "" if value is None else f" {flow(value)}"


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    import yaml  # noqa: PLC0415 - for those who look at a configuration

    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
