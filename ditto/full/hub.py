"""The published checkpoints from the Hugging Face hub: `ditto bundle pull full`.

Revisions are pinned, so every user gets the same files. Files go through the hub client's own cache: complete files are not
fetched again, interrupted downloads resume, and HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and HF_TOKEN work as usual.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ditto.bundle import Bundle, digest
from ditto.errors import BundleError, InputError, OutputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one revision.

    Attributes:
        name: "owner/name".
        revision: commit.
        licence: of the fetched files.
        what: what the files are.
        files: path in the repository -> size in bytes.
    """

    name: str
    revision: str
    licence: str
    what: str
    files: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())


DITTO = Repository(
    "digital-avatar/ditto-talkinghead",
    "e4a2f60328ee7c32af585ac4b3cce299e4c8e254",
    "Apache-2.0; the networks of LivePortrait in it: MIT",
    "Ditto's motion network, its streaming HuBERT, its settings; LivePortrait's networks",
    {
        "ditto_cfg/v0.4_hubert_cfg_pytorch.pkl": 31_002,
        "ditto_cfg/v0.4_hubert_cfg_trt_online.pkl": 30_924,
        "ditto_pytorch/models/appearance_extractor.pth": 3_387_959,
        "ditto_pytorch/models/decoder.pth": 221_813_590,
        "ditto_pytorch/models/lmdm_v0.4_hubert.pth": 191_247_715,
        "ditto_pytorch/models/motion_extractor.pth": 112_545_506,
        "ditto_pytorch/models/stitch_network.pth": 2_393_098,
        "ditto_pytorch/models/warp_network.pth": 182_180_086,
        "ditto_pytorch/aux_models/hubert_streaming_fix_kv.onnx": 1_460_740_880,
    },
)
HUBERT = Repository(
    "facebook/hubert-large-ls960-ft",
    "ece5fabbf034c1073acae96d5401b25be96709d8",
    "Apache-2.0",
    "HuBERT large, the speech encoder",
    {"config.json": 1_400, "pytorch_model.bin": 1_262_000_000},
)
FULL = (DITTO, HUBERT)


def licences() -> str:
    """What `pull` fetches, with its licences, for the user to read."""
    lines = [
        f"{r.name} ({r.bytes / 1e9:.2f} GB, revision {r.revision[:8]})\n  {r.what}\n  licence: {r.licence}"
        for r in FULL
    ]
    return "\n".join([*lines, "InsightFace's face detectors are not fetched: their licence forbids commercial use."])


def pull(
    output: str | Path | None = None, *, replace: bool = False, report: Callable[[str], None] = logger.info
) -> Bundle:
    """Fetch the published checkpoints and make the bundle "full" of them.

    Args:
        output: the bundle's folder; by default where `ditto.load("full")` finds it.
        replace: whether an existing bundle may be replaced.
        report: called with a few words before each step.

    Raises:
        InputError: torch or huggingface_hub is not installed, or the output exists.
        BundleError: the hub cannot be reached or lacks a file, or a file differs from the published one.
        OutputError: the disk is full.
    """
    try:
        import huggingface_hub  # noqa: F401

        from ditto.full.conversion.bundling import check_target, convert
    except ImportError as error:
        raise InputError(
            f"expected torch and huggingface_hub, got: {error}; pip install 'ditto-talking-head[full]'"
        ) from error
    check_target(output, replace)  # before gigabytes are fetched
    folders = [fetch_all(repository, report) for repository in FULL]
    return convert(folders[0], output, hubert=folders[1], replace=replace, report=report)


def fetch_all(repository: Repository, report: Callable[[str], None]) -> Path:
    """The folder with a repository's files, fetched and checked.

    Raises:
        BundleError, OutputError: as `pull`.
    """
    for file in repository.files:
        report(f"fetching {repository.name}/{file}")
        path = fetch(repository, file)
        report(f"checking {file}")
        check(path, repository, file)
    return path.parents[len(Path(file).parts) - 1]


def fetch(repository: Repository, file: str) -> Path:
    """One file, from the cache or the hub.

    Raises:
        BundleError, OutputError: as `pull`.
    """
    import huggingface_hub
    from huggingface_hub import constants

    where = f"{repository.name}/{file} at revision {repository.revision[:8]}"
    try:
        return Path(huggingface_hub.hf_hub_download(repository.name, file, revision=repository.revision))
    except Exception as error:  # the hub client's HTTP library, and with it the error types, differ between versions
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"expected space for {where}, got a full disk; free space, or set HF_HOME to another folder"
            ) from error
        raise BundleError(f"{where} {reason(error, constants.HF_HUB_OFFLINE)}") from error


def reason(error: Exception, offline: bool) -> str:
    """Why a file was not fetched, and what to do."""
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.HfHubHTTPError):  # the client reports the hub's answer as "not in the cache"
        error = error.__cause__
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if offline:
            return "is not in the cache, and HF_HUB_OFFLINE is set; unset it"
        return "is not in the cache, and the hub cannot be reached; check the connection, or HF_ENDPOINT"
    if isinstance(error, errors.GatedRepoError):
        return "needs a login; accept its terms on the hub's page and set HF_TOKEN"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)):
        return "is not on the hub; upgrade ditto, or convert a copy of the checkpoints with `ditto bundle convert`"
    message = " ".join(str(error).split())[:300] or type(error).__name__
    return f"could not be fetched: {message}; run the command again, complete files are kept"


def check(path: Path, repository: Repository, file: str) -> None:
    """Compare a file with the hub's digest, which is its name in the cache: SHA-256, or Git's SHA-1 for a small file.

    Raises:
        BundleError: they differ.
    """
    stored = path.resolve()
    expected = stored.name
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", expected):  # a cache without links
        logger.warning("the hub's checksum of %s is not in this cache; only its contents are checked", path)
        return
    came = digest(stored) if len(expected) == 64 else git_digest(stored)
    if came != expected:
        raise BundleError(
            f"{repository.name}/{file}: expected the digest {expected[:12]}..., got {came[:12]}... of {stored}; delete that "
            "file and run the command again"
        )


def git_digest(path: Path) -> str:
    """SHA-1 of a file as Git names it."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
