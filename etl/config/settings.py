"""The whole configuration: its sections, the rules between them, its stores, its secrets.

`sources` reads it, `mistakes` explains what is wrong in it. A server may repeat a request in its
answer, so it is not enough that no code prints a key: every text passes `Redactor.text` before it
is shown.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, quote_plus

from pydantic import Field, SecretStr, model_validator

from etl.config.sections import (
    ApiSettings,
    AuthSettings,
    CompactSettings,
    EngineSettings,
    FetchSettings,
    LakeSettings,
    LimitSettings,
    MetricsSettings,
    RawSettings,
    RetrySettings,
    Section,
    ShutdownSettings,
    WindowSettings,
)
from etl.config.values import Account
from etl.model.errors import UsageError
from etl.storage.connection import Connection, endpoint_of, secrets_of_environment
from etl.storage.local import LocalStore
from etl.storage.objects import ObjectStore
from etl.storage.places import Place, is_remote
from etl.storage.store import Store

_HIDDEN: Final = "***"

# The credentials part of an Authorization header, wherever an answer quotes it (RFC 5849 section
# 3.5.1, RFC 6750 section 2.1), and single OAuth 1.0a parameters.
_HEADER: Final = re.compile(
    r"(?i)\b(oauth)\s+\w+=[^\r\n]*|\b(bearer)\s+[\w.~+/=-]{6,}|\b(authorization)['\"]?\s*[:=][^\r\n]*"
)
_PARAMETER: Final = re.compile(r"(?i)\boauth_(?!problem)\w+\W{1,8}[^\"\\&,\s]*")

_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")

#: Shorter values (`true`, `eu`) are no secrets, and hiding them would make texts unreadable.
_SHORTEST: Final = 6

StoreSettings = LakeSettings | RawSettings | CompactSettings


class Settings(Section):
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
        if self._holds(self.lake, self.raw):
            raise ValueError(
                "raw.uri must not lie in lake.uri: readers of the lake would trip over it"
            )
        return self

    @model_validator(mode="after")
    def _copy_has_a_place_of_its_own(self) -> Self:
        for key, other in (("lake.uri", self.lake), ("raw.uri", self.raw)):
            # `status` and `verify` read the copy with lake.uri set to it.
            if key == "lake.uri" and self.lake_is_the_copy:
                continue
            if self._holds(other, self.compact) or self._holds(self.compact, other):
                raise ValueError(
                    f"compact.uri must not lie in {key}, nor {key} in it: readers of one would "
                    "read the other too"
                )
        return self

    @property
    def lake_is_the_copy(self) -> bool:
        """Whether lake.uri and compact.uri are one place: then nothing may be written to it."""
        return self._holds(self.lake, self.compact) and self._holds(self.compact, self.lake)

    def _holds(self, outer: StoreSettings, inner: StoreSettings) -> bool:
        """Return whether both are set, and the second place is the first one or lies in it."""
        if outer.uri is None or inner.uri is None or is_remote(outer.uri) != is_remote(inner.uri):
            return False
        if not is_remote(outer.uri):
            return Path(inner.uri).resolve().is_relative_to(Path(outer.uri).resolve())
        first, second = Place.parse(outer.uri), Place.parse(inner.uri)
        # A bucket of the same name at another endpoint is another bucket.
        return first.holds(second) and (
            endpoint_of(first.scheme, self.options_of(outer))
            == endpoint_of(second.scheme, self.options_of(inner))
        )

    @model_validator(mode="after")
    def _options_that_the_stores_know(self) -> Self:
        for name, section in (("lake", self.lake), ("raw", self.raw), ("compact", self.compact)):
            if section.uri is None or not is_remote(section.uri):
                continue
            try:
                Connection(Place.parse(section.uri), self.options_of(section))
            except ValueError as error:
                raise ValueError(f"{name}.options: {error}") from None
        return self

    def options_of(self, section: StoreSettings) -> dict[str, str]:
        """Return the options of a section's object store, secrets in plain text.

        Without options of its own, raw and compact have the lake's, if both stores are of one kind.
        """
        options, lake = section.options, self.lake
        if (
            not options
            and section.uri is not None
            and is_remote(section.uri)
            and is_remote(lake.uri)
            and Place.parse(section.uri).scheme == Place.parse(lake.uri).scheme
        ):
            options = lake.options
        return {name: value.get_secret_value() for name, value in options.items()}

    def secret_values(self) -> Iterator[str]:
        """Yield every value that must never be shown."""
        stores = (self.lake, self.raw, self.compact)
        options = [
            value
            for section in stores
            for name, value in section.options.items()
            # A region is no secret, and the store's error message may name the right one.
            if not name.lower().endswith("region")
        ]
        for value in (*(value for _, value in self.auth), *options):
            if isinstance(value, SecretStr):
                yield value.get_secret_value()
        if any(section.uri is not None and is_remote(section.uri) for section in stores):
            yield from secrets_of_environment()


def open_lake(settings: Settings, *, patient: bool = True) -> Store:
    """Return the store of the lake, `lake.uri`; nothing is read or written yet.

    With `patient=False`, failed requests to an object store are not repeated.
    """
    return _open(settings, settings.lake, settings.lake.uri, patient=patient)


def open_archive(settings: Settings, *, patient: bool = True) -> Store | None:
    """Return the store of the raw archive, `raw.uri`, or None without one."""
    uri = settings.raw.uri
    return None if uri is None else _open(settings, settings.raw, uri, patient=patient)


def open_copy(settings: Settings) -> Store:
    """Return the store of the coarse copy, `compact.uri`. Raises UsageError without one."""
    if settings.compact.uri is None:
        raise UsageError("compact.uri: is missing; set AHT_ETL_COMPACT__URI or the YAML's key")
    return _open(settings, settings.compact, settings.compact.uri, patient=True)


def _open(settings: Settings, section: StoreSettings, uri: str, *, patient: bool) -> Store:
    if not is_remote(uri):
        return LocalStore(Path(uri))
    try:
        return ObjectStore(Place.parse(uri), settings.options_of(section), patient=patient)
    except ValueError as error:
        # The environment changed after the settings were validated.
        raise UsageError(f"options of {uri}: {error}") from None


class Redactor:
    """Hides known secret values, and text that looks like an Authorization header."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Hide this value from now on, also in its percent-encoded forms."""
        if len(secret) >= _SHORTEST:
            quoted = {quote(secret, safe=""), quote_plus(secret)}
            forms = {secret, *quoted, *(quote(form, safe="") for form in quoted)}
            lower = {
                _PERCENT.sub(lambda match: match[0].lower(), form) for form in forms - {secret}
            }
            self._values = sorted({*self._values, *forms, *lower}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        for value in self._values:
            if value in text:
                text = text.replace(value, _HIDDEN)
        text = _HEADER.sub(lambda m: f"{m[1] or m[2] or m[3]} {_HIDDEN}", text)
        return _PARAMETER.sub(_HIDDEN, text)

    def tree(self, value: Any) -> Any:
        """Return a JSON-like value without secrets; keys and numbers do not change."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.tree(item) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item) for item in value]
        return value
