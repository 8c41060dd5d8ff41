"""manage.py demo: a database one can look at right away."""

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from rooms.models import Message, Room

ROOMS = {
    "Lobby": (
        "Come in, say hello",
        ["Welcome! Open this page in a second window and write something.", "Django serves it, termserver carries it."],
    ),
    "Kitchen": ("Tea, coffee and other protocols", ["The kettle answers 418 today."]),
}


class Command(BaseCommand):
    """Migrate, then fill an empty database with two rooms and the users admin and guest, whose passwords are their names."""

    help = __doc__

    def handle(self, *_args: object, **_options: object) -> None:
        """Do it; a database with users in it is migrated and otherwise left alone."""
        if not settings.DEBUG:
            message = "demo makes users with passwords that everybody knows: it needs DEBUG (CHAT_DEBUG=1)"
            raise CommandError(message)
        call_command("migrate", verbosity=0)
        if get_user_model().objects.exists():
            self.stdout.write("The database has users already: nothing added.")
            return
        self._fill()
        self.stdout.write("Made two rooms and the users admin and guest; their passwords are their names.")

    @transaction.atomic
    def _fill(self) -> None:
        admin = get_user_model().objects.create_superuser("admin", "admin@example.com", "admin")
        get_user_model().objects.create_user("guest", password="guest")  # noqa: S106 (that is the point)
        for name, (topic, texts) in ROOMS.items():
            room = Room.objects.create(name=name, topic=topic)
            Message.objects.bulk_create(Message(room=room, author=admin, text=text) for text in texts)
