"""A second process on this machine: forked before there are threads, told what to load or to end.

It is a copy of the first, so little is imported twice, and it ends with it, whatever ends that.
"""

import asyncio
import os
import pickle
import random
import signal
import socket
import warnings
from contextlib import suppress
from typing import Any, Final, NoReturn

from etl.cluster import forward
from etl.cluster.words import EndRun, Leave, Order, Refused
from etl.cluster.worker import Attempt, Station
from etl.execution import threads_for
from etl.signals import HANDLED

_WORD_EVERY_S: Final = 0.2


class Channel:
    """Objects between the two processes, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Open one end."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def say(self, thing: object) -> None:
        """Send an object; where nobody hears any more it is lost."""
        text = pickle.dumps(thing)
        self._writer.write(len(text).to_bytes(8, "big") + text)

    async def hear(self) -> Any:
        """Return the next object; None if the other process is gone."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            size = int.from_bytes(await self._reader.readexactly(8), "big")
            return pickle.loads(await self._reader.readexactly(size))  # noqa: S301 - our own
        return None

    async def close(self) -> None:
        """Send what was said, as far as somebody hears it, and close."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Helper:
    """The second process, as the first sees it."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self._pid: int | None = pid
        self._end = end

    async def channel(self) -> Channel:
        """Return the way to talk to it, once."""
        return await Channel.open(self._end)

    def end(self) -> None:
        """End it at once, whatever it does."""
        pid, self._pid = self._pid, None
        if pid is not None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def fork() -> Helper:
    """Fork the second process. Raises OSError.

    Nobody else may run in this one: no thread of Python's, no event loop.
    """
    # Whoever started this one may have it that children are never waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    here, there = socket.socketpair()
    with warnings.catch_warnings():
        # Of other threads: Arrow's allocator has one, made for forks, and numpy an idle one.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        here.close()
        _live(there)
    there.close()
    return Helper(pid, here)


def _live(end: socket.socket) -> NoReturn:
    try:
        for number in HANDLED:  # a terminal sends them to both; the first process says what to do
            signal.signal(number, signal.SIG_IGN)
        random.seed()
        forward.collect(anew=True)
        asyncio.run(_help(end))
    finally:
        os._exit(0)


async def _help(end: socket.socket) -> None:
    channel = await Channel.open(end)
    order: Order | None = await channel.hear()
    if order is None:
        return
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads_for(order.settings))
    station = Station(order)
    await station.open()
    attempt = Attempt(order, "", station)
    forward.TASK.set(attempt.log)

    def refused() -> None:
        attempt.leave()
        # Behind the pause that comes with it.
        loop.call_soon(lambda: channel.say(Refused(station.limiter.paused_s)))

    async def told() -> None:
        while (word := await channel.hear()) is not None:
            match word:
                case EndRun():
                    attempt.end(word)
                case Leave():
                    attempt.leave()
        os._exit(1)  # nobody is there to be told what becomes of this

    async def telling() -> None:
        while True:
            await asyncio.sleep(_WORD_EVERY_S)
            channel.say(attempt.word())

    station.limiter.on_refusal(refused)
    tasks = [asyncio.ensure_future(told()), asyncio.ensure_future(telling())]
    outcome = await attempt.do()
    tasks[1].cancel()
    channel.say(outcome)
    await tasks[0]  # until it is heard: the first process ends this one
