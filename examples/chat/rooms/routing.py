"""Addresses of consumers."""

from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from .consumers import NoticesConsumer, RoomConsumer
from .feeds import LongPoll, ServerSentEvents

sockets = [
    path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi()),
    path("ws/notices/", NoticesConsumer.as_asgi()),
    re_path("", WebsocketDenier.as_asgi()),  # 403; an address that matches nothing would be an error in the log
]

feeds = [
    path("poll/rooms/<slug:slug>/", LongPoll.as_asgi()),
    path("events/rooms/<slug:slug>/", ServerSentEvents.as_asgi()),
]
