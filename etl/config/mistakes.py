"""What is said about a wrong configuration: the key, what is allowed, an example, where it stands.

No error text ever holds a value, except a time or a duration: it may be a secret.
"""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from etl.config.keys import all_keys, suggestion
from etl.config.origins import Origins, written
from etl.config.scalars import Form

_BASES: Final = {bool: "true or false", int: "a whole number", float: "a number"}


def explain(error: ValidationError, origins: Origins) -> str:
    """Put a validation error into one line that names each key at fault."""
    lines = []
    for details in error.errors(include_url=False):
        key = ".".join(str(part) for part in details["loc"])
        origin = origins.of(key) if key else None
        place = f" ({origin})" if origin and origin.name else ""
        lines.append(f"{f'{key}: ' if key else ''}{_reason(key, details)}{place}")
    return "; ".join(lines)


def _reason(key: str, details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"unknown key{suggestion([str(part) for part in details['loc']])}"
    fields = {name: field for name, field in all_keys() if f"{key}.".startswith(f"{name}.")}
    own = str(details["ctx"]["error"]) if kind == "value_error" else None
    if not fields:
        inner = next((name for name, _ in all_keys() if name.startswith(f"{key}.")), "account")
        return own or f"is a section and takes no value: set the keys in it, such as {inner}"
    [(name, field)] = fields.items()
    kind, metadata = _unwrapped(field.annotation, field.metadata)
    example = _example(field, metadata)
    if name != key:  # an entry of a list or of names with values
        kind, metadata = _entry(kind)
        example = next(iter(example.values() if isinstance(example, dict) else example))
    if own is None:
        empty = "is empty and " if details["input"] in (None, "") else ""
        own = f"{empty}must be {_allowed(kind, metadata)}"
    if "for example" in own or "write " in own:
        return own
    # As YAML and JSON alike have it: lists in the environment are JSON.
    return f"{own}, for example {example if isinstance(example, str) else json.dumps(example)}"


def _example(field: FieldInfo, metadata: list[Any]) -> Any:
    default = field.get_default(call_default_factory=True)
    found = [*(field.examples or []), default, *(each.example for each in _forms(metadata))]
    return next(written(each) for each in found if each not in (None, (), {}))


def _allowed(kind: Any, metadata: list[Any]) -> str:
    """Return what a value of a type may be, in words that fit behind "must be"."""
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    if get_origin(kind) is dict:
        return f"names with values, each {_allowed(*_entry(kind))}"
    if get_origin(kind) is tuple:
        return f"a list, each entry {_allowed(*_entry(kind))}"
    words = next((each.words for each in _forms(metadata)), _BASES.get(kind, "text"))
    least = next((each.ge for each in metadata if isinstance(each, Ge)), None)
    above = next((each.gt for each in metadata if isinstance(each, Gt)), None)
    most = next((each.le for each in metadata if isinstance(each, Le)), None)
    if least is not None and most is not None:
        return f"{words} from {written(least)} to {written(most)}"
    if least is not None:
        return f"{words}, {written(least)} or more"
    return words if above is None else f"{words}, more than {written(above)}"


def _entry(kind: Any) -> tuple[Any, list[Any]]:
    """Return the type of a list's entries, or of the values that names have."""
    arguments = get_args(kind)
    return _unwrapped(arguments[1] if get_origin(kind) is dict else arguments[0], [])


def _unwrapped(kind: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """Return a type without None and annotations; the annotations join the other metadata."""
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind, *annotations = get_args(kind)
        metadata = [*metadata, *annotations]
    return kind, list(_flat(metadata))


def _flat(metadata: list[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from _flat(each.metadata) if isinstance(each, FieldInfo) else [each]


def _forms(metadata: list[Any]) -> Iterator[Form]:
    return (each for each in metadata if isinstance(each, Form))
