"""A worker without a server, for tests of what is above it: `MODULE` in `termserver.process.worker` is set to its name.

The application's name says what it does; `@FILE` means whatever the file says by then.
"""

import os
import pickle
import select
import socket
import sys
import time
from pathlib import Path

from termserver.channel import Channel


def main(words: list[str]) -> int:
    """Be told what to do by the configuration."""
    channel = Channel(socket.socket(fileno=int(words[0])))
    with os.fdopen(int(words[1]), "rb") as file:
        config, sockets = pickle.load(file)  # noqa: S301 - the supervisor's
    way = str(config.application)
    way = Path(way[1:]).read_text() if way.startswith("@") else way
    if way == "dies":
        return 9
    if way == "fails":
        channel.say("failed", code=3, reason="it cannot begin")
        return 3
    if way == "never ready":
        return _listen(channel, way)
    if way == "forks" and not os.fork():
        os.close(0), os.close(1), os.close(2)
        while os.getppid() != 1 and os.read(int(words[2]), 1):  # ends with the supervisor's end of the pipe
            pass
        os._exit(0)
    channel.say("ready")
    channel.say("nonsense", sockets=sockets)
    if way == "fleeting":
        return 7
    if way == "hushes":
        channel.socket.shutdown(socket.SHUT_WR)
        os.read(int(words[2]), 1)  # until the supervisor's end
    return _listen(channel, way)


def _listen(channel: Channel, way: str) -> int:
    while True:
        if way != "mute":
            channel.say("beat", requests=5 if way == "worn" else 0, running=0, connections=0, stuck=0)
        if not select.select([channel], [], [], 0.02)[0]:
            continue
        for said in channel.hear():
            if said["is"] == "reopen":
                print("reopened", os.getpid(), file=sys.stderr, flush=True)
            if said["is"] == "stop" and way != "deaf":
                return 0
        if channel.closed:
            if way != "deaf":
                return 0
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
