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
    form = value
    if names:
        form = {_KEYS.get(name, name): as_json(getattr(value, name)) for name in names}
    elif isinstance(value, datetime):
        form = rfc3339(value)
    elif isinstance(value, Partition):
        form = value.directory
    elif isinstance(value, Enum):
        form = value.value
    elif isinstance(value, Mapping):
        form = {key: as_json(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        form = [as_json(item) for item in value]
    elif is_dataclass(value):
        form = as_json(value, *(field.name for field in fields(value)))
    return form
