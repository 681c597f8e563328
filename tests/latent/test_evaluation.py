"""How a latent bundle is measured: each figure on pictures whose answer is known."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the latent systems need torch")

from ditto.training.latent.data import ClipInfo
from ditto.training.latent.evaluation import (
    Figure,
    MouthReader,
    Talk,
    agreement,
    drift_of,
    followed,
    lips_of,
    parts_of,
)
from ditto.training.latent.sheets import lips_rows, write_png

INFO = ClipInfo("clip", "face.png", "speech.wav", 0, 0, "held", "")


def pictures(openings, tint=0.0, side=64):
    """Faces of noise that stands still, with a dark mouth as high as it is open."""
    base = np.random.default_rng(0).uniform(90, 160, (side, side, 3))
    base[..., 0] += tint
    rows = np.arange(side)[None, :, None, None]
    columns = np.abs(np.arange(side) - 32)[None, None, :, None]
    reach = np.clip(0.5 + 8 * np.asarray(openings)[:, None, None, None] - np.abs(rows - 48), 0, 1)
    return (base * (1 - reach * (columns < 8))).round().astype(np.uint8)


def curve(frames, seed):
    random = np.random.default_rng(seed)
    return np.convolve(random.uniform(0, 1.0, frames + 6), np.ones(7) / 7, "valid")


def talk(made, wanted, frames=None):
    reader = MouthReader(pictures(curve(200, 1)), curve(200, 1))
    real = pictures(wanted)
    loudness = np.ones(len(wanted))
    return Talk(INFO, real, made, wanted, reader(real), reader(made), loudness, 1.0)


def test_the_reader_finds_the_opening_in_pictures_that_it_never_saw():
    reader = MouthReader(pictures(curve(200, 1)), curve(200, 1))
    wanted = curve(100, 2)
    assert agreement(reader(pictures(wanted)), wanted) > 0.97


def test_the_lips_of_the_right_speech_agree_and_those_of_another_do_not():
    wanted, others = curve(150, 3), [curve(150, seed) for seed in range(4, 20)]
    lips = lips_of([talk(pictures(wanted), wanted)], [others], [np.zeros(150)])
    assert lips.speech > 0.97 and abs(lips.wrong) < 0.15 and lips.still == 0.0
    assert lips.spread == pytest.approx(1.0, abs=1e-6)


def test_half_of_the_movement_has_half_of_the_spread():
    wanted = curve(150, 3)
    smaller = wanted.mean() + 0.5 * (wanted - wanted.mean())
    assert lips_of([talk(pictures(smaller), wanted)], [[wanted]], [wanted]).spread == pytest.approx(0.5, abs=0.1)


def test_a_face_that_stands_still_has_no_agreement():
    wanted = curve(150, 3)
    assert lips_of([talk(pictures(np.full(150, 0.4)), wanted)], [[wanted]], [wanted]).speech == 0.0


@pytest.mark.parametrize("factor, cosine", [(0.5, 1.0), (-2.0, -1.0)])
def test_how_far_an_edit_is_followed(factor, cosine):
    real = np.random.default_rng(0).normal(0, 1, (8, 8, 3))
    found = followed(factor * real, real)
    assert found.cosine == pytest.approx(cosine) and found.size == pytest.approx(factor)


@pytest.mark.parametrize("tint, met", [(0.0, True), (20.0, False)])
def test_a_colour_that_comes_late_is_drift(tint, met):
    wanted = curve(750, 5)
    made = np.concatenate([pictures(wanted[:500]), pictures(wanted[500:], tint)])
    figures = drift_of(parts_of(talk(made, wanted)))
    assert figures[2].met is met
    assert figures[0].met and figures[1].met


@pytest.mark.parametrize(
    "value, least, most, met",
    [
        (1.0, None, None, None),
        (1.0, 1.0, None, True),
        (0.9, 1.0, None, False),
        (1.1, None, 1.0, False),
        (float("nan"), 1.0, None, False),
    ],
)
def test_a_figure_knows_whether_its_bar_is_met(value, least, most, met):
    assert Figure("f", value, least, most).met is met


def test_a_sheet_shows_the_widest_and_the_shut_frames(tmp_path):
    wanted = curve(150, 3)
    rows = lips_rows(talk(pictures(wanted), wanted))
    assert [pictures_.shape for _, pictures_ in rows] == [(17, 64, 64, 3)] * 2
    np.testing.assert_array_equal(rows[0][1][0], pictures(wanted)[wanted.argmax()])
    write_png(tmp_path / "sheet.png", rows)
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
