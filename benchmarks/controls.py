"""Does a control do what it says: asked for, drawn, and read again from the picture.

    python -m benchmarks.controls [SECTION ...] [--bundle lite] [--portraits FOLDER]
        --face-landmarker face_landmarker.task --landmarker-python PYTHON

Sections: pose, gaze, jaw, emotion, arkit. Without a name, all of them. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import _controls_arkit, _controls_emotion, _controls_head
from benchmarks._controls import Section, Study, register_folder
from benchmarks._report import figures_table, publish
from benchmarks.faces import SHARED
from ditto.commands import Arguments, existing_file, existing_folder, run, whole_number
from ditto.errors import InputError
from ditto.media.files import check_folder
from ditto.talking_head import load

SECTIONS: dict[str, Section] = {
    "pose": _controls_head.pose,
    "gaze": _controls_head.gaze,
    "jaw": _controls_head.jaw,
    "emotion": _controls_emotion.measure,
    "arkit": _controls_arkit.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Arguments(prog="python -m benchmarks.controls", description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--bundle", default="lite")
    parser.add_argument(
        "--portraits", type=existing_folder, default=SHARED / "portraits", help="a folder of pictures of faces"
    )
    parser.add_argument("--data", type=existing_folder, default=SHARED, help="folder with speech and clips")
    parser.add_argument("--face-landmarker", type=existing_file, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--landmarker-python", default=sys.executable, help="a Python with the package mediapipe")
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of what was drawn")
    options = parser.parse_args(arguments)
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"expected sections out of {', '.join(SECTIONS)}, got {name!r}")
    if options.sheets is not None:
        check_folder(options.sheets)
    chosen = options.sections or list(SECTIONS)
    head = load(options.bundle)
    missed = False
    try:
        portraits = register_folder(head, options.portraits)
        study = Study(
            head, portraits, options.data, options.face_landmarker, options.landmarker_python, options.seed, options.sheets
        )
        for name in chosen:
            started = time.perf_counter()
            report = SECTIONS[name](study)
            tables = [figures_table(f"Controls: {name}", report.figures), *report.tables]
            seconds = time.perf_counter() - started
            publish(f"controls.{name}", report.figures, tables, portraits=len(portraits), seconds=seconds)
            missed |= any(figure.met is False for figure in report.figures)
    except InputError as error:
        parser.error(str(error))
    return int(missed)


if __name__ == "__main__":
    run(main)
