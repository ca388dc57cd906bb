"""What several commands share: flags into settings, windows, jobs, errors of usage."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import typer

from etl.errors import UsageError

if TYPE_CHECKING:
    from etl.job import Job
    from etl.log import LogFormat as LogFormatName
    from etl.plan import Shard
    from etl.redact import Redactor
    from etl.settings import Settings
    from etl.times import Window

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def called_as() -> str:
    """Return what to type to call this very command again."""
    called = Path(sys.argv[0])
    on_path = shutil.which("aht-etl")
    if called.name != "aht-etl" or (on_path and Path(on_path).samefile(called)):
        return "aht-etl"
    return shlex.quote(str(called))


@contextmanager
def usage_errors(log_format: "LogFormatName") -> Iterator[None]:
    """End with exit code 2 and one line when the block finds wrong usage or configuration."""
    try:
        yield
    except UsageError as error:
        from etl import log

        log.complain(f"wrong usage: {error}", "usage.wrong", log_format)
        raise typer.Exit(2) from None


def new_job(
    settings: "Settings", window: "Window | None", now: datetime, redactor: "Redactor"
) -> "Job":
    """Return a job that has not begun; the settings' secrets become known to `redactor`."""
    import uuid

    from etl.job import Job
    from etl.report import Tally

    for secret in settings.secret_values():
        redactor.add(secret)
    account = settings.account or ""
    tally = Tally(str(uuid.uuid4()), account, window, datetime.now(UTC))
    return Job(settings, account, window, tally, now, redactor=redactor)


def nested(flags: dict[str, str | None]) -> dict[str, Any]:
    """Return the flags that were given, by dotted key, as nested sections."""
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def settle_window(settings: "Settings", now: datetime) -> "Window":
    """Return the window that is listed; UsageError where it is none."""
    from etl.times import Window, rfc3339, whole_millis

    end = whole_millis(settings.window.end or now)
    try:
        start = whole_millis(settings.window.start or end - settings.window.lookback)
    except OverflowError:
        raise UsageError("--lookback: reaches back before the year 1") from None
    if start >= end:
        raise UsageError(f"--from {rfc3339(start)} is not before --to {rfc3339(end)}")
    return Window(start, end)


def parse_shard(text: str | None) -> "Shard":
    """Read `I/N`; UsageError where it is none."""
    from etl.plan import Shard

    if text is None:
        return Shard()
    match = _SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")
    return Shard(int(match[1]), int(match[2]))


def open_paths(file: str) -> BinaryIO:
    """Open the file of `--paths`; UsageError where it cannot be read."""
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"--paths {file}: cannot be read: {error.strerror}") from None


def check_report_file(report: str | None) -> None:
    """Raise UsageError where no report could be written at the end."""
    if report is None or report == "-":
        return
    folder = Path(report).parent
    if Path(report).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {report}: not a file in a folder that can be written to")
