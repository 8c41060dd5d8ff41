"""termserver: an ASGI interface server."""

__version__ = "0.1.0"
