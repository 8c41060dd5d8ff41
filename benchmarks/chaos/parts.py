"""The parts: each makes something go wrong, and gives rows of what was promised (spec reliability) and what was measured."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from benchmarks.chaos.crowd import gather_crowd
from benchmarks.chaos.load import Figures, Load
from benchmarks.chaos.service import Service, processor_seconds

Row: TypeAlias = tuple[str, str, str, bool]  # what, promised, measured, kept
SOCKETS = 10_000


async def load_for(port: int, seconds: float, *, kept: int = 24, fresh: int = 4, path: str = "/") -> Figures:
    """Ask for a while."""
    load = Load(port, kept=kept, fresh=fresh, path=path)
    await asyncio.sleep(seconds)
    return await load.stop()


async def reload() -> list[Row]:
    """R1: ten reloads under load."""
    with Service() as service:
        calm = await load_for(service.port, 5)
        load, reloads = Load(service.port), 0
        while reloads < 10 or load.figures.served < 50_000:
            if reloads < 10:
                await asyncio.to_thread(service.reload)
                reloads += 1
            await asyncio.sleep(0.5)
        figures = await load.stop()
    ratio = figures.quantile(0.99) / calm.quantile(0.99)
    return [
        ("requests during ten reloads", ">= 50000", f"{figures.served}", figures.served >= 50_000),
        ("failed", "0", f"{len(figures.failed)}", not figures.failed),
        ("connections refused", "0", " ".join([str(figures.refused), *figures.refusals]), not figures.refused),
        ("sent again: kept connection ended before a byte", "-", f"{figures.again}", True),
        ("p99 without reloads, with", "<= 3 times", f"{calm.quantile(0.99):.1f} ms, {figures.quantile(0.99):.1f} ms", ratio <= 3),
    ]


async def kill() -> list[Row]:
    """R2: a worker is killed every two seconds for a minute."""
    with Service() as service:
        files = service.files
        load, kills, slowest = Load(service.port, path="/slow"), dict[int, float](), 0.0
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pids = await asyncio.to_thread(service.wait_workers)
            victim = pids[len(kills) % 2]
            os.kill(victim, signal.SIGKILL)
            kills[victim] = time.monotonic()
            await asyncio.to_thread(service.wait_workers, [victim])
            slowest = max(slowest, time.monotonic() - kills[victim])
            await asyncio.sleep(max(kills[victim] + 2 - time.monotonic(), 0))
        figures = await load.stop()
        lost = [(at, pid) for at, pid in figures.failed if not any(abs(at - killed) < 0.5 for killed in kills.values())]
        elsewhere = [(at, pid) for at, pid in figures.failed if pid and pid not in kills]
        again, held, zombies = figures.again, service.files, service.zombies
    return [
        ("workers killed", "-", f"{len(kills)}", len(kills) > 10),
        ("requests served", "-", f"{figures.served}", figures.served > 0),
        (
            "lost with a killed worker: failed, sent again",
            "<= 28 a kill",
            f"{len(figures.failed)}, {again}",
            again + len(figures.failed) <= 28 * len(kills),
        ),
        ("failed at another time, at another worker", "0, 0", f"{len(lost)}, {len(elsewhere)}", not lost and not elsewhere),
        ("connections refused", "0", " ".join([str(figures.refused), *figures.refusals]), not figures.refused),
        ("longest until two serve again", "boot + 1 s", f"{slowest:.2f} s", slowest < 5),
        ("supervisor's descriptors before, after; zombies", "equal; 0", f"{files}, {held}; {zombies}", held <= files and not zombies),
    ]


async def sockets() -> list[Row]:
    """R6: idle WebSockets are drained by a reload."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with Service() as service:
            crowd = await gather_crowd(service.port, SOCKETS)
            before = await asyncio.to_thread(service.wait_workers)
            load = Load(service.port, kept=0, fresh=2)
            await asyncio.to_thread(service.reload)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(crowd.ended.wait(), 60)
            figures = await load.stop()
            after = await asyncio.to_thread(service.wait_workers, before)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    times = sorted(crowd.ended_at)
    span = times[-1] - times[0] if times else 0.0
    bins = Counter(int((at - times[0]) * 10) for at in times)
    fullest = max(bins.values(), default=0) / max(len(times), 1)
    deciles = ", ".join(f"{times[len(times) * tenth // 10] - times[0]:.1f}" for tenth in range(1, 10)) if times else ""
    return [
        ("WebSockets opened", f"{SOCKETS}", f"{crowd.opened}", crowd.opened == SOCKETS),
        ("close frames 1012", f"{SOCKETS}", f"{crowd.codes[1012]}", crowd.codes[1012] == SOCKETS),
        ("cut without a close frame", "0", f"{crowd.codes[1006]}", not crowd.codes[1006]),
        ("close frames spread over", "about 10 s a worker", f"{span:.1f} s", 8 < span < 25),
        ("deciles of their times (s)", "even", deciles, True),
        ("most in 100 ms", "<= 3 %", f"{fullest:.1%}", fullest <= 0.03),
        ("requests meanwhile: served, failed, refused", "-, 0, 0", f"{figures.served}, {len(figures.failed)}, {figures.refused}",
         not figures.failed and not figures.refused and bool(after)),
    ]  # fmt: skip


async def overload() -> list[Row]:
    """R26: five times as many clients as are needed for the peak."""
    with Service() as service:
        peak = await load_for(service.port, 5, kept=32, fresh=8)
        flood = await load_for(service.port, 10, kept=160, fresh=40)
    capacity, goodput = peak.served / peak.seconds, flood.served / flood.seconds
    return [
        (
            "requests a second at the peak, with five times the clients",
            ">= 80 %",
            f"{capacity:.0f}, {goodput:.0f}",
            goodput >= 0.8 * capacity,
        ),
        ("failed, refused", "0, 0", f"{len(flood.failed)}, {flood.refused}", not flood.failed and not flood.refused),
        ("p99", "-", f"{peak.quantile(0.99):.0f} ms, {flood.quantile(0.99):.0f} ms", True),
    ]


async def descriptors() -> list[Row]:
    """R11: no descriptors are left."""
    with Service(files=512) as service, contextlib.ExitStack() as stack:
        pids = await asyncio.to_thread(service.wait_workers)
        for place in range(1_400):  # two workers of 512 each: 700 for each of them
            _, writer = await asyncio.open_connection("127.0.0.1", service.port, local_addr=(f"127.0.0.{2 + place % 4}", 0))
            stack.callback(writer.transport.abort)
        lines, used, begun = len(service.lines), sum(map(processor_seconds, pids)), time.monotonic()
        await asyncio.sleep(3)
        used, seconds = sum(map(processor_seconds, pids)) - used, time.monotonic() - begun
        said = len(service.lines) - lines
        stack.close()
        freed = time.monotonic()
        load = Load(service.port, kept=2, fresh=2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(load.answered.wait(), 30)
        recovered = time.monotonic() - freed
        figures = await load.stop()
        same = await asyncio.to_thread(service.wait_workers) == pids
    return [
        ("workers after 1400 connections at 512 descriptors each", "the same", "the same" if same else "others", same),
        ("processor meanwhile", "< 20 % of a core a worker", f"{used / seconds:.0%}", used / seconds < 0.4),
        ("log lines a second meanwhile", "<= 1 a worker", f"{said / seconds:.1f}", said / seconds <= 2),
        ("first answer after they were free", "<= 1 s", f"{recovered:.2f} s", recovered <= 1),
        ("failed afterwards", "0", f"{len(figures.failed)}", not figures.failed),
    ]


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """Give a pipe that is full and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65_536)
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    """Give a disk on which there is no room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def no_trouble() -> Iterator[int]:
    """Give a place where all may go."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def logs() -> list[Row]:
    """R19: the access log cannot be written."""
    rows, calm = list[Row](), 0.0
    for name, trouble in (("/dev/null", no_trouble), ("/dev/full", full_disk), ("a full pipe", full_pipe)):
        with trouble() as descriptor, Service(access_log=descriptor) as service:
            figures = await load_for(service.port, 5)
            notices = [line for line in service.lines if "lines are dropped" in line]
        p99 = figures.quantile(0.99)
        calm = calm or p99
        fine = not figures.failed and not figures.refused
        rows.append((f"{name}: requests, failed", "-, 0", f"{figures.served}, {len(figures.failed)}", fine))
        rows.append((f"{name}: p99", "as with /dev/null", f"{p99:.1f} ms", p99 <= calm * 1.5))
        if name == "/dev/full":
            rows.append((f"{name}: notices", "one a worker", f"{len(notices)}", 1 <= len(notices) <= 2))
    return rows


PARTS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "reload": reload, "kill": kill, "sockets": sockets, "overload": overload, "descriptors": descriptors, "logs": logs,
}  # fmt: skip
