"""TLS for the loop's transports: contexts from certificates, one per name, and what the ASGI `tls` extension says of a connection.

One context is what a connection begins with; the others are chosen by the name the client asks for (SNI, RFC 6066 §3). All are made alike:
TLS 1.2 or newer, no compression (CRIME), no renegotiation, no session tickets (Python's `ssl` offers neither ticket keys to share between
workers nor a session context per name, and a session taken to another name must not skip its client certificate: CVE-2025-23419).
Reloading makes a whole new set, which comes into force only if every part of it can be used; connections keep the one they began with.

What Python's `ssl` cannot do is written in docs/tls.md.
"""

import contextlib
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from termserver.config import Tls
from termserver.errors import ConfigError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PROTOCOLS: Final = ("http/1.1",)
PROTOCOLS_WITH_HTTP2: Final = ("h2", *PROTOCOLS)
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERSION_NUMBERS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_ID_BITS: Final = 0xFFFF  # OpenSSL's number of a cipher suite holds IANA's in its lower half
_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)  # what `cryptography` does not take


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate with its context."""

    context: ssl.SSLContext
    pem: str
    names: frozenset[str]


class Contexts:
    """The contexts of all certificates. `default` is for the port: it sends whoever asks for another name to that one's."""

    def __init__(self, config: Tls, protocols: Iterable[str] = PROTOCOLS) -> None:
        """Read every file. `protocols` are for ALPN, ours first. Raises `ConfigError`."""
        protocols = list(protocols)
        keys = config.keys or config.certificates
        pairs = zip(config.certificates, keys, strict=True)
        self._certificates = [_load(config, certificate, key, protocols) for certificate, key in pairs]
        self.default = self._certificates[0].context
        self._by_name = {name: each for each in reversed(self._certificates) for name in each.names}
        self._pem = {id(each.context): each.pem for each in self._certificates}
        self._suites = {suite["name"]: int(suite["id"]) & _ID_BITS for suite in self.default.get_ciphers()}
        if len(self._certificates) > 1:
            self.default.sni_callback = self._choose

    def _choose(self, connection: Any, name: str | None, _context: ssl.SSLContext) -> None:
        """Take the certificate for the name that the client asked for; the first one where there is none."""
        if name is not None:
            found = self._by_name.get(name.lower()) or self._by_name.get("*." + name.lower().partition(".")[2])
            if found is not None:
                connection.context = found.context

    def describe(self, connection: ssl.SSLObject) -> dict[str, object]:
        """Give the ASGI `tls` extension of a connection whose handshake is over (ASGI tls 0.2)."""
        cipher, version = connection.cipher(), connection.version()
        facts: dict[str, object] = {
            "server_cert": self._pem.get(id(connection.context)),
            "tls_version": _VERSION_NUMBERS.get(version or ""),
            "cipher_suite": self._suites.get(cipher[0]) if cipher is not None else None,
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
        }
        chain = _client_chain(connection)
        if chain:
            facts["client_cert_chain"] = [ssl.DER_cert_to_PEM_cert(each) for each in chain]
            with contextlib.suppress(*_UNREADABLE):  # OpenSSL took it
                facts["client_cert_name"] = x509.load_der_x509_certificate(chain[0]).subject.rfc4514_string()
        return facts


def ignore_impossible_names() -> None:
    """Keep names that are no ASCII out of standard error: Python's `ssl` writes a traceback there for each that a client asks for.

    The handshake fails all the same, and the log says so.
    """
    before = sys.unraisablehook

    def hook(unraisable: "UnraisableHookArgs") -> None:
        if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and type(unraisable.object) is bytes):
            before(unraisable)

    sys.unraisablehook = hook


def _client_chain(connection: Any) -> list[bytes]:
    """Give the client's certificates in DER, its own first; before Python 3.13 that one alone is to be had."""
    own = connection.getpeercert(binary_form=True)
    if own is None:  # Trap: Python 3.13 fails to give the chain of a client that showed nothing
        return []
    get_chain = getattr(connection, "get_unverified_chain", None)
    return [own] if get_chain is None else [bytes(each) for each in get_chain()]


def _load(config: Tls, certificate: str, key: str, protocols: list[str]) -> _Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(protocols)
    try:
        if config.ciphers:
            context.set_ciphers(config.ciphers)
    except ssl.SSLError as error:
        raise ConfigError(f"tls.ciphers: expected OpenSSL's names of cipher suites, got {config.ciphers!r}") from error
    try:
        context.load_cert_chain(certificate, key, lambda: config.password)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls.certificates: cannot use {certificate} with the key in {key}: {_words(error)}") from error
    _verify_clients(context, config)
    try:
        pem = _leaf(Path(certificate).read_text(encoding="ascii", errors="replace"))
        return _Certificate(context, pem, _names(pem))
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError(f"tls.certificates: cannot read the names in {certificate}: {_words(error)}") from error


def _verify_clients(context: ssl.SSLContext, config: Tls) -> None:
    context.verify_mode = _VERIFY[config.clients]
    for name, path in (("client_ca", config.client_ca), ("client_crl", config.client_crl)):
        if path:
            try:
                context.load_verify_locations(path)
            except (OSError, ValueError) as error:
                raise ConfigError(f"tls.{name}: cannot use {path}: {_words(error)}") from error
    if config.client_crl:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


def _leaf(pem: str) -> str:
    """Give the server's own certificate out of a file that may hold its chain and key as well."""
    end = "-----END CERTIFICATE-----"
    return "-----BEGIN CERTIFICATE-----" + pem.partition("-----BEGIN CERTIFICATE-----")[2].partition(end)[0] + end + "\n"


def _names(pem: str) -> frozenset[str]:
    """Give the DNS names that the certificate is for (RFC 6125)."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))
