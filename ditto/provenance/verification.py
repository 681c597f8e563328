"""What the content credentials of a file say, and whether the file is still as it was signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from ditto.errors import ProvenanceError
from ditto.media.files import Source
from ditto.provenance.marking import BESIDE, EMBEDDED, SETTINGS, SIDECAR, TERMS, Ingredient, import_c2pa, in_a_thread

State: TypeAlias = Literal["valid", "untrusted", "altered", "absent"]
CREDENTIAL = ("signingCredential.", "timeStamp.")  # codes of C2PA about who signed and when, not about the file
HASH = "sha256:"


class Verdict(NamedTuple):
    """What the content credentials of a file say.

    Attributes:
        state: "valid": unchanged since it was signed, with a key that is trusted. "untrusted": unchanged, but nobody vouches
            for the key, or its certificate has expired. "altered": the file, or its credentials, were changed after signing.
            "absent": the file has no credentials.
        generator: the program that made the file, and its version.
        signer: organization and name of the certificate.
        source_type: IPTC's term of how it was made, as "compositeWithTrainedAlgorithmicMedia".
        ingredients: what went into it.
        problems: C2PA's codes of what is wrong.
        sidecar: the file that has the credentials, if the file itself does not.
    """

    state: State
    generator: str | None = None
    signer: str | None = None
    source_type: str | None = None
    ingredients: tuple[Ingredient, ...] = ()
    problems: tuple[str, ...] = ()
    sidecar: Path | None = None

    @property
    def is_generated(self) -> bool:
        """Whether the credentials say that a trained network made the file, or a part of it."""
        return self.source_type is not None and "trainedalgorithmicmedia" in self.source_type.lower()


def verify(file: str | PathLike[str], trust: str | PathLike[str] | None = None) -> Verdict:
    """Read the content credentials of a file, or of the sidecar beside it, of ditto or any other program. Nothing is fetched.

    Args:
        trust: certificates (PEM) of those who are trusted to sign, or to issue certificates that sign; without it, nobody is.

    Raises:
        ProvenanceError: a file cannot be read or is of another kind than its name says; or c2pa-python is not installed.
    """
    try:
        c2pa = import_c2pa()
    except Exception as error:  # a native library that does not load raises anything
        raise ProvenanceError(
            f"expected the package c2pa-python to read content credentials, got: {error}; pip install c2pa-python"
        ) from None
    path = Path(file)
    source = Source(path, "a video or picture", ProvenanceError)
    suffix = path.suffix.lower()
    if suffix == SIDECAR:
        raise ProvenanceError(f"expected a video or picture, got the credentials {path}; give the file that lies beside them")
    format = EMBEDDED.get(suffix) or BESIDE.get(suffix, "application/octet-stream")
    beside = path.with_suffix(SIDECAR)
    sidecar = beside if suffix not in EMBEDDED and beside.is_file() else None
    if suffix not in EMBEDDED and sidecar is None:
        if suffix in BESIDE or not _has_credentials(source):
            return Verdict("absent")
        format = "video/mp4"  # of a file without a suffix that is known; c2pa-python looks at the content
    settings = SETTINGS if trust is None else SETTINGS | {"trust": {"user_anchors": _anchors(trust)}}
    try:
        manifest = () if sidecar is None else (Source(sidecar, "content credentials", ProvenanceError).read(),)
        with source.open() as stream:
            return _verdict(json.loads(in_a_thread(lambda: _read(format, stream, manifest, settings))), sidecar)
    except c2pa.C2paError.ManifestNotFound:
        return Verdict("absent")
    except c2pa.C2paError as error:
        told = " ".join(str(error).split())
        if told.startswith("Remote"):  # the file has only the address of its credentials
            return Verdict("absent", problems=(told,))
        if sidecar is not None or (suffix in EMBEDDED and _has_credentials(source)):
            return Verdict("altered", problems=(told,), sidecar=sidecar)
        noun = EMBEDDED.get(suffix, "a video or picture")
        raise ProvenanceError(
            f"expected {noun} at {path}, got a file that cannot be read ({told}); check its name and content"
        ) from None


def _read(format: str, stream: BinaryIO, manifest: tuple[bytes, ...], settings: Mapping[str, Any]) -> str:
    """What c2pa's Reader says of a file, and of the manifest store beside it, as JSON."""
    c2pa = import_c2pa()
    with c2pa.Context.from_dict(settings) as context:
        with c2pa.Reader(format, stream, *manifest, context=context) as reader:
            return str(reader.json())


def _verdict(said: Mapping[str, Any], sidecar: Path | None) -> Verdict:
    """The verdict of what c2pa's Reader says (its `json`)."""
    manifest = said.get("manifests", {}).get(said.get("active_manifest"), {})
    made_by = (manifest.get("claim_generator_info") or [{}])[0]
    signed_by = manifest.get("signature_info") or {}
    found = said.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    problems = tuple(failure["code"] for failure in found)
    if said.get("validation_state") == "Trusted":
        state: State = "valid"
    elif all(code.startswith(CREDENTIAL) for code in problems):
        state = "untrusted"
    else:
        state = "altered"
    return Verdict(
        state,
        " ".join(filter(None, (made_by.get("name"), made_by.get("version")))) or None,
        ", ".join(filter(None, (signed_by.get("issuer"), signed_by.get("common_name")))) or None,
        _source_type(manifest),
        tuple(map(_ingredient, manifest.get("ingredients", []))),
        problems,
        sidecar,
    )


def _source_type(manifest: Mapping[str, Any]) -> str | None:
    """The term of the action that created the file."""
    for assertion in manifest.get("assertions", []):
        if assertion.get("label", "").startswith("c2pa.actions"):
            for action in assertion["data"]["actions"]:
                if term := action.get("digitalSourceType"):
                    return str(term).removeprefix(TERMS)
    return None


def _ingredient(said: Mapping[str, Any]) -> Ingredient:
    identity = said.get("instance_id") or ""
    digest = identity.removeprefix(HASH) if identity.startswith(HASH) else None
    return Ingredient(said.get("title") or "", said.get("format") or "", digest)


def _anchors(trust: str | PathLike[str]) -> str:
    """The certificates of a file as text. Raises ProvenanceError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = Source(Path(trust), "certificates (PEM)", ProvenanceError).read()
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ProvenanceError(f"expected certificates (PEM) in {trust}, got other text ({error}); export them") from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)  # and no key among them


def _has_credentials(source: Source) -> bool:
    """Whether a label of C2PA is among the bytes of a file: then it has credentials, and they cannot be read any more."""
    with source.open() as stream:
        kept = b""
        while block := stream.read(1 << 20):
            if b"c2pa." in kept + block:
                return True
            kept = block[-4:]
    return False
