"""Which workers there are to be: whatever happens, nothing is multiplied before it is proven, nothing taken away before its successor."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from termserver.process.pool import Pool
from termserver.process.worker import DRAINING, READY, STARTING, Stage


@dataclass(eq=False)
class FakeWorker:
    """As much of a worker as a pool looks at."""

    number: int
    generation: int
    started: float
    stage: Stage = STARTING
    outdated: bool = False
    useful: bool = False
    ready_at: float = 0.0
    failure: tuple[int, str] | None = None
    worn: str = ""
    check_at: float = float("inf")
    drained: list[bool] = field(default_factory=list)

    def worn_out(self, _now: float) -> str:
        return self.worn

    def drain(self, _now: float, *, restarting: bool) -> None:
        self.stage = DRAINING
        self.drained.append(restarting)

    def next_check(self) -> float:
        return self.check_at


class Play:
    """A pool, its clock and its workers."""

    def __init__(self, wanted: int = 2) -> None:
        self.now = 1_000.0
        self.started: list[FakeWorker] = []
        self.out_of_processes = False
        self.pool = Pool(wanted, self._start)  # type: ignore[arg-type]

    def _start(self, generation: int, now: float) -> FakeWorker:
        if self.out_of_processes:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.started.append(FakeWorker(len(self.started) + 1, generation, now))
        return self.started[-1]

    def of(self, *stages: Stage) -> list[Any]:
        return self.pool.of(*stages)

    def settle(self) -> None:
        self.pool.settle(self.now)

    def ready(self, worker: FakeWorker) -> None:
        worker.stage, worker.ready_at = READY, self.now
        self.pool.became_ready(worker)  # type: ignore[arg-type]

    def end(self, worker: FakeWorker) -> bool:
        if self.pool.ended(worker, self.now):  # type: ignore[arg-type]
            self.pool.give_up_renewal()
            return True
        return False

    def calm(self, turns: int = 60) -> None:
        """Let everything that is begun come to its end."""
        for _ in range(turns):
            self.settle()
            for worker in self.of(STARTING):
                self.ready(worker)
            for worker in self.of(DRAINING):
                self.end(worker)
            self.now += 31.0
        self.settle()

    def serving(self) -> "Play":
        self.calm(4)
        assert self.pool.settled
        return self


def numbers(workers: list[Any]) -> list[int]:
    return [worker.number for worker in workers]


# --- starting ---


def test_the_first_worker_is_started_alone_the_others_once_it_is_ready() -> None:
    stage = Play(4)
    stage.settle()
    stage.settle()
    assert numbers(stage.of(STARTING)) == [1]
    stage.ready(stage.started[0])
    stage.settle()
    assert numbers(stage.of(STARTING)) == [2, 3, 4]


def test_it_is_settled_when_all_are_ready_and_none_is_under_way() -> None:
    stage = Play(2)
    assert not stage.pool.settled
    stage.serving()
    stage.pool.wanted = 3
    stage.settle()
    assert not stage.pool.settled


def test_a_dead_worker_is_replaced_at_once() -> None:
    stage = Play(2).serving()
    stage.end(stage.started[1])
    stage.settle()
    assert numbers(stage.of(STARTING)) == [3]


def test_a_system_without_processes_is_asked_again_later(caplog: pytest.LogCaptureFixture) -> None:
    stage = Play(1)
    stage.out_of_processes = True
    stage.settle()
    assert "Cannot start a worker" in caplog.text
    assert stage.pool.next_step(stage.now) == pytest.approx(stage.now + 0.1)
    stage.out_of_processes = False
    stage.settle()
    assert not stage.started
    stage.now += 0.11
    stage.settle()
    assert len(stage.started) == 1


# --- failing ---


def test_what_the_first_worker_fails_of_is_fatal() -> None:
    stage = Play(2)
    stage.settle()
    stage.started[0].failure = (3, "no module named x")
    assert not stage.end(stage.started[0])
    assert stage.pool.fatal == (3, "no module named x")
    stage.now += 60
    stage.settle()
    assert len(stage.started) == 1


def test_workers_that_die_before_they_are_ready_are_given_up_after_five() -> None:
    stage = Play(2)
    for _ in range(20):
        stage.settle()
        for worker in stage.of(STARTING):
            stage.end(worker)
        stage.now += 1.7
    assert (stage.pool.fatal, len(stage.started)) == ((3, "workers end before they are ready"), 5)


def test_a_proven_generation_that_cannot_live_any_more_is_given_up() -> None:
    stage = Play(1).serving()
    stage.end(stage.started[0])
    for _ in range(20):
        stage.settle()
        for worker in stage.of(STARTING):
            stage.end(worker)
        stage.now += 1.7
    assert (stage.pool.fatal, len(stage.started)) == ((3, "workers end as soon as they begin"), 6)


def test_workers_that_die_just_after_they_were_ready_are_not_respawned_busily() -> None:
    stage = Play(1)
    for _ in range(100):
        stage.settle()
        for worker in stage.of(STARTING):
            stage.ready(worker)
            stage.end(worker)
        stage.now += 0.2
    assert len(stage.started) <= 10


def test_while_another_serves_nothing_is_fatal() -> None:
    stage = Play(2).serving()
    stage.end(stage.started[1])
    for _ in range(12):
        stage.settle()
        for worker in stage.of(STARTING):
            stage.end(worker)
        stage.now += 2
    assert stage.pool.fatal is None


# --- reload ---


def test_a_reload_starts_one_and_takes_nothing_away_before_it_is_ready() -> None:
    stage = Play(3).serving()
    stage.pool.renew()
    stage.settle()
    assert (len(stage.of(READY)), len(stage.of(STARTING))) == (3, 1)
    stage.ready(stage.of(STARTING)[0])
    stage.settle()
    assert (len(stage.of(READY)), len(stage.of(STARTING)), numbers(stage.of(DRAINING))) == (3, 1, [1])


def test_a_reload_ends_with_workers_of_the_new_generation_alone() -> None:
    stage = Play(5).serving()
    stage.pool.renew()
    stage.calm()
    assert stage.pool.settled
    assert {worker.generation for worker in stage.pool.workers} == {2}
    assert len(stage.started) == 10
    assert all(worker.drained == [True] for worker in stage.started[:5])


def test_a_failed_reload_changes_nothing() -> None:
    stage = Play(2).serving()
    stage.pool.renew()
    stage.settle()
    stage.of(STARTING)[0].failure = (3, "it does not import")
    assert stage.end(stage.of(STARTING)[0])
    stage.calm(3)
    assert numbers(stage.of(READY)) == [1, 2]
    assert (stage.pool.settled, stage.pool.fatal, len(stage.started)) == (True, None, 3)


def test_a_second_reload_ends_what_the_first_began() -> None:
    stage = Play(2).serving()
    stage.pool.renew()
    stage.settle()
    stage.pool.renew()
    stage.settle()
    assert numbers(stage.of(DRAINING)) == [3]
    assert [worker.generation for worker in stage.of(STARTING)] == [3]


def test_a_reload_before_the_first_worker_is_ready() -> None:
    stage = Play(2)
    stage.settle()
    stage.pool.renew()
    stage.calm()
    assert {worker.generation for worker in stage.of(READY)} == {2}


def test_a_worker_that_was_told_to_end_fails_nothing() -> None:
    stage = Play(2).serving()
    stage.pool.renew()
    stage.settle()
    first = stage.of(STARTING)[0]
    stage.pool.renew()
    stage.settle()
    assert not stage.end(first)
    assert stage.pool.respawns.due == 0.0


# --- worn out, scaled ---


def test_a_worker_that_is_worn_out_serves_until_its_successor_is_ready() -> None:
    stage = Play(2).serving()
    stage.started[0].worn = "it has served 9 requests"
    stage.settle()
    assert (len(stage.of(READY)), numbers(stage.of(STARTING))) == (2, [3])
    stage.ready(stage.started[2])
    stage.settle()
    assert (numbers(stage.of(READY)), numbers(stage.of(DRAINING))) == ([2, 3], [1])


def test_workers_that_are_worn_out_together_are_replaced_a_quarter_at_a_time() -> None:
    stage = Play(8).serving()
    for worker in stage.started:
        worker.worn = "it is old"
    stage.settle()
    assert len(stage.of(STARTING)) == 2


def test_the_newest_go_first_when_fewer_are_wanted_unless_some_are_outdated() -> None:
    stage = Play(4).serving()
    stage.pool.wanted = 3
    stage.settle()
    assert numbers(stage.of(DRAINING)) == [4]
    stage.started[1].outdated = True
    stage.pool.wanted = 2
    stage.settle()
    assert numbers(stage.of(DRAINING)) == [2, 4]


def test_workers_that_start_are_ended_when_fewer_are_wanted() -> None:
    stage = Play(1).serving()
    stage.pool.wanted = 6
    stage.settle()
    stage.pool.wanted = 2
    stage.settle()
    assert (numbers(stage.of(STARTING)), numbers(stage.of(DRAINING))) == ([2], [3, 4, 5, 6])


# --- stopping, time ---


def test_a_stop_drains_all_and_starts_none() -> None:
    stage = Play(3).serving()
    stage.pool.wanted = 4
    stage.settle()
    stage.pool.stop(stage.now)
    assert [worker.drained for worker in stage.started] == [[False]] * 4
    stage.end(stage.started[0])
    stage.settle()
    assert len(stage.started) == 4


def test_the_next_step_is_the_earliest_check_or_start() -> None:
    stage = Play(1)
    assert stage.pool.next_step(stage.now) == float("inf")
    stage.settle()
    stage.started[0].check_at = stage.now + 5
    assert stage.pool.next_step(stage.now) == stage.now + 5
    stage.pool.respawns.failed(stage.now)
    assert stage.pool.next_step(stage.now) == pytest.approx(stage.now + 0.1)
    stage.pool.stopping = True
    assert stage.pool.next_step(stage.now) == stage.now + 5


# --- whatever happens ---


class Anything(RuleBasedStateMachine):
    """Any sequence of events."""

    def __init__(self) -> None:
        """A pool of three, still to be started."""
        super().__init__()
        self.stage = Play(3)
        self.pool = self.stage.pool
        self.settle()

    def settle(self) -> None:
        """Settle, and look whether something was taken away too early."""
        before = self.stage.of(READY)
        self.stage.settle()
        taken = [worker for worker in before if worker.stage is DRAINING]
        assert not taken or len(self.stage.of(READY)) >= self.pool.wanted

    def one(self, data: st.DataObject, *stages: Stage) -> FakeWorker:
        worker: FakeWorker = data.draw(st.sampled_from(self.stage.of(*stages)))
        return worker

    @precondition(lambda self: self.stage.of(STARTING))
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        self.stage.ready(self.one(data, STARTING))
        self.settle()

    @precondition(lambda self: self.pool.workers)
    @rule(data=st.data(), failed=st.booleans())
    def ends(self, data: st.DataObject, failed: bool) -> None:
        worker = self.one(data, STARTING, READY, DRAINING)
        if failed and worker.stage is STARTING:
            worker.failure = (3, "it cannot begin")
        served = len(self.stage.of(READY))
        if self.stage.end(worker):
            assert worker.generation == self.pool.generation
            assert len(self.stage.of(READY)) == served > 0
        self.settle()

    @rule()
    def renews(self) -> None:
        self.pool.renew()
        self.settle()

    @rule(wanted=st.integers(1, 9))
    def scales(self, wanted: int) -> None:
        self.pool.wanted = wanted
        self.settle()

    @precondition(lambda self: self.stage.of(READY))
    @rule(data=st.data())
    def wears_out(self, data: st.DataObject) -> None:
        self.one(data, READY).worn = "it is old"
        self.settle()

    @rule(out=st.booleans())
    def system_is_out_of_processes(self, out: bool) -> None:
        self.stage.out_of_processes = out
        self.settle()

    @rule(seconds=st.floats(0, 40))
    def time_goes_by(self, seconds: float) -> None:
        self.stage.now += seconds
        self.settle()

    @invariant()
    def nothing_is_multiplied_before_it_is_proven(self) -> None:
        of_the_newest = [worker for worker in self.stage.of(STARTING) if worker.generation == self.pool.generation]
        assert self.pool.proven or len(of_the_newest) <= 1

    @invariant()
    def there_are_never_more_than_wanted_and_a_quarter(self) -> None:
        ready, starting = self.stage.of(READY), self.stage.of(STARTING)
        outdated = [worker for worker in ready if worker.outdated]
        assert self.pool.fatal or len(ready) <= self.pool.wanted
        assert self.pool.fatal or len(ready) + len(starting) <= self.pool.wanted + min(len(outdated), max(self.pool.wanted // 4, 1))

    @invariant()
    def it_is_given_up_only_when_nobody_serves(self) -> None:
        assert self.pool.fatal is None or self.pool.fatal[0] == 3

    def teardown(self) -> None:
        """When nothing more happens it comes to what is wanted."""
        if self.pool.fatal:
            return
        self.stage.out_of_processes = False
        for worker in self.stage.of(READY):
            worker.worn = ""
        self.stage.calm()
        assert self.pool.settled
        assert len(self.pool.workers) == self.pool.wanted


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
