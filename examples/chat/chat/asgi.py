"""The ASGI application, served with: termserver chat.asgi:application."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")

pages = get_asgi_application()

from rooms import routing  # noqa: E402 (consumers need Django's models, and those are ready from here on)

application = ProtocolTypeRouter({
    "http": URLRouter([*routing.feeds, re_path("", pages)]),
    # Browsers send cookies with a WebSocket to anywhere: the Origin says whether it was one of our own pages that opened it.
    "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routing.sockets))),
})  # fmt: skip
