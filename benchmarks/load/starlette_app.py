"""The same greeting through a framework: what a server's overhead means to a real application."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.load.app import GREETING


async def hello(_request: Request) -> PlainTextResponse:
    """Say hello."""
    return PlainTextResponse(GREETING)


app = Starlette(routes=[Route("/{path:path}", hello)])
