"""A stream of events, a download of any size, an upload of any size. None of them holds more than a part in memory."""

import asyncio
import time
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.generic import FormView, TemplateView

from .forms import UploadForm

PART = 64 * 1024
REMEMBERED = 5
"""Uploads that a session remembers."""


class Clock(TemplateView):
    """A page that shows the stream of events."""

    template_name = "transfers/clock.html"


@never_cache
async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Count, as server-sent events; an EventSource that comes back goes on where it was."""
    last = request.headers.get("Last-Event-ID", "")
    first = int(last) + 1 if last.isascii() and last.isdigit() else 1
    return StreamingHttpResponse(_ticks(first), content_type="text/event-stream")


async def _ticks(number: int) -> AsyncIterator[str]:
    while True:
        yield f"id: {number}\ndata: {number} {time.time():.3f}\n\n"
        number += 1
        await asyncio.sleep(0.5)


async def download(_request: HttpRequest, size: int) -> StreamingHttpResponse:
    """Send as many bytes as the address says; byte number n is n modulo 256."""
    response = StreamingHttpResponse(_counting_bytes(size), content_type="application/octet-stream")
    response["Content-Length"] = size
    response["Content-Disposition"] = f'attachment; filename="{size}.bin"'
    return response


async def _counting_bytes(size: int) -> AsyncIterator[bytes]:
    part = bytes(range(256)) * (PART // 256)
    for _ in range(size // PART):
        yield part
    yield part[: size % PART]


class Upload(FormView):
    """Take a file, say how large it was and what it hashed to, forget it."""

    form_class = UploadForm
    template_name = "transfers/upload.html"
    success_url = reverse_lazy("transfers:upload")

    def form_valid(self, form: UploadForm) -> HttpResponseBase:
        """Remember the result for the page that follows."""
        file = form.cleaned_data["file"]
        result = {"name": file.name, "size": file.size, "sha256": file.sha256}
        self.request.session["uploads"] = [result, *self.request.session.get("uploads", [])][:REMEMBERED]
        return super().form_valid(form)
