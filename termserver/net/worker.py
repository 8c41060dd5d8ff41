"""A worker process: `python -m termserver.net.worker CHANNEL FILE LIFELINE APPLICATION`, started by a supervisor and by nobody else.

The numbers are inherited descriptors: the channel to the supervisor, a file with the configuration and the numbers of the listening
sockets, and a pipe whose other end is the supervisor's.
"""

import contextlib
import faulthandler
import os
import pickle
import signal
import socket
import sys
import traceback

from termserver.channel import Channel
from termserver.errors import TermserverError
from termserver.net.lifeline import Lifeline
from termserver.net.runner import Inherited, run_worker


def main(words: list[str]) -> int:
    """Serve; give the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # a terminal's, meant for the supervisor; blocked until now
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    faulthandler.enable()  # SIGABRT shows where a hung worker is (spec limits L50)
    channel = Channel(socket.socket(fileno=int(words[0])))
    with os.fdopen(int(words[1]), "rb") as file:
        config, sockets = pickle.load(file)  # noqa: S301 - our own supervisor's, in a file without a name
    main_, redirect = ([socket.socket(fileno=number) for number in sockets[purpose]] for purpose in ("main", "redirect"))
    for descriptor in map(int, words[:3]):  # the file is closed: its number may be a listener's, or nobody's
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    for listener in (*main_, *redirect):
        listener.set_inheritable(False)
    lifeline = Lifeline(channel, config)
    lifeline.watch(int(words[2]))
    try:
        run_worker(config, Inherited(main_, redirect), lifeline)
    except TermserverError as error:
        lifeline.failed(int(getattr(error, "exit_code", 1)), str(error))
        return int(getattr(error, "exit_code", 1))
    except Exception:  # noqa: BLE001 - whatever it is, the supervisor is to say it
        lifeline.failed(1, traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
