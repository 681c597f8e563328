"""The shipped table of blendshapes is what its script makes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ditto.motion.motion import Keypoint
from ditto.training.arkit import NAMES, read_shapes, transfer
from ditto.training.blendshape_table import as_json, full_table, lite_table

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "data" / "models"
SHIPPED = json.loads((ROOT / "ditto" / "motion" / "blendshapes.json").read_text())


def test_the_table_of_full_is_the_one_of_the_sliders():
    assert as_json(full_table()) == SHIPPED["full"]


@pytest.mark.skipif(not (MODELS / "ict_facekit.npz").is_file(), reason="needs ../shared")
def test_the_table_of_lite_is_made_of_ict_facekit(tmp_path):
    neutral, shapes = read_shapes(MODELS / "ict_facekit.npz")
    landmarks = np.asarray(json.loads((MODELS / "ict_vertex_indices.json").read_text())["idx_to_landmark_verts"])
    carried = transfer(neutral, shapes, landmarks)
    deltas = np.stack([carried[name] for name in NAMES]).astype(np.float32)
    np.savez(tmp_path / "shapes.npz", names=np.asarray(NAMES), deltas=deltas)
    made = as_json(lite_table(tmp_path / "shapes.npz", ROOT / "ditto" / "bundles" / "lite" / "renderer.safetensors"))
    assert made.keys() == SHIPPED["lite"].keys()
    for name, of_keypoints in SHIPPED["lite"].items():
        for keypoint in {*of_keypoints, *made[name]}:
            assert keypoint.upper() in Keypoint.__members__
            pair = (table.get(keypoint, [0.0, 0.0, 0.0]) for table in (of_keypoints, made[name]))
            # A machine's BLAS may round otherwise; a keypoint at the threshold of .001 fu may then be left out.
            np.testing.assert_allclose(*pair, atol=1.1e-3 if keypoint not in of_keypoints.keys() & made[name].keys() else 2e-5)
