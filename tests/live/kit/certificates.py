"""A CA and certificates that it signed, made by the test: ECDSA on P-256, names as DNS subjectAltNames."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """One certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


def authority(name: str) -> tuple[bytes, Callable[[str], Issued]]:
    """The CA's certificate, and who signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    def build(of: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(of).issuer_name(subject).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        made = made.not_valid_after(now + timedelta(days=1))
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)

    def issue(host: str) -> Issued:
        own = ec.generate_private_key(ec.SECP256R1())
        made = build(_name(host), own.public_key())
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(authority_key, critical=False)
        private = serialization.PrivateFormat.TraditionalOpenSSL
        pem = own.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        return Issued(_pem(made.sign(key, hashes.SHA256())), pem)

    root = build(subject, key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _pem(root.sign(key, hashes.SHA256())), issue


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
