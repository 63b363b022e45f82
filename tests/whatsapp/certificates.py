"""The two chains of trust: Noise certificates for the handshake, TLS certificates beneath it.

Both have their root here and are new in every run. A client comes to trust the Noise root by
``trust.py`` and the TLS root by ``SSL_CERT_FILE``; everything below them it verifies as it would
WhatsApp's.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from time import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.whatsapp import protobuf
from tests.whatsapp.keys import KeyPair

DAY = 86_400
WEB_HOST = "web.whatsapp.com"
MEDIA_HOST = "mmg.whatsapp.net"
STATIC_HOST = "pps.whatsapp.net"  # profile pictures

LEAF, INTERMEDIATE = 1, 2
DETAILS, SIGNATURE = 1, 2
SERIAL, ISSUER_SERIAL, KEY, NOT_BEFORE, NOT_AFTER = 1, 2, 3, 4, 5


def noise_chain(root: KeyPair, static: bytes) -> bytes:
    """A ``CertChain``: the root vouches for an intermediate key, and that for the static one.

    whatsmeow (``verifyServerCert`` in ``handshake.go``) wants the root's serial to be 0, the leaf's
    key to be the server's static key, and both certificates to be valid now.
    """
    intermediate = KeyPair()
    upper = _noise_certificate(root, intermediate.public, serial=1, issuer=0)
    lower = _noise_certificate(intermediate, static, serial=2, issuer=1)
    return protobuf.write({LEAF: lower, INTERMEDIATE: upper})


def _noise_certificate(signer: KeyPair, key: bytes, *, serial: int, issuer: int) -> bytes:
    now = int(time())
    details = protobuf.write(
        {
            SERIAL: serial,
            ISSUER_SERIAL: issuer,
            KEY: key,
            NOT_BEFORE: now - DAY,
            NOT_AFTER: now + 365 * DAY,
        }
    )
    return protobuf.write({DETAILS: details, SIGNATURE: signer.sign(details)})


@dataclass(frozen=True)
class TlsIdentity:
    """A certificate for WhatsApp's names and for loopback, and the authority behind it."""

    authority: Path
    context: ssl.SSLContext


def tls_identity(folder: Path) -> TlsIdentity:
    """Make both anew and write them to ``folder``."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Local WhatsApp authority")
    authority = (
        _certificate(authority_name, issuer=authority_name, key=authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, SHA256())
    )
    names = [
        *(x509.DNSName(host) for host in (WEB_HOST, MEDIA_HOST, STATIC_HOST, "localhost")),
        x509.IPAddress(IPv4Address("127.0.0.1")),
    ]
    certificate = (
        _certificate(_name(WEB_HOST), issuer=authority_name, key=key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, SHA256())
    )
    authority_file, own_file = folder / "ca.pem", folder / "server.pem"
    authority_file.write_bytes(authority.public_bytes(Encoding.PEM))
    own_file.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_file)
    return TlsIdentity(authority=authority_file, context=context)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    today = datetime.fromtimestamp(time(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=365))
    )
