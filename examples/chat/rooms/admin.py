"""Rooms and messages in Django's admin."""

from django.contrib import admin

from .forms import RoomForm
from .models import Message, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    """Rooms by name."""

    form = RoomForm
    list_display = ("name", "topic", "created_at")
    search_fields = ("name", "topic")


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    """Messages, the latest first."""

    list_display = ("sent_at", "room", "author", "text")
    list_filter = ("room",)
    search_fields = ("text",)
    date_hierarchy = "sent_at"
    ordering = ("-sent_at",)
    list_select_related = ("room", "author")
