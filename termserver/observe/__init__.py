"""What a server tells its keepers: access log, log, metrics. No Twisted, no asyncio, no HTTP."""
