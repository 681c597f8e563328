"""Opens a project of the editor from files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import SUFFIXES, read_timeline
from ditto.editor.project import Project
from ditto.errors import InputError
from ditto.media.audio import AudioReader
from ditto.media.files import check_writable
from ditto.portrait.portrait import Portrait
from ditto.take import Take, TakeSound
from ditto.talking_head import TalkingHead

TAKE = ".take"
MOST_SECONDS = 900.0  # of a recording: its motion and sound lie in memory, and the page draws all of it


def timeline_file(recording: Path) -> Path:
    """The timeline file of a recording, where nobody names one."""
    return recording.with_suffix(SUFFIXES[0])


def check_recording(recording: Path, path: Path) -> None:
    """Check what is cheap to check, before a bundle is loaded.

    Raises:
        InputError: the recording or the timeline file cannot be read, or the timeline file has another ending.
        OutputError: the timeline file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"expected a timeline file that ends in {', '.join(SUFFIXES)}, got {path}; name another")
    check_writable(path)
    if recording.suffix.lower() == TAKE:
        Take.load(recording)
    else:
        AudioReader(recording)
    if os.path.exists(path):  # False for a name that no system takes, too
        read_timeline(path)


def open_project(
    head: TalkingHead, portrait: Portrait, recording: Path, path: Path, folder: Path, seed: int = 0
) -> Project:
    """The project of a recording or take.

    Args:
        path: of the timeline file; it need not exist.
        folder: for temporary files.
        seed: of the motion of a recording; a take has its own.

    Raises:
        InputError: a file cannot be read, the recording is too long, or never shows something in the timeline file.
        TakeError: the take is of another bundle.
    """
    if recording.suffix.lower() == TAKE:
        take = Take.load(recording)
        take.check_bundle(head.bundle.id)
    else:
        take = head.take(portrait, recording, seed=seed)
    if take.seconds > MOST_SECONDS:
        raise InputError(
            f"expected at most {MOST_SECONDS:g} s to edit, got {take.seconds:.0f} s; cut it with `ditto motion edit`"
        )
    sound = TakeSound(take)
    sound_file = folder / "sound.wav"
    sound.write(sound_file)
    timeline = read_timeline(path, take.seconds) if os.path.exists(path) else Timeline()
    return Project(head, portrait, take, timeline, path, sound_file, np.concatenate([*sound.blocks()]))
