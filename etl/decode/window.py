"""The part of a text that is being read."""

from collections.abc import Iterable
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


class Window:
    """A stretch of a text, whole at its begin; `final` once it reaches the text's end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.buffer = b""
        self.final = False

    def begins_like_an_array(self) -> bool:
        """Tell whether the first character, after byte-order mark and white space, is `[`."""
        while True:
            self.fill(len(_BOM) + 1)
            # Dropped at once: a file may begin with gigabytes of white space.
            self.buffer = self.buffer.removeprefix(_BOM).lstrip(b" \t\r\n")
            if self.buffer or self.final:
                return self.buffer.startswith(b"[")

    def fill(self, size: int) -> None:
        """Read on until the window holds so many bytes or the text ends."""
        pieces = [self.buffer]
        length = len(self.buffer)
        while length < size and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            else:
                pieces.append(piece)
                length += len(piece)
        self.buffer = b"".join(pieces)

    def whole(self) -> bytes:
        """Return the window up to its last line's end, or if there is none, its last character's.

        All of it, if it is final.
        """
        if self.final:
            return self.buffer
        newline = self.buffer.rfind(b"\n")
        if newline >= 0:
            return self.buffer[: newline + 1]
        end = len(self.buffer)
        for back in range(1, min(4, end) + 1):
            byte = self.buffer[end - back]
            if byte >= 0xC0:
                return self.buffer[: end - back]
            if byte < 0x80:
                break
        return self.buffer

    def drop(self, size: int) -> None:
        """Go on behind so many bytes."""
        self.buffer = self.buffer[size:]

    def drop_line(self, block_bytes: int) -> None:
        """Go on at the next line, however far it is, reading so much at a time."""
        while (newline := self.buffer.find(b"\n")) < 0 and not self.final:
            self.buffer = b""
            self.fill(block_bytes)
        self.drop(newline + 1 if newline >= 0 else len(self.buffer))
