"""The JSON form of values, the same for every report, `--json` and event."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from etl.model.paths import Partition
from etl.model.times import rfc3339

# The ends of a window, and of a gap.
_KEYS: Final = {"start": "from", "end": "to"}


def as_json(value: Any, *names: str) -> Any:
    """Return what `json.dumps` writes of a value: a dataclass is an object of its fields.

    With `names`, it is an object of these attributes. Times are RFC 3339 in UTC, and a partition is
    its directory in the lake.
    """
    if names:
        return {_KEYS.get(name, name): as_json(getattr(value, name)) for name in names}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Partition):
        return value.directory
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if is_dataclass(value):
        return as_json(value, *(field.name for field in fields(value)))
    return value
