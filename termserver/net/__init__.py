"""Sockets and time: the only package that imports twisted."""
