"""One file → its rows. `decode` reads top to bottom."""

from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from etl.decode.decoded import Decoded
from etl.decode.limits import DecodeLimits
from etl.decode.rows import Rows
from etl.decode.unpack import Unpacked
from etl.decode.values import ArrayReader, NotAnArrayError
from etl.decode.window import Window
from etl.errors import FailureKind, FileError

# So large that what all calls for a block cost, about a millisecond, is little: 1 MiB takes a third
# more time, 8 MiB no less.
_BLOCK_BYTES: Final = 2 * 2**20
# A block takes some times its own size in memory while it is read.
_BLOCK_SHARE: Final = 8


def decode(
    body: BinaryIO,
    path: str,
    limits: DecodeLimits,
    *,
    scratch: Path,
    declared_gzip: bool = False,
) -> Decoded:
    """Decode a downloaded file, whatever of the documented shapes it has.

    `declared_gzip` is whether the answer said that gzip is its transport encoding; see Unpacked.
    Blocking; run it in a thread. Raises FileError: truncated, corrupt and too_large as Unpacked
    does; malformed if more of its rows are bad than is allowed. Raises OSError where `scratch`
    refuses.
    """
    unpacked = partial(Unpacked, body, limits.max_file_size, declared_gzip=declared_gzip)
    try:
        decoded = _decode(unpacked(), path, limits, scratch, as_array=True)
    except NotAnArrayError:
        # From here on an array is one (bad) row among others.
        decoded = _decode(unpacked(), path, limits, scratch, as_array=False)
    total = decoded.rows + decoded.quarantined
    if total and decoded.quarantined / total > limits.max_bad_row_ratio:
        decoded.close()
        raise FileError(
            FailureKind.MALFORMED,
            f"{decoded.quarantined} of {total} rows are bad, more than "
            f"limits.max_bad_row_ratio allows; the first is {decoded.first_reason}",
        )
    return decoded


def _decode(
    unpacked: Unpacked, path: str, limits: DecodeLimits, scratch: Path, *, as_array: bool
) -> Decoded:
    window = Window(unpacked)
    block_bytes = min(_BLOCK_BYTES, max(1, limits.spill_bytes // _BLOCK_SHARE))
    decoded = Decoded(path, limits.spill_bytes, scratch)
    try:
        array = ArrayReader() if as_array and window.begins_like_an_array() else None
        Rows(decoded, block_bytes).read(window, array)
        decoded.finish(unpacked)
    except BaseException:
        decoded.close()
        raise
    return decoded
