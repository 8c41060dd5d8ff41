"""Certificates for the tests: an authority, what it signed for servers and clients, and the list of what it revoked.

They are made once a run (`authority` in conftest.py); every file is PEM, keys are P-256: quick to make and to use.
"""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD: Final = "swordfish"  # noqa: S105 - it guards a key that lives for a test run
_DAY: Final = dt.timedelta(days=1)
Extensions: TypeAlias = list[tuple[x509.ExtensionType, bool]]  # and whether each is critical


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (its chain after it) and its key."""

    certificate: str
    key: str

    @property
    def pem(self) -> str:
        """The certificate's own text."""
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
        return begin + Path(self.certificate).read_text(encoding="ascii").split(begin)[1].partition(end)[0] + end


class Authority:
    """Signs whatever is asked of it. Its own certificate is at `path`, what it revoked at `revoked`."""

    def __init__(self, directory: Path) -> None:
        """Make its key, its certificate and a list that revokes nothing."""
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Test Authority")
        self._middle: tuple[x509.Name, ec.EllipticCurvePrivateKey, bytes] | None = None
        self.path = str(directory / "authority.pem")
        own = self._sign(self._name, self._key, [(x509.BasicConstraints(ca=True, path_length=None), True)])
        Path(self.path).write_bytes(own)
        self.revoked = str(directory / "revoked.pem")
        self.revoke()

    def make(
        self,
        file: str,
        *names: str,
        subject: x509.Name | None = None,
        password: str = "",
        expired: bool = False,
        chained: bool = False,
        together: bool = False,
    ) -> Pair:
        """Sign a certificate for DNS names and addresses; `chained`: by an intermediate; `together`: its key is in the same file."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: Extensions = [(x509.SubjectAlternativeName([_general(name) for name in names]), False)] if names else []
        shift = -30 * _DAY if expired else dt.timedelta()
        pem = self._sign(subject or _name(names[0] if names else file), key, extensions, shift=shift, chained=chained)
        certificate, private = self._directory / f"{file}.pem", self._directory / f"{file}-key.pem"
        secret = _private(key, password)
        certificate.write_bytes(secret + pem if together else pem)
        private.write_bytes(secret)
        return Pair(str(certificate), str(certificate if together else private))

    def revoke(self, *pairs: Pair) -> None:
        """Make the list anew."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(now - _DAY).next_update(now + _DAY)
        for pair in pairs:
            serial = x509.load_pem_x509_certificate(pair.pem.encode()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _DAY)
            builder = builder.add_revoked_certificate(entry.build())
        Path(self.revoked).write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def client(self, pair: Pair | None = None, **options: object) -> ssl.SSLContext:
        """Give a context that trusts this authority; `pair` is what it shows."""
        context = ssl.create_default_context(cafile=self.path)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: Extensions,
        *,
        shift: dt.timedelta = dt.timedelta(),
        chained: bool = False,
    ) -> bytes:
        """Sign; give the certificate with its chain."""
        issuer, signer, chain = self._name, self._key, b""
        if chained:
            issuer, signer, chain = self._intermediate()
        now = dt.datetime.now(dt.UTC) + shift
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        extensions = [*extensions, (own, False), (by, False)]
        if any(isinstance(extension, x509.BasicConstraints) for extension, _ in extensions):
            extensions.append((_SIGNS, True))
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + chain

    def _intermediate(self) -> tuple[x509.Name, ec.EllipticCurvePrivateKey, bytes]:
        if self._middle is None:
            key, name = ec.generate_private_key(ec.SECP256R1()), _name("Test Intermediate")
            self._middle = name, key, self._sign(name, key, [(x509.BasicConstraints(ca=True, path_length=0), True)])
        return self._middle


_SIGNS: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey, password: str) -> bytes:
    secrecy = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
