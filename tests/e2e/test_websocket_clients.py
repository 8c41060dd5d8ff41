"""WebSocket clients that nobody here wrote: `websockets`, npm's `ws`, autobahn; and a socket over TLS."""

import datetime as dt
import json
import os
import random
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from e2e.server import Server, wait_until

HERE = Path(__file__).parent
MESSAGES: list[str | bytes] = ["hello", "", b"", "żółw 🐢" * 1_000, random.Random(1).randbytes(500_000)]  # noqa: S311 - any bytes will do


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("socket_apps:app", "--no-access-log") as running:
        yield running
        assert running.stop() == 0


def url(server: Server, path: str) -> str:
    return f"ws://{server.host}:{server.port}{path}"


def talk(client: ClientConnection) -> None:
    for message in MESSAGES:
        client.send(message)
        assert client.recv(timeout=30) == message
    client.send(["in ", "three ", "pieces"])
    assert client.recv(timeout=30) == "in three pieces"
    assert client.ping().wait(30)


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets_talks_and_closes(server: Server, compression: str | None) -> None:
    with connect(url(server, f"/echo?name={compression}"), compression=compression) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        talk(client)
        client.close(4_001, "done")
        assert (client.protocol.close_code, client.protocol.close_reason) == (4_001, "done")
    wait_until(lambda: f"/echo{compression}: disconnect 4001 done" in server.ask("/events"), "the end")


def test_websockets_is_told_why(server: Server) -> None:
    with connect(url(server, "/echo"), compression=None) as client:
        client.send(bytes(1_048_577))
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    with pytest.raises(InvalidStatus) as refused:
        connect(url(server, "/refuse"))
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as denied:
        connect(url(server, "/deny"))
    assert denied.value.response.body == b"log in first"


def test_npm_ws_talks_and_closes(server: Server, tool: Callable[[str], str]) -> None:
    modules = Path(os.environ.get("NODE_PATH", ""))
    if not (modules / "ws").is_dir():
        reason = "npm's ws is not installed (make installs it, and sets NODE_PATH)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    script = str(HERE / "node" / "ws_client.js")
    found = subprocess.run([tool("node"), script, url(server, "/echo")], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert answer == {"echoed": 6, "pong": True, "extensions": "permessage-deflate", "code": 4_001, "reason": "done"}


def test_autobahn_talks_and_closes(server: Server) -> None:
    words = [sys.executable, str(HERE / "autobahn_client.py"), server.host, str(server.port)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {"echoed": 5, "extensions": ["PerMessageDeflate"], "clean": True, "code": 4_001}


# --- over TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Key and certificate for localhost."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "key.pem", directory / "cert.pem"
    paths[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    paths[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return paths


def test_websocket_over_a_tls_endpoint_of_twisteds(certificate: tuple[Path, Path]) -> None:
    key, chain = certificate
    endpoint = f"ssl:0:privateKey={key}:certKey={chain}:interface=127.0.0.1"
    context = ssl.create_default_context(cafile=str(chain))
    with Server("socket_apps:app", "--no-access-log", "--endpoint", endpoint, port=False) as server:
        port = re.search(r"port=(\d+)", server.log)
        assert port is not None, server.log
        address = f"wss://localhost:{port[1]}"
        with connect(f"{address}/echo?name=tls", ssl=context) as client:
            talk(client)
        with connect(f"{address}/scope", ssl=context) as client:
            assert "'scheme': 'wss'" in str(client.recv(timeout=30))
        with connect(f"{address}/flood", ssl=context) as client:
            assert len(client.recv(timeout=30)) == 65_536
        with connect(f"{address}/echo", ssl=context, compression=None) as client:
            client.send(bytes(1_048_577))
            with pytest.raises(ConnectionClosedError):
                client.recv(timeout=30)
        assert server.stop() == 0
        assert "Traceback" not in server.log
