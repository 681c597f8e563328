"""The key that signs, and its certificate: of this installation, made at first use, or the user's own."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.errors import ProvenanceError
from ditto.machine import user_data

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

OWN_CERTIFICATE, OWN_KEY = "DITTO_SIGNING_CERTIFICATE", "DITTO_SIGNING_KEY"
TIMESTAMPS = "DITTO_TIMESTAMP_URL"
UNSIGNED = "write without content credentials (--no-provenance, provenance=None)"
IDENTITY = "signing.pem"  # key, certificate and root of this installation
# No timestamp authority says when a file was signed, so its signature is judged by today's date: the certificate must outlive
# the files.
VALID_DAYS = 20 * 365
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}  # C2PA 2.2, 13.2.1: the signatures that it allows
KEYS = "an EC key (P-256, P-384, P-521), Ed25519 or RSA of 2048 bits or more"


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, which sign what ditto writes.

    Made by `load`, `of_installation` or `default`; all of them check that certificate and key belong together, and that the
    certificate may sign and has not expired.

    Attributes:
        chain: PEM of the certificate, and of those above it.
        key: PEM of the private key, PKCS #8, not encrypted.
        algorithm: of the signature, by C2PA's name: "es256", "ps256", "ed25519", ...
        timestamp_url: of a timestamp authority (RFC 3161), which is asked over the network at each signature; None: nobody is.
    """

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    timestamp_url: str | None = None

    @classmethod
    def load(
        cls, certificate: str | PathLike[str], key: str | PathLike[str], timestamp_url: str | None = None
    ) -> Credentials:
        """The user's own certificate (PEM, with the chain above it after it) and private key (PEM, not encrypted).

        Raises:
            ProvenanceError: a file cannot be read, certificate and key do not belong together, the certificate has expired, is
                not valid yet, or may not sign content credentials.
        """
        return _checked(_read(Path(certificate)), _read(Path(key)), f"{certificate} and {key}", timestamp_url)

    @classmethod
    def of_installation(cls, timestamp_url: str | None = None) -> Credentials:
        """The key of this installation, in a file of the user's data folder that only the user may read; made at first use.

        Nobody vouches for it, and it names nobody: it says that two files come from one installation, and nothing else.

        Raises:
            ProvenanceError: the file cannot be written, read or used.
        """
        path = identity_file()
        if not _is_there(path):
            _keep(path, make_identity())
        pem = _read(path)
        return _checked(pem, pem, str(path), timestamp_url)

    @classmethod
    def default(cls) -> Credentials:
        """`load` of DITTO_SIGNING_CERTIFICATE and DITTO_SIGNING_KEY if these are set, else `of_installation`.

        DITTO_TIMESTAMP_URL is its timestamp authority.

        Raises:
            ProvenanceError: as of these; or only one of the two is set.
        """
        return own_or_default(os.environ.get(OWN_CERTIFICATE) or None, os.environ.get(OWN_KEY) or None)


def own_or_default(certificate: str | PathLike[str] | None, key: str | PathLike[str] | None) -> Credentials:
    """The user's own credentials if both files are given, those of the installation if none is. Raises ProvenanceError."""
    timestamp_url = os.environ.get(TIMESTAMPS) or None
    if certificate is not None and key is not None:
        return Credentials.load(certificate, key, timestamp_url)
    if certificate is not None or key is not None:
        given, missing = ("certificate", "key") if key is None else ("key", "certificate")
        raise ProvenanceError(f"expected certificate and key to sign with, got the {given} alone; give the {missing} too")
    return Credentials.of_installation(timestamp_url)


def identity_file() -> Path:
    """Where the key of this installation is. Raises ProvenanceError for a user without a home folder."""
    try:
        return user_data() / IDENTITY
    except RuntimeError:
        raise ProvenanceError(
            f"expected a home folder for the signing key, got a user without one; set {OWN_CERTIFICATE} and {OWN_KEY}, or "
            f"{UNSIGNED}"
        ) from None


def make_identity() -> bytes:
    """A new P-256 key and its certificate, issued by a root whose key is forgotten: PEM of key, certificate, root.

    The certificate has what C2PA 2.2 (14.5, "Certificate profile") asks of it. But for a random number, its names are the same
    in every installation: no name of a user or machine.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key, root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    number = os.urandom(4).hex()
    root_name, name = f"ditto root {number}", f"ditto installation {number}"
    root = _certificate(root_name, root_name, root_key, root_key, True).sign(root_key, hashes.SHA256())
    leaf = _certificate(name, root_name, key, root_key, False).sign(root_key, hashes.SHA256())
    return _pem_of_key(key) + _pem_of(leaf) + _pem_of(root)


def _certificate(
    name: str,
    issuer: str,
    key: Any,
    issuer_key: Any,
    is_root: bool,
) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common_name: str) -> x509.Name:
        organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ditto")  # some readers refuse a certificate without one
        return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    usage = x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))  # a clock may be behind
        .not_valid_after(today + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder


def _checked(certificate: bytes, key: bytes, where: str, timestamp_url: str | None) -> Credentials:
    """Credentials of these PEM texts, after a trial signature. Raises ProvenanceError."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        chain = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise ProvenanceError(f"expected a certificate (PEM) in {where}, got other text ({error}); export it as PEM") from None
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        raise ProvenanceError(
            f"expected a private key without a password in {where}, got an encrypted one; decrypt it: openssl pkey"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProvenanceError(f"expected a private key (PEM) in {where}, got other text ({error}); export it as PEM") from None
    leaf, now = chain[0], datetime.now(timezone.utc)
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*public) != private.public_key().public_bytes(*public):
        raise ProvenanceError(
            f"expected the key of the certificate in {where}, got the key of another one; give the two that belong together, "
            "the signer's certificate before those above it"
        )
    first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not first <= now <= last:
        advice = "renew it" if now > last else "check the clock of this machine"
        raise ProvenanceError(
            f"expected a certificate that is valid today in {where}, got one for {first:%Y-%m-%d} to {last:%Y-%m-%d}; {advice}"
        )
    algorithm = _algorithm(private, where)
    checked = Credentials(b"".join(map(_pem_of, chain)), _pem_of_key(private), algorithm, timestamp_url)
    from ditto.provenance.marking import try_signing

    try_signing(checked, where)
    return checked


def _algorithm(key: PrivateKeyTypes, where: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise ProvenanceError(f"expected {KEYS} in {where}, got another kind of key; make such a key and certificate")


def _pem_of(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_of_key(key: PrivateKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise ProvenanceError(
            f"expected a certificate and key to sign with, {path} cannot be read: {reason}; check name and permissions"
        ) from None


def _is_there(path: Path) -> bool:
    """Whether it exists, readable or not. Raises ProvenanceError where that cannot be told."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _no_place(path, error) from None
    return True


def _keep(path: Path, pem: bytes) -> None:
    """Write a file that only the user may read. Of two processes that make one at the same time, one's stays."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise _no_place(path, error) from None


def _no_place(path: Path, error: OSError) -> ProvenanceError:
    return ProvenanceError(
        f"expected to keep the signing key of this installation at {path}, got: {error.strerror or error}; make the folder "
        f"writable, set {OWN_CERTIFICATE} and {OWN_KEY} to your own, or {UNSIGNED}"
    )
