"""A mirrored motion on a mirrored portrait looks like the render in a mirror."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from mirrored import mirrored
from small_corpus import small_corpus

from ditto.bundle import SHIPPED
from ditto.lite.postprocess import to_camera_frame
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.motion import Motion, retarget
from ditto.portrait.face_mesh import MIRROR
from ditto.training.motion_batches import mirror_motion


def test_a_flipped_render_is_the_mirrored_render(portrait):
    renderer, other = MeshRenderer(SHIPPED / "lite"), mirrored(portrait)
    here, there = renderer.prepare(portrait), renderer.prepare(other)
    head_frame = small_corpus().motion[10:40:10]
    motion, flipped = to_camera_frame(head_frame), to_camera_frame(mirror_motion(head_frame))
    assert np.allclose(mirror_motion(motion), flipped, atol=1e-6)
    for a, b in zip(motion, flipped, strict=True):
        poses = [retarget(p, Motion(m)) for p, m in ((portrait, a), (other, b), (other, a))]
        vertices = renderer.pose(there, poses[1]).vertices[:478][MIRROR]
        vertices = vertices * [-1.0, 1.0, 1.0] + [len(portrait.crop) - 1.0, 0.0, 0.0]
        assert np.abs(vertices - renderer.pose(here, poses[0]).vertices[:478]).max() < 1e-4
        frames = [
            renderer.render(appearance, pose).astype(float)
            for appearance, pose in zip((here, there, there), poses, strict=True)
        ]
        differences = [np.abs(frames[0] - frame[:, ::-1]) for frame in frames[1:]]
        # Layers are drawn from left to right, so a few pixels on their borders are rounded to another level (mean .08).
        assert differences[0].mean() < 0.2 and np.percentile(differences[0], 99) <= 3
        assert differences[1].mean() > 10 * differences[0].mean()  # the same motion, not mirrored
