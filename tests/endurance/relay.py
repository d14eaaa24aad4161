"""A line that can be cut or held: a TCP relay in a thread of its own, one for each process that dials out."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Relay:
    """Listens on a free port of this machine and hands on to another.

    Cut, every connection is reset, and whoever dials again gets through. Held, nothing passes and nothing is closed, as
    in a partition: who dials is let in and hears nothing. When it is let go, what was held is delivered, late as it is.

    Args:
      port: where the other side listens on this machine.
    """

    def __init__(self, port: int):
        self._to, self._loop = port, asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clear = asyncio.Event()
        self._clear.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"relay to {port}")
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.ensure_future(self._join(reader, writer)))
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        both, pumps = {writer}, set[asyncio.Task[None]]()
        self._writers |= both
        try:
            await self._clear.wait()
            there, beyond = await asyncio.open_connection("127.0.0.1", self._to)
            both.add(beyond)
            self._writers |= both
            pumps |= {asyncio.ensure_future(self._pump(*way)) for way in ((reader, beyond), (there, writer))}
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # nobody listens there now: whoever dialled finds its line closed
        finally:
            self._writers -= both
            for pump in pumps:
                pump.cancel()
            for each in both:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._clear.wait()
                writer.write(data)
                await writer.drain()

    def cut(self) -> None:
        """Resets every connection."""
        self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in self._writers])

    def hold(self) -> None:
        """From now on nothing passes."""
        self._loop.call_soon_threadsafe(self._clear.clear)

    def let_go(self) -> None:
        """Everything passes again, what was held first."""
        self._loop.call_soon_threadsafe(self._clear.set)

    def close(self) -> None:
        """Closes every connection and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()
        await asyncio.sleep(0)
