"""List of rooms, a new room, a room."""

from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.generic import CreateView, ListView

from . import talk
from .forms import MessageForm, RoomForm
from .models import Room

SHOWN = 200
"""Messages on a room's page, the latest ones."""


class RoomList(ListView):
    """All rooms, and how lively they are."""

    queryset = Room.objects.with_activity()


class RoomCreate(LoginRequiredMixin, CreateView):
    """A form for a new room."""

    model = Room
    form_class = RoomForm


def room(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what was said in a room."""
    return _room_page(request, get_object_or_404(Room, slug=slug), MessageForm())


def here(_request: HttpRequest, slug: str) -> JsonResponse:
    """Say who is in a room."""
    return JsonResponse(talk.here(get_object_or_404(Room, slug=slug)))


@login_required
def post(request: HttpRequest, slug: str) -> HttpResponse:
    """Say something in a room: how pages without JavaScript, or without a socket, do it. Those with one hear it at once."""
    room = get_object_or_404(Room, slug=slug)
    if request.method != "POST":
        return redirect(room)  # from the log-in that a POST led to
    form = talk.say(room, request.user, request.POST.get("text", ""))
    if not form.is_valid():
        return _room_page(request, room, form)
    async_to_sync(talk.tell_said)(form.instance, talk.activity_of(room))
    return redirect(room)


def _room_page(request: HttpRequest, room: Room, form: MessageForm) -> HttpResponse:
    latest = room.messages.latest_after(0, SHOWN)
    return render(request, "rooms/room_detail.html", {"room": room, "messages_shown": latest, "form": form})
