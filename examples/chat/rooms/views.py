"""List of rooms, a new room, a room."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.generic import CreateView, ListView

from .forms import MessageForm, RoomForm
from .models import Room

SHOWN = 200
"""Messages on a room's page, the latest ones."""


class RoomList(ListView):
    """All rooms, and how lively they are."""

    queryset = Room.objects.annotate(count=Count("messages"), latest=Max("messages__sent_at"))


class RoomCreate(LoginRequiredMixin, CreateView):
    """A form for a new room."""

    model = Room
    form_class = RoomForm


def room(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what was said in a room."""
    return _room_page(request, get_object_or_404(Room, slug=slug), MessageForm())


@login_required
def post(request: HttpRequest, slug: str) -> HttpResponse:
    """Say something in a room."""
    room = get_object_or_404(Room, slug=slug)
    form = MessageForm(request.POST or None)
    if not form.is_valid():
        return _room_page(request, room, form)
    form.instance.room = room
    form.instance.author = request.user
    form.save()
    return redirect(room)


def _room_page(request: HttpRequest, room: Room, form: MessageForm) -> HttpResponse:
    latest = room.messages.select_related("author").order_by("-sent_at", "-id")[:SHOWN]
    return render(request, "rooms/room_detail.html", {"room": room, "messages_shown": reversed(latest), "form": form})
