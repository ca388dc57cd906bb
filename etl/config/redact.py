"""Keeps secrets out of all output: logs, the report, error messages.

A server may repeat a request in its answer, so it is not enough that no code prints a key: every
text passes `Redactor.text` before it is shown.
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

#: Shorter values (`true`, `eu`) are no secrets, and hiding them would make texts unreadable.
_SHORTEST: Final = 6


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
