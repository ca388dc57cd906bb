"""Objects of which the members' names are known, in any order, any of them missing.

msgspec makes a structure of each, which takes two thirds of a dictionary's time, and keeps an
unknown member's value as it stands, without an object for each thing within it. New names are
learnt by dictionaries. A text is taken as a whole or not at all: where one object is no row, or
there are too many names, etl.decode.parsed reads it.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute

from etl.decode.parsed import REFUSALS, Readers, to_rows
from etl.schema import DECODED_SCHEMA

# Its stubs do not know which types follow from which.
pc: Any = pyarrow.compute

_COLUMNS: Final = DECODED_SCHEMA.names[:-1]
# Each name costs each object some 25 ns, also one that only others have: with twenty a dictionary
# takes as long.
_NAMES_MAX: Final = 16
# An object takes up to a kilobyte: of shorter ones a text would take more than its share of memory.
_BYTES_MIN: Final = 64
_SAMPLED_BYTES: Final = 2**16
# A name that stands first in each object of unknown members, and nowhere in what was read: so it
# tells where an object begins.
_MARK: Final = "\x7f"
_BEGIN: Final = b'{"\x7f":0'
# What msgspec takes for a member's name, if it is not too long to be kept.
_NAME: Final = re.compile(r'[^"\\\x00-\x1f\x7f]{0,200}')

_write: Final = msgspec.json.Encoder().encode


_DICTIONARIES: Final = Readers.of(dict[str, msgspec.Raw])
# The unknown members' names that this process met last, in order.
_names: tuple[str, ...] = ()


def read_structs(text: bytes, *, array: bool) -> pa.RecordBatch | None:
    """Return the rows of objects that stand one after another or are the elements of an `array`.

    None if anything else stands there, one of them is no row, or they are very short or have too
    many names. Of unknown members the texts are kept, without white space, in the order of their
    names.
    """
    # msgspec does not look at the characters that it skips.
    if _is_of_short_objects(text) or _MARK.encode() in text or not _is_utf8(text):
        return None
    try:
        names, objects = _read(text, array=array)
        # The sample may have missed what is short.
        if not objects or len(objects) * _BYTES_MIN > len(text):
            return None
        values = list(zip(*map(msgspec.structs.astuple, objects), strict=True))
        extras = _extras(names, len(objects), values[len(_COLUMNS) :])
    except REFUSALS:
        return None
    rows, misfits = to_rows(dict(zip(_COLUMNS, values, strict=False)), extras)
    return None if misfits else rows


def _read(text: bytes, *, array: bool) -> tuple[tuple[str, ...], list[Any]]:
    """Return the unknown members' names, in order, and the objects; no objects if too many."""
    global _names  # noqa: PLW0603 - what another thread makes of it at the same time is as good
    names = _names
    try:
        return names, _structs(names).read(text, array=array)
    except msgspec.ValidationError:
        objects = _DICTIONARIES.read(text, array=array)
    new = set().union(*objects).difference(_COLUMNS)
    both = new.union(names)
    if len(both) > _NAMES_MAX:
        both = new
    if len(both) > _NAMES_MAX or not all(map(_NAME.fullmatch, both)):
        return (), []
    _names = names = tuple(sorted(both))
    return names, _structs(names).read(text, array=array)


@lru_cache(8)
def _structs(names: tuple[str, ...]) -> Readers:
    """Return what reads objects with these members besides the columns."""
    columns = [(name, Any, None) for name in _COLUMNS]
    return Readers.of(_struct([*columns, *_unknown(names)], forbid=True))


@lru_cache(8)
def _rest(names: tuple[str, ...]) -> Callable[..., Any]:
    """Return the structure of the mark and unknown members, in this order."""
    rest: type = _struct([(_MARK, int, 0), *_unknown(names)], forbid=False)
    return rest


#: A member's name, type and default.
_Member = tuple[str, Any, Any]


def _unknown(names: tuple[str, ...]) -> list[_Member]:
    return [(name, msgspec.Raw, msgspec.UNSET) for name in names]


def _struct(members: Sequence[_Member], *, forbid: bool) -> Any:
    # Python's names are not any text.
    fields = [(f"m{n}", kind, default) for n, (_, kind, default) in enumerate(members)]
    rename = {f"m{n}": name for n, (name, _, _) in enumerate(members)}
    return msgspec.defstruct(
        "_Object", fields, rename=rename, forbid_unknown_fields=forbid, gc=False
    )


def _extras(names: tuple[str, ...], count: int, values: Sequence[Sequence[Any]]) -> Any:
    """Return unknown members of so many objects as JSON, null where there are none."""
    if not names:
        return pa.nulls(count, pa.string())
    # All are written, rid of white space (a call for each would take longer) and cut at the marks.
    rests = list(map(_rest(names), repeat(0), *values))
    text = msgspec.json.format(_write(rests), indent=-1)
    begin = b"," + _BEGIN
    tails = pc.split_pattern(pa.array([text[len(begin) : -1]], pa.string()), begin).values
    return pc.if_else(pc.equal(tails, "}"), None, pc.binary_replace_slice(tails, 0, 1, "{"))


def _is_of_short_objects(text: bytes) -> bool:
    """Tell by a sample of a long text, for to count all takes as long as a tenth of the rest."""
    sample = text[:: 1 + len(text) // _SAMPLED_BYTES]
    return sample.count(b"}") * _BYTES_MIN > len(sample)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
