"""The messages about a wrong configuration: the key, its source, what is allowed, an example.

No message holds a value, except a time or a duration, because the value may be a secret.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from etl.config.keys import (
    DEFAULT,
    ENV_PREFIX,
    FILE_ORIGIN,
    KEYS,
    SECRETS_DIR,
    Origins,
    is_below,
    origin_of,
    variable,
)
from etl.config.values import Expected, yaml_value


def explain(error: ValidationError, origins: Origins) -> str:
    """Return a validation error as one line that names each wrong key and its source."""
    lines: list[str] = []
    for details in error.errors(include_url=False):
        path = [str(part) for part in details["loc"]]
        key, given = ".".join(path), details["input"]
        too_deep = key in KEYS and isinstance(given, dict) and given
        if details["type"] == "extra_forbidden" or too_deep:
            lines += (_unknown_key(each, path, origins) for each in _paths(path, given))
        else:
            subject = f"{key}: " if key else ""
            lines.append(f"{subject}{_reason(key, details)}{_place(key, origins)}")
    return "; ".join(lines)


def _place(key: str, origins: Origins) -> str:
    origin = origin_of(key, origins)
    return "" if origin in {"", DEFAULT} else f" ({origin})"


def _paths(path: list[str], value: Any) -> Iterator[list[str]]:
    """Yield the paths of all values in a value."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _paths([*path, str(name)], inner)
    else:
        yield path


def _unknown_key(path: Sequence[str], to_unknown: Sequence[str], origins: Origins) -> str:
    """Return the message about an unknown key, given its path also up to the first unknown part.

    It says which key was probably meant, for a variable or a secret file by the key's name there.
    """
    key = ".".join(path)
    origin = origin_of(key, origins)
    meant = _closest_key(path) or _closest_key(to_unknown)
    if meant is None:
        hint = f" (known: {', '.join(_names_in(to_unknown[:-1]) or _names_in([]))})"
    else:
        section, _, name = meant.rpartition(".")
        near = name if section == key.rpartition(".")[0] else meant
        if origin.startswith(ENV_PREFIX):
            near += f" ({variable(meant)})"
        elif origin.startswith(FILE_ORIGIN):
            near += f" ({meant.replace('.', '__')})"
        hint = f", did you mean {near}?"
    if not origin.startswith((ENV_PREFIX, FILE_ORIGIN)):
        return f"{key}: unknown key{hint}{_place(key, origins)}"
    if difflib.get_close_matches(origin, [SECRETS_DIR], cutoff=0.9):
        hint = f", did you mean {SECRETS_DIR}?"
    kind = "environment variable " if origin.startswith(ENV_PREFIX) else ""
    return f"{kind}{origin}: {f'{key}: ' if len(path) > 1 else ''}unknown key{hint}"


def _closest_key(path: Sequence[str]) -> str | None:
    """Return the known key, dotted, that an unknown one was probably meant to be.

    Tried in this order: other separators (`fetch_rate`), the right name in the wrong section, a
    spelling mistake in the last level, a spelling mistake anywhere.
    """
    *parents, last = path
    flat = {_flat(key): key for key in KEYS}
    wanted = _flat(".".join(path))
    if wanted in flat:
        return flat[wanted]
    elsewhere = [key for key in KEYS if key.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        return elsewhere[0]
    if close := difflib.get_close_matches(last, _names_in(parents), n=1):
        return ".".join([*parents, *close])
    close = difflib.get_close_matches(wanted, flat, n=1, cutoff=0.75)
    return flat[close[0]] if close else None


def _names_in(parents: Sequence[str]) -> list[str]:
    """Return the names in a section, none if there is no such section."""
    prefix = "".join(f"{parent}." for parent in parents)
    below = (key.removeprefix(prefix) for key in KEYS if key.startswith(prefix))
    return list(dict.fromkeys(name.partition(".")[0] for name in below))


def _flat(key: str) -> str:
    return re.sub(r"[._-]+", "_", key)


def _reason(key: str, details: ErrorDetails) -> str:
    """Return what is wrong with the value of a known key, or of a section, and an example."""
    own = str(details["ctx"]["error"]) if details["type"] == "value_error" else ""
    name = next((name for name in KEYS if is_below(key, name)), None)
    if name is None:
        inner = next((name for name in KEYS if is_below(name, key)), "account")
        return own or f"is a section, not a value: set the keys in it, such as {inner}"
    field = KEYS[name]
    expected = _expected(field)
    default = field.get_default(call_default_factory=True)
    examples = (*(field.examples or ()), default, expected.example)
    example = next(yaml_value(each) for each in examples if each not in (None, (), {}))
    words = expected.words
    if name != key:  # an entry of a list, or one of several options
        example = next(iter(example.values() if isinstance(example, dict) else example))
    elif isinstance(example, dict):
        words = f"names with values, each {words}"
    elif isinstance(example, list):
        words = f"a list, each entry {words}"
    if not own:
        own = f"{'is empty and ' if details['input'] in (None, '') else ''}must be {words}"
    if "for example" in own or "write " in own:
        return own
    # JSON, which YAML accepts too: lists in the environment are JSON.
    return f"{own}, for example {example if isinstance(example, str) else json.dumps(example)}"


def _expected(field: FieldInfo) -> Expected:
    """Return what a field, or an entry of it, may be."""
    for part in (*_parts(field.annotation), *field.metadata):
        if isinstance(part, Expected):
            return part
        if get_origin(part) is Literal:
            *others, last = get_args(part)
            return Expected(f"{', '.join(others)} or {last}")
    return Expected("text")


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type, its arguments and its annotations."""
    yield kind
    for each in (*get_args(kind), *getattr(kind, "metadata", ())):
        yield from _parts(each)
