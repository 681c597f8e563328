"""How live a session is: first frame, deadlines, interrupts, lips against sound, memory, how many at once.

    python -m benchmarks.rtf [--bundle lite] [--latency low] [--sessions N|auto] [--video pictures|motion] [--minutes 1]
        [--json FILE]
    python -m benchmarks.rtf --bundle full --random-weights --device cuda

Measured through `head.session`, as an application uses it. Prints one JSON line, then the report in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._rtf_measure import (
    VIDEO,
    Run,
    Setting,
    converse_at_once,
    lips_against_sound,
    load_and_register,
    long_enough,
    most_sessions,
    read_utterances,
)
from benchmarks._rtf_play import flat_out, take_turns
from benchmarks._rtf_report import Report, publish
from benchmarks.faces import SHARED, example_portrait
from benchmarks.speech import example_speech
from ditto.bundle import find_folder
from ditto.commands import Arguments, real_number, run, whole_number
from ditto.errors import DittoError
from ditto.machine import leave_out_of_collections
from ditto.media.files import check_output_file, complete_file, partial_file

TURNS = 12  # of speaking and interrupting, each
THROUGHPUTS = 5
MOST_SESSIONS = 64


def say(words: str) -> None:
    """What is going on, for whoever waits."""
    print(words, file=sys.stderr, flush=True)


async def measure(options: argparse.Namespace, words: Sequence[str]) -> Report:
    """Everything, one after another; `words` are the command's own."""
    sessions = options.sessions
    most = MOST_SESSIONS if sessions == "auto" else sessions
    speech = read_utterances(options.speech)
    say("loading and registering")
    head, portrait, loading = load_and_register(
        options.bundle, options.portrait, most, options.device, options.latency
    )
    leave_out_of_collections()  # as `ditto serve` does
    setting = Setting(head, portrait, speech, options.latency, options.seed, options.video)

    say("first frames and interrupts")
    async with setting.player(8.0 * options.turns) as player:
        delay, faults = player.session.delay_seconds, player.faults
        lines = long_enough(speech, delay)
        paced = await take_turns(player, lines, options.turns, True, options.seed)
        flat = await take_turns(player, lines, options.turns, False, options.seed)
        say("flat out")
        throughput = await flat_out(player, max(lines, key=len), THROUGHPUTS)

    async def converse(count: int) -> Run:
        say(f"{count} in conversation, {options.minutes:g} minutes")
        return await converse_at_once(setting, count, options.minutes)

    runs, held = await most_sessions(converse, most) if sessions == "auto" else ([await converse(sessions)], None)
    say("lips against sound")
    held_run = next(run for run in runs if held is None or len(run.players) == max(1, held))
    sync = lips_against_sound(setting, held_run)
    command = shlex.join(["python", "-m", "benchmarks.rtf", *words])
    return Report(
        command,
        options.device,
        setting,
        delay,
        options.minutes,
        loading,
        paced,
        flat,
        throughput,
        faults,
        runs,
        held,
        held_run,
        sync,
    )


def default_speech() -> Path:
    """The recordings nothing was trained on; in a checkout without them, the example."""
    recordings = SHARED / "speech" / "librispeech_test"
    return recordings if recordings.is_dir() else example_speech()


def count_of_sessions(text: str) -> int | str:
    """A number from 1 to 64, or "auto"."""
    if text == "auto":
        return text
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SESSIONS:
        raise argparse.ArgumentTypeError(f"sessions are 1 to {MOST_SESSIONS}, or auto, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    made = Arguments(prog="python -m benchmarks.rtf", description=__doc__.split("\n")[0])
    made.add_argument("--bundle", default="lite", help="name or folder")
    made.add_argument("--latency", default="low")
    made.add_argument("--random-weights", action="store_true", help="of --bundle full: nonsense, in the time it takes")
    made.add_argument("--device", default="cpu", help="where a full bundle's networks run: cpu, cuda")
    made.add_argument(
        "--sessions", type=count_of_sessions, default=1, help="how many at once, or auto: as many as hold"
    )
    made.add_argument("--video", choices=VIDEO, default="pictures", help="what sessions give: pictures, or motion alone")
    made.add_argument(
        "--minutes", type=real_number(1e-3, 600), default=1.0, help="of conversation, for every number of sessions"
    )
    made.add_argument("--portrait", type=Path, default=example_portrait(), help="a picture, or a saved one (.npz, .portrait)")
    made.add_argument("--speech", type=Path, default=default_speech(), help="a recording, or a folder of them")
    made.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    made.add_argument("--turns", type=whole_number(1, 1000), default=TURNS, help="repeats of first frames and interrupts")
    made.add_argument("--json", type=Path, help="write the JSON to a file, too")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser()
    words = sys.argv[1:] if arguments is None else arguments
    options = command.parse_args(words)
    if options.json is not None:
        check_output_file(options.json)
    if not options.random_weights:
        find_folder(options.bundle)
    if options.random_weights and options.bundle != "full":
        command.error(f"random weights are for --bundle full, got {options.bundle}; leave them out")
    try:
        with tempfile.TemporaryDirectory() as folder:
            if options.random_weights:
                from benchmarks.random_bundle import write_random_bundle

                say("writing random weights, 2 GB")
                options.bundle = f"{folder}/full"
                write_random_bundle(Path(options.bundle), options.seed)
            line = publish(report := asyncio.run(measure(options, words)))
    except DittoError as error:
        command.error(str(error))
    if options.json is not None:
        part = partial_file(options.json)
        part.write_text(json.dumps(json.loads(line), indent=1) + "\n", encoding="utf-8")
        complete_file(part, options.json)
    if report.faults:
        raise SystemExit("the sessions did other than they promise; see Checked")


if __name__ == "__main__":
    run(main)
