"""The alpha of a portrait's picture moves with the picture."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import ditto
from ditto.media.pixels import OUTPUTS

EXAMPLES = Path(__file__).parents[3] / "examples"
SPEECH = np.zeros(6 * 640, np.float32)
TURNED = ditto.Controls(pose=(0.0, 14.0, 6.0))


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=1)


@pytest.fixture(scope="module")
def cut_out(head, portrait):
    return head.cut_out(portrait)


def test_alpha_is_the_picture_s_own_where_nothing_moves(head, cut_out):
    frame = next(head.animate(cut_out, SPEECH, output="rgba", still=True)).image
    seen = next(head.animate(cut_out, SPEECH, still=True)).image
    unmoved = cv2.erode(np.uint8((seen == cut_out.picture).all(-1)), np.ones((15, 15))) > 0
    np.testing.assert_array_equal(frame[unmoved, 3], cut_out.alpha[unmoved])
    assert unmoved.mean() > 0.5


def test_alpha_moves_with_the_head(head, cut_out):
    still = next(head.animate(cut_out, SPEECH, output="rgba", still=True)).image
    turned = next(head.animate(cut_out, SPEECH, output="rgba", still=True, controls=TURNED))
    assert turned.image.shape == (*cut_out.alpha.shape, 4)
    alpha = turned.image[..., 3]
    assert alpha.min() == 0 and alpha.max() == 255
    assert (np.abs(alpha.astype(int) - still[..., 3]) > 64).mean() > 0.003
    left = (still[..., 3] > 200) & (alpha < 50)  # where the head was, what is behind it shows
    assert left.sum() > 20
    seen = OUTPUTS["rgb24_green"](next(head.animate(cut_out, SPEECH, still=True, controls=TURNED)).image, alpha)
    assert seen[left, 1].mean() > 200


def test_a_session_gives_the_moving_alpha_too(head, cut_out):
    options = {"still": True, "controls": TURNED, "any_speed": True}
    with head.blocking_session(cut_out, output="rgba", **options) as session:
        first = next(iter(session)).image
    assert first[..., 3].max() == 255 and (first[..., 3] != cut_out.alpha).mean() > 0.005


def test_an_opaque_picture_is_opaque(head, portrait):
    assert (next(head.animate(portrait, SPEECH, output="rgba")).image[..., 3] == 255).all()
    with pytest.raises(ValueError, match="expected an output of rgb24"):
        head.animate(portrait, SPEECH, output="argb")


def test_a_file_has_the_alpha_of_its_frames(head, cut_out, tmp_path):
    height, width = cut_out.alpha.shape
    frames = [frame.image for frame in head.animate(cut_out, SPEECH, output="rgba", controls=TURNED)]
    with ditto.VideoWriter(tmp_path / "out.webm", width, height, alpha=True) as writer:
        for frame in frames:
            writer.write(frame)
    decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own VP9 leaves alpha out
    with av.open(str(tmp_path / "out.webm")) as container:
        read = [picture for packet in container.demux(video=0) for picture in decoder.decode(packet)]
    assert len(read) == len(frames)
    for picture, frame in zip(read, frames, strict=True):
        alpha = picture.to_ndarray(format="rgba")[..., 3]
        assert alpha.min() == 0 and alpha.max() == 255
        assert np.abs(alpha.astype(int) - frame[..., 3]).mean() < 2
