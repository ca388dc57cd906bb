"""The part of a text that is being read."""

from collections.abc import Iterable
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


class Window:
    """A stretch of a text, whole at its begin; `final` once it reaches the text's end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        # Joined as late as possible: each copy of all text costs a twentieth of decoding it.
        self._parts: list[bytes] = []
        self.final = False

    @property
    def size(self) -> int:
        """How many bytes the window holds."""
        return sum(map(len, self._parts))

    @property
    def buffer(self) -> bytes:
        """All that the window holds."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def begins_like_an_array(self) -> bool:
        """Tell whether the first character, after byte-order mark and white space, is `[`."""
        while True:
            self.fill(len(_BOM) + 1)
            # Dropped at once: a file may begin with gigabytes of white space.
            buffer = self.buffer.removeprefix(_BOM).lstrip(b" \t\r\n")
            self._parts = [buffer]
            if buffer or self.final:
                return buffer.startswith(b"[")

    def fill(self, size: int) -> None:
        """Read on until the window holds so many bytes or the text ends."""
        missing = size - self.size
        while missing > 0 and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            else:
                self._parts.append(piece)
                missing -= len(piece)

    def whole(self) -> bytes:
        """Return the window up to its last line's end, or if there is none, its last character's.

        All of it, if it is final.
        """
        if self.final or not self._parts:
            return self.buffer
        last = self._parts[-1]
        newline = last.rfind(b"\n")
        if newline < 0:
            last = self.buffer
            newline = last.rfind(b"\n")
        end = newline + 1 if newline >= 0 else _end_of_last_character(last)
        block = b"".join([*self._parts[:-1], last[:end]])
        self._parts = [block, last[end:]]
        return block

    def drop(self, size: int) -> None:
        """Go on behind so many bytes."""
        if self._parts and size == len(self._parts[0]):
            del self._parts[0]
        else:
            self._parts = [self.buffer[size:]]

    def drop_line(self, block_bytes: int) -> None:
        """Go on at the next line, however far it is, reading so much at a time."""
        while (newline := self.buffer.find(b"\n")) < 0 and not self.final:
            self._parts = []
            self.fill(block_bytes)
        self.drop(newline + 1 if newline >= 0 else self.size)


def _end_of_last_character(text: bytes) -> int:
    """Return where the last character of UTF-8 that is whole ends, or may be."""
    end = len(text)
    for back in range(1, min(4, end) + 1):
        byte = text[end - back]
        if byte >= 0xC0:
            return end - back
        if byte < 0x80:
            break
    return end
