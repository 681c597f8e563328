"""A small folder of clips of drawn faces, as `ditto.training.latent.data` writes it."""

import hashlib
import json
from dataclasses import asdict

import numpy as np
from safetensors.numpy import save

from ditto.training.latent.data import FORMAT, ClipInfo, Clips

SIDE = 16


def drawn_face(opening, colour):
    """(16, 16, 3) uint8: a plain face whose dark mouth opens by 0 to 4 rows."""
    face = np.full((SIDE, SIDE, 3), colour, np.uint8)
    face[9 : 9 + opening, 4:12] = 20
    face[4:6, 3:6] = face[4:6, 10:13] = 60
    return face


def write_clips(folder, frames=12, count=4, change=None):
    """Clips with a mouth that opens and closes; the last one is held out. `change` has other arrays for the first clip."""
    (folder / "clips").mkdir(parents=True)
    infos = []
    for place in range(count):
        random = np.random.default_rng(place)
        colour = random.integers(100, 230, 3)
        opening = np.sin(np.arange(frames) * (0.5 + 0.2 * place))
        arrays = {
            "frames": np.stack([drawn_face(int(rows), colour) for rows in np.round(2 + 2 * opening)]),
            "source": drawn_face(0, colour),
            "square": np.array([8.0, 8.0, 8.0]),
            "features": (opening[:, None] + random.normal(0, 0.1, (frames, 6))).astype(np.float16),
            "motion": random.normal(0, 1, (frames, 70)).astype(np.float32),
            "sound": np.zeros(frames * 640, np.int16),
        }
        data = save({**arrays, **(change or {} if place == 0 else {})})
        name, split = f"clip_{place}", "held" if place == count - 1 else "train"
        (folder / "clips" / f"{name}.safetensors").write_bytes(data)
        infos.append(ClipInfo(name, f"face_{place}.png", "a.flac", place, frames, split, hashlib.sha256(data).hexdigest()))
    clips = Clips(folder, SIDE, tuple(infos))
    (folder / "clips.jsonl").write_text("".join(json.dumps(asdict(info)) + "\n" for info in infos))
    (folder / "clips.json").write_text(json.dumps({"format": FORMAT, "side": SIDE, "fingerprint": clips.fingerprint}))
    return clips
