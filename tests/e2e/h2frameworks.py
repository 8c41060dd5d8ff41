"""The same small application by Django and by Starlette: a page, an upload that is read as it comes, a response that is streamed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

PAGE = "<!doctype html><title>żółw</title>HTTP/{}"
LINES = 1_000


async def lines() -> AsyncIterator[bytes]:
    """Give some hundred kilobytes, a line at a time."""
    for number in range(LINES):
        yield b"%d %b\n" % (number, b"x" * 300)
        await asyncio.sleep(0)


def django() -> Any:
    """Make Django's (`--factory`)."""
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
    from django.urls import path

    def page(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(PAGE.format(request.scope["http_version"]))  # type: ignore[attr-defined]
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    def upload(request: HttpRequest) -> HttpResponse:
        file = request.FILES["file"]
        return HttpResponse(f"{file.name} {file.size} {request.POST['name']}")

    def read(request: HttpRequest) -> HttpResponse:
        size = 0
        while part := request.read(65_536):
            size += len(part)
        return HttpResponse(str(size))

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(lines())

    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        ROOT_URLCONF=(path("", page), path("upload", upload), path("read", read), path("stream", stream)),
        SECRET_KEY="for tests",  # noqa: S106 - it guards nothing
    )
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def starlette() -> Any:
    """Make Starlette's (`--factory`)."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    async def page(request: Request) -> HTMLResponse:
        response = HTMLResponse(PAGE.format(request.scope["http_version"]))
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def read(request: Request) -> PlainTextResponse:
        size = 0
        async for part in request.stream():
            size += len(part)
        return PlainTextResponse(str(size))

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(lines())

    return Starlette(routes=[Route("/", page), Route("/read", read, methods=["POST"]), Route("/stream", stream)])
