"""Clients that record every request.

A kept connection that ends before a byte of the next answer came is a race every HTTP/1.1 client knows (RFC 9112 §9.3.1): the request goes
again on a new connection, and is counted as sent again.
"""

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Figures:
    """What became of the requests."""

    served: int = 0
    shed: int = 0  # 503
    again: int = 0
    refused: int = 0
    refusals: set[str] = field(default_factory=set)  # in words
    failed: list[tuple[float, int]] = field(default_factory=list)  # when, and which worker had answered on that connection before
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Give a latency in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3 if ordered else 0.0


class Load:
    """`kept` connections that ask again and again, and `fresh` ones for one request each."""

    def __init__(self, port: int, *, kept: int = 24, fresh: int = 4, path: str = "/", patience: float = 30.0) -> None:
        """`patience`: seconds after which an answer that did not come has failed."""
        self.figures = Figures()
        self.answered = asyncio.Event()  # at least once
        self._port = port
        self._patience = patience
        self._request = f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode()
        self._stopped = False
        self._begun = time.perf_counter()
        self._tasks = [asyncio.create_task(self._keep(place, keep=place < kept)) for place in range(kept + fresh)]

    async def stop(self) -> Figures:
        """Ask no more."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        self.figures.seconds = time.perf_counter() - self._begun
        return self.figures

    async def _keep(self, place: int, *, keep: bool) -> None:
        source = f"127.0.0.{2 + place % 4}"  # ports of one address would run short
        while not self._stopped:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
            except OSError as error:
                self.figures.refused += 1
                self.figures.refusals.add(f"{type(error).__name__}: {error.strerror}")
                await asyncio.sleep(0.01)
                continue
            try:
                async with asyncio.timeout(None) as limit:
                    await self._ask(reader, writer, limit, keep=keep)
            except TimeoutError:
                self.figures.failed.append((time.monotonic(), 0))
            finally:
                writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout, *, keep: bool) -> None:
        figures, request = self.figures, self._request + (b"\r\n" if keep else b"Connection: close\r\n\r\n")
        worker = asked = 0
        while not self._stopped:
            begun = time.perf_counter()
            limit.reschedule(asyncio.get_running_loop().time() + self._patience)
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            except (OSError, asyncio.IncompleteReadError) as error:
                if asked and not getattr(error, "partial", b""):
                    figures.again += 1
                else:
                    figures.failed.append((time.monotonic(), worker))
                return
            asked += 1
            if head.startswith(b"HTTP/1.1 200"):
                figures.served += 1
                self.answered.set()
                figures.latencies.append(time.perf_counter() - begun)
                worker = int(body)
            else:
                figures.shed += 1
            if not keep or b"connection: close" in head.lower():
                return
