"""Eager tasks where Python has them (3.12): an application that never waits is done when `start_task` returns, without a turn of the loop.

Rejected for 3.11: catching the task's `loop.call_soon` and running its first step at once (slower than the turn it saves, measured
under load), stepping the coroutine by hand (`current_task()` is None, which breaks asyncio.timeout and anyio), and a spare task lent
to coroutines that never wait (requests would share its identity).
"""

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 12):

    def start_task(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: contextvars.Context
    ) -> "asyncio.Task[None]":
        """Make a task of a coroutine and run it until it first waits."""
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)

else:

    def start_task(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: contextvars.Context
    ) -> "asyncio.Task[None]":
        """Make a task of a coroutine; it runs from the loop's next turn on."""
        return asyncio.Task(coroutine, loop=loop, context=context)
