"""Animations of TalkingHead.js (met4citizen/TalkingHead): `{"name", "dt": [ms, ...], "vs": {"jawOpen": [...], ...}}`.

`dt` is how long each value takes from the one before: a value is reached at the sum of `dt` up to it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError
from ditto.exchange.files import Given, field, json_of, number, opened, whole
from ditto.exchange.track import MOST_FRAMES, BlendshapeTrack, checked_track, columns_of
from ditto.media.files import write_file


def write(track: BlendshapeTrack, path: str | Path, name: str = "ditto") -> None:
    """Write an animation. Raises OutputError: the file cannot be written."""
    steps = np.diff(1000.0 * (track.times - track.times[0]), prepend=0.0)
    values = {shape: np.round(track.weights[:, i], 7).tolist() for i, shape in enumerate(ARKIT_NAMES)}
    write_file(path, json.dumps({"name": name, "dt": np.round(steps, 6).tolist(), "vs": values}).encode())


def read(given: Given) -> BlendshapeTrack:
    """An animation; values that are no shapes of ARKit are left out.

    Raises:
        ExchangeError: the file cannot be read, a key is missing or of another form, or a value is no finite number.
    """
    source = opened(given, "an animation of TalkingHead (JSON)")
    name, found = source.name, json_of(source.name, whole(source))
    steps, values = field(name, found, "dt", list), field(name, found, "vs", dict)
    if not steps or len(steps) > MOST_FRAMES:
        raise ExchangeError(f"{name}: expected 1 to {MOST_FRAMES} steps in dt, got {len(steps)}; export it again")
    names = list(values)
    weights = np.zeros((len(steps), SHAPES))
    for place, column in columns_of(names, f"{name}, vs").items():
        given_values = values[names[column]]
        if not isinstance(given_values, list) or len(given_values) != len(steps):
            got = len(given_values) if isinstance(given_values, list) else type(given_values).__name__
            raise ExchangeError(f"{name}, vs.{names[column]}: expected {len(steps)} numbers, as dt, got {got}; correct it")
        for n, value in enumerate(given_values):
            weights[n, place] = number(f"{name}, vs.{names[column]}[{n}]", value)
    seconds = np.cumsum([number(f"{name}, dt[{n}]", step) for n, step in enumerate(steps)]) / 1000.0
    return checked_track(name, seconds, weights)
