"""What the HTTP/2 connections of a worker have in common: limits, rules, and the settings that each begins with. No I/O."""

from typing import Final

from h2.settings import SettingCodes

from termserver.wire import h2frames as frames
from termserver.wire.events import Http2Limits
from termserver.wire.floods import FloodLimits
from termserver.wire.h2head import HeadRules
from termserver.wire.h2response import ResponseEncoder

UNLIMITED: Final = 1 << 62


class Http2Terms:
    """What all connections of a worker have in common."""

    __slots__ = ("encoder", "floods", "greeting", "limits", "rules", "streams", "window")

    def __init__(self, limits: Http2Limits, rules: HeadRules, encoder: ResponseEncoder) -> None:
        """Read the limits once."""
        self.limits = limits
        self.rules = rules
        self.encoder = encoder
        self.floods = FloodLimits(limits)
        self.streams = limits.http2_streams or UNLIMITED
        # The window of a stream is what is kept of its body until the application asks for it (spec limits L10, L31).
        self.window = min(limits.body_buffer or frames.LARGEST_WINDOW, frames.LARGEST_WINDOW)
        values = [
            (SettingCodes.INITIAL_WINDOW_SIZE, self.window),
            (SettingCodes.ENABLE_CONNECT_PROTOCOL, 1),
            (frames.NO_RFC7540_PRIORITIES, 1),
        ]
        if limits.http2_streams:
            values.append((SettingCodes.MAX_CONCURRENT_STREAMS, limits.http2_streams))
        if limits.header_bytes:
            values.append((SettingCodes.MAX_HEADER_LIST_SIZE, limits.header_bytes))
        self.greeting = frames.settings(values)
