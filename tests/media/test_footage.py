"""Videos as pictures at 25 a second; the rest is tested where footage is prepared (tests/training/test_prepare.py)."""

import numpy as np

from ditto.media.footage import pictures
from ditto.media.video import VideoWriter


def test_a_video_that_was_cut_off_says_how_much_is_missing(tmp_path, caplog):
    path = tmp_path / "actor.mp4"
    with VideoWriter(path, 64, 64) as writer:
        for frame in np.random.default_rng(0).integers(0, 256, (75, 64, 64, 3), np.uint8):
            writer.write(frame)
    assert len(list(pictures(str(path)))) == 75 and not caplog.records
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    left = len(list(pictures(str(path))))
    assert 10 < left < 50
    assert f"actor.mp4 has {left / 25:.2f} s of 3.00 s; the rest is missing or damaged" in caplog.text
