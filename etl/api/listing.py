"""Windows or saved answers → the listed paths (the vendor's Breakdown API)."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from etl.api.auth import Authenticator
from etl.api.body import read_json
from etl.api.transport import Transport
from etl.errors import FailureKind, FileError, RunError
from etl.times import Window, rfc3339, to_millis

_BOM: Final = "\ufeff"
_ANSWERS: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})


@dataclass(slots=True)
class Listing:
    """What was listed: each entry once, in the order in which it first came.

    An entry is the text as it was listed, not yet parsed; what was no text stands as its JSON.
    """

    entries: dict[str, None] = field(default_factory=dict)
    requests: int = 0
    empty_windows: list[Window] = field(default_factory=list)
    partial_windows: list[Window] = field(default_factory=list)

    def add(self, files: Iterable[Any]) -> None:
        """Add listed entries; one that is there already changes nothing."""
        for entry in files:
            self.entries[entry if isinstance(entry, str) else json.dumps(entry)] = None


async def list_windows(
    transport: Transport, auth: Authenticator, endpoint: str, source: str, windows: list[Window]
) -> Listing:
    """Ask the Breakdown API at `endpoint` for each window; the entries come in window order.

    404 is an empty window, 206 a partial one. Anything else that is not a good answer raises
    RunError: a listing that failed is never an empty window.
    """
    listing = Listing()

    async def ask(window: Window) -> list[Any]:
        url = (
            f"{endpoint}?fromMillis={to_millis(window.start)}&toMillis={to_millis(window.end)}"
            f"&source={source}"
        )
        where = f"listing {rfc3339(window.start)} to {rfc3339(window.end)}"
        try:
            async for attempt in transport.attempts(where):
                with attempt:
                    listing.requests += 1
                    async with transport.get(url, auth, _ANSWERS) as response:
                        files = _files(await read_json(response))
                        if response.status == HTTPStatus.PARTIAL_CONTENT:
                            listing.partial_windows.append(window)
        except FileError as error:
            if error.kind is FailureKind.NOT_FOUND:
                listing.empty_windows.append(window)
                return []
            raise RunError(f"{where}: {error.message}{_advice(error)}") from error
        return files

    try:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(window)) for window in windows]
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]  # the others were cancelled
        raise first from first.__cause__
    for answer in answers:
        listing.add(answer.result())
    listing.empty_windows.sort()
    listing.partial_windows.sort()
    return listing


def read_listing(text: str) -> Listing:
    """Read saved Breakdown API answers, one after another, or one path a line.

    Raises RunError where an answer is not a good one; blank lines do not count.
    """
    listing = Listing()
    text = text.removeprefix(_BOM)
    position = _skip_space(text, 0)
    if not text.startswith("{", position):
        lines = (line.removesuffix("\r") for line in text.split("\n"))
        listing.add(line for line in lines if line.strip(" \t\r"))
        return listing
    decoder = json.JSONDecoder()
    while position < len(text):
        try:
            answer, end = decoder.raw_decode(text, position)
            listing.add(_files(answer))
        except (ValueError, RecursionError):
            raise RunError(
                f"--paths: not JSON at character {position}; it must hold whole answers of the "
                "Breakdown API, or one path a line"
            ) from None
        except FileError as error:
            raise RunError(f"--paths: at character {position}: {error.message}") from None
        position = _skip_space(text, end)
    return listing


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _files(answer: Any) -> list[Any]:
    files = answer.get("files") if isinstance(answer, dict) else None
    if not isinstance(files, list):
        raise FileError(FailureKind.HTTP, "the answer has no list of files", status=HTTPStatus.OK)
    return files


def _advice(error: FileError) -> str:
    if error.status == 400:
        return "; check the window (the vendor keeps one month), api.source and account"
    if error.kind is FailureKind.TOO_LARGE:
        return "; lower api.request_window"
    return ""
