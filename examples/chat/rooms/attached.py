"""Work beside a consumer. Whoever does it talks to the consumer through its channel, so that nothing happens in the middle of a handler."""

import asyncio
import contextlib
from collections.abc import Coroutine

from channels.consumer import AsyncConsumer
from channels.exceptions import ChannelFull


def attach(work: Coroutine[object, object, None]) -> None:
    """Run something until it ends or the consumer does, whichever is first, and however the consumer ends."""
    task = asyncio.create_task(work)
    asyncio.current_task().add_done_callback(lambda _consumer: task.cancel())


async def remind(consumer: AsyncConsumer, kind: str) -> None:
    """Send a consumer a message of this type. One that is flooded with messages is left in peace."""
    with contextlib.suppress(ChannelFull):
        await consumer.channel_layer.send(consumer.channel_name, {"type": kind})
