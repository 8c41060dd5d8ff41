"""Messages of a room over plain HTTP, for clients without WebSocket: a long poll, and server-sent events.

Channels' documentation streams from a loop in `handle()`. As long as that runs, the consumer hears neither its groups nor that its client
has left: such a loop ends when a `send()` fails, or by being cancelled. Here handlers send, and nothing loops: the consumer waits for
whatever comes first, a message, its client's departure, its time, or the server's end.
"""

import asyncio
import contextlib
import json
import os
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.http import AsyncHttpConsumer

from . import talk
from .attached import attach, remind
from .models import Room

POLL_SECONDS = float(os.environ.get("CHAT_POLL_SECONDS", "25"))
JSON, TEXT, EVENTS = b"application/json", b"text/plain; charset=utf-8", b"text/event-stream"


class RoomFeed(AsyncHttpConsumer):
    """What both have in common."""

    seconds: float | None = None
    """After this time `feed_over` is called; it is also called when the server stops."""
    room: Room | None = None
    """Set while we are in its group."""

    async def http_request(self, message: dict[str, object]) -> None:
        """Begin when the request is here. Channels' own method would end the consumer when `handle()` returns."""
        if not message.get("more_body"):
            await self.handle(b"")

    async def handle(self, body: bytes) -> None:  # noqa: ARG002 (nobody asks with a body)
        """Join the room, and tell what the client has missed."""
        if self.scope["method"] != "GET":
            await self.finish(405, b"Use GET.\n", TEXT, (b"Allow", b"GET"))
        try:
            room = await Room.objects.aget(slug=self.scope["url_route"]["kwargs"]["slug"])
        except Room.DoesNotExist:
            await self.finish(404, b"There is no such room.\n", TEXT)
        self.room = room
        await self.channel_layer.group_add(talk.group_of(room), self.channel_name)
        attach(self._watch())
        await self.begin(await database_sync_to_async(talk.missed)(room, self.last_seen()))

    async def disconnect(self) -> None:
        """Leave the room."""
        if self.room is not None:
            await self.channel_layer.group_discard(talk.group_of(self.room), self.channel_name)
            self.room = None

    async def room_event(self, message: dict[str, talk.Event]) -> None:
        """Pass on what was said; who comes and goes is left out."""
        if message["event"]["type"] == "message":
            await self.said([message["event"]])

    async def begin(self, missed: list[talk.Event]) -> None:
        """Begin the response; `missed`: what was said since the client was here."""
        raise NotImplementedError

    async def said(self, events: list[talk.Event]) -> None:
        """Send what was said."""
        raise NotImplementedError

    async def feed_over(self, _message: dict[str, object]) -> None:
        """End the response."""
        raise NotImplementedError

    def last_seen(self) -> str:
        """Say after which message the client wants to go on: digits, or whatever it sent."""
        return parse_qs(self.scope["query_string"].decode("latin-1")).get("after", [""])[0]

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a part; if the client has gone meanwhile, an end like any other."""
        try:
            await super().send_body(body, more_body=more_body)
        except OSError:
            await self._end()

    async def finish(self, status: int, body: bytes, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole response, and end the consumer."""
        await self.send_headers(status=status, headers=[(b"Content-Type", kind), (b"Cache-Control", b"no-store"), *headers])
        await self.send_body(body)
        await self._end()

    async def _end(self) -> None:
        await self.disconnect()
        raise StopConsumer

    async def _watch(self) -> None:
        stopping = self.scope.get("extensions", {}).get("termserver.shutdown", {}).get("event") or asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), self.seconds)
        await remind(self, "feed.over")


class LongPoll(RoomFeed):
    """Answers with the next message of a room, or with 204 if none comes; with `?after=17` at once, if there are any after message 17."""

    seconds = POLL_SECONDS

    async def begin(self, missed: list[talk.Event]) -> None:
        """Answer at once only if there is something."""
        if missed:
            await self.said(missed)

    async def said(self, events: list[talk.Event]) -> None:
        """Answer."""
        await self.finish(200, json.dumps({"messages": events}).encode(), JSON)

    async def feed_over(self, _message: dict[str, object]) -> None:
        """Nothing was said: the client asks again."""
        await self.finish(204, b"", JSON)


class ServerSentEvents(RoomFeed):
    """Every message of a room as an event, until the client leaves; one that comes back goes on where it was."""

    def last_seen(self) -> str:
        """Say what the client saw last: an EventSource tells by itself."""
        sent = dict(self.scope["headers"]).get(b"last-event-id")
        return super().last_seen() if sent is None else sent.decode("latin-1")

    async def begin(self, missed: list[talk.Event]) -> None:
        """Send the head at once, and a comment for proxies that wait for a body."""
        await self.send_headers(headers=[(b"Content-Type", EVENTS), (b"Cache-Control", b"no-store")])
        await self.send_body(b": welcome\n\n", more_body=True)
        await self.said(missed)

    async def said(self, events: list[talk.Event]) -> None:
        """Send one event for each message."""
        for event in events:
            await self.send_body(f"id: {event['id']}\ndata: {json.dumps(event)}\n\n".encode(), more_body=True)

    async def feed_over(self, _message: dict[str, object]) -> None:
        """End; an EventSource comes back after a while, to the next process."""
        await self.send_body(b"")
        await self._end()
