"""Make `ditto/lite/rendering/face_mesh.npz`: the template face and the triangles of the 478-landmark mesh.

Template: MediaPipe's canonical face with irises (`face_model_with_iris.obj`, Apache-2.0), turned to x right, y down,
z away from the camera and scaled to face units. Triangles: MediaPipe's tesselation (`FACEMESH_TESSELATION`, three edges
per triangle), which leaves the mouth and the eyes open; read from MediaPipe's wheel.

    pip download --no-deps mediapipe==0.10.21
    python -m ditto.training.face_mesh face_model_with_iris.obj mediapipe-0.10.21-*.whl
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run
from ditto.media.files import check_output_file
from ditto.portrait.face_mesh import LANDMARKS

CONNECTIONS = "mediapipe/python/solutions/face_mesh_connections.py"
EAR_TO_ORIGIN = 0.06356496  # fu from the cheek edges 234 and 454 to the origin, towards the camera


def read_template(path: Path) -> npt.NDArray[np.float32]:
    """(478, 3) face units of a Wavefront file in centimetres, y up, z towards the camera."""
    rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
    points = np.asarray(rows, np.float64) * (1.0, -1.0, -1.0)
    if points.shape != (LANDMARKS, 3):
        raise ValueError(f"expected {LANDMARKS} vertices in {path}, got {points.shape[0]}; give the template of mediapipe")
    points /= np.linalg.norm(points[454] - points[234])
    points -= points[[234, 454]].mean(0)
    points[:, 2] += EAR_TO_ORIGIN
    return points.astype(np.float32)


def read_triangles(wheel: Path) -> npt.NDArray[np.int16]:
    """(852, 3) landmark ids, read from MediaPipe's source in its own order (the frozenset there has none)."""
    with zipfile.ZipFile(wheel) as files:
        text = files.read(CONNECTIONS).decode()
    text = text[text.index("FACEMESH_TESSELATION") :]
    pairs = re.findall(r"\((\d+),\s*(\d+)\)", text[: text.index("])")])
    edges = np.asarray(pairs, np.int16).reshape(-1, 3, 2)
    if not (edges[:, 0, 1] == edges[:, 1, 0]).all() or not (edges[:, 2, 1] == edges[:, 0, 0]).all():
        raise ValueError("expected three edges a triangle in FACEMESH_TESSELATION, got others; use mediapipe 0.10.21")
    return edges[:, :, 0]


def main() -> None:
    parser = Arguments(description=__doc__)
    parser.add_argument("template", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("ditto/lite/rendering/face_mesh.npz"))
    options = parser.parse_args()
    check_output_file(options.out)
    template = read_template(options.template)
    distance = ((template[:, None] * (-1.0, 1.0, 1.0) - template[None]) ** 2).sum(-1)
    np.savez_compressed(
        options.out, template=template, triangles=read_triangles(options.wheel), mirror=distance.argmin(1).astype(np.int16)
    )


if __name__ == "__main__":
    run(main)
