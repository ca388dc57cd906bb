"""The vendor's Breakdown API: windows, or saved responses, to listed paths."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from etl.api.auth import Authenticator
from etl.api.errors import quoted
from etl.api.responses import ForeignResponseError, Response, read_json, read_start
from etl.api.transport import Transport
from etl.config.sections import ApiSettings
from etl.config.settings import Redactor
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.times import Window, to_millis

_BOM: Final = "\ufeff"
_404_MAX_BYTES: Final = 2**16
# "no paths were found in hdfs for the given timeframe" (Actual Handle Time API, "Breakdown").
_NO_PATHS: Final = "no paths"
_SHOWN_CHARS: Final = 80
_ANSWERS: Final = frozenset({200, 206, 404})


@dataclass(slots=True)
class Listing:
    """The listed entries, each once, in the order in which they came.

    An entry is the text as it was listed, not yet parsed; any other JSON value is kept as JSON.
    """

    entries: dict[str, None] = field(default_factory=dict)
    requests: int = 0
    empty_windows: list[Window] = field(default_factory=list)
    partial_windows: list[Window] = field(default_factory=list)
    #: Windows for which something else than the API responded, and its response.
    unanswered: dict[Window, ForeignResponseError] = field(default_factory=dict)

    def add(self, files: Iterable[Any]) -> None:
        """Add entries; one that is already listed changes nothing."""
        for entry in files:
            self.entries[entry if isinstance(entry, str) else json.dumps(entry)] = None


async def list_windows(
    transport: Transport,
    auth: Authenticator,
    endpoint: str,
    settings: ApiSettings,
    windows: list[Window],
    listing: Listing,
) -> None:
    """List each window at `endpoint` into `listing`, whose entries are in the order of the windows.

    On an error, `listing` has what was sent and answered until then, but no entries.

    206 is a partial window. 404 is an empty window if the response can be the vendor's, or with
    `any_404_is_empty`. Any other 404, and a 200 or 206 without a list of files, is retried; if it
    stays, the window is unanswered. Every other failure raises RunError: a failed listing is never
    an empty window.
    """

    async def list_window(window: Window) -> list[Any]:
        url = (
            f"{endpoint}?fromMillis={to_millis(window.start)}&toMillis={to_millis(window.end)}"
            f"&source={settings.source}"
        )
        where = f"listing {window}"
        files: list[Any] = []
        try:
            async for attempt in transport.attempts(where):
                with attempt:
                    listing.requests += 1
                    async with transport.get(
                        url, auth, _ANSWERS, new_connection=attempt.new_connection
                    ) as response:
                        if response.status == 404:
                            if not settings.any_404_is_empty:
                                await _require_vendors_404(response, transport.redactor)
                            listing.empty_windows.append(window)
                        else:
                            files = _files(await read_json(response))
                        if response.status == 206:
                            listing.partial_windows.append(window)
        except ForeignResponseError as error:
            listing.unanswered[window] = error
        except FileError as error:
            raise RunError(f"{where}: {error.message}{_advice(error)}") from error
        return files

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(list_window(window)) for window in windows]
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]  # the group cancelled the other tasks
        raise first from first.__cause__
    finally:
        listing.empty_windows.sort()
        listing.partial_windows.sort()
        listing.unanswered = dict(sorted(listing.unanswered.items()))
    for task in tasks:
        listing.add(task.result())


def require_an_answer(listing: Listing, windows: list[Window]) -> None:
    """Raise RunError if the API answered for no window."""
    if windows and len(listing.unanswered) == len(windows):
        window, error = next(iter(listing.unanswered.items()))
        raise RunError(
            f"listing {window}: {error.message}; check api.base_url and account, and what answers "
            "there"
        ) from error


async def _require_vendors_404(response: Response, redactor: Redactor) -> None:
    """Raise ForeignResponseError for a 404 that cannot be the vendor's.

    The vendor documents only the status. Its other errors are JSON objects, and the documented
    words may come as plain text.
    """
    body = await read_start(response, _404_MAX_BYTES)
    text = body.decode("utf-8", "replace")
    if not text.strip() or _NO_PATHS in text.lower():
        return
    try:
        if isinstance(json.loads(body), dict):
            return
    except (ValueError, RecursionError):
        pass
    shown = quoted(text, redactor.text, _SHOWN_CHARS)
    raise ForeignResponseError(
        f"404, but not the vendor's, which is empty, a JSON object or says '{_NO_PATHS}': "
        f"'{shown}' (api.any_404_is_empty takes every 404 for an empty window)",
        status=404,
    )


def read_listing(text: str) -> Listing:
    """Read saved responses of the Breakdown API, one after another, or one path a line.

    Ignores blank lines. Raises RunError if a response is damaged.
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
        raise ForeignResponseError("the answer has no list of files", status=200)
    return files


def _advice(error: FileError) -> str:
    if error.status == 400:
        return "; check the window (the vendor keeps one month), api.source and account"
    if error.kind is FailureKind.TOO_LARGE:
        return "; lower api.request_window"
    return ""
