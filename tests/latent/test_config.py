"""Sizes of the latent systems: they check themselves, and come back from JSON."""

import json
from dataclasses import replace

import pytest

from ditto.errors import InputError
from ditto.latent.config import (
    CODEC_PAPER,
    CODEC_RAP_PAPER,
    CODEC_RAP_SMALL,
    CODEC_SMALL,
    CODEC_TINY,
    CodecConfig,
    Level,
    from_json,
    to_json,
)


@pytest.mark.parametrize("config", [CODEC_PAPER, CODEC_SMALL, CODEC_TINY, CODEC_RAP_PAPER, CODEC_RAP_SMALL])
def test_a_codec_comes_back_from_json(config):
    assert from_json(CodecConfig, json.loads(json.dumps(to_json(config)))) == config


def test_the_geometry_of_the_paper():
    assert CODEC_PAPER.compression() == 768
    assert (CODEC_PAPER.time, CODEC_PAPER.space, CODEC_PAPER.feature_space) == (4, 64, 16)
    assert (512 // CODEC_PAPER.space) ** 2 == 64
    assert [CODEC_PAPER.latents(frames) for frames in (1, 5, 17, 73)] == [1, 2, 5, 19]
    assert (CODEC_PAPER.frames(4), CODEC_PAPER.frames(4, first=False)) == (13, 16)


def test_the_geometry_of_rap():
    """8192 pixels and 128 numbers a token, 121 frames to 16 latents (RAP, section 4.1)."""
    assert CODEC_RAP_PAPER.space**2 * CODEC_RAP_PAPER.time == 8192 and CODEC_RAP_PAPER.compression() == 192
    assert [CODEC_RAP_PAPER.latents(frames) for frames in (121, 81, 17)] == [16, 11, 3]
    assert (512 // CODEC_RAP_PAPER.space) ** 2 * 11 == 2816


@pytest.mark.parametrize("frames", [0, 2, 4, 16])
def test_frames_that_do_not_fill_latents_are_refused(frames):
    with pytest.raises(InputError, match=rf"expected 4 n \+ 1 frames at the start of a video, got {frames};"):
        CODEC_PAPER.latents(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ()}, "expected levels of features, got none"),
        ({"latent_channels": 0}, "expected latent_channels of 1 or more, got 0"),
        ({"bottleneck": (Level(16, blocks=-1),)}, "expected blocks of a level of bottleneck of 0 or more, got -1"),
        ({"bottleneck": (Level(24),)}, "change by 1 in time and 2 in space can divide, got 16 to 24"),
        ({"expand": (Level(6),)}, "expected channels of the decoder that 16 divides after .* got 6"),
        ({"expand": (Level(16), Level(4))}, "the same channels, got 16 and 4"),
        ({"expand": (Level(16, space=4),)}, "bottleneck and expand to change space alike, got 2 and 4"),
        ({"draw": (Level(16, time=2), Level(16))}, "features and draw to change time alike, got 4 and 2"),
        ({"reference_heads": 3}, "a multiple of 4 x 3 channels, got 16"),
        ({"distance_bias": (1.0,)}, "a distance_bias for each of 2 heads, got 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CODEC_TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: words.pop("stem"), "missing or unknown stem"),
        (lambda words: words.update(colour=1), "missing or unknown colour"),
        (lambda words: words.update(stem="8"), "expected stem of a CodecConfig as int, got '8'"),
        (lambda words: words.update(aligned_features=1), "expected aligned_features of a CodecConfig as bool, got 1"),
        (lambda words: words["draw"][0].pop("time"), "expected the numbers of a Level, got missing or unknown time"),
        (lambda words: words.update(draw=3), "expected draw of a CodecConfig as .*, got 3"),
    ],
)
def test_json_of_another_kind_is_refused(change, message):
    words = json.loads(json.dumps(to_json(CODEC_TINY)))
    change(words)
    with pytest.raises(InputError, match=message):
        from_json(CodecConfig, words)


def test_json_that_is_no_object_is_refused():
    with pytest.raises(InputError, match="expected the numbers of a CodecConfig, got list"):
        from_json(CodecConfig, [])
