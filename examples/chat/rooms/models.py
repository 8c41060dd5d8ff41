"""A room, and what was said in it."""

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils.text import slugify


class Room(models.Model):
    """A place to talk in."""

    name = models.CharField(max_length=60, unique=True)
    slug = models.SlugField(max_length=60, unique=True, editable=False)
    topic = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

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


class Message(models.Model):
    """Something a person said."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="messages")
    text = models.TextField(max_length=2_000)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("sent_at", "id")

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"
