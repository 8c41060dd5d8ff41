"""A room, what was said in it, and who is there."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

LEASE = timedelta(seconds=90)
"""How long somebody counts as present without being heard of: what a process that died leaves behind is gone after that."""


class RoomQuerySet(models.QuerySet):
    """Rooms, and how lively they are."""

    def with_activity(self) -> RoomQuerySet:
        """Add `count`, the number of messages, and `latest`, the time of the last."""
        return self.annotate(count=models.Count("messages"), latest=models.Max("messages__sent_at"))


class Room(models.Model):
    """A place to talk in."""

    name = models.CharField(max_length=60, unique=True)
    slug = models.SlugField(max_length=60, unique=True, editable=False)
    topic = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RoomQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, **kwargs: object) -> None:
        """Give a new room the address that its name suggests."""
        if not self.slug:
            self.slug = slugify(self.name)
        super().save(*args, **kwargs)

    def get_absolute_url(self) -> str:
        """Where people talk in this room."""
        return reverse("rooms:detail", args=[self.slug])


class MessageQuerySet(models.QuerySet):
    """Messages."""

    def latest_after(self, number: int, limit: int) -> list[Message]:
        """Give what was said after the message of this number, in order; of more than `limit` messages the last ones."""
        return list(self.filter(pk__gt=number).select_related("author").order_by("-sent_at", "-pk")[:limit])[::-1]


class Message(models.Model):
    """Something a person said."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="messages")
    text = models.TextField(max_length=2_000)
    sent_at = models.DateTimeField(auto_now_add=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ("sent_at", "id")

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"


class PresenceQuerySet(models.QuerySet):
    """Who is where."""

    def current(self) -> PresenceQuerySet:
        """Give those whose lease has not run out."""
        return self.filter(seen_at__gt=timezone.now() - LEASE)

    def lapsed(self) -> PresenceQuerySet:
        """Give the others."""
        return self.filter(seen_at__lte=timezone.now() - LEASE)


class Presence(models.Model):
    """A socket that has a room open; without a user it is a visitor's."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="presences")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="presences", null=True)
    seen_at = models.DateTimeField(default=timezone.now)

    objects = PresenceQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name or 'a visitor'} in {self.room}"

    def renew(self) -> None:
        """Begin a new lease; who was given up comes back."""
        self.seen_at = timezone.now()
        self.save()

    @property
    def name(self) -> str:
        """The user's name; empty for a visitor."""
        return self.user.get_username() if self.user else ""
