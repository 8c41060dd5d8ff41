"""The wheel of deadlines, with clocks that a test moves."""

import asyncio
import math
from dataclasses import dataclass, field

import pytest

from termserver.net.deadlines import Deadlines


@dataclass
class Clocks:
    """A monotonic clock and a wall clock."""

    now: float = 1_000.0
    wall: float = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@dataclass(eq=False)
class Item:
    """Something with a deadline."""

    deadline: float
    expired_at: list[float] = field(default_factory=list)
    next_deadline: float = math.inf

    def expired(self, now: float) -> None:
        self.expired_at.append(now)
        self.deadline = self.next_deadline


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def wheel(clocks: Clocks) -> Deadlines:
    return Deadlines(interval=0.25, clock=lambda: clocks.now, wall_clock=lambda: clocks.wall)


def turn(wheel: Deadlines, clocks: Clocks, seconds: float = 0.25, times: int = 1) -> None:
    for _ in range(times):
        clocks.pass_(seconds)
        wheel.tick()


def test_item_expires_at_the_first_tick_past_its_deadline(wheel: Deadlines, clocks: Clocks) -> None:
    item = Item(clocks.now + 0.6)
    wheel.add(item)
    turn(wheel, clocks, times=2)
    assert item.expired_at == []
    turn(wheel, clocks, times=3)
    assert item.expired_at == [1_000.75]


def test_deadline_that_is_moved_in_time_does_not_expire(wheel: Deadlines, clocks: Clocks) -> None:
    item = Item(clocks.now + 0.6)
    wheel.add(item)
    for _ in range(20):
        turn(wheel, clocks)
        item.deadline = clocks.now + 0.6
    assert item.expired_at == []


def test_item_that_was_discarded_does_not_expire(wheel: Deadlines, clocks: Clocks) -> None:
    item = Item(clocks.now + 0.1)
    wheel.add(item)
    wheel.discard(item)
    wheel.discard(item)
    turn(wheel, clocks)
    assert item.expired_at == []


def test_item_that_another_one_discards_in_the_same_tick_does_not_expire(wheel: Deadlines, clocks: Clocks) -> None:
    @dataclass(eq=False)
    class Greedy(Item):
        other: "Greedy | None" = None

        def expired(self, now: float) -> None:
            super().expired(now)
            assert self.other is not None
            wheel.discard(self.other)

    first, second = Greedy(clocks.now), Greedy(clocks.now)
    first.other, second.other = second, first
    wheel.add(first)
    wheel.add(second)
    turn(wheel, clocks)
    assert len(first.expired_at) + len(second.expired_at) == 1


def test_late_tick_judges_nobody_and_the_next_one_does(wheel: Deadlines, clocks: Clocks) -> None:
    wheel.tick()
    item = Item(clocks.now + 0.1)
    wheel.add(item)
    turn(wheel, clocks, seconds=30)  # something blocked the loop: nobody's bytes were read either
    assert item.expired_at == []
    turn(wheel, clocks)
    assert len(item.expired_at) == 1


def test_late_tick_is_a_tick_for_who_listens_to_ticks(wheel: Deadlines, clocks: Clocks) -> None:
    ticks: list[float] = []
    wheel.every_tick(ticks.append)
    turn(wheel, clocks)
    turn(wheel, clocks, seconds=30)
    turn(wheel, clocks)
    assert ticks == [1_000.25, 1_030.25, 1_030.5]


def test_only_the_first_of_several_late_ticks_judges_nobody(wheel: Deadlines, clocks: Clocks) -> None:
    item = Item(1_000.5)
    wheel.add(item)
    turn(wheel, clocks)
    turn(wheel, clocks, seconds=2)
    assert item.expired_at == []
    turn(wheel, clocks, seconds=2)
    assert len(item.expired_at) == 1


def test_date_is_told_at_once_and_when_the_second_changes(wheel: Deadlines, clocks: Clocks) -> None:
    dates: list[bytes] = []
    wheel.every_second(dates.append)
    assert dates == [b"Sun, 06 Nov 1994 08:49:37 GMT"]
    turn(wheel, clocks, times=8)
    assert dates[1:] == [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT", b"Sun, 06 Nov 1994 08:49:39 GMT"]


@pytest.mark.parametrize("jump", [3_600, -3_600, 366 * 86_400, -366 * 86_400])
def test_wall_clock_that_jumps_changes_the_date_and_no_deadline(wheel: Deadlines, clocks: Clocks, jump: int) -> None:
    dates: list[bytes] = []
    wheel.every_second(dates.append)
    item = Item(clocks.now + 10)
    wheel.add(item)
    turn(wheel, clocks)
    clocks.wall += jump
    turn(wheel, clocks)
    assert item.expired_at == []
    assert dates[-1] != dates[0]
    turn(wheel, clocks, times=39)
    assert item.expired_at == [1_010.0]


def test_date_goes_on_while_ticks_are_late(wheel: Deadlines, clocks: Clocks) -> None:
    dates: list[bytes] = []
    wheel.every_second(dates.append)
    turn(wheel, clocks, seconds=5)
    assert dates[-1] == b"Sun, 06 Nov 1994 08:49:42 GMT"


@pytest.mark.parametrize(("asked", "given"), [(60, 0.25), (0.1, 0.1), (0.001, 0.02)])
def test_interval_is_neither_long_nor_busy(asked: float, given: float) -> None:
    assert Deadlines(interval=asked).interval == given


def test_wheel_turns_by_itself_until_it_is_stopped() -> None:
    async def main() -> None:
        wheel = Deadlines(interval=0.02)
        ticked = asyncio.Event()
        wheel.every_tick(lambda _now: ticked.set())
        wheel.start(asyncio.get_running_loop())
        for _ in range(3):
            ticked.clear()
            await asyncio.wait_for(ticked.wait(), 10)
        wheel.stop()
        wheel.stop()
        wheel.tick()  # a test's own tick starts nothing again
        ticked.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ticked.wait(), 0.1)

    asyncio.run(main())
