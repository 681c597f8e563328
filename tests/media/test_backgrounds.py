"""Frames with alpha: their pixel formats, and what is laid behind them."""

import numpy as np
import pytest
from PIL import Image

from ditto.errors import ImageError, InputError, VideoError
from ditto.media.backgrounds import background, check_background
from ditto.media.pixels import OUTPUTS, lay_over
from ditto.media.video import VideoWriter

ALPHA = np.zeros((32, 48), np.uint8)
ALPHA[8:24, 8:40], ALPHA[8:24, 40] = 255, 128
SEEN = np.full((32, 48, 3), 255, np.uint8)  # red over white
SEEN[8:24, 8:40], SEEN[8:24, 40] = (200, 0, 0), (227, 127, 127)
RGBA = OUTPUTS["rgba"](SEEN, ALPHA)


def test_alpha_above_and_below_and_over_green():
    stacked = OUTPUTS["rgba_stacked"](SEEN, ALPHA)
    assert stacked.shape == (64, 48, 3)
    np.testing.assert_array_equal(stacked[:32], RGBA[..., :3])
    np.testing.assert_array_equal(stacked[32:], np.repeat(ALPHA[..., None], 3, -1))
    green = OUTPUTS["rgb24_green"](SEEN, ALPHA)
    assert green[0, 0].tolist() == [0, 255, 0] and green[16, 16].tolist() == [200, 0, 0]
    assert abs(green[16, 40].astype(int) - (100, 127, 0)).max() <= 1


def test_colours_and_alpha_are_laid_over_as_defined():
    rng = np.random.default_rng(0)
    alpha = np.clip(rng.integers(-200, 456, (40, 56)), 0, 255).astype(np.uint8)
    seen, behind = (rng.integers(0, 256, (40, 56, 3)).astype(np.uint8) for _ in range(2))
    rgba = OUTPUTS["rgba"](seen, alpha)
    share = alpha[..., None].astype(np.float32) / np.float32(255.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = np.clip(np.rint(255 - (255 - seen.astype(np.float32)) / share), 0, 255)
    straight = np.where(alpha[..., None] == 0, 255, straight)
    np.testing.assert_array_equal(rgba, np.dstack([straight, alpha]))
    wide = alpha[..., None].astype(np.uint16)
    np.testing.assert_array_equal(lay_over(rgba, behind), (rgba[..., :3] * wide + behind * (255 - wide) + 127) // 255)


@pytest.mark.parametrize("given", ["purpel", "none.png", 300 * "a", "a\0b", "."])
def test_the_option_is_checked_before_any_work(given):
    with pytest.raises(InputError, match="expected a colour, blur, a picture or a video"):
        check_background(given)
    for known in ("navy", "#20c040", "blur", "transparent", __file__):
        check_background(known)


def test_a_colour_a_picture_and_a_blur(tmp_path):
    blue = background("#0000ff", SEEN, ALPHA)(RGBA)
    assert blue[0, 0].tolist() == [0, 0, 255] and blue[16, 16].tolist() == [200, 0, 0]
    wide = np.zeros((10, 100, 3), np.uint8)
    wide[:, 40:60] = 255  # its middle, and all of it that is seen
    Image.fromarray(wide).save(tmp_path / "navy", "PNG")
    for given in (tmp_path / "navy", wide):
        assert background(given, SEEN, ALPHA)(RGBA)[0, 20:28].min() > 250
    room = np.full((32, 48, 3), 60, np.uint8)
    room[8:24, 8:40] = 255  # the person, who does not shine into the blur
    assert background("blur", room, ALPHA)(RGBA)[0, 0].max() < 70


def test_a_video_loops(tmp_path):
    with VideoWriter(tmp_path / "room.mp4", 64, 64) as writer:
        for level in (40, 120, 200):
            writer.write(np.full((64, 64, 3), level, np.uint8))
    lay = background(tmp_path / "room.mp4", SEEN, ALPHA)
    levels = [int(lay(RGBA)[0, 0, 0]) for _ in range(7)]
    assert np.abs(np.array(levels) - [40, 120, 200, 40, 120, 200, 40]).max() < 6


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("purpel", InputError, "expected a colour, blur, a picture or a video"), ("none.png", InputError, "none.png"),
        ("bad.png", ImageError, "bad.png"), ("bad.mp4", VideoError, "bad.mp4"), ("none.mp4", VideoError, "none.mp4"),
    ],
)  # fmt: skip
def test_what_is_no_background_is_refused(tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(error, match=message):
        background(given, SEEN, ALPHA)


def test_an_opaque_portrait_has_no_background():
    with pytest.raises(InputError, match="cut the person out first"):
        background("blur", SEEN, None)
