"""Reading the configuration from flags, environment, secret files and YAML.

The strongest source wins, key by key. No error message holds a value, except a time or a duration,
because the value may be a secret.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, get_origin

import yaml
from pydantic import ValidationError

from etl.config.keys import ENV_PREFIX, FILE_ORIGIN, KEYS, SECRETS_DIR, Origins, is_below
from etl.config.mistakes import explain
from etl.config.settings import Settings
from etl.model.errors import UsageError

# Variables that Kubernetes sets in every container for a service named `aht-etl…`.
_KUBERNETES_SERVICE: Final = re.compile(r"_SERVICE_HOST\Z|_SERVICE_PORT(_|\Z)|_PORT(_|\Z)")


class Source(NamedTuple):
    """Values, nested by key, and the name of the flag, variable or file that sets them."""

    values: Mapping[str, Any]
    name: str

    @classmethod
    def of(cls, key: str, value: Any, name: str) -> "Source":
        """Return the source of one dotted key."""
        for part in reversed(key.split(".")):
            value = {part: value}
        return cls(value, name)


def load_settings(
    config: Path | str | None = None, environ: Mapping[str, str] = os.environ, **keys: Any
) -> Settings:
    """Read the configuration as the command does, for callers from Python.

    `keys` are the strongest source: `account="12345678"`, `lake={"uri": "./lake"}`. The environment
    (`AHT_ETL_…` and secret files; `{}` for neither) is next, and the YAML `config` is last. Raises
    UsageError, one line that names each wrong key and holds no secret.
    """
    return load([Source(keys, "")], None if config is None else Path(config), environ)[0]


def load(
    flags: Iterable[Source], config: Path | None, environ: Mapping[str, str]
) -> tuple[Settings, Origins]:
    """Read the configuration from all its sources; return it with the origin of each value.

    `flags` are the strongest source. Raises UsageError, one line that names each wrong key and
    holds no secret.
    """
    variables = {
        name: (name.removeprefix(ENV_PREFIX), text)
        for name, text in environ.items()
        if name.startswith(ENV_PREFIX)
        and name != SECRETS_DIR
        and not _KUBERNETES_SERVICE.search(name)
    }
    values: Mapping[str, Any] = {}
    origins: dict[str, str] = {}
    for source in (
        *([Source(_yaml(config), str(config))] if config else []),
        *_variables(_secret_files(environ.get(SECRETS_DIR))),
        *_variables(variables),
        *flags,
    ):
        values = _merged(source.values, values)
        for key in _leaves(source.values):
            # The strongest is the last; a value in a value replaces that one.
            origins = {each: name for each, name in origins.items() if not is_below(key, each)}
            origins[key] = source.name
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        raise UsageError(explain(error, origins)) from None


def _merged(strong: Mapping[str, Any], weak: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of two sources, key by key."""
    merged = {**weak, **strong}
    for key in strong.keys() & weak.keys():
        if isinstance(strong[key], Mapping) and isinstance(weak[key], Mapping):
            merged[key] = _merged(strong[key], weak[key])
    return merged


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all values that are not sections."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        is_section = key not in KEYS and any(is_below(each, key) for each in KEYS)
        if isinstance(value, Mapping) and (value or is_section):
            yield from _leaves(value, f"{key}.")
        else:
            yield key


def _variables(variables: Mapping[str, tuple[str, str]]) -> list[Source]:
    """Return the sources for variables or secret files, given by their shown names.

    A list or a whole section is JSON, and a variable for one key of the section is stronger. An
    empty variable sets nothing. An unknown one sets a key that no other source can set, so the
    model always finds it.
    """
    found: list[tuple[tuple[bool, int], Source]] = []
    for shown, (name, text) in variables.items():
        key = name.lower().replace("__", ".")
        above = next((each for each in KEYS if is_below(key, each)), None)
        is_section = above is None and any(is_below(each, key) for each in KEYS)
        kind = dict if is_section else get_origin(KEYS[above].annotation) if above else None
        if "." in name or not (is_section or key == above or kind is dict):
            found.append(((False, 0), Source({shown: text}, shown)))
        elif text:
            value: Any = text
            is_json = is_section or (key == above and kind in {dict, tuple})
            if is_json:
                with suppress(ValueError):  # the model's own message names the key exactly
                    value = json.loads(text)
            if is_section and value is None:
                continue  # as in YAML
            # What stands in a mapping's place is the strongest, so that it is reported.
            wrong = is_json and kind is dict and not isinstance(value, dict)
            found.append(((wrong, key.count(".")), Source.of(key, value, shown)))
    return [source for _, source in sorted(found, key=itemgetter(0))]


def _secret_files(folder: str | None) -> dict[str, tuple[str, str]]:
    """Return the names and contents of the secret files. Raises UsageError."""
    if not folder:
        return {}
    try:
        # Kubernetes replaces a mounted secret with the help of names that begin with a dot.
        files = sorted(file for file in Path(folder).iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{SECRETS_DIR}={folder}: cannot be read: {error.strerror}") from None
    found, wrong = {}, []
    for file in files:
        try:
            text = file.read_text("utf-8-sig").rstrip("\r\n")
            found[f"{FILE_ORIGIN}{file.name}"] = file.name, text
        except UnicodeDecodeError:
            wrong.append(f"secret file {file}: is not UTF-8 text; write it as UTF-8")
        except IsADirectoryError:
            wrong.append(f"secret file {file}: is a folder; it must be a file that holds the value")
        except OSError as error:
            reason = error.strerror
            if file.is_symlink() and not file.exists():
                reason = f"it is a link to {file.readlink()}, which does not exist"
            wrong.append(f"secret file {file}: cannot be read: {reason}")
    if wrong:
        raise UsageError("; ".join(wrong))
    return found


class _TextLoader(yaml.SafeLoader):
    """Leaves scalars as text, because an account id of digits is not a number.

    The model parses them as it parses the environment's. Only null is YAML's.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's name for it
        first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _yaml(file: Path) -> dict[str, Any]:
    """Return the keys in a YAML file, sections as mappings, values as text. Raises UsageError."""
    try:
        content = yaml.load(file.read_text("utf-8"), Loader=_TextLoader)  # noqa: S506
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        # Not its own text, which quotes the line: that may hold a secret.
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = f": {problem}{where}" if problem else ""
        raise UsageError(f"--config {file}: not YAML{what}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {file}: must be keys and values at the top level")
    # `section:` with no value is an empty section.
    return {str(key): value for key, value in content.items() if value is not None}
