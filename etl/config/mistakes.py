"""The messages about a wrong configuration: the key, its source, what is allowed, an example.

No message holds a value, except a time or a duration, because the value may be a secret.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
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
    file_name,
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
        key = ".".join(path)
        if details["type"] == "extra_forbidden":
            lines.append(_unknown_key(path, origins))
        else:
            subject = f"{key}: " if key else ""
            lines.append(f"{subject}{_reason(key, details)}{_place(key, origins)}")
    return "; ".join(lines)


def _place(key: str, origins: Origins) -> str:
    below = [origin for each, origin in origins.items() if is_below(each, key)]
    origin = below[-1] if below else origin_of(key, origins)
    return "" if origin in {"", DEFAULT} else f" ({origin})"


def _unknown_key(path: Sequence[str], origins: Origins) -> str:
    """Return the message about an unknown key, which says which one was probably meant.

    The path of an unknown variable or secret file is its name. There the key's name is named too.
    """
    key = ".".join(path)
    named = origin_of(key, origins) == key
    if named and key.startswith(ENV_PREFIX):
        subject, name, name_of = (
            f"environment variable {key}",
            key.removeprefix(ENV_PREFIX),
            variable,
        )
    elif named and key.startswith(FILE_ORIGIN):
        subject, name, name_of = key, key.removeprefix(FILE_ORIGIN), file_name
    else:
        return f"{key}: unknown key{_hint(path, _closest_key(path))}{_place(key, origins)}"
    path = name.lower().split("__")
    depths = range(len(path))
    unknown = next(path[: end + 1] for end in depths if path[end] not in _names_in(path[:end]))
    meant = _closest_key(path)
    hint = _hint(path if meant else unknown, meant or _closest_key(unknown), name_of)
    if difflib.get_close_matches(key, [SECRETS_DIR], cutoff=0.9):
        hint = f", did you mean {SECRETS_DIR}?"
    within = f"{'.'.join(unknown)}: " if len(unknown) > 1 else ""
    return f"{subject}: {within}unknown key{hint}"


def _hint(
    path: Sequence[str], meant: str | None, name_of: Callable[[str], str] | None = None
) -> str:
    """Return the end of a message about an unknown key: the key that was meant, or those known."""
    if meant is None:
        return f" (known: {', '.join(_names_in(path[:-1]) or _names_in([]))})"
    section, _, name = meant.rpartition(".")
    near = name if section == ".".join(path[:-1]) else meant
    return f", did you mean {near}{f' ({name_of(meant)})' if name_of else ''}?"


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
