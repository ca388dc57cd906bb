"""Run a command on a pty, with a terminal emulator that records what a user would see."""

import errno
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte


@dataclass
class Seen:
    """The screens that a terminal showed, and its final text with the lines that scrolled away."""

    code: int
    moments: list[list[str]]
    cursor_hidden: list[bool]
    lines: list[str]

    @property
    def text(self) -> str:
        """The whole text, without the line breaks that the terminal added."""
        return "".join(self.lines)


def on_terminal(
    arguments: Sequence[str], env: dict[str, str], cwd: Path, *, columns: int = 80, rows: int = 24
) -> Seen:
    """Run a command to its end, with standard output and error on a terminal of this size."""
    screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=1.0)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        arguments, env=env, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    moments: list[list[str]] = []
    hidden: list[bool] = []
    try:
        while chunk := _read(ours):
            stream.feed(chunk)
            moments.append([line.rstrip() for line in screen.display])
            hidden.append(screen.cursor.hidden)
    finally:
        os.close(ours)
    scrolled = [
        "".join(line[column].data for column in range(columns)).rstrip()
        for line in screen.history.top
    ]
    return Seen(process.wait(60), moments, hidden, [*scrolled, *moments[-1]])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno == errno.EIO:  # no process has the other end open any more
            return b""
        raise
