"""Sans-I/O protocol engines: bytes in, events out. No twisted, no asyncio, no clock, no logging."""
