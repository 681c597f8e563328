"""The square crop around a face: where it lies, its pixels also beyond the picture, and where the person is in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ditto.errors import NoFaceError
from ditto.media.images import Bytes
from ditto.portrait.face_mesh import EYES, FACE_OVAL, LOWER_OUTER_LIP, UPPER_OUTER_LIP, smoothstep
from ditto.portrait.measure import measured

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.float32]

# Scale and rise are the prototype's (../shared/renderer/spec.md, 2.1); the other numbers of the crop were chosen by eye.
CROP_SCALE = 2.0  # side of the crop over the longer side of the landmarks' box
TIGHTEST_SCALE = 1.6  # as far as a crop is shrunk to stay inside the picture
CROP_RISE = -0.0625  # the centre of the crop lies this part of its side above the centre of the box
MAX_SHIFT = 0.10  # of the side: as far as a crop is moved to stay inside the picture
UPRIGHT_DEGREES = 20.0  # a head more turned than this gets a turned crop
SNAP = 0.08  # a crop this near to one crop pixel per picture pixel is made exactly that

# What must be seen to be animated. Landmarks are placed beyond the edge of a picture too: cut at the chin, two portraits
# have it .01 of the face's size outside and .01 inside, cut at the lower lip .15 to .18 outside, and so for the rest.
NEEDED = {
    "the mouth": UPPER_OUTER_LIP + LOWER_OUTER_LIP,
    "the chin": [148, 152, 377],
    "the eye on the left": EYES[0].upper + EYES[0].lower,
    "the eye on the right": EYES[1].upper + EYES[1].lower,
}
EDGE_TOLERANCE = 0.02  # of the face's size


def check_seen(landmarks: Floats, width: int, height: int, alpha: Bytes | None = None) -> None:
    """Eyes, mouth and chin lie in the picture, and not most of one in its wholly transparent part.

    Args:
        landmarks: (478, 3) picture pixels.
        width, height: of the picture.
        alpha: (H, W) of the picture.

    Raises:
        NoFaceError: names what is missing.
    """
    points = landmarks[:, :2]
    size = float(np.ptp(points, axis=0).max())
    margin = 0.5 + EDGE_TOLERANCE * size
    beyond = np.array([width, height]) - 1 + margin
    inside = np.asarray(((points > -margin) & (points < beyond)).all(1))
    shown = np.ones(len(points), bool)
    if alpha is not None:
        x, y = np.clip(np.rint(points).astype(int), 0, (width - 1, height - 1)).T
        shown = alpha[y, x] > 0
    missing = [name for name, ids in NEEDED.items() if not inside[ids].all() or shown[ids].mean() < 0.5]
    if missing:
        raise NoFaceError(
            f"{' and '.join(missing)} of the face {'is' if len(missing) == 1 else 'are'} not in the picture ({width} x "
            f"{height}); expected both eyes, the mouth and the chin; give a picture that shows the whole face"
        )


def cut_around(landmarks: Floats, width: int, height: int, max_size: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of a picture, of its proportions and `max_size` long, with a face in it."""
    factor = min(1.0, max_size / max(width, height))
    sides = np.maximum(np.round(np.array([width, height]) * factor / 2).astype(int) * 2, 2)
    centre = (landmarks[:, :2].min(0) + landmarks[:, :2].max(0)) / 2
    left, top = np.clip(np.round(centre - sides / 2).astype(int), 0, np.maximum((width, height) - sides, 0))
    return int(left), int(top), int(min(left + sides[0], width)), int(min(top + sides[1], height))


def choose_crop(landmarks: Floats, width: int, height: int, size: int) -> Floats:
    """Where the crop lies: (3, 3) affine from crop pixels to picture pixels, column vectors (x, y, 1).

    The crop is parallel to the picture unless the head is turned by more than 20 degrees; then it is upright for the
    face. A parallel crop is shrunk and moved a little where that keeps it inside the picture.

    Args:
        landmarks: (478, 3) picture pixels.
        width, height: of the picture.
        size: S of the crop.
    """
    eyes = landmarks[EYES[1].upper[0], :2] - landmarks[EYES[0].upper[0], :2]
    angle = float(np.arctan2(eyes[1], eyes[0]))
    if abs(np.degrees(angle)) <= UPRIGHT_DEGREES:
        angle = 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = landmarks[:, :2] @ turn
    low, high = upright.min(0), upright.max(0)
    box = float((high - low).max())
    side = CROP_SCALE * box
    centre = (low + high) / 2 + (0.0, CROP_RISE * side)
    if angle != 0.0:
        return _affine(turn @ centre, side / size, turn, size)

    limit = float(min(width, height))
    if side > limit:
        side = max(limit, TIGHTEST_SCALE * box)
    if abs(side / size - 1.0) <= SNAP and (size <= limit or side > limit):
        side = float(size)
    for axis, extent in enumerate((width, height)):
        # Pixel i covers [i - .5, i + .5]; a crop wider than the picture is moved to cover all of it.
        low_end, high_end = sorted((side / 2 - 0.5, extent - 0.5 - side / 2))
        wish = float(np.clip(centre[axis], low_end, high_end))
        centre[axis] += np.clip(wish - centre[axis], -MAX_SHIFT * side, MAX_SHIFT * side)
    if side == size:
        centre = np.round(centre - (size - 1) / 2) + (size - 1) / 2  # whole pixels: the crop is a copy
    return _affine(centre, side / size, turn, size)


def _affine(centre: Floats, step: float, turn: Floats, size: int) -> Floats:
    matrix = np.eye(3)
    matrix[:2, :2] = step * turn
    matrix[:2, 2] = centre - matrix[:2, :2] @ np.full(2, (size - 1) / 2)
    return matrix


def sample_crop(picture: Bytes, crop_to_picture: Floats, size: int) -> Bytes:
    """The crop's pixels (S, S, 3), bicubic; blurred before where the crop is coarser than the picture.

    Beyond the picture it goes on as its mirror image, the more blurred the further out.
    """
    import cv2

    step = float(np.sqrt(np.linalg.det(crop_to_picture[:2, :2])))
    if step > 1.0 / 0.9:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.42 * step - 0.42), np.uint8)
    crop = cv2.warpAffine(
        picture,
        crop_to_picture[:2],
        (size, size),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    outside = ~covered(crop_to_picture, picture.shape[1], picture.shape[0], size)
    if not outside.any():
        return np.asarray(crop, np.uint8)
    distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 5)
    filled = crop.astype(np.float32)
    levels = [filled, *(cv2.GaussianBlur(filled, (0, 0), s * size / 512) for s in (3.0, 6.0, 12.0, 24.0))]
    depth = np.clip(np.log2(1.0 + distance * (512 / size) / 6.0), 0.0, len(levels) - 1.001)
    lower = depth.astype(int)
    part = (depth - lower)[..., None]
    stack = np.stack(levels)
    rows, columns = np.indices(lower.shape)
    blend = stack[lower, rows, columns] * (1 - part) + stack[lower + 1, rows, columns] * part
    filled[outside] = blend[outside]
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)


def covered(crop_to_picture: Floats, width: int, height: int, size: int) -> npt.NDArray[np.bool_]:
    """(S, S) where the crop lies on the picture."""
    index = np.arange(size)
    x = crop_to_picture[0, 0] * index + crop_to_picture[0, 1] * index[:, None] + crop_to_picture[0, 2]
    y = crop_to_picture[1, 0] * index + crop_to_picture[1, 1] * index[:, None] + crop_to_picture[1, 2]
    return np.asarray((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))


def person_mask(crop: Bytes, probability: Mask, landmarks: Floats, face_width: float) -> Mask:
    """Where the person is: (S, S) float32 in [0, 1]; the face always belongs to it.

    Args:
        crop: (S, S, 3).
        probability: (S, S) of a segmentation network.
        landmarks: (478, 3) crop pixels.
        face_width: pixels per face unit.
    """
    face = _polygon(landmarks[FACE_OVAL, :2], crop.shape[0])
    believed = float(measured(np.mean, probability[face > 0.5], none=0.0))
    refined = guided_filter(crop, probability, round(0.03 * face_width), 1e-3)
    refined = smoothstep(0.15, 0.85, refined).astype(np.float32)
    if believed < 0.7:
        # The network finds no person (some paintings, statues): head, hair and shoulders by proportion.
        refined = np.maximum(refined, _bust(landmarks, face_width, crop.shape[0]))
    return np.maximum(refined, face)


def opacity(alpha: Bytes, crop_to_picture: Floats, landmarks: Floats, size: int) -> Mask:
    """(S, S) in [0, 1]: how opaque the picture is in the crop, 1 where it is as opaque as in the middle of the face.

    Args:
        alpha: (H, W) of the picture.
        landmarks: (478, 3) crop pixels.
    """
    crop = sample_crop(np.repeat(alpha[..., None], 3, -1), crop_to_picture, size)[..., 0].astype(np.float32)
    face = _polygon(landmarks[FACE_OVAL, :2], size) > 0.5
    level = float(measured(np.median, crop[face], none=255.0))
    share: npt.NDArray[np.float32] = np.minimum(crop / max(level, 1.0), 1.0)
    return share


def nearness(landmarks: Floats, others: Sequence[Floats], size: int) -> Mask:
    """(S, S) in [0, 1]: 1 where a pixel lies nearer to this face than to any other, measured in faces."""
    y, x = np.mgrid[:size, :size].astype(np.float64)

    def distance(points: Floats) -> Floats:
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        centre = (low + high) / 2
        return np.asarray(np.hypot(x - centre[0], y - centre[1]) / (high - low).max())

    keep = np.ones((size, size))
    own = distance(landmarks)
    for other in others:
        keep = np.minimum(keep, smoothstep(-0.08, 0.08, distance(other) - own))
    return keep.astype(np.float32)


def _polygon(points: Floats, size: int) -> Mask:
    import cv2

    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return np.asarray(mask.astype(np.float32) / 255, np.float32)


def _bust(landmarks: Floats, face_width: float, size: int) -> Mask:
    """Head with hair, neck and shoulders of average proportions, soft at the edge."""
    import cv2

    oval = landmarks[FACE_OVAL, :2]
    top, chin = landmarks[10, :2], landmarks[152, :2]
    centre = oval.mean(0) + (top - chin) * 0.10
    head = _polygon(centre + (oval - oval.mean(0)) * 1.28, size)
    down = (chin - top) / np.linalg.norm(chin - top)
    across = np.array([-down[1], down[0]])
    outline = [(0.32, -0.25), (0.34, 0.15), (0.95, 0.45), (1.15, 1.6), (-1.15, 1.6), (-0.95, 0.45), (-0.34, 0.15)]
    outline.append((-0.32, -0.25))
    body = _polygon(np.array([chin + face_width * (x * across + y * down) for x, y in outline]), size)
    return np.asarray(cv2.GaussianBlur(np.maximum(head, body), (0, 0), 0.05 * face_width), np.float32)


def guided_filter(guide: Bytes, values: Mask, radius: int, epsilon: float) -> Mask:
    """`values` (H, W) smoothed along the edges of a colour picture (H, W, 3).

    Source: He, Sun, Tang, "Guided image filtering", 2010, eq. 14 and 15 (colour guide).
    """
    import cv2

    image = np.asarray(guide.astype(np.float32) / 255, np.float32)
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(x: npt.NDArray[np.floating]) -> Mask:
        return np.asarray(cv2.blur(x, window, borderType=cv2.BORDER_REFLECT), np.float32)

    mean_image, mean_values = mean(image), mean(values)
    covariance = mean(image * values[..., None]) - mean_image * mean_values[..., None]
    outer = image[..., :, None] * image[..., None, :]
    spread = mean(outer.reshape(*image.shape[:2], 9)).reshape(outer.shape)
    spread = spread - mean_image[..., :, None] * mean_image[..., None, :] + epsilon * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(spread, covariance[..., None])[..., 0]
    shift = mean_values - (slope * mean_image).sum(-1)
    return np.asarray((mean(slope) * image).sum(-1) + mean(shift), np.float32)
