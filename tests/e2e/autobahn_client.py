"""Talks to the echo application with autobahn's client: `python autobahn_client.py HOST PORT`. Prints one JSON object."""

import asyncio
import json
import os
import sys
from typing import Any

from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponse, PerMessageDeflateResponseAccept

MESSAGES = [b"hello", b"", "żółw 🐢".encode(), b"a line of text, again and again. " * 200, os.urandom(300_000)]
found: dict[str, Any] = {"echoed": 0}


class Client(WebSocketClientProtocol):  # type: ignore[misc] - autobahn has no annotations
    """Sends every message, counts those that come back as they were."""

    def onOpen(self) -> None:
        found["extensions"] = [extension.__class__.__name__ for extension in self.websocket_extensions_in_use]
        for index, message in enumerate(MESSAGES):
            self.sendMessage(message, isBinary=index == len(MESSAGES) - 1, fragmentSize=1_000)

    def onMessage(self, payload: bytes, _binary: bool) -> None:
        found["echoed"] += payload == MESSAGES[found["echoed"]]
        if found["echoed"] == len(MESSAGES):
            self.sendClose(4001, "done")

    def onClose(self, clean: bool, code: int, _reason: str) -> None:
        found.update(clean=clean, code=code)
        asyncio.get_running_loop().stop()


def accept(response: object) -> object:
    """Take what the server answered to the offer."""
    return PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None


def main(host: str, port: str) -> None:
    """Run it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    factory = WebSocketClientFactory(f"ws://{host}:{port}/echo", loop=loop)
    factory.protocol = Client
    factory.setProtocolOptions(perMessageCompressionOffers=[PerMessageDeflateOffer()], perMessageCompressionAccept=accept)
    loop.run_until_complete(loop.create_connection(factory, host, int(port)))
    loop.run_forever()
    loop.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
