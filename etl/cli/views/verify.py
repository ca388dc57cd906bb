"""The output of `aht-etl verify`: a progress bar, and the result as JSON and as text."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from etl.audit.verify import Finding, FindingKind, Verification
from etl.cli.process.signals import handled
from etl.cli.views.progress import ProgressMode
from etl.model.events import log
from etl.model.text import one_line, plural

_EVENT_EVERY_S: Final = 30.0
_SHOWN_OF_A_KIND: Final = 10


def to_json(result: Verification) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "ok": result.ok,
        "parts": result.parts,
        "files": result.files,
        "rows": result.rows,
        "bytes": result.bytes,
        "findings": [_as_json(finding) for finding in result.findings],
        "notes": [_as_json(note) for note in result.notes],
    }


def _as_json(finding: Finding) -> dict[str, str]:
    return {"kind": finding.kind.value, "path": finding.path, "message": finding.message}


def to_text(result: Verification, place: str) -> str:
    """Return what was read, what is wrong and what to do; `place` is like "lake ./lake"."""
    verdict = "ok" if result.ok else plural(len(result.findings), "finding")
    lines = [
        f"{verdict}: {result.rows:,} rows of {result.files:,} files read in {result.parts:,} "
        f"parts, {place}"
    ]
    for word, findings in (("", result.findings), ("note ", result.notes)):
        for kind, group in groupby(sorted(findings, key=_by_kind), key=_by_kind):
            of_kind = list(group)
            for finding in of_kind[:_SHOWN_OF_A_KIND]:
                lines += [
                    f"  {word}{kind}: {one_line(finding.path)}",
                    f"    {one_line(finding.message)}",
                ]
            if len(of_kind) > _SHOWN_OF_A_KIND:
                more = len(of_kind) - _SHOWN_OF_A_KIND
                lines.append(f"  {word}{kind}: and {more:,} more; --json has them all")
    return "\n".join(lines) + "\n"


def why_not(result: Verification) -> str:
    """Return one line: why a verification is not `ok`, and what to do."""
    if result.empty:
        (note,) = (note for note in result.notes if note.kind is FindingKind.EMPTY)
        return f"error: nothing to verify: {note.message}"
    first = result.findings[0]
    return (
        f"{plural(len(result.findings), 'finding')} in {result.parts:,} parts; the first: "
        f"{first.kind.value}: {first.path}: {first.message}"
    )


def _by_kind(finding: Finding) -> str:
    return finding.kind.value


@contextmanager
def show_progress(mode: ProgressMode, *, live: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a function for the bytes that are done, and all bytes. It moves a bar, or logs.

    A bar needs a terminal, and logs that are for a terminal (`live`).
    """
    if mode == "off":
        yield lambda _done, _total: None
    elif live and sys.stderr.isatty():
        with _bar() as on_part:
            yield on_part
    else:
        yield _events()


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    before = {number: signal.getsignal(number) for number in handled()}

    def end(number: int, frame: Any) -> None:
        # The process ends here, and nothing else shows the cursor again. Not through a buffer: the
        # signal may have interrupted a write to it.
        with suppress(OSError):
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # Before the bar hides the cursor, so that a signal always shows it again.
    for number in before:
        signal.signal(number, end)
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _events() -> Callable[[int, int], None]:
    said_at = time.monotonic()

    def on_part(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= _EVENT_EVERY_S:
            said_at = time.monotonic()
            log.info("verify.progress", bytes_read=done, bytes=total)

    return on_part
