"""The published checkpoints from the Hugging Face hub: `ditto bundle pull full`.

Revisions are pinned, so what is fetched today is what was fetched yesterday. Files go through the hub client's own cache:
one that is complete is not fetched again, a connection that breaks is taken up again, and HF_HUB_OFFLINE, HF_ENDPOINT,
HF_HOME and HF_TOKEN mean what they always mean.
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
        licence: of what is fetched.
        what: what that is.
        files: path in the repository -> bytes.
    """

    name: str
    revision: str
    licence: str
    what: str
    files: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Of all files."""
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
    """What `pull` would fetch, and under which licences."""
    lines = [
        f"{r.name} ({r.bytes / 1e9:.2f} GB, revision {r.revision[:8]})\n  {r.what}\n  licence: {r.licence}"
        for r in FULL
    ]
    return "\n".join([*lines, "InsightFace's face detectors, which are not for commercial use, are not fetched."])


def pull(
    output: str | Path | None = None, *, replace: bool = False, report: Callable[[str], None] = logger.info
) -> Bundle:
    """Fetch the published checkpoints and make the bundle "full" of them.

    Args:
        output: the bundle's folder; by default where `ditto.load("full")` finds it.
        replace: whether a bundle that is there may be replaced.
        report: is told in a few words what is being done.

    Raises:
        InputError: torch or huggingface_hub is not installed, or the output is there already.
        BundleError: the hub cannot be reached or has not what is wanted, or a file is not what was published.
        OutputError: no space is left.
    """
    try:
        import huggingface_hub  # noqa: F401

        from ditto.full.conversion.bundling import convert, free_target
    except ImportError as error:
        raise InputError(f"{error}: getting checkpoints needs it; pip install 'ditto-talking-head[full]'") from error
    free_target(output, replace)  # before gigabytes are fetched
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
    except Exception as error:  # the hub client changes the library it speaks HTTP with
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{where} cannot be kept: no space is left; set HF_HOME to another place") from error
        raise BundleError(f"{where} {reason(error, constants.HF_HUB_OFFLINE)}") from error


def reason(error: Exception, offline: bool) -> str:
    """Why a file did not come, and what to do."""
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.HfHubHTTPError):  # the client makes "not in the cache" of what the hub answered
        error = error.__cause__
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if offline:
            return "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset it"
        return "is not in the cache, and the hub cannot be reached; check the connection, or HF_ENDPOINT"
    if isinstance(error, errors.GatedRepoError):
        return "wants a login: accept its terms on the hub's page and set HF_TOKEN"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)):
        return "is not on the hub; upgrade ditto, or convert a copy of the checkpoints with `ditto bundle convert`"
    told = " ".join(str(error).split())[:300] or type(error).__name__
    return f"could not be fetched: {told}; run it again, what is complete is kept"


def check(path: Path, repository: Repository, file: str) -> None:
    """Compare a file with the digest the hub has of it, which is its name in the cache: SHA-256, or Git's of a small one.

    Raises:
        BundleError: it differs.
    """
    stored = path.resolve()
    wanted = stored.name
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", wanted):  # a cache without links
        logger.warning("the checksum of %s is not known on this machine; its contents are checked all the same", path)
        return
    came = digest(stored) if len(wanted) == 64 else git_digest(stored)
    if came != wanted:
        raise BundleError(
            f"{repository.name}/{file} should have the digest {wanted[:12]}..., {stored} has {came[:12]}...; delete that file "
            "and run it again"
        )


def git_digest(path: Path) -> str:
    """SHA-1 of a file as Git names it."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
