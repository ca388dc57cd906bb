"""Windows or saved answers → the listed paths (the vendor's Breakdown API)."""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from etl.api.auth import Authenticator
from etl.api.responses import Answer, ForeignError, read_begin, read_json
from etl.api.transport import Transport
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.printable import one_line
from etl.model.times import Window, rfc3339, to_millis

_BOM: Final = "\ufeff"
_ANSWERS: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_FOUND})
_404_MAX_BYTES: Final = 2**16
# "no paths were found in hdfs for the given timeframe" (Actual Handle Time API, "Breakdown").
_NO_PATHS: Final = "no paths"
_SHOWN_CHARS: Final = 80


@dataclass(slots=True)
class Listing:
    """What was listed: each entry once, in the order in which it first came.

    An entry is the text as it was listed, not yet parsed; what was no text stands as its JSON.
    """

    entries: dict[str, None] = field(default_factory=dict)
    requests: int = 0
    empty_windows: list[Window] = field(default_factory=list)
    partial_windows: list[Window] = field(default_factory=list)
    #: Windows to which something else than the API answered, and how.
    unanswered: dict[Window, ForeignError] = field(default_factory=dict)

    def add(self, files: Iterable[Any]) -> None:
        """Add listed entries; one that is there already changes nothing."""
        for entry in files:
            self.entries[entry if isinstance(entry, str) else json.dumps(entry)] = None


async def list_windows(
    transport: Transport,
    auth: Authenticator,
    endpoint: str,
    source: str,
    windows: list[Window],
    *,
    any_404_is_empty: bool = False,
) -> Listing:
    """Ask the Breakdown API at `endpoint` for each window; the entries come in window order.

    206 is a partial window. 404 is an empty one if the answer can be the vendor's, or
    `any_404_is_empty`; any other 404, and a 200 or 206 that is no Breakdown answer, is asked for
    again and then left unanswered. Everything else that is not a good answer raises RunError: a
    listing that failed is never an empty window.
    """
    listing = Listing()

    async def ask(window: Window) -> list[Any]:
        url = (
            f"{endpoint}?fromMillis={to_millis(window.start)}&toMillis={to_millis(window.end)}"
            f"&source={source}"
        )
        where = f"listing {rfc3339(window.start)} to {rfc3339(window.end)}"
        files: list[Any] = []
        try:
            async for attempt in transport.attempts(where):
                with attempt:
                    listing.requests += 1
                    async with transport.get(url, auth, _ANSWERS) as answer:
                        if answer.status == HTTPStatus.NOT_FOUND:
                            if not any_404_is_empty:
                                await _require_the_vendors_404(answer, transport.redact)
                            listing.empty_windows.append(window)
                        else:
                            files = _files(await read_json(answer))
                        if answer.status == HTTPStatus.PARTIAL_CONTENT:
                            listing.partial_windows.append(window)
        except ForeignError as error:
            listing.unanswered[window] = error
        except FileError as error:
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
    listing.unanswered = dict(sorted(listing.unanswered.items()))
    return listing


def require_an_answer(listing: Listing, windows: list[Window]) -> None:
    """Raise RunError where the API answered for none of the windows that were asked for."""
    if windows and len(listing.unanswered) == len(windows):
        window, error = next(iter(listing.unanswered.items()))
        raise RunError(
            f"listing {rfc3339(window.start)} to {rfc3339(window.end)}: {error.message}; check "
            "api.base_url and account, and what answers there"
        ) from error


async def _require_the_vendors_404(answer: Answer, redact: Callable[[str], str]) -> None:
    """Raise ForeignError for a 404 that cannot be the vendor's.

    The vendor documents the status alone; its errors are JSON objects, and the documented words
    may come as a text.
    """
    body = await read_begin(answer, _404_MAX_BYTES)
    text = body.decode("utf-8", "replace")
    if not text.strip() or _NO_PATHS in text.lower():
        return
    try:
        if isinstance(json.loads(body), dict):
            return
    except (ValueError, RecursionError):
        pass
    shown = one_line(redact(text))[:_SHOWN_CHARS]  # redacted whole, before it is cut
    raise ForeignError(
        f"404, but not the vendor's, which is empty, a JSON object or says '{_NO_PATHS}': "
        f"'{shown}' (api.any_404_is_empty takes every 404 for an empty window)",
        status=HTTPStatus.NOT_FOUND,
    )


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
        raise ForeignError("the answer has no list of files", status=HTTPStatus.OK)
    return files


def _advice(error: FileError) -> str:
    if error.status == 400:
        return "; check the window (the vendor keeps one month), api.source and account"
    if error.kind is FailureKind.TOO_LARGE:
        return "; lower api.request_window"
    return ""
