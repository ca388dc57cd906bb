"""The errors, sorted by what the caller should do about them.

One root, three branches: `UsageError` (nothing was sent; correct the call), `RunError` (the job
cannot do its work; stop) and `FileError` (set this file aside and continue with the others).
"""

import os
import tempfile
import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from etl.model.machine import resource_shortage
from etl.model.text import one_line


class FailureKind(StrEnum):
    """Why a listed file did not reach the lake; `kind` in operations.md, "The report"."""

    HTTP = "http"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    LAKE = "lake"


_RETRYABLE: Final = {
    FailureKind.TIMEOUT,
    FailureKind.CONNECTION,
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
}


class AhtEtlError(Exception):
    """The root of all errors that this package raises on purpose; its text is one line."""


class UsageError(AhtEtlError):
    """A flag or a configuration value is wrong; nothing was sent (exit code 2)."""


class RunError(AhtEtlError):
    """The job cannot do its work (exit code 1): listing or authentication refused, no lake."""


class FileError(AhtEtlError):
    """One file cannot be loaded; the others can.

    `kind` is the report's. `message` says what happened and what to do, without the path. `status`
    is the answer's, if there was one. `retryable` is whether to send the request again; by default
    it follows the vendor's documented retry policy for this kind and status. `attempts` is the
    number of requests for the file; the code that counts them sets it.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.attempts = 0
        if retryable is None:
            retryable = kind in _RETRYABLE or (kind is FailureKind.HTTP and (status or 0) >= 500)
        self.retryable = retryable


def is_expected(failure: BaseException) -> bool:
    """Return whether an error is no defect: one of ours, or a shortage of this machine."""
    failure = _first(failure)
    return isinstance(failure, AhtEtlError) or resource_shortage(failure) is not None


def describe(failure: BaseException, trace: str | None = None) -> str:
    """Return in one line why something ended; secrets are not hidden yet.

    `trace` is the file with the traceback, if the error is a defect.
    """
    failure = _first(failure)
    if isinstance(failure, AhtEtlError):
        return one_line(str(failure))
    if (reason := resource_shortage(failure)) is not None:
        return reason
    return one_line(f"unexpected {type(failure).__name__}: {failure}; {defect_advice(trace)}")


def defect_advice(trace: str | None) -> str:
    """Return what to do about an unexpected error."""
    where = f"in {trace}" if trace else "what --log-level debug shows"
    return (
        f"this is a defect of aht-etl: please report it with the trace, {where}; until it is "
        "fixed, run again: what was committed stays"
    )


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def explain(failure: BaseException, redact: Callable[[str], str]) -> str:
    """Return in one line, without secrets, why a command failed.

    The traceback of an unexpected error is written to a file, which the line names.
    """
    if is_expected(failure):
        return redact(describe(failure))
    return redact(describe(failure, keep(redact("".join(traceback.format_exception(failure))))))


def explain_blindly(failure: Exception) -> str:
    """Return the line for an error whose text may hold secrets: neither line nor file shows it."""
    if (reason := resource_shortage(failure)) is not None:
        return reason
    kind = type(failure).__name__
    where = keep("".join(traceback.format_tb(failure.__traceback__)) + kind + "\n")
    return f"unexpected {kind}: {defect_advice(where)}"


def keep(trace: str) -> str | None:
    """Write a traceback to a new file in the temporary folder; None where that fails."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="aht-etl-trace-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    except OSError:
        return None
    return name
