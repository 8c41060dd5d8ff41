"""Bytes that take their time: streams, uploads, downloads."""

from django.apps import AppConfig


class TransfersConfig(AppConfig):
    """Streaming in both directions."""

    name = "transfers"
