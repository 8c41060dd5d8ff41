"""What a hostile review of the first version found, each as it was found: over real sockets."""

from pathlib import Path

from e2e.server import Server


def test_f1_a_client_that_resets_is_no_unix_socket(tmp_path: Path) -> None:
    """Asked late, a reset connection has no address; that must not make it a trusted peer."""
    log = tmp_path / "access"
    options = ("--forwarded-allow-ips", "unix", "--access-log", str(log), "--access-log-format", "%(client)s %(target)s")
    with Server("apps:app", *options) as server:
        for _ in range(50):
            with server.connect() as client:
                client.get("/echo", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")
                client.reset()
        assert server.get("/echo").status == 200
        assert server.stop() == 0
    lines = log.read_text().splitlines()
    assert lines  # how many of the reset requests were read at all is a matter of timing
    assert all(line.startswith("127.0.0.1:") for line in lines), lines


def test_f1_a_forwarded_port_of_many_digits_is_no_port() -> None:
    with Server("apps:app", "--proxy-headers") as server:
        assert server.get("/echo", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Port: " + "0" * 5 + "9" * 5_000).status == 200
        assert "Fatal" not in server.log


def test_l12_a_head_begun_in_one_read_and_ended_in_the_next_starts_the_clock_anew() -> None:
    with Server("apps:app", "--timeout-header-read", "1.5") as server, server.connect() as client:
        client.send(b"G")
        for _ in range(6):
            client.ended(0.5)  # half a second of the client's own
            client.send(b"ET /echo HTTP/1.1\r\nHost: a\r\n\r\nG")
            assert client.response().status == 200


def test_r20_the_answer_before_a_request_that_is_cut_arrives_whole() -> None:
    with Server("apps:app") as server:
        answer = server.exchange(
            b"GET /blob?size=3000000 HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123", shut=True
        )
        assert answer.statuses[0] == 200


def test_f3_no_host_where_only_some_are_allowed() -> None:
    with Server("apps:app", "--allowed-hosts", "a") as server, server.connect() as client:
        client.send(b"GET /echo HTTP/1.0\r\n\r\n")
        assert client.response().status == 400


def test_a19_calls_that_go_on_after_their_response_hold_up_the_next_request() -> None:
    with Server("apps:app", "--no-access-log") as server, server.connect() as client:
        client.send(b"GET /afterwards HTTP/1.1\r\nHost: a\r\n\r\n" * 30)
        server.wait_event("working on", 9)  # eight that go on, and the last one begun
        for _ in range(9):
            assert client.response().body == b"done"
        assert not client.ended(0.3)
        assert server.ask("/events").count("working on") == 9
        for answers in (9, 9, 3):
            server.get("/release")  # it lets go who waits now; the next ones wait for the next
            for _ in range(answers):
                assert client.response().body == b"done"
