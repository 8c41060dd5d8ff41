"""Which workers there should be, and what is to be done about it.

`settle` compares what is with what is wanted and does the next steps: it is called after everything that happens, and knows nothing of how
it came about. A reload, a worker that is worn out, one that died and a changed number of workers are the same thing to it: places that
nobody fills, or that somebody outdated does. Two rules make every change safe:

- nothing is multiplied before it is proven: of each generation one worker is started alone, the others once it is ready;
- nothing is taken away before its successor is ready: a worker drains only while more than enough are.

So a new generation whose first worker fails changes nothing, and the old one goes on (spec reliability R1).
"""

import logging
from collections.abc import Callable
from typing import Final

from termserver.process.respawns import Respawns
from termserver.process.worker import DRAINING, READY, STARTING, Worker

logger = logging.getLogger("termserver")

_USEFUL: Final = 1.0  # seconds that a worker has to live for, once it is ready


class Pool:
    """The workers. Times are monotonic seconds."""

    def __init__(self, wanted: int, start: Callable[[int, float], Worker]) -> None:
        """`start` starts a worker of a generation."""
        self.wanted = wanted
        self.workers: list[Worker] = []
        self.generation = 1
        self.stopping = False
        self.fatal: tuple[int, str] | None = None  # exit code and reason, once there is no sense in going on
        self.proven = False  # a worker of this generation was ready
        self.respawns = Respawns()
        self._start = start

    # ------------------------------------------------------------------ what is there

    def of(self, *stages: object) -> list[Worker]:
        """Give the workers in these stages."""
        return [worker for worker in self.workers if worker.stage in stages]

    @property
    def settled(self) -> bool:
        """Whether there are as many as are wanted, all of the newest generation, and nothing is under way."""
        ready = self.of(READY)
        return len(ready) == self.wanted and not self.of(STARTING) and not any(worker.outdated for worker in ready)

    # ------------------------------------------------------------------ what happens

    def renew(self) -> None:
        """Replace every worker by one of the next generation."""
        self.generation += 1
        self.proven = False
        self.respawns = Respawns()
        for worker in self.workers:
            worker.outdated = True

    def give_up_renewal(self) -> None:
        """Keep the workers that there are: the newest generation cannot begin."""
        self.proven = True
        for worker in self.of(READY):
            worker.outdated = False

    def became_ready(self, worker: Worker) -> None:
        """A worker accepts connections."""
        if worker.generation == self.generation:
            self.proven = True

    def ended(self, worker: Worker, now: float) -> bool:
        """A worker is gone. True: it was to prove its generation, and the one before is still there."""
        self.workers.remove(worker)
        if self.stopping or worker.stage is DRAINING:
            return False
        if worker.stage is READY and now - worker.ready_at >= _USEFUL:
            return False
        self.respawns.failed(now)
        if self.proven or worker.generation != self.generation:
            if self.respawns.hopeless and not self.of(READY):
                self.fatal = (3, "workers end as soon as they begin")
            return False
        if self.of(READY):
            return True
        code, reason = worker.failure or (0, "")
        if code:
            self.fatal = (code, reason)
        elif self.respawns.hopeless:
            self.fatal = (3, "workers end before they are ready")
        return False

    # ------------------------------------------------------------------ what is done

    def settle(self, now: float) -> None:
        """Do what is to be done now."""
        if self.stopping or self.fatal:
            return
        for worker in self.of(READY):
            if not worker.useful and now - worker.ready_at >= _USEFUL:
                worker.useful = True
                self.respawns.succeeded()
            if not worker.outdated and (reason := worker.worn_out(now)):
                logger.info("Worker %d is replaced: %s", worker.number, reason)
                worker.outdated = True
        for worker in self.of(STARTING):
            if worker.outdated:
                worker.drain(now, restarting=True)
        self._drain_surplus(now)
        self._start_missing(now)

    def _drain_surplus(self, now: float) -> None:
        ready = self.of(READY)
        ready.sort(key=lambda worker: (not worker.outdated, -worker.number if not worker.outdated else worker.number))
        for worker in ready[: max(len(ready) - self.wanted, 0)]:
            worker.drain(now, restarting=True)
        surplus = len(self.of(READY, STARTING)) - self.wanted
        for worker in self.of(STARTING)[::-1][: max(surplus - self._surge(), 0)]:
            worker.drain(now, restarting=True)

    def _surge(self) -> int:
        """How many more than are wanted may be there: successors, before those who are outdated go."""
        outdated = sum(worker.outdated for worker in self.of(READY))
        return min(outdated, max(self.wanted // 4, 1))

    def _start_missing(self, now: float) -> None:
        if now < self.respawns.due:
            return
        starting = self.of(STARTING)
        missing = self.wanted + self._surge() - len(self.of(READY)) - len(starting)
        if not self.proven:
            missing = min(missing, 1 - len(starting))
        for _ in range(missing):
            try:
                self.workers.append(self._start(self.generation, now))
            except OSError as error:
                logger.error("Cannot start a worker: %s", error)  # noqa: TRY400 - the line says it
                self.respawns.failed(now)
                return

    def stop(self, now: float) -> None:
        """Let every worker finish what runs; start none."""
        self.stopping = True
        for worker in self.of(STARTING, READY):
            worker.drain(now, restarting=False)

    def next_step(self, now: float) -> float:
        """Give the time of the next thing that is to be done though nothing happens."""
        times = [worker.next_check() for worker in self.workers]
        if not self.stopping and self.respawns.due > now:
            times.append(self.respawns.due)
        return min(times, default=float("inf"))
