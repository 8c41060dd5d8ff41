"""The driver of ASGI applications: asyncio tasks and futures, no twisted."""
