"""What a worker says to its supervisor and hears of it, and what it does when there is none any more (spec reliability R4)."""

import asyncio
import os
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from fakes import in_loop
from termserver.channel import Channel, Said
from termserver.config import Config, Timeouts, Workers
from termserver.net.lifeline import Lifeline, Service
from termserver.net.runner import Running
from termserver.systemd import Notifier

PATIENCE = 20


@dataclass
class FakeRunning:
    """A server that notes what it is asked for."""

    asked: list[object] = field(default_factory=list)

    def facts(self) -> dict[str, int]:
        return {"requests": 4}

    def ask_to_stop(self, *, restarting: bool = False) -> None:
        self.asked.append(restarting)

    def reopen_logs(self) -> None:
        self.asked.append("reopen")


@dataclass
class Bond:
    """A lifeline, its server, and the supervisor's end."""

    lifeline: Lifeline
    running: FakeRunning
    supervisor: Channel

    async def heard(self, kind: str) -> Said:
        """Wait until the supervisor hears something."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for said in self.supervisor.hear():
                    if said["is"] == kind:
                        return said
                await asyncio.sleep(0.005)

    async def asked(self, count: int) -> list[object]:
        """Wait until the server was asked for so many things."""
        async with asyncio.timeout(PATIENCE):
            while len(self.running.asked) < count:
                await asyncio.sleep(0.005)
        return self.running.asked


@asynccontextmanager
async def bond(heartbeat: float = 0.1) -> AsyncIterator[Bond]:
    """Tie a server to a supervisor."""
    ours, its = socket.socketpair()
    config = Config(workers=replace(Workers(), heartbeat=heartbeat), timeouts=replace(Timeouts(), graceful=1.0))
    made = Bond(Lifeline(Channel(ours), config), FakeRunning(), Channel(its))
    loop = asyncio.get_running_loop()
    made.lifeline.attach(cast("Running", made.running), loop)
    try:
        yield made
    finally:
        loop.remove_reader(ours)
        ours.close()
        made.supervisor.close()


@in_loop
async def test_it_beats_with_the_servers_figures() -> None:
    async with bond() as made:
        for _ in range(3):
            assert (await made.heard("beat"))["requests"] == 4


@pytest.mark.parametrize(("heartbeat", "interval"), [(0, 1.0), (30, 1.0), (2, 0.5), (0.4, 0.1)])
def test_it_beats_four_times_within_the_limit_and_once_a_second_at_least(heartbeat: float, interval: float) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        assert Lifeline(Channel(ours), Config(workers=replace(Workers(), heartbeat=heartbeat)))._interval == interval


@in_loop
async def test_it_says_when_it_is_ready_and_why_it_is_not() -> None:
    async with bond() as made:
        made.lifeline.ready([("127.0.0.1", 80)])
        await made.heard("ready")
        made.lifeline.stopping()
        made.lifeline.failed(3, "no module")
        assert await made.heard("failed") == {"is": "failed", "code": 3, "reason": "no module"}


@in_loop
async def test_it_does_what_the_supervisor_says(caplog: pytest.LogCaptureFixture) -> None:
    async with bond() as made:
        made.supervisor.say("reopen")
        made.supervisor.say("dance")
        made.supervisor.say("stop", restarting=True)
        made.supervisor.say("stop")
        assert await made.asked(3) == ["reopen", True, False]
        assert "what is not understood: dance" in caplog.text


@in_loop
async def test_a_lost_supervisor_is_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    async with bond() as made:
        made.supervisor.close()
        assert await made.asked(1) == [False]
        assert "The supervisor is gone" in caplog.text
        await asyncio.sleep(0)
        assert made.running.asked == [False]


def test_a_process_whose_loop_hangs_ends_when_the_pipe_does() -> None:
    """The thread ends it, whatever the loop does."""
    program = textwrap.dedent("""
        import socket, sys, threading
        from termserver.channel import Channel
        from termserver.config import Config
        from termserver.net import lifeline
        lifeline._GRACE = -29.9  # of a grace period of 30
        tied = lifeline.Lifeline(Channel(socket.socketpair()[0]), Config())
        tied.watch(int(sys.argv[1]))
        print("waits", flush=True)
        threading.Event().wait()
    """)
    reading, writing = os.pipe()
    words = [sys.executable, "-P", "-c", program, str(reading)]
    with subprocess.Popen(words, pass_fds=[reading], stdout=subprocess.PIPE) as process:
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        assert process.poll() is None
        os.close(writing)
        assert process.wait(PATIENCE) == 1


# --- without a supervisor ---


@in_loop
async def test_a_service_tells_its_manager(tmp_path: Any) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        service = Service(Notifier(address, watchdog=0.03))
        service.attach(cast("Running", FakeRunning()), asyncio.get_running_loop())
        service.ready([])
        service.stopping()
        said: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while said.count("WATCHDOG=1") < 3:
                await asyncio.sleep(0.005)
                while select.select([manager], [], [], 0)[0]:
                    said.append(manager.recv(1_000).decode())
        assert [each for each in said if each != "WATCHDOG=1"] == [
            "READY=1\nSTATUS=serving",
            "STOPPING=1\nSTATUS=finishing what runs",
        ]


@in_loop
async def test_without_a_watchdog_no_sign_of_life_is_given() -> None:
    service = Service(Notifier())
    service.attach(cast("Running", FakeRunning()), asyncio.get_running_loop())
    service.ready([])
