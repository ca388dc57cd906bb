"""Reading what a partition holds, and committing a part to it: optimistic, without locks.

The next part's number is the highest + 1, never a gap, and a writer has read every lower part. So
of two writers only one can get a number, and the other learns, from the part that is there, which
of its sources are loaded already.
"""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from etl.lake.part import Encoded, PartBuilder
from etl.lake.receipts import PartReceipts, UnreadablePartError, read_receipts
from etl.model.events import log
from etl.storage.store import AlreadyExistsError, LakeError, LakeUnusableError, Store, never_there

_PART: Final = re.compile(r"part-(?P<number>[0-9]{5,})\.parquet")
# A store may refuse a put and hold nothing under the name (S3's 409): asked again this often.
_DOUBTFUL_PUTS: Final = 5
_PAUSE_S: Final = 0.1
# So many numbers below the highest are looked for even if a listing does not show them.
_LOOKED_FOR: Final = 100


#: Hears of a part: its name in the lake, and what it says of itself.
Seen = Callable[[str, PartReceipts], None]


@dataclass(slots=True)
class PartitionState:
    """What a partition holds: the sources that have a receipt, and the next part's number.

    `damage` names a part that cannot be read: then nothing may be written here, because any
    source might be in it.
    """

    loaded: set[str] = field(default_factory=set)
    next_number: int = 0
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """How a commit ended.

    The part that is now in the lake (None if every source was there already), and the sources
    that another run had brought.
    """

    name: str | None
    encoded: Encoded | None
    brought_by_others: frozenset[str]


def read_states(
    store: Store, directories: Sequence[str], seen: Seen = lambda *_: None
) -> list[PartitionState]:
    """Read all receipts of several partitions, side by side where that is worth it. Blocking.

    A lake that refuses is told as damage. `seen` hears of each part's, in any thread.
    """
    if store.readers == 1:
        return [read_state(store, directory, seen) for directory in directories]
    try:
        names = store.names_of(directories)
    except LakeUnusableError:
        raise
    except LakeError as error:
        return [PartitionState(damage=str(error)) for _ in directories]
    with ThreadPoolExecutor(store.readers) as pool:
        return list(pool.map(lambda each: _state_of(store, each, names[each], seen), directories))


def read_state(store: Store, directory: str, seen: Seen = lambda *_: None) -> PartitionState:
    """Read all receipts of a partition. Blocking; a lake that refuses is told as damage."""
    try:
        names = store.names(directory)
    except LakeUnusableError:
        raise
    except LakeError as error:
        return PartitionState(damage=str(error))
    return _state_of(store, directory, names, seen)


def _state_of(store: Store, directory: str, names: Sequence[str], seen: Seen) -> PartitionState:
    state = PartitionState()
    parts = [name for name in names if name.startswith("part-") and name.endswith(".parquet")]
    for name in names:
        if name.endswith(".parquet") and name not in parts and not name.startswith((".", "_")):
            log.warning("lake.foreign", file=f"{directory}/{name}", reason="no part; left alone")
    numbers = {int(match["number"]) for name in parts if (match := _PART.fullmatch(name))}
    state.next_number = max(numbers, default=-1) + 1
    # A listing is no snapshot: it may show a part that is new and not the one just before it.
    recent = range(max(0, state.next_number - _LOOKED_FOR), state.next_number)
    parts += [_name(number) for number in recent if number not in numbers]
    for name in parts:
        try:
            receipts = _receipts(store, f"{directory}/{name}")
            state.loaded.update(source.path for source in receipts.sources)
            seen(f"{directory}/{name}", receipts)
        except LakeUnusableError:
            raise
        except (UnreadablePartError, LakeError) as error:
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

    Sources that another run brought since `state` was read are taken out first. `state` is brought
    up to date. Blocking. Raises LakeError or UnreadablePartError; if even the look at what became
    of a put fails, the part may be in the lake all the same, and the next run will see it.
    """
    theirs: set[str] = set()
    left: Encoded | None = encoded
    doubts = 0
    try:
        while left is not None:
            known = state.loaded & {source.path for source in left.sources}
            if known:
                # Learned just now, or when an earlier part of this run met another run's.
                from etl.lake.subtract import without  # noqa: PLC0415 - it is loaded by now

                theirs |= known
                left = without(left, known, new_builder())
                continue
            name = f"{directory}/{_name(state.next_number)}"
            refusal: LakeError | None = None
            try:
                store.create(left.staged, name)
            except LakeError as error:
                refusal = error
            if refusal is not None:
                # A put that failed proves nothing: its success may have been lost on the way.
                there = _look(store, name, refusal)
                if there is None:
                    doubts += 1
                    if not isinstance(refusal, AlreadyExistsError) or doubts >= _DOUBTFUL_PUTS:
                        raise never_there(name, refusal)
                    time.sleep(_PAUSE_S * doubts)
                    continue
                if there.commit != left.commit:
                    state.next_number += 1
                    state.loaded.update(source.path for source in there.sources)
                    continue
            state.next_number += 1
            state.loaded.update(source.path for source in left.sources)
            return Committed(name, left, frozenset(theirs))
        return Committed(None, None, frozenset(theirs))
    finally:
        if left is not None:
            left.staged.close()


def _name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _look(store: Store, name: str, refusal: LakeError) -> PartReceipts | None:
    """Return what is there after a put that was refused; None where nothing is."""
    if isinstance(refusal, LakeUnusableError):
        raise refusal
    try:
        return _receipts(store, name)
    except FileNotFoundError:
        return None
    except LakeError as error:
        # Why nothing was created says more than why that cannot be looked at.
        raise (error if isinstance(refusal, AlreadyExistsError) else refusal) from None


def _receipts(store: Store, name: str) -> PartReceipts:
    with store.open(name) as stream:
        try:
            return read_receipts(stream)
        except UnreadablePartError as error:
            raise UnreadablePartError(
                f"{name} is {error}; nothing is written to its partition until it is mended or "
                "deleted"
            ) from None
