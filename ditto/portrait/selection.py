"""Which of a picture's faces is meant: by its number, by a box, or by a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ditto.errors import NoFaceError
from ditto.media.images import Bytes, Picture
from ditto.portrait.face_mesh import EYES
from ditto.values import is_number

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = npt.NDArray[np.float64]
Box: TypeAlias = tuple[float, float, float, float]  # left, top, width, height: pixels of the upright picture in its file
FaceChoice: TypeAlias = "int | Box | Picture"  # a number (0: the largest face), a box around the face, or a picture of it

PATCH = 48  # pixels of a side, of the patch in which two faces are compared
PATCH_FACE = 2.6  # side of the patch over the distance between the eyes
ALIKE = 0.5  # correlation of two patches, at least, of the same face
AHEAD = 0.1  # by which the best must be ahead of the next


class Chooser(Protocol):
    """Chooses a face."""

    def find(self, faces: Sequence[Floats], picture: Bytes, factor: float) -> int | None:
        """The number of the chosen face among landmarks (478, 3), largest first; None: it is not among them.

        Args:
            faces: of the picture.
            picture: (H, W, 3), where they were found.
            factor: pixels of it for a pixel of the picture in its file.

        Raises:
            NoFaceError: several faces could be meant.
        """

    def missing(self, faces: Sequence[Floats], factor: float) -> str:
        """What is wrong if it is not among them."""


def box_of(landmarks: Floats, factor: float = 1.0) -> tuple[int, int, int, int]:
    """Left, top, width, height of the box around landmarks (478, 3), in pixels before a reduction by `factor`."""
    low, high = landmarks[:, :2].min(0) / factor, landmarks[:, :2].max(0) / factor
    left, top, width, height = np.rint([*low, *(high - low)]).astype(int).tolist()
    return left, top, width, height


def listed(faces: Sequence[Floats], factor: float) -> str:
    """The faces, as an error lists them: `0 at 40,60,100,120`."""
    boxes = [",".join(map(str, box_of(face, factor))) for face in faces[:8]]
    more = f" and {len(faces) - 8} more" if len(faces) > 8 else ""
    return ", ".join(f"{number} at {box}" for number, box in enumerate(boxes)) + more


class ByNumber(NamedTuple):
    """By its number, largest first."""

    number: int

    def find(self, faces: Sequence[Floats], picture: Bytes, factor: float) -> int | None:
        return self.number if 0 <= self.number < len(faces) else None

    def missing(self, faces: Sequence[Floats], factor: float) -> str:
        has = "one face; give 0" if len(faces) == 1 else f"{len(faces)} faces; give 0 (the largest) to {len(faces) - 1}"
        return f"face {self.number} was asked for, but the picture has {has}"


class ByBox(NamedTuple):
    """The face that shares most with a box."""

    box: Box

    def find(self, faces: Sequence[Floats], picture: Bytes, factor: float) -> int | None:
        left, top, width, height = (factor * side for side in self.box)
        best, number = 0.0, None
        for i, face in enumerate(faces):
            low, high = face[:, :2].min(0), face[:, :2].max(0)
            shared = np.minimum(high, (left + width, top + height)) - np.maximum(low, (left, top))
            common = float(np.prod(np.maximum(shared, 0.0)))
            overlap = common / (float(np.prod(high - low)) + width * height - common)
            middle = (low + high) / 2
            inside = left <= middle[0] <= left + width and top <= middle[1] <= top + height
            if inside and overlap > best:
                best, number = overlap, i
        return number

    def missing(self, faces: Sequence[Floats], factor: float) -> str:
        box = ",".join(f"{side:g}" for side in self.box)
        return (
            f"expected a face whose middle is in the box {box} (left, top, width, height in pixels of the file), got none; "
            f"the faces are {listed(faces, factor)}; give one of these"
        )


class ByPicture(NamedTuple):
    """The face that looks most like another: aligned at the eyes and compared pixel by pixel.

    For a cut-out of the same picture, or another picture of the same scene. It does not identify people.
    """

    patch: Floats

    def find(self, faces: Sequence[Floats], picture: Bytes, factor: float) -> int | None:
        if not faces:
            return None
        alike = np.array([float((self.patch * face_patch(picture, face)).mean()) for face in faces])
        order = np.argsort(-alike)
        if alike[order[0]] < ALIKE:
            return None
        if len(faces) > 1 and alike[order[0]] - alike[order[1]] < AHEAD:
            raise NoFaceError(
                f"expected one face that looks like the reference picture, got faces {order[0]} and {order[1]}, which look "
                f"alike; choose by number or box: {listed(faces, factor)}"
            )
        return int(order[0])

    def missing(self, faces: Sequence[Floats], factor: float) -> str:
        return (
            "expected a face that looks like the reference picture, got none; choose by number or box: the faces are "
            f"{listed(faces, factor)}"
        )


def face_patch(picture: Bytes, landmarks: Floats) -> Floats:
    """A face, upright, with the eyes at fixed places: (PATCH, PATCH, 3), each channel with mean 0 and variance 1 in all."""
    import cv2

    right, left = (landmarks[eye.upper + eye.lower, :2].mean(0) for eye in EYES)
    across = left - right
    step = PATCH_FACE * float(np.linalg.norm(across)) / PATCH
    angle = np.arctan2(across[1], across[0])
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (right + left) / 2
    offset = middle - turn @ (PATCH / 2 - 0.5, 0.35 * PATCH)
    blurred = cv2.GaussianBlur(picture, (0, 0), 0.5 * step) if step > 1.2 else picture
    patch = cv2.warpAffine(
        blurred,
        np.column_stack([turn, offset]),
        (PATCH, PATCH),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float64)
    patch -= patch.mean((0, 1))
    return np.asarray(patch / max(float(np.sqrt((patch**2).mean())), 1e-6))


def chooser_of(face: FaceChoice, reference: Callable[[Picture], Floats]) -> Chooser:
    """The chooser for what was given.

    Args:
        reference: a picture -> the patch of its face.

    Raises:
        TypeError: a box of other than four numbers.
    """
    if isinstance(face, (int, np.integer)) and not isinstance(face, bool):
        return ByNumber(int(face))
    if isinstance(face, (tuple, list)):
        if len(face) != 4 or not all(is_number(side) for side in face):
            raise TypeError(f"expected a box as (left, top, width, height), got {face!r}; give four numbers")
        return ByBox((float(face[0]), float(face[1]), float(face[2]), float(face[3])))
    if isinstance(face, bool) or face is None:
        raise TypeError(f"expected a face as a number, a box or a picture, got {face!r}; give one of these")
    return ByPicture(reference(face))
