"""The configuration's keys: where each is, and what a mistyped one may mean."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etl.config.settings import Settings

ENV_PREFIX: Final = "AHT_ETL_"

#: Keys with names below them that the program leaves to the store to know.
_OPEN: Final = {"lake.options", "raw.options", "compact.options"}


def all_keys(
    model: type[BaseModel] = Settings, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that holds a value, dotted (`window.from`), with the model's field."""
    for name, field in fields(model).items():
        inner = section(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from all_keys(inner, f"{prefix}{name}.")


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a section's fields by the names that users write."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def section(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, None where it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def meant(path: Sequence[str]) -> str | None:
    """Return the known key that an unknown one is most like, dotted; None where there is none.

    Tried in this order: another way of writing the levels (`fetch_rate`), the right name in the
    wrong section, a slip in the last level, a slip anywhere.
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
    if close := difflib.get_close_matches(last, siblings(parents), n=1):
        return ".".join([*parents, *close])
    close = difflib.get_close_matches(wanted, flat, n=1, cutoff=0.75)
    return flat[close[0]] if close else None


def suggestion(path: Sequence[str], also: Callable[[str], str] | None = None) -> str:
    """Return what to say behind `unknown key`; `also` a key is its name in another source."""
    key = meant(path)
    if key is None:
        return f" (known: {', '.join(siblings(path[:-1]) or siblings([]))})"
    section, _, name = key.rpartition(".")
    near = name if section == ".".join(path[:-1]) else key
    return f", did you mean {near}{f' ({also(key)})' if also else ''}?"


def siblings(parents: Sequence[str]) -> list[str]:
    """Return the names that there are in a section, none where there is no such section."""
    model: type[BaseModel] | None = Settings
    for parent in parents:
        field = fields(model).get(parent) if model else None
        model = section(field) if field else None
    return list(fields(model)) if model else []


def unknown_part(path: Sequence[str]) -> list[str] | None:
    """Return the path up to its first part that is no key, None where the whole is one."""
    model: type[BaseModel] | None = Settings
    for depth, part in enumerate(path, 1):
        field = fields(model).get(part) if model else None
        if field is None:
            is_open = ".".join(path[: depth - 1]) in _OPEN
            return None if is_open else list(path[:depth])
        model = section(field)
    return None


def _flat(key: str) -> str:
    return re.sub(r"[._-]+", "_", key)
