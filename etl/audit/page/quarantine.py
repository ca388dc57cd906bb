"""Why rows were set aside, counted: reasons and numbers only, since raw texts may be personal."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from etl.lake.layout import Selection, to_partition
from etl.lake.quarantine import FOLDER
from etl.model.printable import one_line
from etl.storage.store import LakeError, Store

_UNREADABLE: Final = "(the quarantine's own line cannot be read)"
_OTHER: Final = "(other reasons)"
_REASONS_MAX: Final = 100
#: Where in a row something stood tells nothing about why: such reasons count as one.
_POSITION: Final = re.compile(r" at character [0-9]+")
#: `raw` is cut at 64 KiB, each byte six characters of JSON at most; a longer line is not ours.
_LINE_MAX_BYTES: Final = 2**20


@dataclass(slots=True)
class Quarantine:
    """Rows in the quarantine by reason, and what of it cannot be read."""

    by_reason: Counter[str] = field(default_factory=Counter)
    files: int = 0
    damage: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows lie in the quarantine."""
        return self.by_reason.total()


def read_quarantine(store: Store, selection: Selection) -> Quarantine:
    """Count the quarantined rows of what is selected. Blocking, in bounded memory."""
    found = Quarantine()
    for name in _names(store, selection, found.damage):
        try:
            with store.open(name) as stream:
                found.files += 1
                while line := stream.readline(_LINE_MAX_BYTES):
                    _count(found.by_reason, line)
        except FileNotFoundError:
            pass  # an operator deleted it
        except (LakeError, OSError) as error:
            found.damage.append(str(error))
    return found


def _names(store: Store, selection: Selection, damage: list[str]) -> Iterator[str]:
    for file in store.walk(lambda _, error: damage.append(str(error)), FOLDER):
        folder = file.name.removeprefix(f"{FOLDER}/").rpartition("/")[0]
        partition = to_partition(folder)
        if file.name.endswith(".ndjson") and (
            selection.includes(partition) if partition else selection.everything
        ):
            yield file.name


def _count(by_reason: Counter[str], line: bytes) -> None:
    try:
        reason = one_line(_POSITION.sub("", str(json.loads(line)["reason"]))) or _UNREADABLE
    except (ValueError, TypeError, KeyError, RecursionError):
        reason = _UNREADABLE
    if reason not in by_reason and len(by_reason) >= _REASONS_MAX:
        reason = _OTHER
    by_reason[reason] += 1
