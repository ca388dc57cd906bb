"""Unexpected errors: one line says what to do, and the traceback is in a file."""

import os
import tempfile
import traceback
from collections.abc import Callable

from etl.model.errors import defect_advice, describe, is_expected
from etl.model.machine import resource_shortage


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
