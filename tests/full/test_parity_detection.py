"""What lies between the released pipeline's face and landmark networks, against recorded inputs and outputs of it."""

from types import SimpleNamespace

import numpy as np
from fixtures.reference.recipe import distance
from test_parity_wiring import WIRING, grey_levels, picture, recorded

from ditto.full import detection, face_mesh
from ditto.full.cropping import LANDMARK_FIELD, crop_matrix, cut, invert, outline_of_106


def test_faces_from_the_detectors_outputs():
    arrays = recorded("detect")
    field, grown = detection.detector_input(picture("det/img", (300, 420, 3)))
    assert distance(field[..., ::16, ::16], arrays["det/input_sub16"]) <= WIRING
    boxes, points = detection.detected_boxes([arrays[f"det/net_out{i}"] for i in range(9)], grown)
    assert distance(boxes, arrays["det/boxes"]) <= WIRING
    assert distance(points, arrays["det/kps"]) <= WIRING
    np.testing.assert_array_equal(detection.largest_first(boxes), arrays["det/largest_first"])


def test_landmarks_from_the_networks_outputs():
    arrays = recorded("detect")
    matrix = detection.matrix_106(arrays["lmk106/bbox"])
    field = detection.input_106(picture("det/img", (300, 420, 3)), matrix)
    assert grey_levels(field[..., ::8, ::8], arrays["lmk106/input_sub8"]) <= 1
    output = arrays["lmk106/net_out"] / 96 - 1  # recorded after the released code had made pixels of it in place
    assert distance(detection.points_106(output, matrix), arrays["lmk106/out"]) <= WIRING
    found = detection.points_203(arrays["lmk203/net_out"], arrays["lmk203/M_c2o"])
    assert distance(found, arrays["lmk203/out"]) <= WIRING


class StandIn:
    """An engine that gives recorded outputs, and keeps what it was given."""

    def __init__(self, **outputs):
        self.inputs = (SimpleNamespace(name="image"),)
        self.outputs = tuple(SimpleNamespace(name=name) for name in outputs)
        self.given = None
        self._found = outputs

    def __call__(self, image):
        self.given = image
        return self._found


def test_the_chain_of_original_landmark_networks(monkeypatch):
    arrays = recorded("detect")
    engines = {
        "det_10g.onnx": StandIn(**{f"out{i}": arrays[f"det/net_out{i}"] for i in range(9)}),
        "2d106det.onnx": StandIn(out=arrays["lmk106/net_out"] / 96 - 1),
        "landmark203.onnx": StandIn(a=np.zeros((1, 4)), b=np.zeros((1, 4)), out=arrays["lmk203/net_out"]),
    }
    monkeypatch.setattr(detection, "open_engine", lambda path: engines[path.name])
    source = picture("det/img", (300, 420, 3))
    face = detection.OriginalLandmarks("somewhere")(source)

    boxes = arrays["det/boxes"][arrays["det/largest_first"][0]]
    rough = detection.points_106(arrays["lmk106/net_out"] / 96 - 1, detection.matrix_106(boxes))
    to_field = crop_matrix(outline_of_106(rough), LANDMARK_FIELD)
    assert distance(face.points, detection.points_203(arrays["lmk203/net_out"], invert(to_field))) <= WIRING
    np.testing.assert_array_equal(engines["landmark203.onnx"].given[0, :, 5, 7] * 255, cut(source, to_field, 224)[5, 7])


def test_face_mesh_parts():
    arrays = recorded("detect")
    assert distance(face_mesh.anchors(), arrays["blaze/anchors"][:, :2]) <= WIRING
    found = face_mesh.blaze_boxes(arrays["blaze/raw_boxes"], arrays["blaze/raw_scores"])
    assert distance(found, arrays["blaze/out"]) <= WIRING
    region = face_mesh.face_region(arrays["roi/bbox"], arrays["roi/kps"])
    assert distance(region, arrays["roi/out"][[0, 1, 2, 4]]) <= WIRING
    x, y, side, _, angle = arrays["mesh/roi"]
    mesh = face_mesh.mesh_landmarks(arrays["mesh/pts"], face_mesh.Region(x, y, side, angle))
    assert distance(mesh, arrays["mesh/out"]) <= WIRING


def test_the_chain_of_face_mesh_networks(monkeypatch):
    arrays = recorded("detect")
    blaze = StandIn(boxes=arrays["blaze/raw_boxes"], scores=arrays["blaze/raw_scores"])
    mesh = StandIn(points=arrays["mesh/pts"].reshape(1, 1434))
    engines = {"blaze_face.onnx": blaze, "face_mesh.onnx": mesh}
    monkeypatch.setattr(face_mesh, "open_engine", lambda path: engines[path.name])
    found = face_mesh.OnnxFaceMesh("somewhere")(picture("lmk478/img", (512, 512, 3)))
    assert distance(found / 512, arrays["lmk478/out"][0]) <= WIRING
    assert distance(blaze.given[:, ::8, ::8], arrays["lmk478/blaze_input_sub8"]) <= WIRING
    assert np.abs(mesh.given[:, ::8, ::8] - arrays["lmk478/mesh_input_sub8"]).max() <= 1.001 / 255
