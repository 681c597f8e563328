"""What the section `arkit` of the benchmark of controls asks for and reads."""

import numpy as np

from benchmarks._controls_arkit import WEIGHTS, asked_of, drawn_weights, group_of, head_rows
from ditto.controls.blendshapes import ARKIT_NAMES
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.space import LITE_SPACE


def test_each_shape_is_asked_for_alone_at_four_weights():
    names, asked = asked_of(LITE_SPACE)
    assert len(names) == 51 and len(asked) == 1 + 51 * len(WEIGHTS)
    assert not asked[0].any()
    for i, name in enumerate(names):
        for j, weight in enumerate(WEIGHTS):
            row = asked[1 + len(WEIGHTS) * i + j]
            assert row[ARKIT_NAMES.index(name)] == weight
            assert np.count_nonzero(row) == 1 + (name == "mouthClose")  # which closes the lips of an open jaw


def test_the_groups_are_those_of_the_bar():
    assert group_of("eyeLookInLeft") == "eyeLook" and group_of("browDownLeft") == "brow" and group_of("mouthPressLeft") is None


def test_the_drawn_mesh_is_read_as_it_was_asked_for(portrait):
    asked = np.zeros((3, len(ARKIT_NAMES)))
    asked[1, ARKIT_NAMES.index("mouthSmileLeft")] = 0.5
    asked[2, ARKIT_NAMES.index("eyeBlinkRight")] = 1.0
    motions = LITE_SPACE.from_head(head_rows(asked, LITE_SPACE), portrait)
    found = drawn_weights(MeshRenderer("ditto/bundles/lite"), portrait, motions)
    np.testing.assert_allclose(found[1, ARKIT_NAMES.index("mouthSmileLeft")], 0.5, atol=0.08)
    np.testing.assert_allclose(found[2, ARKIT_NAMES.index("eyeBlinkRight")], 1.0, atol=0.01)
