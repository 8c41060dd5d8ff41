"""HTTPS by a real process, to clients nobody here wrote and to some that misbehave (spec attacks G, E4, E7; ASGI's TLS extension)."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from certificates import PASSWORD, Authority, Pair
from e2e.secure import NAME, Halves, TlsServer, open_files
from e2e.server import Client, Server, wait_until

MIB = 1 << 20
QUIET = ("apps:app", "--no-access-log")
Tool = Callable[[str], str]
PLAIN_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("e2e", NAME, "127.0.0.1")


@pytest.fixture(scope="module")
def other(authority: Authority) -> Pair:
    return authority.make("e2e-other", "other.test", "*.wild.test", chained=True)


@pytest.fixture(scope="module")
def client_pair(authority: Authority) -> Pair:
    return authority.make("e2e-client")


@pytest.fixture(scope="module")
def server(authority: Authority, pair: Pair, other: Pair) -> Iterator[TlsServer]:
    options = ("--ssl-client-certs", "optional", "--ssl-ca-certs", authority.path)
    with TlsServer(authority, [pair, other], *QUIET, *options) as running:
        yield running
        assert running.stop() == 0
        assert running.log_has_no_traceback(), running.log


# --- clients ---


def curl(tool: Tool, server: TlsServer, authority: Authority, path: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    words = [tool("curl"), "--silent", "--show-error", "--max-time", "30", "--cacert", authority.path]
    words += ["--resolve", f"{NAME}:{server.port}:127.0.0.1", *options, f"https://{NAME}:{server.port}{path}"]
    return subprocess.run(words, capture_output=True, timeout=60)


def test_curl_gets(tool: Tool, server: TlsServer, authority: Authority) -> None:
    found = curl(tool, server, authority, "/echo?a=b", "--include", "--http1.1")
    assert found.returncode == 0, found.stderr
    head, _, body = found.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    told = json.loads(body)
    assert (told["scheme"], told["http_version"], told["server"]) == ("https", "1.1", ["127.0.0.1", server.port])


def test_curl_that_speaks_http_2(tool: Tool, server: TlsServer, authority: Authority) -> None:
    found = curl(tool, server, authority, "/echo", "--http2")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["http_version"] == "2"


def test_curl_uploads(tool: Tool, server: TlsServer, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    found = curl(tool, server, authority, "/length", "--data-binary", f"@{tmp_path / 'file'}")
    assert found.stdout == b"5000000", found.stderr


def test_curl_with_tls_1_1_is_refused(tool: Tool, server: TlsServer, authority: Authority) -> None:
    found = curl(tool, server, authority, "/", "--tls-max", "1.1", "--tlsv1.0", "--ciphers", "ALL:@SECLEVEL=0")
    assert found.returncode == 35, found.stderr
    server.wait_line("A TLS handshake failed: UNSUPPORTED_PROTOCOL")


def test_chromium_opens_a_page(tool: Tool, server: TlsServer, tmp_path: Path) -> None:
    words = [tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    words += [f"--user-data-dir={tmp_path}", "--ignore-certificate-errors", "--dump-dom", f"https://127.0.0.1:{server.port}/echo"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=90)
    assert '"scheme": "https"' in found.stdout, found.stderr


@pytest.mark.parametrize(("version", "text", "number"), [
    (ssl.TLSVersion.TLSv1_2, "TLSv1.2", 0x0303),
    (ssl.TLSVersion.TLSv1_3, "TLSv1.3", 0x0304),
])  # fmt: skip
def test_versions_alpn_and_neither_tickets_nor_compression(
    server: TlsServer, authority: Authority, version: ssl.TLSVersion, text: str, number: int
) -> None:
    context = authority.client(minimum_version=version, maximum_version=version)
    context.set_alpn_protocols(["spdy/3", "http/1.1"])
    with server.connect(context=context) as client:
        client.get("/tls")
        told = client.response().json()
        assert client.tls.version() == text
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        assert client.tls.compression() is None
        assert client.tls.session is None or not client.tls.session.has_ticket
        cipher = client.tls.cipher()
        assert cipher is not None
        [suite] = [each for each in context.get_ciphers() if each["name"] == cipher[0]]
        assert (told["tls_version"], told["cipher_suite"]) == (number, suite["id"] & 0xFFFF)


def test_client_that_offers_nothing_of_ours_is_served_http_1_1(server: TlsServer, authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["spdy/3"])
    with server.connect(context=context) as client:
        client.get("/")
        assert client.response().status == 200
        assert client.tls.selected_alpn_protocol() is None


@pytest.mark.parametrize(("name", "chosen"), [
    (NAME, "e2e"), ("other.test", "e2e-other"), ("x.wild.test", "e2e-other"), ("unknown.test", "e2e"),
])  # fmt: skip
def test_name_picks_the_certificate(server: TlsServer, authority: Authority, pair: Pair, other: Pair, name: str, chosen: str) -> None:
    context = authority.client(check_hostname=False)
    with server.connect(context=context, name=name) as client:
        shown = client.tls.getpeercert(binary_form=True)
        assert shown is not None
        client.get("/tls")
        assert client.response().json()["server_cert"] == ssl.DER_cert_to_PEM_cert(shown) == {"e2e": pair, "e2e-other": other}[chosen].pem


def ended(client: Client) -> None:
    """Wait for the end, whatever comes before it."""
    with contextlib.suppress(ConnectionResetError):
        while client.socket.recv(65_536):
            pass


def test_name_that_is_no_ascii_costs_one_line(server: TlsServer) -> None:
    with server.plain() as client:
        side = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        side.set_tlsext_host_name(b"\xff\xfe.test")
        side.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            side.do_handshake()
        client.send(side.bio_read(65_536))
        ended(client)
    server.wait_line("A TLS handshake failed: CALLBACK_FAILED")
    assert server.log_has_no_traceback()


# --- what ASGI is told ---


def test_extension_is_whole_without_a_client_s_certificate(server: TlsServer, pair: Pair) -> None:
    told = server.tls()
    assert told == {
        "server_cert": pair.pem,
        "tls_version": 0x0304,
        "cipher_suite": told["cipher_suite"],
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
    }
    assert told["cipher_suite"] in {0x1301, 0x1302, 0x1303}


def test_extension_names_the_client(server: TlsServer, authority: Authority, client_pair: Pair) -> None:
    told = server.tls(context=authority.client(client_pair))
    assert (told["client_cert_chain"][0], told["client_cert_name"]) == (client_pair.pem, "CN=e2e-client")


def test_every_request_of_a_connection_is_told(server: TlsServer) -> None:
    with server.connect() as client:
        told = []
        for _ in range(3):
            client.get("/tls")
            told.append(client.response().json())
        assert told[0] is not None
        assert told[0] == told[1] == told[2]


def test_extension_is_absent_without_tls(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    with Server(*QUIET) as server:
        assert server.get("/tls").json() is None
    path = str(tmp_path / "socket")
    with TlsServer(authority, [pair], *QUIET, "--unix-socket", path) as server, Client(path, family=socket.AF_UNIX) as client:
        client.get("/tls", "Connection: close")
        assert client.rest().only.json() is None
        assert server.tls() is not None


# --- clients' certificates ---


def refused(server: TlsServer, context: ssl.SSLContext) -> bool:
    """Whether a client gets no answer. In TLS 1.3 it learns that after its side of the handshake."""
    try:
        with server.connect(context=context) as client:
            client.get("/")
            return client.socket.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_that_must_show_a_certificate(pair: Pair, authority: Authority, client_pair: Pair, version: ssl.TLSVersion) -> None:
    expired = authority.make("e2e-expired", expired=True)
    options = ("--ssl-client-certs", "required", "--ssl-ca-certs", authority.path)
    with TlsServer(authority, [pair], *QUIET, *options) as server:
        assert refused(server, authority.client(maximum_version=version))
        server.wait_line("A TLS handshake failed: PEER_DID_NOT_RETURN_A_CERTIFICATE")
        assert refused(server, authority.client(expired, maximum_version=version))
        server.wait_line("A TLS handshake failed: certificate has expired")
        server.context = authority.client(client_pair, maximum_version=version)
        assert server.tls()["client_cert_name"] == "CN=e2e-client"
        assert server.seen() == ["GET /tls"]
        assert server.stop() == 0
        assert server.log_has_no_traceback()


def test_optional_certificate_that_is_bad_fails_the_handshake(server: TlsServer, authority: Authority) -> None:
    assert refused(server, authority.client(authority.make("e2e-expired-2", expired=True)))


def test_revoked_client_is_refused_after_a_reload(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, good, bad = authority.make("server", NAME), authority.make("good"), authority.make("bad")
    options = ("--ssl-client-certs", "required", "--ssl-ca-certs", authority.path, "--ssl-crl", authority.revoked)
    with TlsServer(authority, [pair], *QUIET, *options) as server:
        server.context = authority.client(good)
        assert not refused(server, authority.client(bad))
        authority.revoke(bad)
        server.send_signal(signal.SIGHUP)
        server.wait_line("Certificates are reloaded")
        assert refused(server, authority.client(bad))
        server.wait_line("A TLS handshake failed: certificate revoked")
        assert server.tls()["client_cert_name"] == "CN=good"


# --- files ---


def test_key_s_password_comes_from_the_environment(authority: Authority) -> None:
    pair = authority.make("e2e-secret", NAME, password=PASSWORD)
    with TlsServer(authority, [pair], *QUIET, environment={"TERMSERVER_SSL_KEYFILE_PASSWORD": PASSWORD}) as server:
        assert server.tls()["server_cert"] == pair.pem


@pytest.mark.parametrize("password", ["", "wrong"])
def test_certificates_that_cannot_be_used_are_one_line_and_exit_code_2(authority: Authority, password: str) -> None:
    pair = authority.make("e2e-secret-2", NAME, password=PASSWORD)
    words = Server.words("apps:app", "--bind", "127.0.0.1:0", "--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key)
    environment = {**os.environ, "TERMSERVER_SSL_KEYFILE_PASSWORD": password}
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, stdin=subprocess.DEVNULL)
    assert found.returncode == 2
    [line] = [line for line in found.stderr.splitlines() if "error" in line]
    assert line.startswith(f"termserver: error: tls.certificates: cannot use {pair.certificate} with the key in {pair.key}: ")
    assert "Traceback" not in found.stderr


def test_chain_is_served(server: TlsServer) -> None:
    assert server.tls(name="other.test")["tls_version"] == 0x0304  # the client knows the authority, not the one between


def test_reload_is_for_new_connections(authority: Authority, tmp_path: Path) -> None:
    old, new = authority.make("e2e-old", NAME), authority.make("e2e-new", NAME)
    served = Pair(str(tmp_path / "served.pem"), str(tmp_path / "served-key.pem"))
    put(old, served)
    with TlsServer(authority, [served], *QUIET) as server, server.connect() as running, server.connect() as idle:
        running.get("/hold-body")
        running.read_until(b"first ")
        put(new, served)
        assert server.tls()["server_cert"] == old.pem
        server.send_signal(signal.SIGHUP)
        server.wait_line("Certificates are reloaded")
        assert server.tls()["server_cert"] == new.pem
        server.ask("/tls")
        idle.get("/tls")
        assert idle.response().json()["server_cert"] == old.pem
        server.get("/release")
        running.read_until(b"last\r\n0\r\n\r\n")
        Path(served.key).write_bytes(Path(old.key).read_bytes())
        server.send_signal(signal.SIGHUP)
        line = server.wait_line("Certificates are not reloaded")
        assert "ERROR" in line
        assert "the old ones stay in force: tls.certificates: cannot use " in line
        assert server.tls()["server_cert"] == new.pem
        assert server.log.count("not reloaded") == 1
        assert server.stop() == 0
        assert server.log_has_no_traceback()


def put(pair: Pair, served: Pair) -> None:
    shutil.copy(pair.certificate, served.certificate)
    shutil.copy(pair.key, served.key)


def test_signal_to_reload_without_certificates_is_harmless() -> None:
    with Server(*QUIET) as server:
        server.send_signal(signal.SIGHUP)
        server.wait_line("There are no certificates to reload")
        assert server.get("/").status == 200


# --- what clients do wrong ---


def test_g_renegotiation_is_refused(server: TlsServer) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with server.plain() as raw:
        raw.socket.setblocking(True)
        side = SSL.Connection(context, raw.socket)
        side.set_tlsext_host_name(NAME.encode())
        side.set_connect_state()
        side.do_handshake()
        assert side.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            side.do_handshake()
    assert server.get("/").status == 200


def test_plain_http_on_the_tls_port_is_told_so(server: TlsServer) -> None:
    with server.plain() as client:
        client.send(PLAIN_REQUEST)
        answer = client.rest()
    assert (answer.only.status, answer.only.body, answer.only.whole) == (400, b"This port speaks HTTPS\n", True)
    server.wait_line("Plain HTTP came to a port that speaks HTTPS: answered 400")


def test_tls_on_a_plain_port_is_a_line_in_the_log(authority: Authority) -> None:
    with Server(*QUIET) as server:
        with server.connect() as client:
            client.send(Halves(authority.client()).step())
            assert client.rest().only.status == 400
        server.wait_line("Answered 400: a TLS handshake on a port that speaks plain HTTP")


@pytest.mark.parametrize("size", [0, 1, 200])
def test_e4_handshake_that_stalls_is_ended(authority: Authority, pair: Pair, size: int) -> None:
    with TlsServer(authority, [pair], *QUIET, "--timeout-tls-handshake", "0.3") as server:
        server.get("/")
        files, began = open_files(server.pid), time.monotonic()
        with server.plain() as client:
            client.send(Halves(authority.client()).step()[:size])
            ended(client)
            assert 0.2 < time.monotonic() - began < 5
        server.wait_line("A TLS handshake took too long")
        wait_until(lambda: open_files(server.pid) <= files, "its descriptor to be given back")
        with server.connect() as client:  # whoever has shaken hands has other limits
            select.select([], [], [], 0.5)
            client.get("/")
            assert client.response().status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_e9_reset_anywhere_in_the_handshake_leaves_nothing(authority: Authority, pair: Pair, version: ssl.TLSVersion) -> None:
    context = authority.client(maximum_version=version)
    with TlsServer(authority, [pair], *QUIET) as server:
        before, files = server.ask("/facts")["tasks"], open_files(server.pid)
        hello = Halves(context).step()
        for size in range(0, len(hello) + 1, 23):
            with server.plain() as client:
                client.send(hello[:size])
                client.reset()
        for size in range(0, 200, 7):
            with server.plain() as client:
                halves = Halves(context)
                client.send(halves.step())
                client.send(halves.step(flight(client))[:size])
                client.reset()
        assert server.get("/").status == 200
        wait_until(lambda: open_files(server.pid) <= files, "all descriptors to be given back")
        wait_until(lambda: server.ask("/facts")["tasks"] == before, "all tasks to end")
        assert server.stop() == 0
        assert server.log_has_no_traceback(), server.log


def flight(client: Client) -> bytes:
    """Read the server's part of the handshake: whole records."""
    came = client.socket.recv(65_536)
    while not whole(came):
        more = client.socket.recv(65_536)
        assert more
        came += more
    return came


def whole(records: bytes) -> bool:
    while len(records) >= 5:
        records = records[5 + struct.unpack("!H", records[3:5])[0] :]
    return not records


def test_e7_no_descriptor_left_is_survived(authority: Authority, pair: Pair) -> None:
    with TlsServer(authority, [pair], "apps:hungry", "--no-access-log", files=64) as server, server.connect() as client:
        client.get("/hungry")
        client.response()
        waiting = [server.plain() for _ in range(3)]
        server.wait_line("Cannot accept connections: Too many open files")
        cpu = server_cpu(server)
        select.select([], [], [], 0.5)
        assert server_cpu(server) - cpu < 0.25  # it does not spin
        client.get("/sated")
        client.response()
        assert server.get("/").status == 200
        for each in waiting:
            each.socket.close()
        assert server.stop() == 0
        assert server.log_has_no_traceback()


def server_cpu(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- bodies ---


def peak(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1_024


@pytest.fixture
def fresh(authority: Authority, pair: Pair) -> Iterator[TlsServer]:
    with TlsServer(authority, [pair], *QUIET) as running:
        running.get("/")
        yield running
        assert running.log_has_no_traceback(), running.log


def test_upload_into_a_reader_that_takes_its_time(fresh: TlsServer) -> None:
    before, block = peak(fresh), b"x" * MIB
    with fresh.connect() as client:
        client.send(f"POST /length?pause=0.0001 HTTP/1.1\r\nHost: a\r\nContent-Length: {100 * MIB}\r\n\r\n".encode())
        for _ in range(100):
            client.send(block)
        assert client.response().body == b"%d" % (100 * MIB)
    assert peak(fresh) - before < 16 * MIB


@pytest.mark.parametrize("path", ["/flood?size={size}", "/path?path={file}"])
def test_download_is_whole_and_memory_flat(fresh: TlsServer, tmp_path: Path, path: str) -> None:
    file, size = tmp_path / "file", 100 * MIB
    with file.open("wb") as opened:
        opened.truncate(size)
    before = peak(fresh)
    with fresh.connect() as client:
        client.get(path.format(size=size, file=file))
        got = len(client.read_until(b"\r\n\r\n")) * 0
        while got < size:
            got += len(client.take())
    assert peak(fresh) - before < 16 * MIB


def test_readers_that_do_not_read_are_bounded(fresh: TlsServer) -> None:
    readers = [fresh.connect(receive_buffer=4_096) for _ in range(10)]
    before = fresh.ask("/facts")["resident"]
    for reader in readers:
        reader.get("/flood?size=100000000")
    assert fresh.settled() < 10 * 8 * MIB
    assert fresh.ask("/facts")["resident"] - before < 10 * MIB
    for reader in readers:
        reader.reset()


def test_parts_of_files_are_sent(server: TlsServer, tmp_path: Path) -> None:
    file, data = tmp_path / "file", os.urandom(3_000_000)
    file.write_bytes(data)
    assert server.get(f"/path?path={file}").body == data
    assert server.get(f"/opened?path={file}").body == b"before " + data + b" after"
    assert server.get(f"/opened?path={file}&offset=1000&count=500000").body == b"before " + data[1_000:501_000] + b" after"


@pytest.mark.parametrize("request_fields", [(), ("Connection: close",)])
def test_one_large_body_outlasts_keep_alive_and_farewell(authority: Authority, pair: Pair, request_fields: tuple[str, ...]) -> None:
    options = ("--timeout-keep-alive", "0.3", "--timeout-linger-total", "0.3", "--timeout-write-stall", "20")
    with TlsServer(authority, [pair], *QUIET, *options) as server, server.connect(receive_buffer=65_536) as client:
        size = 20_000_000
        client.get(f"/blob?size={size}", *request_fields)
        got = len(client.read_until(b"\r\n\r\n")) * 0
        while got < size:  # for some two seconds
            got += len(client.take())
            if got < size // 2:
                select.select([], [], [], 0.002)
        assert got == size
        assert "Cut" not in server.log


def test_l35_reader_that_stops_is_cut(authority: Authority, pair: Pair) -> None:
    with TlsServer(authority, [pair], *QUIET, "--timeout-write-stall", "0.5") as server:
        for path in ("/flood?size=50000000", "/blob?size=50000000"):
            with server.connect(receive_buffer=4_096) as client:
                client.get(path)
                wait_until(lambda: server.log.count("Cut a connection: the peer stopped reading") == 1, "the cut")
                assert client.rest().reset
            server.lines.clear()


def test_keep_alive_and_pipelining(server: TlsServer) -> None:
    with server.connect() as client:
        client.get("/")
        assert client.response().body == b"hello"
        client.send(b"".join(b"GET /echo?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(100)))
        assert [client.response().json()["raw_path"] for _ in range(100)] == ["/echo"] * 100
        client.send_each(PLAIN_REQUEST)
        assert client.response().body == b"hello"


def test_idle_connection_ends_with_a_close_alert(authority: Authority, pair: Pair) -> None:
    with TlsServer(authority, [pair], *QUIET, "--timeout-keep-alive", "0.2") as server, server.connect() as client:
        client.get("/")
        client.response()
        answer = client.rest()
        assert (answer.raw, answer.reset) == (b"", False)


def test_early_answer_reaches_a_client_that_still_sends(server: TlsServer) -> None:
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + bytes(3_000_000))
        assert client.response().body == b"hello"


@pytest.mark.parametrize("kind", ["raise in body", "raise in body, length", "too few"])
def test_answer_that_is_broken_off_is_seen_to_be(authority: Authority, pair: Pair, kind: str) -> None:
    with TlsServer(authority, [pair], *QUIET) as server, server.connect() as client:
        client.get(f"/fault?kind={kind.replace(' ', '%20')}")
        answer = client.rest()
        assert not answer.only.whole
        assert answer.reset


# --- WebSockets ---


@pytest.fixture(scope="module")
def sockets(authority: Authority, pair: Pair) -> Iterator[TlsServer]:
    options = ("--ssl-client-certs", "optional", "--ssl-ca-certs", authority.path)
    with TlsServer(authority, [pair], "socket_apps:app", "--no-access-log", *options) as running:
        yield running
        assert running.stop() == 0
        assert running.log_has_no_traceback()


def url(server: Server, path: str) -> str:
    return f"wss://127.0.0.1:{server.port}{path}"


def test_websocket_talks(sockets: TlsServer, authority: Authority) -> None:
    messages: list[str | bytes] = ["hello", b"", "żółw" * 10_000, os.urandom(900_000)]
    with connect(url(sockets, "/echo?name=tls"), ssl=authority.client(), compression=None) as client:
        for message in messages:
            client.send(message)
            assert client.recv(timeout=30) == message
        client.close(4_001, "done")
    wait_until(lambda: "/echotls: disconnect 4001 done" in sockets.ask("/events"), "the end")


def test_websocket_is_told_of_tls(sockets: TlsServer, authority: Authority, pair: Pair, client_pair: Pair) -> None:
    with connect(url(sockets, "/tls"), ssl=authority.client(client_pair)) as client:
        told: dict[str, Any] = json.loads(client.recv(timeout=30))
    assert (told["server_cert"], told["client_cert_name"], told["tls_version"]) == (pair.pem, "CN=e2e-client", 0x0304)
    with connect(url(sockets, "/scope"), ssl=authority.client()) as client:
        assert "'scheme': 'wss'" in str(client.recv(timeout=30))
    with Server("socket_apps:app", "--no-access-log") as plain, connect(f"ws://127.0.0.1:{plain.port}/tls") as client:
        assert client.recv(timeout=30) == "null"


def test_websocket_is_told_why_it_ends(sockets: TlsServer, authority: Authority) -> None:
    with connect(url(sockets, "/echo"), ssl=authority.client(), compression=None) as client:
        client.send(bytes(1_048_577))
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_websocket_reader_that_does_not_read_is_bounded(sockets: TlsServer, authority: Authority) -> None:
    before = sockets.ask("/facts")["resident"]
    with connect(url(sockets, "/flood"), ssl=authority.client(), max_queue=1) as client:
        sockets.settled()
        assert sockets.ask("/facts")["resident"] - before < 10 * MIB
        assert len(client.recv(timeout=30)) == 65_536
        client.socket.shutdown(socket.SHUT_RDWR)


def test_websockets_are_closed_with_1001_when_the_server_stops(authority: Authority, pair: Pair) -> None:
    with (
        TlsServer(authority, [pair], "socket_apps:app", "--no-access-log") as server,
        connect(url(server, "/echo"), ssl=authority.client()) as client,
    ):
        client.send("a")
        assert client.recv(timeout=30) == "a"
        server.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match="1001"):
            client.recv(timeout=30)
        assert server.wait() == 0
        assert server.log_has_no_traceback()


# --- stopping ---


def test_what_runs_is_finished_when_the_server_stops(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with TlsServer(authority, [pair], "apps:gated", "--no-access-log", environment={"GATE": str(gate)}) as server:
        clients = [server.connect() for _ in range(30)]
        for client in clients:
            client.get("/")
        server.wait_line("in hand 30", out=True)
        stalled = server.plain()
        server.send_signal(signal.SIGTERM)
        server.wait_line("finishing what runs")
        wait_until(lambda: closed(server), "the port to close")
        assert stalled.ended(30)  # no handshake is waited for
        gate.write_bytes(b"open")
        for client in clients:
            answer = client.rest()
            assert (answer.only.status, answer.only.body, answer.only["connection"]) == (200, b"x" * 100_000, "close")
            assert not answer.reset
            client.socket.close()
        stalled.socket.close()
        assert server.wait() == 0
        assert server.log_has_no_traceback()


def closed(server: TlsServer) -> bool:
    try:
        server.plain().socket.close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_stop_with_idle_clients_that_do_not_answer_the_close_alert(authority: Authority, pair: Pair) -> None:
    with TlsServer(authority, [pair], *QUIET) as server, server.connect() as client:
        client.get("/")
        client.response()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        assert client.rest().reset is False
        assert "Cut" not in server.log


# --- the port that redirects ---


@pytest.fixture(scope="module")
def redirecting(authority: Authority, pair: Pair) -> Iterator[tuple[TlsServer, Callable[..., Client]]]:
    with TlsServer(authority, [pair], *QUIET, "--http-redirect-port", "0", "--bind", "[::1]:0") as server:
        wait_until(lambda: server.log.count("Listening on ") == 4, "all ports")
        plain = re.findall(r"Listening on TCP address (\S+):(\d+)\n", server.log)

        def open_plain(*, six: bool = False) -> Client:
            [port] = [int(port) for host, port in plain if (":" in host) is six]
            return Client(("::1" if six else "127.0.0.1", port), family=socket.AF_INET6 if six else socket.AF_INET)

        yield server, open_plain
        assert server.stop() == 0
        assert server.log_has_no_traceback()
        with pytest.raises(ConnectionRefusedError):
            open_plain()


@pytest.mark.parametrize(("target", "host", "location"), [
    ("/", "server.test", "https://server.test:{port}/"),
    ("/a%2Fb/?c=d%20e&f", "server.test:80", "https://server.test:{port}/a%2Fb/?c=d%20e&f"),
    ("/a", "[2001:db8::1]:8080", "https://[2001:db8::1]:{port}/a"),
    ("http://server.test/b?c", "server.test", "https://server.test:{port}/b?c"),
])  # fmt: skip
@pytest.mark.parametrize("six", [False, True])
def test_plain_http_is_sent_to_https(
    redirecting: tuple[TlsServer, Callable[..., Client]], target: str, host: str, location: str, six: bool
) -> None:
    server, open_plain = redirecting
    with open_plain(six=six) as client:
        for method in ("GET", "POST"):
            client.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
            answer = client.response()
            assert (answer.status, answer["location"], answer.body) == (308, location.format(port=server.port), b"")


@pytest.mark.parametrize("request_", [
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
])  # fmt: skip
def test_redirect_without_a_host_is_refused(redirecting: tuple[TlsServer, Callable[..., Client]], request_: bytes) -> None:
    _, open_plain = redirecting
    with open_plain() as client:
        client.send(request_)
        assert client.rest().only.status == 400


def test_redirect_refuses_websockets(redirecting: tuple[TlsServer, Callable[..., Client]]) -> None:
    _, open_plain = redirecting
    with open_plain() as client:
        client.get(
            "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcyAuLg=="
        )
        assert client.response().status == 403


def test_curl_follows_the_redirect(tool: Tool, redirecting: tuple[TlsServer, Callable[..., Client]], authority: Authority) -> None:
    server, open_plain = redirecting
    with open_plain() as client:
        port = client.socket.getpeername()[1]
    words = [tool("curl"), "--silent", "--show-error", "--location", "--max-time", "30", "--cacert", authority.path]
    words += ["--data", "body", f"http://127.0.0.1:{port}/echo?a=b"]
    found = subprocess.run(words, capture_output=True, timeout=60)
    told = json.loads(found.stdout)
    assert (told["scheme"], told["method"], told["body"], told["server"][1]) == ("https", "POST", "body", server.port)


def test_redirect_port_that_is_taken_is_said(authority: Authority, pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ["--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key, "--http-redirect-port", str(taken.getsockname()[1])]
        found = subprocess.run(Server.words("apps:app", "--bind", "127.0.0.1:0", *options), capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert "Address already in use" in found.stderr
    assert "Traceback" not in found.stderr
