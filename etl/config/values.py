"""The kinds of values that a configuration holds: how they are read and written, their schemas.

No error message holds a value, except a time or a duration, because the value may be a secret. The
schemas are for editors, which see a number where a file has digits without quotes.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, WithJsonSchema

from etl.model.times import (
    EARLIEST,
    TIME_FORMS,
    check_since_2015,
    parse_duration,
    parse_instant,
    rfc3339,
    to_millis,
)
from etl.storage.places import normalised_uri

# A host's name or address, perhaps a port, perhaps a path; no user, no query, nothing quoted.
_URL: Final = re.compile(
    r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
# This machine's names with a dot at the end (RFC 6761, section 6.3), which resolvers may not know.
_LOCALHOST: Final = re.compile(r"(?i)(://(?:[a-z0-9._-]+\.)?localhost)\.(?=[:/]|\Z)")

# Largest first: the unit is the first that is exact.
_SIZE_UNITS: Final = {
    2**40: "TiB",
    10**12: "TB",
    2**30: "GiB",
    10**9: "GB",
    2**20: "MiB",
    10**6: "MB",
    2**10: "KiB",
    10**3: "kB",
}
_DURATION_UNITS: Final = {86400: "d", 3600: "h", 60: "m", 1: "s"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a value may be, in words that follow "must be", and an example.

    The example is for keys that have neither a default nor an example of their own.
    """

    words: str
    example: str | None = None


def _instant(value: object) -> datetime:
    """Read a time from any source: text, or from Python a number, a date or an aware datetime."""
    match value:
        case datetime(tzinfo=None):
            raise ValueError(f"{value.isoformat()} has no time zone: add tzinfo=datetime.UTC")
        case datetime():
            return check_since_2015(value.astimezone(UTC), value.isoformat())
        case date():
            return parse_instant(value.isoformat())
        case str() | int() if not isinstance(value, bool):
            return parse_instant(str(value))
    raise ValueError(f"not a time: write for example {TIME_FORMS}")


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def host_url(url: str) -> str:
    """Return the URL of a host, without a slash at the end. Raises ValueError."""
    try:
        _ = urlsplit(url).port  # raises ValueError for a wrong port
        well_formed = _URL.fullmatch(url)
    except ValueError:
        well_formed = None
    if not well_formed:
        raise ValueError("not a host's URL: write https://host, without a user or a query")
    return _LOCALHOST.sub(r"\1", url).rstrip("/")


Account = Annotated[
    str,
    Expected("letters and digits", "12345678"),
    Field(pattern=r"^[a-zA-Z0-9]+$"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^[a-zA-Z0-9]+$", "minimum": 0}),
]
Secret = Annotated[
    SecretStr, WithJsonSchema({"type": ["string", "number", "boolean"], "writeOnly": True})
]
#: An empty key is a mistake, such as a variable that nobody filled in.
AuthKey = Annotated[Secret, Field(min_length=1), Expected("text", "0123456789abcdef")]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    Expected("a time", "2022-06-01T00:00:00Z"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": r"^([0-9]{4}(-[0-9]{2}){2}([Tt ][0-9:.]+([Zz]|[+-][0-9:]+))?|[0-9]{13,15})$",
            "minimum": to_millis(EARLIEST),
        }
    ),
]
_AnyDuration = Annotated[timedelta, BeforeValidator(_duration)]
# The last annotation, because each limit would change the schema.
_DURATION_SCHEMA: Final = WithJsonSchema(
    {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)[smhd]$"}
)
Duration = Annotated[
    _AnyDuration,
    Field(gt=timedelta(0)),
    Expected("a number with s, m, h or d, more than 0s"),
    _DURATION_SCHEMA,
]
DurationOrZero = Annotated[
    _AnyDuration,
    Field(ge=timedelta(0)),
    Expected("a number with s, m, h or d"),
    _DURATION_SCHEMA,
]
SecondOrMore = Annotated[
    _AnyDuration,
    Field(ge=timedelta(seconds=1)),
    Expected("a number with s, m, h or d, 1s or more"),
    _DURATION_SCHEMA,
]
Flag = Annotated[bool, Expected("true or false")]
Count = Annotated[int, Field(ge=1), Expected("a whole number, 1 or more")]
CountOrZero = Annotated[int, Field(ge=0), Expected("a whole number, 0 or more")]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), Expected("a number, more than 0")]
Ratio = Annotated[float, Field(ge=0, le=1), Expected("a number from 0 to 1")]
Size = Annotated[
    ByteSize,
    Field(gt=0),
    Expected("a number of bytes, or a number with kB, MB, GB, KiB, MiB or GiB, more than 0"),
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
    AfterValidator(host_url),
    Expected("a host's URL", "https://host.example.net"),
    WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}),
]
SchedulerAddress = Annotated[
    str,
    Field(pattern=r"^(tcp|tls|ws|wss)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    Expected(
        "tcp://, tls://, ws:// or wss:// with a host and a port", "tls://dask.example.net:8786"
    ),
]
#: A folder as a path, or the URI of an object store.
PlaceUri = Annotated[
    str,
    AfterValidator(normalised_uri),
    Expected("a folder, file:///folder, s3://, gs:// or az://", "./raw"),
]
Seconds = Annotated[
    float, Field(ge=0, allow_inf_nan=False), Expected("a number of seconds, 0 or more")
]


def yaml_value(value: Any) -> Any:
    """Return a value as people write it in YAML: `7d`, `128MiB`; a secret as `set`."""
    match value:
        case SecretStr():
            return "set"
        case ByteSize():
            return _exact_size(value)
        case timedelta():
            return _exact_duration(value)
        case datetime():
            return rfc3339(value)
        case tuple():
            return [yaml_value(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def yaml_text(value: Any) -> str:
    """Return a value as one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _exact_size(count: int) -> str | int:
    """Return a number of bytes as a configuration has it, with nothing rounded: `128MiB`."""
    fitting = (f"{count // size}{unit}" for size, unit in _SIZE_UNITS.items() if not count % size)
    return next(fitting, int(count))


def _exact_duration(value: timedelta) -> str:
    """Return a duration as a configuration has it, with nothing rounded: `7d`, `0.5s`."""
    for seconds, unit in _DURATION_UNITS.items():
        count, rest = divmod(value, timedelta(seconds=seconds))
        if count and not rest and (count, unit) != (1, "m"):  # people write 60s
            return f"{count}{unit}"
    text = f"{value.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"{text}s"
