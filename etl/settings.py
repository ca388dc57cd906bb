"""The configuration: one model, read from flags, environment, secret files and YAML.

The strongest source wins, key by key. `Settings(...)` alone reads nothing but its arguments;
`load` reads the sources. No error text ever holds a value: it may be a secret.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from etl.errors import UsageError
from etl.times import parse_duration, parse_instant

ENV_PREFIX: Final = "AHT_ETL_"
SECRETS_DIR: Final = "AHT_ETL_SECRETS_DIR"

# What Kubernetes adds to every container for a service whose name begins with `aht-etl`.
_KUBERNETES_SERVICE: Final = re.compile(r"_SERVICE_HOST\Z|_SERVICE_PORT(_|\Z)|_PORT(_|\Z)")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address never leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _text_then(parse: Any) -> BeforeValidator:
    def validate(value: object) -> object:
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(validate)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("not a URL: write https://host") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("not a URL: write https://host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a user, a query or a fragment has no place in it: write https://host")
    return url.rstrip("/")


def _local_folder(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if not uri:
        raise ValueError("must not be empty")
    if not separator:
        return uri
    if scheme != "file":
        raise ValueError("only folders and file:// are supported by this version")
    if not rest.startswith("/"):
        raise ValueError("write file:///folder, with three slashes")
    return unquote(rest)


Instant = Annotated[
    datetime, _text_then(parse_instant), WithJsonSchema({"type": ["string", "integer"]})
]
Duration = Annotated[
    timedelta,
    _text_then(parse_duration),
    Field(gt=timedelta(0)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+[smhd]$"}),
]
Size = Annotated[ByteSize, Field(gt=0)]
Url = Annotated[str, AfterValidator(_origin)]
Folder = Annotated[str, AfterValidator(_local_folder)]
Compression = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ApiSettings(_Section):
    """Where the vendor's API is and how it is asked."""

    allow_http: bool = False  # before the URLs, which are judged by it
    base_url: Url | None = None
    domain_url: Url = "https://api.liveperson.net"
    source: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_]+$", max_length=20)] = "aht_etl"
    request_window: Duration = timedelta(days=1)

    @field_validator("base_url", "domain_url")
    @classmethod
    def _https(cls, value: str | None, info: ValidationInfo) -> str | None:
        url = urlsplit(value or "https://unset")
        allowed = info.data.get("allow_http") or is_loopback(url.hostname or "")
        if url.scheme == "http" and not allowed:
            raise ValueError(
                "plain http would show the keys to anyone on the way; use https, or set "
                "api.allow_http"
            )
        return value


class AuthSettings(_Section):
    """Keys of OAuth 1.0a or of OAuth 2.0 client credentials, or none."""

    consumer_key: SecretStr | None = None
    consumer_secret: SecretStr | None = None
    access_token: SecretStr | None = None
    access_token_secret: SecretStr | None = None
    signature_method: Literal["HMAC-SHA1", "HMAC-SHA256"] = "HMAC-SHA1"
    client_id: SecretStr | None = None
    client_secret: SecretStr | None = None

    @property
    def scheme(self) -> Literal["oauth1", "oauth2", "none"]:
        """Which scheme the keys are for."""
        if self.consumer_key:
            return "oauth1"
        return "oauth2" if self.client_id else "none"

    @model_validator(mode="after")
    def _one_whole_scheme(self) -> Self:
        schemes = {
            "OAuth 1.0a": (
                "consumer_key",
                "consumer_secret",
                "access_token",
                "access_token_secret",
            ),
            "OAuth 2.0": ("client_id", "client_secret"),
        }
        begun = {
            name: [key for key in keys if getattr(self, key) is None]
            for name, keys in schemes.items()
            if any(getattr(self, key) is not None for key in keys)
        }
        if len(begun) > 1:
            raise ValueError("keys of OAuth 1.0a and of OAuth 2.0 are set; keep those of one")
        for name, missing in begun.items():
            if missing:
                raise ValueError(
                    f"{name} needs {', '.join(f'auth.{key}' for key in missing)} as well"
                )
        return self


class WindowSettings(_Section):
    """Which span of time is listed."""

    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")
    lookback: Duration = timedelta(days=7)


class FetchSettings(_Section):
    """How files are requested."""

    concurrency: Annotated[int, Field(ge=1)] = 16
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    timeout: Duration = timedelta(seconds=60)
    skip: tuple[str, ...] = ()


class RetrySettings(_Section):
    """The vendor's documented retry policy."""

    server_delays: tuple[Seconds, ...] = (5, 10, 15)
    throttle_delay: Seconds = 1
    throttle_attempts: Annotated[int, Field(ge=0)] = 20


class LakeSettings(_Section):
    """Where the lake is and how its parts are written."""

    uri: Folder = "./lake"
    options: dict[str, SecretStr] = Field(default_factory=dict)
    compression: Compression = "zstd"
    target_part_size: Size = ByteSize(128 * 2**20)


class RawSettings(_Section):
    """Where downloaded files are kept, if anywhere."""

    uri: Folder | None = None


class LimitSettings(_Section):
    """What is too much."""

    memory: Size = ByteSize(512 * 2**20)
    max_bad_row_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_file_size: Size = ByteSize(16 * 2**30)


class ShutdownSettings(_Section):
    """How a run ends when it is told to."""

    grace: Annotated[
        timedelta,
        _text_then(parse_duration),
        Field(ge=timedelta(0)),
        WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+[smhd]$"}),
    ] = timedelta(seconds=20)


class Settings(BaseSettings):
    """The whole configuration; every key, its default and its meaning are in the README.

    Constructed directly it reads neither environment nor files. Raises pydantic's
    ValidationError.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    account: Annotated[str, Field(pattern=r"^[a-zA-Z0-9]+$")] | None = None
    api: ApiSettings = Field(default_factory=ApiSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    window: WindowSettings = Field(default_factory=WindowSettings)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    lake: LakeSettings = Field(default_factory=LakeSettings)
    raw: RawSettings = Field(default_factory=RawSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    shutdown: ShutdownSettings = Field(default_factory=ShutdownSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes them all
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the arguments; `load` adds the other sources."""
        return (init_settings,)

    def secret_values(self) -> Iterator[str]:
        """Yield every value that must never be shown."""
        for value in (*(v for _, v in self.auth), *self.lake.options.values()):
            if isinstance(value, SecretStr):
                yield value.get_secret_value()


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
    names each key at fault and holds no value.
    """
    variables = {
        name: value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX)
        and name != SECRETS_DIR
        and not _KUBERNETES_SERVICE.search(name)
    }
    secrets = _secret_files(environ.get(SECRETS_DIR))
    for names, origin in ((variables, "environment variable"), (secrets, "secret file")):
        _refuse_unknown(names, origin)
    from_yaml = _yaml(config) if config is not None else {}

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                _Variables(settings_cls, variables),
                _Variables(settings_cls, secrets),
                InitSettingsSource(settings_cls, from_yaml),
            )

    try:
        return Loaded(**flags)
    except ValidationError as error:
        raise UsageError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """Put a validation error into one line that names the keys and shows no value."""
    return "; ".join(
        f"{'.'.join(str(part) for part in e['loc']) or 'configuration'}: {_reason(e)}"
        for e in error.errors(include_input=False, include_url=False, include_context=False)
    )


def _reason(error: Any) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    *parents, key = (str(part) for part in error["loc"])
    model: Any = Settings
    for parent in parents:
        model = model.model_fields[parent].annotation
    known = [field.alias or name for name, field in model.model_fields.items()]
    return f"unknown key{_suggestion(key, known)}"


def _suggestion(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f", did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"


def _refuse_unknown(names: Mapping[str, str], origin: str) -> None:
    for name in names:
        key = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if key not in Settings.model_fields:
            shown = name if origin == "environment variable" else name.removeprefix(ENV_PREFIX)
            known = list(Settings.model_fields)
            raise UsageError(f"{origin} {shown}: unknown key{_suggestion(key, known)}")


def _secret_files(folder: str | None) -> dict[str, str]:
    if not folder:
        return {}
    try:
        # Names that begin with a dot are how Kubernetes swaps a mounted secret at once.
        return {
            ENV_PREFIX + file.name: file.read_text("utf-8").rstrip("\r\n")
            for file in sorted(Path(folder).iterdir())
            if not file.name.startswith(".")
        }
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a file is not UTF-8 text"
        raise UsageError(f"{SECRETS_DIR}={folder}: cannot be read: {reason}") from None


class _TextLoader(yaml.SafeLoader):
    """Scalars stay the text that they are: an account id of digits is not a number.

    The model parses them as it parses the environment's; only null is YAML's.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's name for it
        first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text("utf-8"), Loader=_TextLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        # The mark's own text quotes the line, and a secret may stand there.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"--config {file}: not YAML: {error.problem}{where}") from None
    except yaml.YAMLError:
        raise UsageError(f"--config {file}: not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {file}: must be keys and values at the top level")
    # `section:` with nothing behind it is an empty section, not a wrong one.
    return {str(key): value for key, value in content.items() if value is not None}
