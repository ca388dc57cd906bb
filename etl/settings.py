"""The configuration: one model; etl.sources reads it. No error text ever holds a value."""

import ipaddress
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from etl.times import parse_duration, parse_instant

# A host's name or address, perhaps a port, perhaps a path; no user, no query, nothing quoted.
_URL: Final = re.compile(
    r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)


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
        _ = urlsplit(url).port  # a ValueError where it is none
        well_formed = _URL.fullmatch(url)
    except ValueError:
        well_formed = None
    if not well_formed:
        raise ValueError("not a host's URL: write https://host, without a user or a query")
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
    request_window: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(days=1)

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


class MetricsSettings(_Section):
    """Where a run's figures go for Prometheus, if anywhere; nothing secret is among them."""

    pushgateway: Url | None = Field(
        default=None,
        description="A Prometheus Pushgateway's URL; plain http is taken to any host. Empty: none.",
    )
    textfile: str | None = Field(
        default=None,
        description="A file for the node exporter's textfile collector, in its folder; must end in "
        ".prom. Empty: none.",
    )

    @field_validator("textfile")
    @classmethod
    def _read_by_the_exporter(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".prom"):
            raise ValueError("must end in .prom: the node exporter reads no other file")
        return value

    @property
    def configured(self) -> bool:
        """Whether they go anywhere."""
        return self.pushgateway is not None or self.textfile is not None


class Settings(_Section):
    """The whole configuration; every key, its default and its meaning are in the README.

    Raises pydantic's ValidationError.
    """

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
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    @model_validator(mode="after")
    def _raw_files_outside_the_lake(self) -> Self:
        if self.raw.uri is not None:
            lake = Path(self.lake.uri).resolve()
            if lake in (raw := Path(self.raw.uri).resolve(), *raw.parents):
                raise ValueError(
                    "raw.uri must not lie in lake.uri: readers of the lake would trip over it"
                )
        return self

    def secret_values(self) -> Iterator[str]:
        """Yield every value that must never be shown."""
        for value in (*(v for _, v in self.auth), *self.lake.options.values()):
            if isinstance(value, SecretStr):
                yield value.get_secret_value()
