"""The sockets of a service: kept through reloads, and a reload that fails changes none."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from termserver.config import Bind, Config, Descriptor, Endpoint, Named, Tcp, Unix
from termserver.errors import ListenError
from termserver.process.listeners import MAIN, REDIRECT, Listeners

ANY = Tcp("127.0.0.1", 0)


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


def config(*binds: Bind, redirect: int | None = None) -> Config:
    return Config(bind=binds, http_redirect_port=redirect)


def main(listeners: Listeners) -> list[socket.socket]:
    return list(listeners.sockets[MAIN])


def accepts(listener: socket.socket) -> bool:
    with socket.socket(listener.family) as client:
        return client.connect_ex(listener.getsockname()) == 0


def test_what_is_named_is_opened(listeners: Listeners, tmp_path: Path) -> None:
    unix = str(tmp_path / "a.sock")
    listeners.take(config(ANY, Unix(unix)))
    tcp, other = main(listeners)
    assert accepts(tcp)
    assert accepts(other)
    assert listeners.addresses == [f"TCP address 127.0.0.1:{tcp.getsockname()[1]}", f"UNIX socket {unix}"]


def test_a_descriptor_is_adopted(listeners: Listeners) -> None:
    with socket.socket() as handed:
        handed.bind(("127.0.0.1", 0))
        listeners.take(config(Descriptor(handed.fileno())))
        assert main(listeners)[0].getsockname() == handed.getsockname()


@pytest.mark.parametrize(
    ("bind", "reason"),
    [(Named("web"), "no service manager handed it over"), (Endpoint("tcp:0"), "workers cannot share")],
    ids=["name", "endpoint"],
)
def test_what_workers_cannot_share_is_refused(listeners: Listeners, bind: Bind, reason: str) -> None:
    with pytest.raises(ListenError, match=reason):
        listeners.take(config(bind))


def test_a_reload_keeps_the_sockets(listeners: Listeners) -> None:
    listeners.take(config(ANY))
    before = main(listeners)
    listeners.take(config(ANY))
    listeners.forget()
    assert main(listeners) == before
    assert accepts(before[0])


def test_addresses_written_alike_are_sockets_of_their_own(listeners: Listeners) -> None:
    listeners.take(config(ANY, ANY))
    first, second = before = main(listeners)
    assert first.getsockname() != second.getsockname()
    listeners.take(config(ANY, ANY))
    assert main(listeners) == before


def test_one_that_is_new_is_opened_beside_the_old(listeners: Listeners, tmp_path: Path) -> None:
    listeners.take(config(ANY))
    before = main(listeners)
    listeners.take(config(ANY, Unix(str(tmp_path / "a.sock"))))
    assert main(listeners)[0] is before[0]
    assert accepts(main(listeners)[1])


def test_one_that_is_named_no_more_is_kept_until_it_is_forgotten(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listeners.take(config(ANY, Unix(str(path))))
    retired = main(listeners)[1]
    listeners.take(config(ANY))
    assert len(main(listeners)) == 1
    assert accepts(retired)
    listeners.forget()
    assert retired.fileno() == -1
    assert not path.exists()


def test_one_that_is_named_again_before_it_was_forgotten_is_the_same(listeners: Listeners) -> None:
    listeners.take(config(ANY))
    before = main(listeners)
    listeners.take(config(Descriptor(before[0].fileno())))
    listeners.take(config(ANY))
    listeners.forget()
    assert main(listeners) == before
    assert accepts(before[0])


def test_a_failure_changes_nothing(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "new.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listeners.take(config(ANY))
        before = main(listeners)
        open_before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(ListenError, match="Address already in use"):
            listeners.take(config(ANY, Unix(str(path)), Tcp("127.0.0.1", taken.getsockname()[1])))
        listeners.forget()
        assert main(listeners) == before
        assert accepts(before[0])
        assert not path.exists()
        assert set(os.listdir("/proc/self/fd")) == open_before


def test_a_unix_socket_of_another_server_is_not_removed(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listeners.take(config(Unix(str(path))))
    path.unlink()
    path.write_text("another's")
    listeners.close()
    assert path.read_text() == "another's"


def test_the_end_closes_all_of_them(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listeners.take(config(ANY, Unix(str(path))))
    listeners.take(config(Unix(str(path))))
    sockets = main(listeners)
    listeners.close()
    assert listeners.addresses == []
    assert [each.fileno() for each in sockets] == [-1]
    assert not path.exists()


def test_the_port_that_redirects_is_bound_once_a_host(listeners: Listeners) -> None:
    listeners.take(config(ANY, ANY, Tcp("127.0.0.2", 0), redirect=0))
    names = [each.getsockname()[0] for each in listeners.sockets[REDIRECT]]
    assert names == ["127.0.0.1", "127.0.0.2"]
    assert len(main(listeners)) == 3
