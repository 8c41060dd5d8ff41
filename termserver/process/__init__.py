"""The parent of worker processes. No Twisted, no HTTP, no application: what can go wrong with those must not reach it."""
