"""Content credentials (C2PA) of the files that ditto writes: what they say, and how a finished file gets them.

Source: C2PA Technical Specification 2.2; the signature and the hashes are made by c2pa-python.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import mimetypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ditto.errors import ProvenanceError
from ditto.media.files import complete_file, partial_file, whole_file
from ditto.provenance.credentials import UNSIGNED, Credentials

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Of files that carry their credentials inside. All others get a sidecar beside them.
EMBEDDED = MappingProxyType(
    {
        ".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".png": "image/png", ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".tif": "image/tiff", ".tiff": "image/tiff",
    }
)  # fmt: skip
BESIDE = MappingProxyType({".webm": "video/webm", ".mkv": "video/x-matroska"})
SIDECAR = ".c2pa"
# IPTC's terms. A real picture and a recorded voice go into the video: a composite of these with what a trained network made.
TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SOURCE_TYPE = f"{TERMS}compositeWithTrainedAlgorithmicMedia"
SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},  # no network
    "builder": {"thumbnail": {"enabled": False}},  # no copy of a picture in its own file
    "core": {"backing_store_memory_threshold_in_mb": 32},  # a longer copy of the file, while it is signed, lies on the disk
}
SMALLEST_PNG = bytes.fromhex(  # one black pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944415478da6360000000020001e527defc00000000"
    "49454e44ae426082"
)


class Ingredient(NamedTuple):
    """A file that went into another one, by its hash: no name, and nothing of its content.

    Attributes:
        title: "portrait" or "speech".
        format: its MIME type.
        sha256: of the file, hexadecimal; None if that is not known.
    """

    title: str
    format: str
    sha256: str | None

    @classmethod
    def of(cls, title: str, file: str | PathLike[str]) -> Ingredient:
        """The ingredient that a file is; without a hash for what cannot be read again, as standard input.

        Raises:
            ProvenanceError: the file cannot be read.
        """
        path = Path(file)
        format = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        try:
            return cls(title, format, _sha256(path) if path.is_file() else None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ProvenanceError(f"expected to read {path} for its hash, got: {reason}; check its permissions") from None


@dataclass(frozen=True)
class Provenance:
    """What the content credentials of a file say, and who signs them.

    They say that ditto made the file (with its version), that it is a composite with generated media, what went into it, and
    nothing else: no names of files or people, no date, no place.

    Attributes:
        ingredients: what went into the file.
        credentials: certificate and key; None: `Credentials.default()`.
    """

    ingredients: tuple[Ingredient, ...] = ()
    credentials: Credentials | None = None

    def ready(self) -> Provenance:
        """The same with credentials, so that whatever is wrong with them is known before any work is done.

        Where c2pa-python is not installed, nothing can be signed, and it stays as it is.

        Raises:
            ProvenanceError: as of `Credentials.default`.
        """
        if self.credentials is not None or not can_sign():
            return self
        return replace(self, credentials=Credentials.default())

    def made_from(self, **files: str | PathLike[str]) -> Provenance:
        """The same with ingredients: `made_from(portrait="portrait.jpg", speech="speech.wav")`.

        Raises:
            ProvenanceError: a file cannot be read.
        """
        return replace(self, ingredients=tuple(Ingredient.of(title, file) for title, file in files.items()))


def publish(part: str | PathLike[str], target: str | PathLike[str], provenance: Provenance | None) -> bool:
    """Sign a finished file and give it its name; with `provenance` None only the latter.

    MP4, MOV, PNG, JPEG, GIF, WebP and TIFF files carry their credentials inside. Beside every other file lies a sidecar of the
    same name with the suffix .c2pa; it is replaced, or removed, together with the file. Where c2pa-python is not installed,
    the file stays unsigned, and a warning says so.

    Args:
        part: the finished file. It is gone afterwards; if an error is raised, it is still there.
        target: its name. Nothing under that name changes if an error is raised.

    Returns:
        Whether it was signed.

    Raises:
        ProvenanceError: the file cannot be signed.
        OSError: the file cannot be written.
    """
    complete(Path(part), Path(target), sign(Path(part), Path(target), provenance))
    return provenance is not None and can_sign()


def sign(part: Path, target: Path, provenance: Provenance | None) -> bytes | None:
    """Sign a finished file in place, as its name will be `target`; the sidecar of a file that cannot carry credentials."""
    if provenance is None:
        return None
    if not can_sign():
        logger.warning(
            "%s is written without content credentials, nothing in it says that it is generated: c2pa-python is not installed "
            "(pip install c2pa-python; some systems have no wheel of it)",
            target,
        )
        return None
    credentials = provenance.credentials or Credentials.default()
    suffix = target.suffix.lower()
    if suffix not in EMBEDDED:
        with part.open("rb") as source:
            format = BESIDE.get(suffix, "application/octet-stream")
            return _signed(provenance, credentials, format, source, io.BytesIO(), target.name, embed=False)
    signed = partial_file(part)
    try:
        with part.open("rb") as source, signed.open("w+b") as out:
            _signed(provenance, credentials, EMBEDDED[suffix], source, out, target.name)
        os.replace(signed, part)
    finally:
        signed.unlink(missing_ok=True)
    return None


def complete(part: Path, target: Path, sidecar: bytes | None) -> None:
    """Give a signed file its name, and its sidecar the same with another suffix. Raises OSError."""
    beside = target.with_suffix(SIDECAR)
    if sidecar is None:
        replaced = target.suffix.lower() in BESIDE and target.exists()
        complete_file(part, target)
        if replaced:
            beside.unlink(missing_ok=True)  # of the video that is gone
        return
    with whole_file(beside) as beside_part:
        beside_part.write_bytes(sidecar)
        complete_file(part, target)


@lru_cache(maxsize=1)
def can_sign() -> bool:
    """Whether c2pa-python works here."""
    try:
        import_c2pa()
    except Exception as error:  # a native library that does not load raises anything
        logger.debug("c2pa-python cannot be used: %s", error)
        return False
    return True


def import_c2pa() -> Any:
    """The module c2pa. Raises ImportError, or what a broken native library raises."""
    return importlib.import_module("c2pa")


def try_signing(credentials: Credentials, where: str) -> None:
    """Sign a picture of one pixel: whether C2PA takes the certificate. Asks no timestamp authority. Raises ProvenanceError."""
    if not can_sign():
        return
    alone = replace(credentials, timestamp_url=None)
    try:
        _sign_stream(Provenance(), alone, "image/png", io.BytesIO(SMALLEST_PNG), io.BytesIO(), True)
    except import_c2pa().C2paError as error:
        raise ProvenanceError(
            f"expected a certificate that may sign content credentials in {where}, got one that C2PA refuses: {_told(error)}; "
            "it needs the key usage digitalSignature and an extended key usage such as emailProtection (docs/provenance.md)"
        ) from None


def _signed(
    provenance: Provenance, credentials: Credentials, format: str, source: Any, out: Any, name: str, embed: bool = True
) -> bytes:
    """The manifest store of a signed file. Raises ProvenanceError."""
    try:
        return _sign_stream(provenance, credentials, format, source, out, embed)
    except import_c2pa().C2paError as error:
        asked = f", asking {credentials.timestamp_url}" if credentials.timestamp_url else ""
        raise ProvenanceError(
            f"{name} cannot be signed{asked}: {_told(error)}; check the disk and the certificate, or {UNSIGNED}"
        ) from None


def _sign_stream(
    provenance: Provenance, credentials: Credentials, format: str, source: Any, out: Any, embed: bool
) -> bytes:
    return in_a_thread(lambda: _sign_here(provenance, credentials, format, source, out, embed))


def in_a_thread(call: Callable[[], T]) -> T:
    """What a call of c2pa returns, made in a thread of its own.

    c2pa reads and writes through functions of Python. Signals reach the main thread alone; there, c2pa would take the
    KeyboardInterrupt of one for the end of the file.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ditto-provenance") as worker:
        return worker.submit(call).result()


def _sign_here(
    provenance: Provenance, credentials: Credentials, format: str, source: Any, out: Any, embed: bool
) -> bytes:
    c2pa = import_c2pa()
    information = c2pa.C2paSignerInfo(
        alg=credentials.algorithm, sign_cert=credentials.chain, private_key=credentials.key, ta_url=credentials.timestamp_url
    )
    with c2pa.Context.from_dict(SETTINGS) as context, c2pa.Signer.from_info(information) as signer:
        with c2pa.Builder(manifest_of(provenance, format), context) as builder:
            if not embed:
                builder.set_no_embed()
            return bytes(builder.sign(signer, format, source, out))


def manifest_of(provenance: Provenance, format: str) -> dict[str, Any]:
    """The manifest of a file of a MIME type, as c2pa's Builder takes it: ingredients, and the actions that made the file."""
    from ditto import __version__

    agent = {"name": "ditto", "version": __version__}
    ingredients = [
        {
            "title": given.title,
            "format": given.format,
            "relationship": "componentOf",
            "label": given.title,
            **({"instance_id": f"sha256:{given.sha256}"} if given.sha256 else {}),
        }
        for given in provenance.ingredients
    ]
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": agent,
        "description": "A generated face: motion by a trained network, drawn on a portrait.",
    }
    placed = [
        {"action": "c2pa.placed", "parameters": {"ingredientIds": [given.title]}} for given in provenance.ingredients
    ]
    return {
        "claim_generator_info": [agent],
        "title": "ditto",
        "format": format,
        "ingredients": ingredients,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created, *placed]}}],
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _told(error: Exception) -> str:
    return " ".join(str(error).split())
