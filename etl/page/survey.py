"""Reading a lake for the page: every part once, some side by side."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from etl.lake.layout import lay_out
from etl.lake.store import Store
from etl.machine import cores
from etl.page.facts import Facts
from etl.page.part import read_part
from etl.page.quarantine import read_quarantine

_THREADS: Final = min(8, cores())
_AT_A_TIME: Final = 256


def survey(store: Store, account: str | None) -> Facts:
    """Return the facts of a lake, or of one account in it. Blocking.

    What cannot be read is among them as damage. Raises LakeError if the lake itself is no folder
    that can be read; one that does not exist yet is empty.
    """
    layout = lay_out(store)
    facts = Facts()
    facts.damage += layout.above
    facts.damage += (
        damage for partition, damage in layout.shut.items() if account in (None, partition.account)
    )
    parts = (
        (partition, part)
        for partition, its_parts in layout.parts.items()
        if account in (None, partition.account)
        for part in its_parts
    )
    with ThreadPoolExecutor(max(_THREADS, store.readers)) as pool:
        while some := list(islice(parts, _AT_A_TIME)):
            for part in pool.map(lambda found: read_part(store, *found), some):
                if part is not None:
                    facts.add(part)
    facts.damage.sort(key=lambda damage: damage.name)
    facts.quarantine = read_quarantine(store, account)
    return facts
