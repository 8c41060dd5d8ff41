"""Consumers that servers have failed: one that answers when its client has long gone, and the stream of Channels' documentation."""

import asyncio
import datetime as dt

import django
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()


class Late(AsyncWebsocketConsumer):
    """Answers after a second."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:  # noqa: ARG002 (Channels' signature)
        """Answer, twice, in case the first is taken for an accident."""
        print("asked", flush=True)
        await asyncio.sleep(1)
        await self.send("late")
        await self.send("later")
        print("answered", flush=True)

    async def disconnect(self, code: int) -> None:
        print(f"told {code}", flush=True)


class Documented(AsyncHttpConsumer):
    """Server-sent events as in "Consumers", "AsyncHttpConsumer" of Channels' documentation: it never listens."""

    async def handle(self, body: bytes) -> None:  # noqa: ARG002 (Channels' signature)
        """Send the time every second."""
        await self.send_headers(
            headers=[(b"Cache-Control", b"no-cache"), (b"Content-Type", b"text/event-stream"), (b"Transfer-Encoding", b"chunked")]
        )
        while True:
            payload = f"data: {dt.datetime.now(dt.UTC).isoformat()}\n\n"
            await self.send_body(payload.encode(), more_body=True)
            print("sent", flush=True)
            await asyncio.sleep(1)

    async def disconnect(self) -> None:
        print("told", flush=True)


app = ProtocolTypeRouter({
    "websocket": URLRouter([path("late", Late.as_asgi())]),
    "http": URLRouter([path("documented", Documented.as_asgi())]),
})  # fmt: skip
