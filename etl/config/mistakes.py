"""The messages about a wrong configuration: the key, its source, what is allowed, an example.

No message holds a value, except a time or a duration, because the value may be a secret.
"""

import difflib
import json
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from etl.config.keys import Origins, all_keys
from etl.config.values import Expected, yaml_value

# Keys whose own keys only the store knows.
_OPEN: Final = {"lake.options", "raw.options", "compact.options"}
_BASES: Final = {bool: "true or false", int: "a whole number", float: "a number"}


def explain(error: ValidationError, origins: Origins) -> str:
    """Return a validation error as one line that names each wrong key and its source."""
    lines = []
    for details in error.errors(include_url=False):
        key = ".".join(str(part) for part in details["loc"])
        origin = origins.of(key) if key else None
        place = f" ({origin})" if origin and origin.name else ""
        lines.append(f"{f'{key}: ' if key else ''}{_reason(key, details)}{place}")
    return "; ".join(lines)


def suggest(path: Sequence[str], name_of: Callable[[str], str] | None = None) -> str:
    """Return the end of a message about an unknown key: the key that was probably meant.

    `name_of` returns a key's name in the source with the mistake; it is added in parentheses.
    """
    key = closest_key(path)
    if key is None:
        return f" (known: {', '.join(_names_in(path[:-1]) or _names_in([]))})"
    section, _, name = key.rpartition(".")
    near = name if section == ".".join(path[:-1]) else key
    return f", did you mean {near}{f' ({name_of(key)})' if name_of else ''}?"


def closest_key(path: Sequence[str]) -> str | None:
    """Return the known key, dotted, that an unknown one was probably meant to be.

    Tried in this order: other separators (`fetch_rate`), the right name in the wrong section, a
    spelling mistake in the last level, a spelling mistake anywhere.
    """
    *parents, last = path
    known = [key for key, _ in all_keys()]
    flat = {_flat(key): key for key in known}
    wanted = _flat(".".join(path))
    if wanted in flat:
        return flat[wanted]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        return elsewhere[0]
    if close := difflib.get_close_matches(last, _names_in(parents), n=1):
        return ".".join([*parents, *close])
    close = difflib.get_close_matches(wanted, flat, n=1, cutoff=0.75)
    return flat[close[0]] if close else None


def unknown_part(path: Sequence[str]) -> Sequence[str] | None:
    """Return the path up to its first unknown part, or None for a key or a section."""
    for depth, part in enumerate(path):
        parents = path[:depth]
        if ".".join(parents) in _OPEN:
            return None
        if part not in _names_in(parents):
            return path[: depth + 1]
    return None


def _names_in(parents: Sequence[str]) -> list[str]:
    """Return the names in a section, none if there is no such section."""
    prefix = "".join(f"{parent}." for parent in parents)
    below = (key.removeprefix(prefix) for key, _ in all_keys() if key.startswith(prefix))
    return list(dict.fromkeys(name.partition(".")[0] for name in below))


def _flat(key: str) -> str:
    return re.sub(r"[._-]+", "_", key)


def _reason(key: str, details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"unknown key{suggest([str(part) for part in details['loc']])}"
    fields = {name: field for name, field in all_keys() if f"{key}.".startswith(f"{name}.")}
    own = str(details["ctx"]["error"]) if kind == "value_error" else None
    if not fields:
        inner = next((name for name, _ in all_keys() if name.startswith(f"{key}.")), "account")
        return own or f"is a section, not a value: set the keys in it, such as {inner}"
    [(name, field)] = fields.items()
    kind, metadata = _unwrapped(field.annotation, field.metadata)
    example = _example(field, metadata)
    if name != key:  # an entry of a list, or one of several options
        kind, metadata = _entry(kind)
        example = next(iter(example.values() if isinstance(example, dict) else example))
    if own is None:
        empty = "is empty and " if details["input"] in (None, "") else ""
        own = f"{empty}must be {_allowed(kind, metadata)}"
    if "for example" in own or "write " in own:
        return own
    # JSON, which YAML accepts too: lists in the environment are JSON.
    return f"{own}, for example {example if isinstance(example, str) else json.dumps(example)}"


def _example(field: FieldInfo, metadata: list[Any]) -> Any:
    default = field.get_default(call_default_factory=True)
    found = [*(field.examples or []), default, *(each.example for each in _expected(metadata))]
    return next(yaml_value(each) for each in found if each not in (None, (), {}))


def _allowed(kind: Any, metadata: list[Any]) -> str:
    """Return the words that follow "must be" for a type."""
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    if get_origin(kind) is dict:
        return f"names with values, each {_allowed(*_entry(kind))}"
    if get_origin(kind) is tuple:
        return f"a list, each entry {_allowed(*_entry(kind))}"
    words = next((each.words for each in _expected(metadata)), _BASES.get(kind, "text"))
    least = next((each.ge for each in metadata if isinstance(each, Ge)), None)
    above = next((each.gt for each in metadata if isinstance(each, Gt)), None)
    most = next((each.le for each in metadata if isinstance(each, Le)), None)
    if least is not None and most is not None:
        return f"{words} from {yaml_value(least)} to {yaml_value(most)}"
    if least is not None:
        return f"{words}, {yaml_value(least)} or more"
    return words if above is None else f"{words}, more than {yaml_value(above)}"


def _entry(kind: Any) -> tuple[Any, list[Any]]:
    """Return the type of a list's entries, or of a mapping's values."""
    arguments = get_args(kind)
    return _unwrapped(arguments[1] if get_origin(kind) is dict else arguments[0], [])


def _unwrapped(kind: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """Return a type without None and annotations; the annotations join the other metadata."""
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind, *annotations = get_args(kind)
        metadata = [*metadata, *annotations]
    return kind, list(_flattened(metadata))


def _flattened(metadata: list[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from _flattened(each.metadata) if isinstance(each, FieldInfo) else [each]


def _expected(metadata: list[Any]) -> Iterator[Expected]:
    return (each for each in metadata if isinstance(each, Expected))
