"""Reading the configuration from flags, environment, secret files and YAML.

The strongest source wins, key by key. No error message holds a value, except a time or a duration,
because the value may be a secret.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from etl.config.keys import ENV_PREFIX, Layer, Origins, variable
from etl.config.mistakes import closest_key, explain, suggest, unknown_part
from etl.config.settings import Settings
from etl.model.errors import UsageError

SECRETS_DIR: Final = "AHT_ETL_SECRETS_DIR"

# Variables that Kubernetes sets in every container for a service named `aht-etl…`.
_KUBERNETES_SERVICE: Final = re.compile(r"_SERVICE_HOST\Z|_SERVICE_PORT(_|\Z)|_PORT(_|\Z)")


class _Variables(EnvSettingsSource):
    """Variables by name, from the environment or from secret files."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        # It needs the fields of the model only, no BaseSettings.
        super().__init__(
            cast("type[BaseSettings]", Settings),
            env_prefix=ENV_PREFIX,
            env_nested_delimiter="__",
            env_ignore_empty=True,
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items() if value}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value  # the model's own message names the key exactly


def load(flags: Mapping[str, Any], config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the configuration from all its sources.

    `flags` are nested like the YAML and are the strongest source. Raises UsageError, one line that
    names each wrong key and holds no secret.
    """
    return load_with_origins(flags, config, environ, {})[0]


def load_with_origins(
    flags: Mapping[str, Any],
    config: Path | None,
    environ: Mapping[str, str],
    flag_names: Mapping[str, str],
) -> tuple[Settings, Origins]:
    """Read the configuration as `load` does; return it with the origin of each value.

    `flag_names` are the flags by the dotted keys that they set.
    """
    variables = {
        name: value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX)
        and name != SECRETS_DIR
        and not _KUBERNETES_SERVICE.search(name)
    }
    secrets = _secret_files(environ.get(SECRETS_DIR))
    _refuse_unknown(variables, "environment variable", variable)
    _refuse_unknown(secrets, "secret file", lambda key: key.replace(".", "__"))

    layers = (
        Layer("flag", flags, flag_names),
        Layer("environment", _Variables(variables)(), _names(variables, keep=True)),
        Layer("secret file", _Variables(secrets)(), _names(secrets, keep=False)),
        Layer("YAML", _yaml(config) if config else {}, {"": str(config)}),
    )
    origins = Origins(layers)
    try:
        return Settings.model_validate(reduce(_merged, (each.values for each in layers))), origins
    except ValidationError as error:
        raise UsageError(explain(error, origins)) from None


def _merged(strong: Mapping[str, Any], weak: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of two sources, key by key."""
    merged = {**weak, **strong}
    for key in strong.keys() & weak.keys():
        if isinstance(strong[key], Mapping) and isinstance(weak[key], Mapping):
            merged[key] = _merged(strong[key], weak[key])
    return merged


def load_settings(
    config: Path | str | None = None, environ: Mapping[str, str] = os.environ, **keys: Any
) -> Settings:
    """Read the configuration as the command does, for callers from Python.

    `keys` are the strongest source: `account="12345678"`, `lake={"uri": "./lake"}`. The environment
    (`AHT_ETL_…` and secret files; `{}` for neither) is next, and the YAML `config` is last. Raises
    UsageError, one line that names each wrong key and holds no secret.
    """
    return load(keys, Path(config) if config is not None else None, environ)


def _refuse_unknown(names: Mapping[str, str], origin: str, name_of: Callable[[str], str]) -> None:
    """Raise UsageError if variables or secret files set unknown keys.

    `name_of` returns a key's name in this source.
    """
    wrong = []
    for name in names:
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        unknown = unknown_part(path)
        if unknown is None:
            continue
        shown = name if origin == "environment variable" else name.removeprefix(ENV_PREFIX)
        within = f"{'.'.join(unknown)}: " if len(unknown) > 1 else ""
        hint = suggest(path if closest_key(path) else unknown, name_of)
        if difflib.get_close_matches(name, [SECRETS_DIR], cutoff=0.9):
            hint = f", did you mean {SECRETS_DIR}?"
        wrong.append(f"{origin} {shown}: {within}unknown key{hint}")
    if wrong:
        raise UsageError("; ".join(wrong))


def _names(variables: Mapping[str, str], *, keep: bool) -> dict[str, str]:
    """Return the names of variables (`keep` the prefix) or secret files by their dotted keys."""
    names = {}
    for name in variables:
        short = name.removeprefix(ENV_PREFIX)
        names[short.lower().replace("__", ".")] = name if keep else short
    return names


def _secret_files(folder: str | None) -> dict[str, str]:
    """Return the contents of the secret files by the names of variables. Raises UsageError."""
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
            found[ENV_PREFIX + file.name] = file.read_text("utf-8-sig").rstrip("\r\n")
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


def _yaml(file: Path) -> dict[str, Any]:
    """Return the keys in a YAML file, sections as mappings, values as text. Raises UsageError."""
    import yaml  # noqa: PLC0415 - runs without a file start faster

    class TextLoader(yaml.SafeLoader):
        """Leaves scalars as text, because an account id of digits is not a number.

        The model parses them as it parses the environment's. Only null is YAML's.
        """

        yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's name for it
            first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        content = yaml.load(file.read_text("utf-8"), Loader=TextLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        # The mark's own text quotes the line, which may hold a secret.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"--config {file}: not YAML: {error.problem}{where}") from None
    except yaml.YAMLError:
        raise UsageError(f"--config {file}: not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {file}: must be keys and values at the top level")
    # `section:` with no value is an empty section.
    return {str(key): value for key, value in content.items() if value is not None}
