"""Keeps secrets out of everything that is shown: logs, the report, error lines.

A server may echo what it was sent, so it is not enough never to print a key: each text on its way
out passes `Redactor.text`.
"""

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

_HIDDEN: Final = "***"

# The credentials part of an Authorization header, wherever an answer quotes it (RFC 5849 section
# 3.5.1, RFC 6750 section 2.1), and single OAuth 1.0a parameters.
_HEADER: Final = re.compile(
    r"(?i)\b(oauth)\s+\w+=[^\r\n]*|\b(bearer)\s+[\w.~+/=-]{6,}|\b(authorization)['\"]?\s*[:=][^\r\n]*"
)
_PARAMETER: Final = re.compile(r"(?i)\boauth_(?!problem)\w+\W{1,8}[^\"\\&,\s]*")

_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")

#: Shorter values (`true`, `eu`) name nothing secret and would garble any text.
_SHORTEST: Final = 6


class Redactor:
    """Replaces known secret values, and whatever looks like an Authorization header."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Hide this value, as it is and percent-encoded, from now on."""
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
        """Return a JSON-like value without secrets; keys and numbers are left as they are."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.tree(item) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item) for item in value]
        return value
