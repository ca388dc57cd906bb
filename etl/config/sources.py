"""Reading the configuration from flags, environment, secret files and YAML.

The strongest source wins, key by key. No error text holds a value, except a time or a duration: it
may be a secret.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from etl.config.keys import ENV_PREFIX, meant, suggestion, unknown_part, variable
from etl.config.mistakes import explain
from etl.config.origins import Layer, Origins
from etl.config.settings import Settings
from etl.model.errors import UsageError

SECRETS_DIR: Final = "AHT_ETL_SECRETS_DIR"

# What Kubernetes adds to every container for a service whose name begins with `aht-etl`.
_KUBERNETES_SERVICE: Final = re.compile(r"_SERVICE_HOST\Z|_SERVICE_PORT(_|\Z)|_PORT(_|\Z)")


class _Variables(EnvSettingsSource):
    """Variables by name, be they from the environment or from secret files."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items() if value}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value  # left to the model, which names the key exactly


def load(flags: Mapping[str, Any], config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the configuration from all its sources.

    `flags` are nested by key like the YAML and win over all. Raises UsageError, one line that
    names each key at fault and holds no secret.
    """
    return load_with_origins(flags, config, environ, {})[0]


def load_with_origins(
    flags: Mapping[str, Any],
    config: Path | None,
    environ: Mapping[str, str],
    flag_names: Mapping[str, str],
) -> tuple[Settings, Origins]:
    """Read the configuration as `load` does; return it with where each value came from.

    `flag_names` are the flags by their dotted keys.
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

    class Loaded(Settings, BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            weaker = (InitSettingsSource(settings_cls, dict(layer.values)) for layer in layers[1:])
            return (init_settings, *weaker)

    layers = (
        Layer("flag", flags, flag_names),
        Layer("environment", _Variables(Loaded, variables)(), _names(variables, keep=True)),
        Layer("secret file", _Variables(Loaded, secrets)(), _names(secrets, keep=False)),
        Layer("YAML", _written(config), {"": str(config)}),
    )
    origins = Origins(layers)
    try:
        return Loaded(**flags), origins
    except ValidationError as error:
        raise UsageError(explain(error, origins)) from None


def load_settings(
    config: Path | str | None = None, environ: Mapping[str, str] = os.environ, **keys: Any
) -> Settings:
    """Read the configuration as the command does, for callers from Python.

    `keys` take the flags' place and win over all: `account="12345678"`, `lake={"uri": "./lake"}`.
    Behind them come the environment (`AHT_ETL_…`, secret files too; `{}` for neither) and the YAML
    `config`. Raises UsageError, one line that names each key at fault and holds no secret.
    """
    return load(keys, Path(config) if config is not None else None, environ)


def _refuse_unknown(names: Mapping[str, str], origin: str, name_of: Callable[[str], str]) -> None:
    """Raise UsageError where variables or secret files name no key; `name_of` a key is its name."""
    wrong = []
    for name in names:
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        unknown = unknown_part(path)
        if unknown is None:
            continue
        shown = name if origin == "environment variable" else name.removeprefix(ENV_PREFIX)
        within = f"{'.'.join(unknown)}: " if len(unknown) > 1 else ""
        hint = suggestion(path if meant(path) else unknown, name_of)
        if difflib.get_close_matches(name, [SECRETS_DIR], cutoff=0.9):
            hint = f", did you mean {SECRETS_DIR}?"
        wrong.append(f"{origin} {shown}: {within}unknown key{hint}")
    if wrong:
        raise UsageError("; ".join(wrong))


def _names(variables: Mapping[str, str], *, keep: bool) -> dict[str, str]:
    """Return variables or secret files, whose prefix goes unless `keep`, by their dotted keys."""
    names = {}
    for name in variables:
        short = name.removeprefix(ENV_PREFIX)
        names[short.lower().replace("__", ".")] = name if keep else short
    return names


def _secret_files(folder: str | None) -> dict[str, str]:
    """Return the content of the secret files by their variables. Raises UsageError."""
    if not folder:
        return {}
    try:
        # Names that begin with a dot are how Kubernetes swaps a mounted secret at once.
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
            wrong.append(f"secret file {file}: is a folder; one file a key must stand in its place")
        except OSError as error:
            reason = error.strerror
            if file.is_symlink() and not file.exists():
                reason = f"it is a link to {file.readlink()}, which is not there"
            wrong.append(f"secret file {file}: cannot be read: {reason}")
    if wrong:
        raise UsageError("; ".join(wrong))
    return found


def _written(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    from etl.config.yaml_file import read  # noqa: PLC0415 - YAML is for those who have some

    return read(config)
