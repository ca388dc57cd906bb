"""What can go wrong, sorted by what the caller should do about it.

One root, three branches: `UsageError` (nothing was sent, correct the call), `RunError` (the job
cannot do its work, stop) and `FileError` (set this one file aside, go on with the others).
"""

from enum import StrEnum
from typing import Final

from etl.model.machine import lack
from etl.model.printable import one_line


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


_PASSING: Final = {
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

    `kind` is the report's; `message` says what happened and what to do, without the path, which
    the report has beside it. `status` is the answer's, where there was one. `passing` tells whether
    to try again; by default as the vendor asks for this kind and status (its documented retry
    policy). `attempts` is how many requests were sent for it, filled in by whoever counts them.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        passing: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.attempts = 0
        if passing is None:
            passing = kind in _PASSING or (
                kind is FailureKind.HTTP and status is not None and status >= 500
            )
        self.passing = passing


def is_foreseen(failure: BaseException) -> bool:
    """Tell whether the error is no defect: we raised it, or the machine lacks something."""
    failure = _first(failure)
    return isinstance(failure, AhtEtlError) or lack(failure) is not None


def describe(failure: BaseException, trace: str | None = None) -> str:
    """Return in one line why something ended; not yet redacted.

    `trace` is the file that has the trace of an error that nobody foresaw.
    """
    failure = _first(failure)
    if isinstance(failure, AhtEtlError):
        return one_line(str(failure))
    if (reason := lack(failure)) is not None:
        return reason
    return one_line(f"unexpected {type(failure).__name__}: {failure}; {defect(trace)}")


def defect(trace: str | None) -> str:
    """Return what to do about an error that nobody foresaw."""
    where = f"in {trace}" if trace else "what --log-level debug shows"
    return (
        f"this is a defect of aht-etl: please report it with the trace, {where}; until it is "
        "fixed, run again: what was committed stays"
    )


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
