"""How an object store is reached: its options, its endpoint, its credentials, its time limits.

obstore finds credentials in the options, or else in the usual places: the environment (`AWS_…`,
`GOOGLE_…`, `AZURE_…`), a web identity, the machine's metadata service. No error message holds the
value of an option.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import AzureStore, GCSStore, S3Store

from etl.model.machine import is_loopback
from etl.storage.places import Place, Scheme

#: The time limit of a request, to the last byte of its answer.
REQUEST_S: Final = 30
# After this time a failed request is not repeated.
_REPEATED_S: Final = 45
_REPETITIONS: Final = 10
# A large put has more time: a store that accepts less than this counts as dead.
_SLOWEST_BYTES_A_SECOND: Final = 500_000

_STORES: Final[dict[Scheme, tuple[str, Any]]] = {
    "s3": ("S3", S3Store),
    "gs": ("Google Cloud Storage", GCSStore),
    "az": ("Azure", AzureStore),
}
# Options of the HTTP client. obstore wants them apart from the store's own, or it panics.
_CLIENT: Final = frozenset(
    """
    allow_http allow_invalid_certificates connect_timeout default_content_type http1_only http2_only
    http2_keep_alive_interval http2_keep_alive_timeout http2_keep_alive_while_idle pool_idle_timeout
    pool_max_idle_per_host proxy_ca_certificate proxy_excludes proxy_url randomize_addresses
    read_timeout root_certificate timeout user_agent
    """.split()  # noqa: SIM905 - thirty lines else
)
# For suggestions only: obstore itself knows which names and aliases are right.
_OWN: Final[dict[Scheme, str]] = {
    "s3": """
        access_key_id checksum_algorithm container_authorization_token_file
        container_credentials_full_uri container_credentials_relative_uri default_region
        disable_bulk_delete disable_tagging endpoint imdsv1_fallback metadata_endpoint region
        request_payer role_arn role_session_name s3_express secret_access_key server_side_encryption
        session_token skip_signature sse_bucket_key_enabled sse_customer_key_base64 sse_kms_key_id
        unsigned_payload virtual_hosted_style_request web_identity_token_file
        """,
    "gs": """
        application_credentials bearer_token endpoint service_account service_account_key
        skip_signature
        """,
    "az": """
        account_key account_name authority_host client_id client_secret credential_type
        disable_tagging encryption_key endpoint federated_token_file msi_endpoint msi_resource_id
        object_id sas_key skip_signature tenant_id token use_azure_cli use_emulator
        use_fabric_endpoint
        """,
}
_PREFIX: Final = re.compile(r"(aws|google|azure(_storage)?)_")
_ENDPOINT_NAMES: Final[dict[Scheme, str]] = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
_ENDPOINT: Final = {"endpoint", "endpoint_url", "endpoint_url_s3", "base_url"}
# Options that name the place itself, as the URI does.
_PLACE: Final = {"bucket", "bucket_name", "container_name"}
_ENDPOINT_VARIABLES: Final[dict[Scheme, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
# Secrets that the environment may hold, and that a store may repeat in an answer.
_SECRET_VARIABLES: Final = """
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_CLIENT_SECRET
    AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_CLIENT_SECRET AZURE_STORAGE_KEY AZURE_STORAGE_SAS_KEY
    AZURE_STORAGE_SAS_TOKEN GOOGLE_SERVICE_ACCOUNT_KEY
    """.split()  # noqa: SIM905 - ten lines else
_TRUE: Final = {"true", "1", "yes", "on"}

# What obstore's messages about options mean.
_WRONG: Final = {
    r"Account must be specified": (
        "account_name is missing: set it here or in AZURE_STORAGE_ACCOUNT_NAME, or write "
        "abfss://container@account.dfs.core.windows.net/prefix"
    ),
    r"Missing AccessKeyId": "access_key_id is missing: half a key, here or in the environment",
    r"Missing SecretAccessKey": (
        "secret_access_key is missing: half a key, here or in the environment"
    ),
    r'failed to parse ".*" as boolean': 'a value that should be "true" or "false" is neither',
    r'failed to parse ".*" as Duration': 'a time limit is none: write for example "30s"',
    r"Invalid Access Key": "account_key is not base64",
    r"Invalid encryption type": (
        "server_side_encryption is none of AES256, sse:kms, sse:kms:dsse, sse-c"
    ),
    r"(?i)credential|service account": "the service account's file or key cannot be read",
}


class Connection:
    """The obstore stores of one place; safe to use from several threads.

    Raises ValueError if the options are wrong; nothing is sent. With `patient=False`, failed
    requests are not repeated.
    """

    def __init__(self, place: Place, options: Mapping[str, str], *, patient: bool = True) -> None:
        self._place = place
        self._own, self._client = _split(place.scheme, options)
        if place.account is not None:
            self._own["account_name"] = place.account
        self._patient = patient
        # Each store has its own connections, so there are only a few: powers of two.
        self._with_limit = cache(self._new)
        self.store = self.for_bytes(0)

    def for_bytes(self, size: int) -> Any:
        """Return a store whose time limit fits a request with a body of this size."""
        times = max(1, size / _SLOWEST_BYTES_A_SECOND / REQUEST_S)
        return self._with_limit(REQUEST_S * 2 ** math.ceil(math.log2(times)))

    def _new(self, limit_s: int) -> Any:
        place = self._place
        retry = {
            "max_retries": _REPETITIONS if self._patient else 0,
            "retry_timeout": timedelta(seconds=_REPEATED_S + limit_s - REQUEST_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
        name, new = _STORES[place.scheme]
        try:
            return new(
                place.container,
                prefix=place.prefix or None,
                config=self._own,
                client_options={"timeout": f"{limit_s}s", **self._client},
                retry_config=retry,
            )
        except UnknownConfigurationKeyError as error:
            raise ValueError(_unknown_option(place.scheme, str(error))) from None
        except BaseException as error:
            # A panic of the library is not an Exception, and its text does not help.
            panic = type(error).__name__ == "PanicException"
            if not panic and not isinstance(error, BaseError | ValueError):
                raise
            said = "" if panic else str(error)
            meanings = (text for pattern, text in _WRONG.items() if re.search(pattern, said))
            unclear = f"{name} does not accept these; compare object_store's names"
            raise ValueError(next(meanings, unclear)) from None


def _split(scheme: Scheme, options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options of the store itself and those of its HTTP client, as obstore needs them.

    Allows plain http to an endpoint on loopback, from the options or from the environment. Raises
    ValueError.
    """
    own: dict[str, str] = {}
    client: dict[str, str] = {}
    for written, value in options.items():
        name = written.lower()
        short = _PREFIX.sub("", name, count=1)
        if short in _PLACE:
            raise ValueError(f"{written}: the URI says that")
        if short in _CLIENT:
            taken, name = client, short
        else:
            taken = own
            name = _ENDPOINT_NAMES[scheme] if short in _ENDPOINT else name
        if name in taken:
            raise ValueError(f"{written}: is set twice, by two names")
        taken[name] = value
    if scheme == "s3" and not any("disable_bulk_delete" in name for name in own):
        own["disable_bulk_delete"] = "true"  # not all stores support it, and one object is deleted
    if endpoint := endpoint_of(scheme, own):
        _check_endpoint(endpoint, client)
        if scheme == "s3":
            # Otherwise AWS_ENDPOINT_URL_S3 would be stronger than an option.
            own["aws_endpoint_url_s3"] = endpoint
    return own, client


def endpoint_of(scheme: Scheme, options: Mapping[str, str]) -> str | None:
    """Return the endpoint in the options, or in the environment; None for the vendor's own."""
    named = (
        value
        for name, value in options.items()
        if _PREFIX.sub("", name.lower(), count=1) in _ENDPOINT
    )
    variables = (os.environ.get(name) for name in _ENDPOINT_VARIABLES[scheme])
    endpoint = next(filter(None, (*named, *variables)), None)
    return endpoint.rstrip("/") if endpoint else None


def secrets_of_environment() -> Iterator[str]:
    """Yield the secrets of object stores that the environment holds."""
    yield from filter(None, map(os.environ.get, _SECRET_VARIABLES))


def _unknown_option(scheme: Scheme, said: str) -> str:
    """Return the message for an option that obstore does not know."""
    match = re.search(r"key: '([^']*)'", said)
    name = match[1] if match else "one of them"
    known = sorted({*_OWN[scheme].split(), *_CLIENT})
    close = difflib.get_close_matches(_PREFIX.sub("", name), known, n=1)
    hint = f", did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
    return f"{name}: no option of {_STORES[scheme][0]}{hint}"


def _check_endpoint(endpoint: str, client: dict[str, str]) -> None:
    """Refuse an endpoint that is no URL or would show the keys; set `allow_http` for loopback."""
    try:
        url = urlsplit(endpoint)
        host = url.hostname
    except ValueError:
        host = None
    if not host or url.scheme not in {"http", "https"}:
        raise ValueError("endpoint: is no URL of a host: write https://host")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("endpoint: no user, password or query may stand in it")
    if url.scheme == "http":
        if is_loopback(host):
            client["allow_http"] = "true"
        elif client.get("allow_http", "").lower() not in _TRUE:
            raise ValueError(
                "endpoint: plain http would show keys and data to anyone on the network path; use "
                'https, or set allow_http to "true"'
            )
