"""WebSockets: a room, and notices for the list of rooms.

Both speak JSON. In a room the client says {"text": …}; it hears events, each with a type: message, here (who is in the room), join, leave,
error. To notices it only listens: rooms (all of them, at first) and room (the one where something was said).
"""

import asyncio
import json
from urllib.parse import parse_qs

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from . import talk
from .attached import attach, remind
from .models import LEASE, Presence, Room

UNSUPPORTED, POLICY = 1003, 1008  # RFC 6455 §7.4.1


class RoomConsumer(AsyncWebsocketConsumer):
    """One client in one room. Everybody may listen, users may talk. `?after=17` asks for what was said after message 17."""

    presence: Presence | None = None
    """Set from the moment we are in the room's group."""

    async def connect(self) -> None:
        """Enter a room; one that is not there is refused before the handshake is answered, with 403."""
        try:
            self.room = await Room.objects.aget(slug=self.scope["url_route"]["kwargs"]["slug"])
        except Room.DoesNotExist:
            raise DenyConnection from None
        self.group = talk.group_of(self.room)
        # From here on events wait in our channel. What the database says is told first, so nothing is missed; a message that is in both
        # comes twice, and has a number by which clients know it.
        await self.channel_layer.group_add(self.group, self.channel_name)
        self.presence = await database_sync_to_async(talk.enter)(self.room, self.scope["user"])
        attach(self._keep_lease())
        await self.accept()
        await self._tell_here()
        after = parse_qs(self.scope["query_string"].decode("latin-1")).get("after", [""])[0]
        for event in await database_sync_to_async(talk.missed)(self.room, after):
            await self._tell(event)
        await talk.tell(self.group, {"type": "join", "id": self.presence.pk, "name": self.presence.name})

    async def disconnect(self, _code: int) -> None:
        """Leave the room, however the connection ended."""
        if self.presence is None:
            return  # refused in connect()
        await self.channel_layer.group_discard(self.group, self.channel_name)
        number = self.presence.pk
        await database_sync_to_async(self.presence.delete)()
        await talk.tell(self.group, {"type": "leave", "id": number})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Say something."""
        text = _text_of(text_data) if bytes_data is None else None
        if not self.scope["user"].is_authenticated:
            await self.close(POLICY, "Log in to talk.")
        elif text is None:
            await self.close(UNSUPPORTED, 'Expected {"text": "…"}.')
        else:
            await self._say(text)

    async def room_event(self, message: dict[str, talk.Event]) -> None:
        """Pass on what happens in the room."""
        await self._tell(message["event"])

    async def presence_renew(self, _message: dict[str, object]) -> None:
        """Stay for another while, and repair what the client knows of the others: a full channel loses events."""
        await database_sync_to_async(self.presence.renew)()
        await self._tell_here()

    async def _say(self, text: str) -> None:
        form = await database_sync_to_async(talk.say)(self.room, self.scope["user"], text)
        if form.is_valid():
            await talk.tell_said(form.instance, await database_sync_to_async(talk.activity_of)(self.room))
        else:
            await self._tell({"type": "error", "text": " ".join(form.errors["text"])})

    async def _tell_here(self) -> None:
        await self._tell(await database_sync_to_async(talk.here)(self.room))

    async def _tell(self, event: talk.Event) -> None:
        await self.send(json.dumps(event))

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            await remind(self, "presence.renew")


def _text_of(data: str) -> str | None:
    """Give what a client said, or None if that is nothing we understand."""
    try:
        text = json.loads(data)["text"]
        text.encode()  # JSON can spell halves of characters, which no database takes
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return text


class NoticesConsumer(WebsocketConsumer):
    """One client that looks at the list of rooms. A synchronous consumer: its methods run in a thread, and may use the database at will."""

    def connect(self) -> None:
        """Tell how lively the rooms are, now and whenever something is said."""
        async_to_sync(self.channel_layer.group_add)(talk.NOTICES, self.channel_name)
        self.accept()
        self._tell(talk.all_activity())

    def disconnect(self, _code: int) -> None:
        """Leave."""
        async_to_sync(self.channel_layer.group_discard)(talk.NOTICES, self.channel_name)

    def room_event(self, message: dict[str, talk.Event]) -> None:
        """Pass on how lively a room is."""
        self._tell(message["event"])

    def _tell(self, event: talk.Event) -> None:
        self.send(json.dumps(event))
