"""What is told to whom: the groups, and the events that go to them.

An event is what a client gets, as JSON. On its way through the channel layer it is wrapped, so that every consumer needs one handler only:
`room_event`.
"""

from channels.layers import get_channel_layer
from django.contrib.auth.models import AbstractBaseUser

from .forms import MessageForm
from .models import Message, Presence, Room

Event = dict[str, object]

NOTICES = "notices"
"""The group of those who look at the list of rooms."""
MISSED = 200
"""Messages that a client which comes back is told, at most."""
LONGEST_NUMBER = 18
"""Digits of a message's number: more do not fit into the database."""


def group_of(room: Room) -> str:
    """Name the group of those who are in a room."""
    return f"room.{room.pk}"


async def tell(group: str, event: Event) -> None:
    """Send an event to all members of a group."""
    await get_channel_layer().group_send(group, {"type": "room.event", "event": event})


async def tell_said(message: Message, activity: Event) -> None:
    """Send a message to those in its room, and how lively the room is now to those who look at the list."""
    await tell(group_of(message.room), said(message))
    await tell(NOTICES, activity)


def say(room: Room, author: AbstractBaseUser, text: str) -> MessageForm:
    """Save a message, if it is fit to be said: `is_valid()` of the form tells, `instance` is the message."""
    form = MessageForm({"text": text}, instance=Message(room=room, author=author))
    if form.is_valid():
        form.save()
    return form


def said(message: Message) -> Event:
    """Describe a message."""
    return {
        "type": "message",
        "id": message.pk,
        "author": message.author.get_username(),
        "text": message.text,
        "sent_at": message.sent_at.isoformat(),
    }


def missed(room: Room, after: str) -> list[Event]:
    """Describe what was said after the message of this number, as a client sent it; what is no number is the wish for nothing."""
    if not (after.isascii() and after.isdigit() and len(after) <= LONGEST_NUMBER):
        return []
    return [said(message) for message in room.messages.latest_after(int(after), MISSED)]


def activity_of(room: Room) -> Event:
    """Describe how lively a room is, from the database."""
    return _activity(Room.objects.with_activity().get(pk=room.pk))


def all_activity() -> Event:
    """Describe how lively all rooms are."""
    return {"type": "rooms", "rooms": [_activity(room) for room in Room.objects.with_activity()]}


def _activity(room: Room) -> Event:
    return {"type": "room", "slug": room.slug, "count": room.count, "latest": room.latest.isoformat() if room.latest else None}


def enter(room: Room, user: AbstractBaseUser) -> Presence:
    """Note that somebody is here, and forget those whose processes died."""
    room.presences.lapsed().delete()
    return room.presences.create(user=user if user.is_authenticated else None)


def here(room: Room) -> Event:
    """Describe who is in a room: the number of each socket, and the name of its user, empty for visitors."""
    return {"type": "here", "members": [[each.pk, each.name] for each in room.presences.current().select_related("user").order_by("pk")]}
