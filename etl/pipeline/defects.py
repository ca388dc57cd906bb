"""Errors that nobody foresaw: one line says what to do, the trace is in a file."""

import os
import tempfile
import traceback
from collections.abc import Callable

from etl.model.errors import defect_advice, describe, is_expected
from etl.model.machine import resource_shortage


def explain(failure: BaseException, redact: Callable[[str], str]) -> str:
    """Return in one line, without secrets, why a command ended.

    Of an error that nobody foresaw the trace is kept in a file that the line names.
    """
    if is_expected(failure):
        return redact(describe(failure))
    return redact(describe(failure, keep(redact("".join(traceback.format_exception(failure))))))


def explain_blindly(failure: Exception) -> str:
    """Return the line for an error whose text may hold secrets: neither it nor the file has it."""
    if (reason := resource_shortage(failure)) is not None:
        return reason
    kind = type(failure).__name__
    where = keep("".join(traceback.format_tb(failure.__traceback__)) + kind + "\n")
    return f"unexpected {kind}: {defect_advice(where)}"


def keep(trace: str) -> str | None:
    """Write a trace to a new file in the temporary folder; None where that cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="aht-etl-trace-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    except OSError:
        return None
    return name
