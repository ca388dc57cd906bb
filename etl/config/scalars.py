"""The kinds of values that a configuration holds: how they are read, and their JSON schemas.

No error text holds a value, except a time or a duration: it may be a secret. The schemas are for
editors, which see a number where a file has digits without quotes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, WithJsonSchema

from etl.model.times import (
    EARLIEST,
    TIME_FORMS,
    parse_duration,
    parse_instant,
    since_2015,
    to_millis,
)
from etl.storage.places import normalised

# A host's name or address, perhaps a port, perhaps a path; no user, no query, nothing quoted.
_URL: Final = re.compile(
    r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)


@dataclass(frozen=True, slots=True)
class Form:
    """What a value of this type may be, in words that fit behind "must be", and an example.

    The example is for keys that have neither a default nor an example of their own.
    """

    words: str
    example: str | None = None


# Full names of this machine (RFC 6761, section 6.3): resolvers may not know them by the last dot.
_LOCAL: Final = re.compile(r"(?i)(://(?:[a-z0-9._-]+\.)?localhost)\.(?=[:/]|\Z)")


def text_then(parse: Any) -> BeforeValidator:
    """Return what parses a text and leaves all else as it is."""

    def validate(value: object) -> object:
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(validate)


def _instant(value: object) -> datetime:
    """Read a time from any source: text, or from Python a number, a date or an aware datetime."""
    match value:
        case datetime(tzinfo=None):
            raise ValueError(f"{value.isoformat()} has no time zone: add tzinfo=datetime.UTC")
        case datetime():
            return since_2015(value.astimezone(UTC), value.isoformat())
        case date():
            return parse_instant(value.isoformat())
        case str() | int() if not isinstance(value, bool):
            return parse_instant(str(value))
    raise ValueError(f"not a time: write for example {TIME_FORMS}")


def _origin(url: str) -> str:
    try:
        _ = urlsplit(url).port  # a ValueError where it is none
        well_formed = _URL.fullmatch(url)
    except ValueError:
        well_formed = None
    if not well_formed:
        raise ValueError("not a host's URL: write https://host, without a user or a query")
    return _LOCAL.sub(r"\1", url).rstrip("/")


DURATION_SCHEMA: Final = WithJsonSchema(
    {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)[smhd]$"}
)
Account = Annotated[
    str,
    Form("letters and digits", "12345678"),
    Field(pattern=r"^[a-zA-Z0-9]+$"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^[a-zA-Z0-9]+$", "minimum": 0}),
]
Secret = Annotated[
    SecretStr, WithJsonSchema({"type": ["string", "number", "boolean"], "writeOnly": True})
]
#: A key that is given as nothing is a mistake: a variable that nobody filled in.
AuthKey = Annotated[Secret, Field(min_length=1), Form("text", "0123456789abcdef")]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    Form("a time", "2022-06-01T00:00:00Z"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^([0-9]{4}(-[0-9]{2}){2}([Tt ][0-9:.]+([Zz]|[+-][0-9:]+))?|[0-9]{13,15})$",
            "minimum": to_millis(EARLIEST),
        }
    ),
]
DURATION_FORM: Final = Form("a number with s, m, h or d")
Duration = Annotated[
    timedelta, text_then(parse_duration), Field(gt=timedelta(0)), DURATION_FORM, DURATION_SCHEMA
]
Size = Annotated[
    ByteSize,
    Field(gt=0),
    Form("a number of bytes, or a number with kB, MB, GB, KiB, MiB or GiB"),
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
    Form("a host's URL", "https://host.example.net"),
    WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}),
]
SchedulerAddress = Annotated[
    str,
    Field(pattern=r"^(tcp|tls|ws|wss)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    Form("tcp://, tls://, ws:// or wss:// with a host and a port", "tls://dask.example.net:8786"),
]
#: A folder as a path, or the URI of an object store.
PlaceUri = Annotated[
    str,
    AfterValidator(normalised),
    Form("a folder, file:///folder, s3://, gs:// or az://", "./raw"),
]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), Form("a number of seconds")]
