"""The chat itself."""

from django.apps import AppConfig


class RoomsConfig(AppConfig):
    """Rooms and the messages in them."""

    name = "rooms"
