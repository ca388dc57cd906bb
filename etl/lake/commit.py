"""Reading what a partition holds, and committing a part to it: optimistic, without locks.

The next part's number is the highest + 1, never a gap, and a writer has read every lower part. So
only one of two writers gets a number, and the other reads from the part that exists which of its
sources are already loaded.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from etl.lake.layout import PartitionState, PartWritten, is_part, part_name, part_number
from etl.lake.part import Encoded, PartBuilder, without
from etl.lake.receipts import PartReceipts, Receipt, UnreadablePartError, read_receipts
from etl.model.text import log
from etl.storage.store import Store, StoreError, StoreUnusableError, create_new

# This many numbers below the highest are looked up even if a listing does not show them.
_LOOKED_UP: Final = 100

#: Called with each part's name in the lake and its receipts, in any thread.
OnPart = Callable[[str, PartReceipts], None]


@dataclass(frozen=True, slots=True)
class Committed:
    """How a commit ended: the part that is in the lake now, and its sources.

    There is no part if other runs had loaded every source.
    """

    part: PartWritten | None
    sources: tuple[Receipt, ...]
    brought_by_others: frozenset[str]

    @property
    def quarantined(self) -> int:
        """The bad rows of its sources."""
        return sum(source.quarantined for source in self.sources)

    def log(self, partition: str) -> None:
        """Log the commit."""
        log.info(
            "part.committed" if self.part else "part.superseded",
            partition=partition,
            part=self.part.path if self.part else None,
            rows=self.part.rows if self.part else 0,
            sources=len(self.sources),
            brought_by_others=len(self.brought_by_others),
        )


def read_states(
    store: Store, directories: Sequence[str], on_part: OnPart = lambda *_: None
) -> list[PartitionState]:
    """Read all receipts of several partitions, concurrently if that is faster. Blocking.

    A refusal of the store is reported as damage.
    """
    if store.readers == 1:
        return [read_state(store, directory, on_part) for directory in directories]
    try:
        names = store.names_of(directories)
    except StoreUnusableError:
        raise
    except StoreError as error:
        return [PartitionState(damage=str(error)) for _ in directories]
    with ThreadPoolExecutor(store.readers) as pool:
        return list(pool.map(lambda each: _state(store, each, names[each], on_part), directories))


def read_state(store: Store, directory: str, on_part: OnPart = lambda *_: None) -> PartitionState:
    """Read all receipts of a partition. Blocking; a refusal of the store is reported as damage."""
    try:
        names = store.names(directory)
    except StoreUnusableError:
        raise
    except StoreError as error:
        return PartitionState(damage=str(error))
    return _state(store, directory, names, on_part)


def _state(store: Store, directory: str, names: Sequence[str], on_part: OnPart) -> PartitionState:
    state = PartitionState()
    parts = [name for name in names if is_part(name)]
    for name in names:
        if name.endswith(".parquet") and name not in parts and not name.startswith((".", "_")):
            log.warning("lake.foreign", file=f"{directory}/{name}", reason="no part; left alone")
    numbers = {number for name in parts if (number := part_number(name)) is not None}
    state.next_number = max(numbers, default=-1) + 1
    # A listing is no snapshot: it may show a new part and not the one just before it.
    recent = range(max(0, state.next_number - _LOOKED_UP), state.next_number)
    parts += [part_name(number) for number in recent if number not in numbers]
    for name in parts:
        try:
            receipts = _receipts(store, f"{directory}/{name}")
            state.loaded.update(source.path for source in receipts.sources)
            on_part(f"{directory}/{name}", receipts)
        except StoreUnusableError:
            raise
        except StoreError as error:
            state.damage = str(error)
        except FileNotFoundError:
            pass  # an operator deleted it
    return state


def commit(
    store: Store,
    directory: str,
    state: PartitionState,
    encoded: Encoded,
    new_builder: Callable[[], PartBuilder],
) -> Committed:
    """Put a part into the lake under the next free number, each source exactly once.

    Sources that another run loaded since `state` was read are removed first. Updates `state`.
    Blocking. Raises StoreError or OSError; if it cannot even be read whether a put succeeded, the
    part may be in the lake nevertheless, and the next run sees it.
    """
    theirs: set[str] = set()
    left: Encoded | None = encoded
    try:
        while left is not None:
            known = state.loaded & {source.path for source in left.sources}
            if known:
                # Another run's part has them: one that was met in the last turn, or by an earlier
                # commit of this run.
                theirs |= known
                left = without(left, known, new_builder())
                continue
            name = f"{directory}/{part_name(state.next_number)}"
            # Each part has a fresh UUID, so no other run's has the same bytes.
            if create_new(store, left.staged, name):
                state.add_part(source.path for source in left.sources)
                part = PartWritten(name, left.rows, left.bytes, len(left.sources))
                return Committed(part, left.sources, frozenset(theirs))
            state.add_part(source.path for source in _receipts(store, name).sources)
        return Committed(None, (), frozenset(theirs))
    finally:
        if left is not None:
            left.staged.close()


def _receipts(store: Store, name: str) -> PartReceipts:
    with store.open(name) as stream:
        try:
            return read_receipts(stream)
        except UnreadablePartError as error:
            raise UnreadablePartError(
                f"{name} is {error}; nothing is written to its partition until it is repaired or "
                "deleted"
            ) from None
