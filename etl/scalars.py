"""The kinds of values that a configuration holds: how they are read, and their JSON schemas.

No error text ever holds a value. The schemas are for editors, which see a number where a file has
digits without quotes.
"""

import ipaddress
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, WithJsonSchema

from etl.places import normalised
from etl.times import parse_duration, parse_instant

# A host's name or address, perhaps a port, perhaps a path; no user, no query, nothing quoted.
_URL: Final = re.compile(
    r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address never leaves this machine."""
    host = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def text_then(parse: Any) -> BeforeValidator:
    """Return what parses a text and leaves all else as it is."""

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


DURATION_SCHEMA: Final = WithJsonSchema(
    {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)[smhd]$"}
)
Account = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9]+$"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^[a-zA-Z0-9]+$", "minimum": 0}),
]
Secret = Annotated[
    SecretStr, WithJsonSchema({"type": ["string", "number", "boolean"], "writeOnly": True})
]
Instant = Annotated[
    datetime,
    text_then(parse_instant),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^([0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+([Zz]|[+-][0-9:]+))?|-?[0-9]+)$",
        }
    ),
]
Duration = Annotated[timedelta, text_then(parse_duration), Field(gt=timedelta(0)), DURATION_SCHEMA]
Size = Annotated[
    ByteSize,
    Field(gt=0),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^[0-9]*\.?[0-9]+ ?([KkMmGgTtPpEe]|([KkMmGgTtPpEe][Ii]?)?[Bb])?$",
            "exclusiveMinimum": 0,
        }
    ),
]
Url = Annotated[
    str,
    AfterValidator(_origin),
    WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}),
]
SchedulerAddress = Annotated[
    str, Field(pattern=r"^(tcp|tls|ws|wss)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")
]
#: A folder as a path, or the URI of an object store.
PlaceUri = Annotated[str, AfterValidator(normalised)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
