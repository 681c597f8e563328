"""What stands in for the making of a video in the tests of batches. The "portrait" holds the name of a folder for notes."""

import os
import signal
import time
from pathlib import Path

from ditto.errors import AudioError


def folder_of(job):
    return Path(job.portrait.read_text())


def note(job, what):
    """A line in the folder's log: several processes may write it."""
    with (folder_of(job) / "log").open("ab", buffering=0) as log:
        log.write(f"{what} {job.name}\n".encode())


def write(job, output):
    """The "video" is the name of its output and the seed."""
    note(job, "made")
    if job.seed == 13:
        raise AudioError(f"expected sound, got none in {job.audio}; give another file")
    output.write_text(f"{job.name} {job.seed}")
    return {"frames": job.seed}


def die_once(job, output):
    """As `write`, but the first worker that gets `a.mp4` is killed, as if memory had run out."""
    first = folder_of(job) / "died"
    if job.name == "a.mp4" and not first.exists():
        first.touch()
        output.with_name(f".{output.stem}.left.part").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(job, output)


def die(job, output):
    """As `write`, but `a.mp4` kills every worker."""
    if job.name == "a.mp4":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(job, output)


def wait(job, output):
    """As `write`, but waits for the file `go` after it has said where it is."""
    import ray

    note(job, f"begun {ray.get_runtime_context().get_node_id()} {os.getpid()}")
    while not (folder_of(job) / "go").exists():
        time.sleep(0.05)
    return write(job, output)
