"""The configuration: one model; `sources` reads it, `mistakes` explains what is wrong in it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from etl.config.scalars import (
    DURATION_FORM,
    DURATION_SCHEMA,
    Account,
    AuthKey,
    Duration,
    Form,
    Instant,
    PlaceUri,
    SchedulerAddress,
    Seconds,
    Secret,
    Size,
    Url,
    text_then,
)
from etl.model.machine import is_loopback
from etl.model.times import parse_duration
from etl.storage.places import Place, is_remote, writable

Compression = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ApiSettings(_Section):
    """Where the vendor's API is and how it is asked."""

    # Before the URLs, which are judged by it.
    allow_http: bool = Field(
        default=False,
        description="Whether plain http is allowed to other hosts than loopback. Then anyone on "
        "the way can read the keys.",
    )
    base_url: Url | None = Field(
        default=None,
        description="The API's host, https://host. Empty: looked up at api.domain_url.",
    )
    domain_url: Url = Field(
        default="https://api.liveperson.net",
        description="Where the API's host and the OAuth 2.0 server are looked up.",
    )
    source: Annotated[str, Form("1 to 20 letters, digits or _")] = Field(
        default="aht_etl",
        pattern=r"^[a-zA-Z0-9_]+$",
        max_length=20,
        description="Who is calling: 1 to 20 letters, digits or _, unique in your organisation.",
    )
    request_window: Annotated[Duration, Field(ge=timedelta(seconds=1)), DURATION_SCHEMA] = Field(
        default=timedelta(days=1), description="The longest window of one listing request."
    )
    any_404_is_empty: bool = Field(
        default=False,
        description="Whether every 404 to a listing means an empty window. false: only a 404 that "
        "can be the vendor's, which is empty, a JSON object or says 'no paths'.",
    )
    use_proxy: bool = Field(
        default=False,
        description="Whether requests to the vendor use the proxy of HTTPS_PROXY or HTTP_PROXY, "
        "except for hosts in NO_PROXY.",
    )

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

    consumer_key: AuthKey | None = Field(default=None, description="OAuth 1.0a: the consumer key.")
    consumer_secret: AuthKey | None = Field(
        default=None, description="OAuth 1.0a: the key's secret."
    )
    access_token: AuthKey | None = Field(default=None, description="OAuth 1.0a: the access token.")
    access_token_secret: AuthKey | None = Field(
        default=None, description="OAuth 1.0a: the secret of the access token."
    )
    signature_method: Literal["HMAC-SHA1", "HMAC-SHA256"] = Field(
        default="HMAC-SHA1", description="OAuth 1.0a: how requests are signed."
    )
    client_id: AuthKey | None = Field(
        default=None, description="OAuth 2.0 client credentials: the client's id."
    )
    client_secret: AuthKey | None = Field(
        default=None, description="OAuth 2.0 client credentials: the client's secret."
    )

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

    start: Instant | None = Field(
        default=None,
        alias="from",
        description="Begin of the window: 2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or "
        "epoch milliseconds. Empty: window.lookback before window.to.",
    )
    end: Instant | None = Field(
        default=None,
        alias="to",
        description="End of the window. Empty: now.",
    )
    lookback: Duration = Field(
        default=timedelta(days=7),
        description="The window's length without window.from. Files come late, so look back far: "
        "files already loaded are not downloaded again.",
    )


class FetchSettings(_Section):
    """How files are requested."""

    concurrency: int = Field(default=16, ge=1, description="Requests in flight at most.")
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Requests a second at most. Empty: as fast as the server allows.",
        examples=[20],
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60), description="How long to wait without a byte arriving."
    )
    least_rate: Size = Field(
        default=ByteSize(2**10),
        description="Bytes a second at least, over a minute. A slower answer is a timeout.",
    )
    skip: tuple[str, ...] = Field(
        default=(),
        description="Paths or glob patterns that are never fetched: a file known to be broken at "
        "the vendor.",
        examples=[("*.00066.json.gz",)],
    )


class RetrySettings(_Section):
    """The vendor's documented retry policy."""

    server_delays: tuple[Seconds, ...] = Field(
        default=(5, 10, 15),
        description="Seconds before each retry after a 5xx, a broken connection, a timeout or a "
        "damaged answer; as many retries as entries.",
    )
    throttle_delay: Seconds = Field(
        default=1,
        description="Seconds at least before any next request after a 429; a longer Retry-After "
        "is obeyed.",
    )
    throttle_attempts: int = Field(default=20, ge=0, description="429s that one request survives.")


class LakeSettings(_Section):
    """Where the lake is and how its parts are written."""

    uri: PlaceUri = Field(
        default="./lake",
        description="The lake's place: a folder, file:///folder, s3://bucket/prefix, "
        "gs://bucket/prefix or az://container/prefix.",
    )
    options: dict[str, Secret] = Field(
        default_factory=dict,
        description="The object store's own options by object_store's names, values as strings; "
        "credentials that are missing here come from the environment or the machine's identity.",
        examples=[{"region": "eu-west-1"}],
    )
    compression: Compression = Field(default="zstd", description="How columns are compressed.")
    target_part_size: Size = Field(
        default=ByteSize(128 * 2**20),
        description="Size after which a part is cut, between two source files. A target, not a "
        "limit.",
    )


class RawSettings(_Section):
    """Where downloaded files are kept, if anywhere."""

    uri: PlaceUri | None = Field(
        default=None,
        description="Where the downloaded files are kept, byte for byte, under their own paths: "
        "a folder or an object store, outside the lake. Empty: nowhere.",
    )
    options: dict[str, Secret] = Field(
        default_factory=dict,
        description="Options of the archive's object store. Empty: lake.options, if both are of "
        "one kind.",
        examples=[{"region": "eu-west-1"}],
    )


class CompactSettings(_Section):
    """Where the lake's coarse copy is, if there is one, and what is copied to it."""

    uri: PlaceUri | None = Field(
        default=None,
        description="The place of the lake's coarse copy: a folder or an object store, outside "
        "the lake. Empty: none.",
    )
    options: dict[str, Secret] = Field(
        default_factory=dict,
        description="Options of the copy's object store. Empty: lake.options, if both are of one "
        "kind.",
        examples=[{"region": "eu-west-1"}],
    )
    settle: Annotated[
        timedelta, text_then(parse_duration), Field(ge=timedelta(0)), DURATION_SCHEMA
    ] = Field(
        default=timedelta(hours=48),
        description="How long a day must be over before it is copied. Files that come later make a "
        "further part.",
    )


class LimitSettings(_Section):
    """What is too much."""

    memory: Size = Field(
        default=ByteSize(512 * 2**20),
        description="Budget for data in flight; what does not fit goes to the temporary folder.",
    )
    max_bad_row_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A file with more than this share of bad rows fails whole.",
    )
    max_file_size: Size = Field(
        default=ByteSize(16 * 2**30),
        description="A file that unpacks to more fails, as a decompression bomb.",
    )


class ShutdownSettings(_Section):
    """How a run ends when it is told to."""

    grace: Annotated[
        timedelta,
        text_then(parse_duration),
        Field(ge=timedelta(0)),
        DURATION_FORM,
        DURATION_SCHEMA,
    ] = Field(
        default=timedelta(seconds=20),
        description="After SIGTERM, SIGINT or SIGHUP, or an error that ends the run: time to "
        "commit what is downloaded. A second signal within 2 s is the same request, a later one "
        "ends at once.",
    )


class EngineSettings(_Section):
    """Who loads: this machine, or the workers of a Dask cluster."""

    kind: Literal["local", "dask"] = Field(
        default="local",
        description="local: this machine. dask: the workers of a Dask cluster (aht-etl docs dask; "
        "needs the extra aht-etl[dask]).",
    )
    scheduler: SchedulerAddress | None = Field(
        default=None,
        description="Dask: the scheduler's address, tls://host:8786 or tcp://host:8786. Empty: "
        "worker processes on this machine, for this run.",
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Dask: tasks at once, which share fetch.concurrency and fetch.rate. Empty: as "
        "many as the cluster has workers, or as this machine has cores.",
        examples=[8],
    )


class MetricsSettings(_Section):
    """Where a run's figures go for Prometheus, if anywhere; nothing secret is among them."""

    pushgateway: Url | None = Field(
        default=None,
        description="A Prometheus Pushgateway's URL; plain http is allowed. Empty: none.",
    )
    textfile: str | None = Field(
        default=None,
        description="A file for the node exporter's textfile collector, in its folder; must end in "
        ".prom. Empty: none.",
        examples=["/var/lib/node_exporter/aht_etl.prom"],
    )

    @field_validator("textfile")
    @classmethod
    def _read_by_the_exporter(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".prom"):
            raise ValueError("must end in .prom: the node exporter reads no other file")
        return None if value is None else writable(value)

    @property
    def configured(self) -> bool:
        """Whether they go anywhere."""
        return self.pushgateway is not None or self.textfile is not None


class Settings(_Section):
    """The whole configuration; every key, its default and its meaning are in reference.md.

    Raises pydantic's ValidationError.
    """

    account: Account | None = Field(
        default=None,
        description="The vendor's account (site) id.",
    )
    api: ApiSettings = Field(default_factory=ApiSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    window: WindowSettings = Field(default_factory=WindowSettings)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    lake: LakeSettings = Field(default_factory=LakeSettings)
    raw: RawSettings = Field(default_factory=RawSettings)
    compact: CompactSettings = Field(default_factory=CompactSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    shutdown: ShutdownSettings = Field(default_factory=ShutdownSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="after")
    def _raw_files_outside_the_lake(self) -> Self:
        if self.raw.uri is not None and self._holds(self._lake, self._raw):
            raise ValueError(
                "raw.uri must not lie in lake.uri: readers of the lake would trip over it"
            )
        return self

    @model_validator(mode="after")
    def _copy_has_a_place_of_its_own(self) -> Self:
        for key, other in (("lake.uri", self._lake), ("raw.uri", self._raw)):
            # To look at the copy, lake.uri names it.
            if key == "lake.uri" and self.lake_is_the_copy:
                continue
            if self._holds(other, self._copy) or self._holds(self._copy, other):
                raise ValueError(
                    f"compact.uri must not lie in {key}, nor {key} in it: readers of one would "
                    "read the other too"
                )
        return self

    @property
    def lake_is_the_copy(self) -> bool:
        """Whether lake.uri and compact.uri are one place: then nothing may be written to it."""
        return self._holds(self._lake, self._copy) and self._holds(self._copy, self._lake)

    @property
    def _lake(self) -> tuple[str | None, dict[str, str]]:
        return self.lake.uri, self.lake_options

    @property
    def _raw(self) -> tuple[str | None, dict[str, str]]:
        return self.raw.uri, self.raw_options

    @property
    def _copy(self) -> tuple[str | None, dict[str, str]]:
        return self.compact.uri, self.compact_options

    @staticmethod
    def _holds(
        outer: tuple[str | None, dict[str, str]], inner: tuple[str | None, dict[str, str]]
    ) -> bool:
        """Tell whether the second place is the first one, or lies in it."""
        (outer_uri, outer_options), (inner_uri, inner_options) = outer, inner
        if outer_uri is None or inner_uri is None or is_remote(outer_uri) != is_remote(inner_uri):
            return False
        if is_remote(outer_uri):
            from etl.storage.options import endpoint_of  # noqa: PLC0415 - no folder needs it

            first, second = Place.parse(outer_uri), Place.parse(inner_uri)
            # Of the same name, at another endpoint, is another bucket.
            return first.holds(second) and (
                endpoint_of(first.scheme, outer_options)
                == endpoint_of(second.scheme, inner_options)
            )
        folder = Path(outer_uri).resolve()
        return folder in (inside := Path(inner_uri).resolve(), *inside.parents)

    @model_validator(mode="after")
    def _options_that_the_stores_know(self) -> Self:
        for section, uri, options in (
            ("lake", self.lake.uri, self.lake_options),
            ("raw", self.raw.uri, self.raw_options),
            ("compact", self.compact.uri, self.compact_options),
        ):
            if uri is None or not is_remote(uri):
                continue
            from etl.storage.connection import Connection  # noqa: PLC0415 - no folder needs obstore

            try:
                Connection(Place.parse(uri), options)
            except ValueError as error:
                raise ValueError(f"{section}.options: {error}") from None
        return self

    @property
    def lake_options(self) -> dict[str, str]:
        """The options of the lake's object store, as they are."""
        return {name: value.get_secret_value() for name, value in self.lake.options.items()}

    @property
    def raw_options(self) -> dict[str, str]:
        """The options of the raw archive's object store: the lake's where it has none."""
        return self._options_of(self.raw)

    @property
    def compact_options(self) -> dict[str, str]:
        """The options of the coarse copy's object store: the lake's where it has none."""
        return self._options_of(self.compact)

    def _options_of(self, section: RawSettings | CompactSettings) -> dict[str, str]:
        if section.options or section.uri is None or not is_remote(section.uri):
            return {name: value.get_secret_value() for name, value in section.options.items()}
        same = is_remote(self.lake.uri) and (
            Place.parse(self.lake.uri).scheme == Place.parse(section.uri).scheme
        )
        return self.lake_options if same else {}

    def secret_values(self) -> Iterator[str]:
        """Yield every value that must never be shown."""
        sections = (self.lake, self.raw, self.compact)
        options = (pair for section in sections for pair in section.options.items())
        # A region is no secret, and a store that names the right one is to be understood.
        own = (value for name, value in options if not name.lower().endswith("region"))
        for value in (*(v for _, v in self.auth), *own):
            if isinstance(value, SecretStr):
                yield value.get_secret_value()
        if any(section.uri is not None and is_remote(section.uri) for section in sections):
            from etl.storage.options import secrets_of_environment  # noqa: PLC0415 - no folder needs it

            yield from secrets_of_environment()
