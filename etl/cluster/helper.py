"""A second process on this machine: forked before there are threads, told what to load or to end.

It is a copy of the first, so nothing is imported twice, and it ends with it, whatever ends that.
"""

import asyncio
import os
import pickle
import random
import signal
import socket
from contextlib import suppress
from typing import Any, Final, NoReturn

from etl.cluster import forward
from etl.cluster.words import EndRun, Leave, Order
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
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._pid = None


def fork() -> Helper:
    """Fork the second process. Raises OSError.

    Nobody else may run in this one: no thread, no event loop.
    """
    here, there = socket.socketpair()
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

    def tell() -> None:
        channel.say(attempt.word())

    def refused() -> None:
        attempt.leave()
        loop.call_soon(tell)  # with the pause that the refusal brings

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
            tell()

    station.limiter.on_refusal(refused)
    tasks = [asyncio.ensure_future(told()), asyncio.ensure_future(telling())]
    outcome = await attempt.do()
    tasks[1].cancel()
    channel.say(outcome)
    await channel.close()
