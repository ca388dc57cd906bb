"""An object store's own options: which there are, what is wrong with them, where they lead.

No error text holds a value.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from etl.model.machine import is_loopback
from etl.storage.places import Scheme

_STORES: Final[dict[Scheme, str]] = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure"}
# Options of the HTTP client; obstore takes them apart from the store's own, else it panics.
_CLIENT: Final = frozenset(
    """
    allow_http allow_invalid_certificates connect_timeout default_content_type http1_only http2_only
    http2_keep_alive_interval http2_keep_alive_timeout http2_keep_alive_while_idle pool_idle_timeout
    pool_max_idle_per_host proxy_ca_certificate proxy_excludes proxy_url randomize_addresses
    read_timeout root_certificate timeout user_agent
    """.split()  # noqa: SIM905 - thirty lines else
)
# For suggestions only: which names are right, aliases too, obstore knows.
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
_ENDPOINT: Final = {"endpoint", "endpoint_url", "endpoint_url_s3", "base_url"}
# What names the place itself: that is the URI's to say.
_PLACE: Final = {"bucket", "bucket_name", "container_name"}
_ENDPOINT_VARIABLES: Final[dict[Scheme, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
# Keys that the environment may hold, and a store may echo.
_SECRET_VARIABLES: Final = """
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_CLIENT_SECRET
    AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_CLIENT_SECRET AZURE_STORAGE_KEY AZURE_STORAGE_SAS_KEY
    AZURE_STORAGE_SAS_TOKEN GOOGLE_SERVICE_ACCOUNT_KEY
    """.split()  # noqa: SIM905 - ten lines else
_TRUE: Final = {"true", "1", "yes", "on"}

# What obstore says of options, and what it means.
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


def take_apart(scheme: Scheme, options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options of the store itself and those of its HTTP client, as obstore takes them.

    Plain http is allowed where the endpoint, of the options or of the environment, is loopback.
    Raises ValueError.
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
            name = _endpoint_name(scheme) if short in _ENDPOINT else name
        if name in taken:
            raise ValueError(f"{written}: is set twice, by two names")
        taken[name] = value
    if scheme == "s3" and not any("disable_bulk_delete" in name for name in own):
        own["disable_bulk_delete"] = "true"  # one object is deleted, and not all stores know more
    endpoint = own.get(_endpoint_name(scheme)) or _endpoint_of_environment(scheme)
    if endpoint:
        _judge(endpoint, client)
        if scheme == "s3":
            # Else AWS_ENDPOINT_URL_S3 would be stronger than an option.
            own["aws_endpoint_url_s3"] = endpoint
    return own, client


def endpoint_of(scheme: Scheme, options: Mapping[str, str]) -> str | None:
    """Return where these options, or else the environment, lead; None to the vendor's own."""
    named = (
        value
        for name, value in options.items()
        if _PREFIX.sub("", name.lower(), count=1) in _ENDPOINT
    )
    endpoint = next(named, None) or _endpoint_of_environment(scheme)
    return endpoint.rstrip("/") if endpoint else None


def secrets_of_environment() -> Iterator[str]:
    """Yield the keys of object stores that the environment holds."""
    yield from filter(None, map(os.environ.get, _SECRET_VARIABLES))


def unknown(scheme: Scheme, said: str) -> str:
    """Return what to tell of an option that obstore does not know."""
    match = re.search(r"key: '([^']*)'", said)
    name = match[1] if match else "one of them"
    known = sorted({*_OWN[scheme].split(), *_CLIENT})
    close = difflib.get_close_matches(_PREFIX.sub("", name), known, n=1)
    hint = f", did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
    return f"{name}: no option of {_STORES[scheme]}{hint}"


def wrong(scheme: Scheme, said: str) -> str:
    """Return what to tell of options that obstore does not take."""
    meanings = (text for pattern, text in _WRONG.items() if re.search(pattern, said))
    return next(meanings, f"{_STORES[scheme]} does not take these; compare object_store's names")


def _endpoint_name(scheme: Scheme) -> str:
    return "base_url" if scheme == "gs" else "endpoint"


def _endpoint_of_environment(scheme: Scheme) -> str | None:
    found = (os.environ.get(name) for name in _ENDPOINT_VARIABLES[scheme])
    return next((endpoint for endpoint in found if endpoint), None)


def _judge(endpoint: str, client: dict[str, str]) -> None:
    """Refuse an endpoint that is none or would show the keys; let http through where it may be."""
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
                "endpoint: plain http would show keys and data to anyone on the way; use https, "
                'or set allow_http to "true"'
            )
