"""Draws rows of motion with a checkout, as often as it is asked to: a process of benchmarks.render --against.

    python _drawing.py CHECKOUT PORTRAIT.npz ROWS.npy PICTURES.npy

It imports `ditto` from CHECKOUT, makes a portrait of the fields in PORTRAIT.npz, draws every row once, writes the pictures,
and then draws all rows with as many threads as each line of its input says. Its output is a line of JSON for each: processor
and wall time of a picture, ms. It runs with the interface of today, and with that of 2b5040d, where a renderer was given a
`Drive`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def way_of_drawing(fields: dict[str, Any]) -> Callable[[Any], Any]:
    """A row of motion (70,) to the finished picture (H, W, 3), as a stream of the checkout draws it."""
    import ditto

    head: Any = ditto.load("lite")
    portrait = ditto.Portrait(**fields)
    if hasattr(head, "performer"):
        from ditto.motion.motion import Motion

        renderer, appearance = head.performer.renderer, head.performer.prepare(portrait)
        return lambda row: appearance.paste_back(
            renderer.render(appearance.prepared, renderer.retarget(portrait, Motion(row)))
        )
    renderer, prepared = head.renderer, head.appearance(portrait)
    motion_of = sys.modules["ditto.motion"].Motion.from_compact
    return lambda row: prepared.paste_back(renderer.render(prepared.mesh, renderer.drive(portrait, motion_of(row))))


def picture_ms(draw: Callable[[Any], Any], rows: Sequence[Any], threads: int) -> tuple[float, float]:
    """Processor and wall time of a picture, ms, with all rows drawn by each thread."""

    def work() -> None:
        for row in rows:
            draw(row)

    workers = [threading.Thread(target=work, name=f"draw {number}") for number in range(threads)]
    processor, wall = time.process_time(), time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pictures = threads * len(rows)
    return 1e3 * (time.process_time() - processor) / pictures, 1e3 * (time.perf_counter() - wall) / pictures


def main() -> None:
    checkout, portrait, motions, pictures = sys.argv[1:]
    sys.path.insert(0, checkout)
    import ditto

    if not Path(ditto.__file__).resolve().is_relative_to(Path(checkout).resolve()):
        sys.exit(f"expected ditto from {checkout}, got {ditto.__file__}; give the root of a checkout")
    rows = np.load(motions)
    with np.load(portrait) as fields:
        draw = way_of_drawing({"alpha": None, **fields})
    np.save(pictures, np.stack([draw(row) for row in rows]))
    print(json.dumps({"drawn": len(rows)}), flush=True)
    for line in sys.stdin:
        processor, wall = picture_ms(draw, rows, int(line))
        print(json.dumps({"processor": processor, "wall": wall}), flush=True)


if __name__ == "__main__":
    main()
