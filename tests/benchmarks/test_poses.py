"""The measures of the extreme poses see what an eye sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from benchmarks.poses import Held, drive, measure_mesh, seam, share_99
from ditto.lite.rendering.mesh import MeshRenderer


@pytest.fixture(scope="module")
def drawn():
    renderer, portrait = MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite"), drawn_portrait()
    return renderer, portrait, renderer.prepare(portrait)


def test_a_portrait_at_rest_is_pulled_nowhere(drawn):
    assert np.allclose(measure_mesh(*drawn, Held((0, 0, 0))), 0.0, atol=1e-3)  # coordinates are rounded to float32


def test_a_torn_mesh_and_a_moved_border_are_seen(drawn):
    renderer, portrait, appearance = drawn
    surround = appearance.surround
    held = Held((0, 0, 10))
    border, stretch, *_, behind = measure_mesh(renderer, portrait, appearance, held)
    torn = surround.head_weight * (surround.points[:, 1] > 90)[:, None, None]  # the hair above is left behind
    worse = appearance._replace(surround=surround._replace(head_weight=torn))
    _, torn_stretch, *_, torn_behind = measure_mesh(renderer, portrait, worse, held)
    assert border == 0.0 and stretch < 0.45 < 0.6 < torn_stretch and torn_behind > 2.0 * behind
    free = appearance._replace(surround=surround._replace(head_weight=np.ones_like(surround.head_weight)))
    assert measure_mesh(renderer, portrait, free, held)[0] > 10.0


def test_a_seam_is_seen_where_the_crop_ends():
    portrait = drawn_portrait(128)
    wide = np.full((200, 200, 3), 100, np.uint8)
    wide[36:164, 36:164] = portrait.crop
    place = np.eye(3)
    place[:2, 2] = 36
    portrait = replace(portrait, picture=wide, crop_to_picture=place)
    assert seam(portrait, wide) == 0.0
    brighter, inside = wide.copy(), wide.copy()
    brighter[36:164, 36:164] = np.minimum(brighter[36:164, 36:164], 235) + 20
    inside[80:120, 80:120] = 0
    assert seam(portrait, brighter) > 2.0 > seam(portrait, inside) == 0.0


def test_a_held_pose_turns_the_portrait_by_as_much(drawn):
    _, portrait, _ = drawn
    turn = portrait.rotation.T @ drive(portrait, Held((0, 12, 0))).rotation
    assert np.degrees(np.arccos((np.trace(turn) - 1.0) / 2.0)) == pytest.approx(12.0)
    assert str(Held((8, 0, -6), (0.03, 0.0))) == "pitch +8 roll -6 moved +0.03 +0"


def test_the_99th_percentile_counts_by_area():
    assert share_99(np.array([1.0, 5.0]), np.array([1000.0, 1.0])) == 1.0
    assert share_99(np.array([5.0, 1.0]), np.array([2.0, 98.0])) == 5.0
