"""The sections of the configuration: their keys, defaults and descriptions."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from etl.config.values import (
    AuthKey,
    Count,
    CountOrZero,
    Duration,
    DurationOrZero,
    Expected,
    Flag,
    Instant,
    PlaceUri,
    Rate,
    Ratio,
    SchedulerAddress,
    SecondOrMore,
    Seconds,
    Secret,
    Size,
    Url,
)
from etl.model.machine import is_loopback
from etl.storage.places import writable_path

Compression = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"]


class Section(BaseModel):
    """A part of the configuration that is read-only and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ApiSettings(Section):
    """Where the vendor's API is, and how requests to it are sent."""

    # Before the URLs, whose validator uses it.
    allow_http: Flag = Field(
        default=False,
        description="Whether plain http to hosts other than loopback is allowed. Anyone on the "
        "network path can then read the keys.",
    )
    base_url: Url | None = Field(
        default=None,
        description="The API's host, https://host. Empty: looked up at api.domain_url.",
    )
    domain_url: Url = Field(
        default="https://api.liveperson.net",
        description="Where the API's host and the OAuth 2.0 server are looked up.",
    )
    source: Annotated[str, Expected("1 to 20 letters, digits or _")] = Field(
        default="aht_etl",
        pattern=r"^[a-zA-Z0-9_]+$",
        max_length=20,
        description="The caller's name: 1 to 20 letters, digits or _, unique in your organisation.",
    )
    request_window: SecondOrMore = Field(
        default=timedelta(days=1), description="The longest window of one listing request."
    )
    any_404_is_empty: Flag = Field(
        default=False,
        description="Whether every 404 to a listing means an empty window. false: only a 404 that "
        "can be the vendor's, which is empty, a JSON object or says 'no paths'.",
    )
    use_proxy: Flag = Field(
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
                "plain http would show the keys to anyone on the network path; use https, or set "
                "api.allow_http"
            )
        return value


class AuthSettings(Section):
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
        """The scheme that the keys belong to."""
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
        missing_keys = {
            name: [key for key in keys if getattr(self, key) is None]
            for name, keys in schemes.items()
            if any(getattr(self, key) is not None for key in keys)
        }
        if len(missing_keys) > 1:
            raise ValueError("keys of OAuth 1.0a and of OAuth 2.0 are set; keep those of one")
        for name, missing in missing_keys.items():
            if missing:
                raise ValueError(
                    f"{name} needs {', '.join(f'auth.{key}' for key in missing)} as well"
                )
        return self


class WindowSettings(Section):
    """The span of time that is listed."""

    start: Instant | None = Field(
        default=None,
        alias="from",
        description="Start of the window: 2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or "
        "epoch milliseconds. Empty: window.lookback before window.to.",
    )
    end: Instant | None = Field(
        default=None,
        alias="to",
        description="End of the window. Empty: now.",
    )
    lookback: Duration = Field(
        default=timedelta(days=7),
        description="The window's length, if window.from is empty. Files come late, so choose a "
        "long one: files already loaded are not downloaded again.",
    )


class FetchSettings(Section):
    """How files are requested."""

    concurrency: Count = Field(default=16, description="The most requests in flight.")
    rate: Rate | None = Field(
        default=None,
        description="The most requests per second. Empty: as fast as the server allows.",
        examples=[20],
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60), description="How long to wait for the next byte."
    )
    least_rate: Size = Field(
        default=ByteSize(2**10),
        description="The fewest bytes per second, over a minute. A slower answer is a timeout.",
    )
    skip: tuple[str, ...] = Field(
        default=(),
        description="Paths or glob patterns that are never fetched, for example of a file that is "
        "broken at the vendor.",
        examples=[("*.00066.json.gz",)],
    )


class RetrySettings(Section):
    """The vendor's documented retry policy."""

    server_delays: tuple[Seconds, ...] = Field(
        default=(5, 10, 15),
        description="Seconds before each retry after a 5xx, a broken connection, a timeout or a "
        "damaged answer; as many retries as entries.",
    )
    throttle_delay: Seconds = Field(
        default=1,
        description="The fewest seconds between a 429 and the next request. A longer Retry-After "
        "is obeyed.",
    )
    throttle_attempts: CountOrZero = Field(
        default=20, description="How often one request is sent again after a 429."
    )


def _store_options(description: str) -> Any:
    return Field(default_factory=dict, description=description, examples=[{"region": "eu-west-1"}])


class LakeSettings(Section):
    """Where the lake is and how its parts are written."""

    uri: PlaceUri = Field(
        default="./lake",
        description="The lake's place: a folder, file:///folder, s3://bucket/prefix, "
        "gs://bucket/prefix or az://container/prefix.",
    )
    options: dict[str, Secret] = _store_options(
        "The object store's options, by object_store's names, values as strings. "
        "Credentials that are missing here come from the environment or the machine's identity."
    )
    compression: Compression = Field(default="zstd", description="How columns are compressed.")
    target_part_size: Size = Field(
        default=ByteSize(128 * 2**20),
        description="The size at which a part ends, between two source files. It is a target, not "
        "a limit.",
    )


class RawSettings(Section):
    """Where the raw archive is, if there is one."""

    uri: PlaceUri | None = Field(
        default=None,
        description="Where the downloaded files are kept, byte for byte, under their own paths: "
        "a folder or an object store, outside the lake. Empty: nowhere.",
    )
    options: dict[str, Secret] = _store_options(
        "Options of the archive's object store. Empty: lake.options, if both are of one kind."
    )


class CompactSettings(Section):
    """Where the lake's coarse copy is, if there is one, and what is copied to it."""

    uri: PlaceUri | None = Field(
        default=None,
        description="The place of the lake's coarse copy: a folder or an object store, outside "
        "the lake. Empty: none.",
    )
    options: dict[str, Secret] = _store_options(
        "Options of the copy's object store. Empty: lake.options, if both are of one kind."
    )
    settle: DurationOrZero = Field(
        default=timedelta(hours=48),
        description="How long a day must be over before it is copied. Later files go into another "
        "part.",
    )


class LimitSettings(Section):
    """Limits of memory and of what a file may contain."""

    memory: Size = Field(
        default=ByteSize(512 * 2**20),
        description="The budget for data in flight. Larger files go to the temporary folder.",
    )
    max_bad_row_ratio: Ratio = Field(
        default=0.5,
        description="A file with a larger share of bad rows fails as a whole.",
    )
    max_file_size: Size = Field(
        default=ByteSize(16 * 2**30),
        description="A file that unpacks to more fails: it may be a decompression bomb.",
    )


class ShutdownSettings(Section):
    """How a run ends after a stop request."""

    grace: DurationOrZero = Field(
        default=timedelta(seconds=20),
        description="The time to commit downloaded files after SIGTERM, SIGINT, SIGHUP or an error "
        "that ends the run. A second signal within 2 s is the same request; a later one ends the "
        "run at once.",
    )


class EngineSettings(Section):
    """Where files are loaded: on this machine, or by the workers of a Dask cluster."""

    kind: Literal["local", "dask"] = Field(
        default="local",
        description="local: this machine. dask: the workers of a Dask cluster (aht-etl docs dask; "
        "needs the extra aht-etl[dask]).",
    )
    scheduler: SchedulerAddress | None = Field(
        default=None,
        description="Dask: the scheduler's address, tls://host:8786 or tcp://host:8786. The engine "
        "dask needs it.",
    )
    workers: Count | None = Field(
        default=None,
        description="Dask: how many tasks run at once. They share fetch.concurrency and "
        "fetch.rate. Empty: as many as the cluster has workers.",
        examples=[8],
    )


class MetricsSettings(Section):
    """Where a run's metrics go for Prometheus, if anywhere; they hold no secret."""

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
        return None if value is None else writable_path(value)

    @property
    def configured(self) -> bool:
        """Whether metrics are published at all."""
        return self.pushgateway is not None or self.textfile is not None
