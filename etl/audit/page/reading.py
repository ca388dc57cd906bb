"""Reading a lake for the page: every part once, some side by side."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import groupby
from typing import Final

from etl.audit.gaps import expected_spans, held_hours
from etl.audit.page.clock import Clock
from etl.audit.page.facts import Facts, Hour
from etl.audit.page.part import PartFacts, read_part
from etl.audit.page.quarantine import read_quarantine
from etl.audit.page.segments import Segments
from etl.audit.side_by_side import in_order
from etl.lake.layout import Layout, Selection, read_layout
from etl.model.machine import cores
from etl.model.paths import Partition
from etl.storage.store import LakeError, Store, StoredFile

_THREADS: Final = min(8, cores())
_AHEAD: Final = 2


def survey(store: Store, selection: Selection, now: datetime, clock: Clock) -> Facts:
    """Return the facts of what is selected of a lake; days are the clock's. Blocking.

    What cannot be read is among them as damage. Raises LakeError if the lake itself is no folder
    that can be read; one that does not exist yet is empty.
    """
    layout = read_layout(store)
    if layout.is_copy:
        raise LakeError(f"{store.place} is a coarse copy: the page is drawn of the lake itself")
    facts = _expected(layout, selection, now)
    todo = [
        (partition, part)
        for partition in sorted(layout.parts)
        if selection.includes(partition)
        for part in layout.parts[partition]
    ]

    def read(item: tuple[Partition, StoredFile]) -> PartFacts | None:
        return read_part(store, *item)

    threads = max(_THREADS, store.readers)
    with ThreadPoolExecutor(threads) as pool:
        found = zip(todo, in_order(pool, read, todo, threads * _AHEAD), strict=True)
        # The parts come in the order of their hours: of segments, one day's are in memory.
        for day, parts in groupby(found, key=lambda pair: clock.date_of(pair[0][0].hour)):
            segments = Segments()
            for _, part in parts:
                if part is not None:
                    facts.add(part)
                    if part.segments is not None:
                        segments.merge(part.segments)
            facts.segments[day] = segments.count
    facts.damage.sort(key=lambda damage: damage.name)
    facts.quarantine = read_quarantine(store, selection)
    return facts


def _expected(layout: Layout, selection: Selection, now: datetime) -> Facts:
    """Return facts that know of the hours which are held or expected, and of shut folders."""
    there = (*layout.parts, *layout.unlistable)
    chosen = [partition for partition in there if selection.includes(partition)]
    facts = Facts(
        held=held_hours(chosen),
        spans=expected_spans(held_hours(there), selection, now),
        hidden=tuple(layout.damaged_folders.values()),
        hours={partition.hour: Hour() for partition in chosen},
        damage=[*layout.damaged_folders],
    )
    for partition, damage in layout.unlistable.items():
        if selection.includes(partition):
            facts.hours[partition.hour].damaged = True
            facts.damage.append(damage)
    return facts
