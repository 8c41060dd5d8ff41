"""The certificate that servers are started with over TLS: self-signed, made for one run, gone with its directory.

A key on P-256, as most sites have by now. It matters little: connections stay open, so that handshakes are no part of what is measured.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files: a certificate and its key, the latter as PKCS #8, which is all that granian reads."""

    certificate: Path
    key: Path


def make_identity(directory: Path) -> Identity:
    """Make a certificate for www.example.org in `directory`."""
    identity = Identity(directory / "certificate.pem", directory / "key.pem")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2",
               "-subj", "/CN=www.example.org", "-addext", "subjectAltName=DNS:www.example.org,IP:127.0.0.1",
               "-keyout", str(identity.key), "-out", str(identity.certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return identity
