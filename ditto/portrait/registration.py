"""Faces in a picture, and one of them registered as a `Portrait`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import NoFaceError
from ditto.media.images import FULL_SIZE, MAX_SIZE, Bytes, OpenedPicture, Picture, reduce
from ditto.portrait.cropping import check_seen, choose_crop, cut_around, nearness, opacity, person_mask, sample_crop
from ditto.portrait.face_mesh import EYES, MIRROR, fit_head, keypoints
from ditto.portrait.face_networks import DETECTORS, MESH_SIZE, networks
from ditto.portrait.face_state import INCONSISTENT_LIPS, eye_state, lip_inconsistency, own_expression
from ditto.portrait.portrait import Portrait
from ditto.portrait.selection import ByBox, ByNumber, Chooser, FaceChoice, chooser_of, face_patch

Floats = npt.NDArray[np.float64]

CROP_SIZE = 512  # S of the crop at least
LARGEST_CROP = 1024  # S at most: drawing takes four times as long as at 512
CROP_STEP = 64  # between them S is a multiple of this
COARSEST = 1.25  # picture pixels a crop pixel: up to here a drawn face is about as sharp as its surroundings
MIN_FACE = 40  # pixels; below it the mesh network guesses
MAX_CANDIDATES = 40  # looked at closely, the surest first
MESH_MARGIN = 1.5  # the mesh network's field over the box of the face
SMALLEST_FIELD = 8  # pixels of the searched view; less is noise
MIN_PRESENCE = 0.9
# See `Estimate`. `python -m benchmarks.inconsistency`, 150 faces (photographs, paintings, a statue, a cartoon; turned, and 44,
# 60 and 100 pixels high): presence 1.000 at least, jitter .0091 and inconsistency .0178 at most. 53 candidates with a high
# presence that are no face (an alpaca in twenty directions, patterns): jitter .0165 and inconsistency .0294 at least.
MAX_JITTER = 0.0165
MAX_INCONSISTENCY = 0.0235

logger = logging.getLogger(__name__)


class Face(NamedTuple):
    """A face found in a picture.

    Attributes:
        landmarks: (478, 3) picture pixels, pixel centres at whole numbers, z in the same scale.
        presence: the mesh network's own belief in it, 0 to 1.
        size: the longer side of the landmarks' box, pixels.
    """

    landmarks: Floats
    presence: float
    size: float


class Region(NamedTuple):
    """A turned square of a picture: centre (x, y) and side in pixels, angle in radians (clockwise on the screen)."""

    x: float
    y: float
    side: float
    angle: float


class _Field:
    """The surroundings of one face, blurred for the mesh network's small input, for several augmented inputs."""

    def __init__(self, picture: Bytes, region: Region) -> None:
        import cv2

        reach = 0.95 * region.side
        height, width = picture.shape[:2]
        x0, x1 = (int(np.clip(region.x + s * reach, 0, width)) for s in (-1, 1))
        y0, y1 = (int(np.clip(region.y + s * reach, 0, height)) for s in (-1, 1))
        x1, y1 = max(x1, min(x0 + 2, width)), max(y1, min(y0 + 2, height))
        part = picture[min(y0, height - 2) : y1, min(x0, width - 2) : x1]
        self._origin = np.array([min(x0, width - 2), min(y0, height - 2)], np.float64)
        shrink = region.side / MESH_SIZE
        if shrink > 1.2:
            part = np.asarray(cv2.GaussianBlur(part, (0, 0), 0.5 * np.sqrt(shrink**2 - 1.0)), np.uint8)
        self._part = part

    def mesh(self, region: Region, mirrored: bool = False) -> tuple[Floats, float]:
        """Landmarks (478, 3) in picture pixels, and presence, seen through `region`."""
        import cv2

        step = region.side / MESH_SIZE
        turn = step * np.array(
            [[np.cos(region.angle), -np.sin(region.angle)], [np.sin(region.angle), np.cos(region.angle)]]
        )
        offset = np.array([region.x, region.y]) - turn @ np.full(2, (MESH_SIZE - 1) / 2)
        field = cv2.warpAffine(
            self._part,
            np.column_stack([turn, offset - self._origin]),
            (MESH_SIZE, MESH_SIZE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        field = np.ascontiguousarray(field[:, ::-1]) if mirrored else field
        points, presence = networks().mesh(np.asarray(field, np.uint8))
        points[:, :2] -= 0.5  # counted from the edge there; pixel centres are at whole numbers here
        if mirrored:
            points[:, 0] = MESH_SIZE - 1 - points[:, 0]
            points = points[MIRROR]
        return np.column_stack([points[:, :2] @ turn.T + offset, points[:, 2] * step]), presence


def _region_of(landmarks: Floats) -> Region:
    """The mesh network's field for a face, upright by the line of the eyes."""
    eyes = landmarks[EYES[1].upper[0], :2] - landmarks[EYES[0].upper[0], :2]
    angle = float(np.arctan2(eyes[1], eyes[0]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = landmarks[:, :2] @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Region(float(x), float(y), float(MESH_MARGIN * (high - low).max()), angle)


# Test-time augmentation: shift in x and y and growth, as parts of the side; turn in radians; mirrored. The first is the
# input as it is.
_AUGMENTATIONS = (
    (0.00, 0.00, 1.00, 0.00, False),
    (0.00, 0.00, 1.00, 0.00, True),
    (0.03, 0.02, 1.06, 0.05, False),
    (0.03, 0.02, 1.06, 0.05, True),
    (-0.03, -0.02, 0.96, -0.05, False),
    (-0.03, -0.02, 0.96, -0.05, True),
    (0.02, -0.03, 1.11, -0.08, False),
    (0.02, -0.03, 1.11, -0.08, True),
)


def _augmented_landmarks(field: _Field, region: Region, count: int = len(_AUGMENTATIONS)) -> tuple[Floats, Floats]:
    """Landmarks from several slightly moved, grown, turned and mirrored inputs: (count, 478, 3), and presences."""
    seen = []
    for dx, dy, grow, turn, mirrored in _AUGMENTATIONS[:count]:
        moved = Region(
            region.x + dx * region.side, region.y + dy * region.side, region.side * grow, region.angle + turn
        )
        seen.append(field.mesh(moved, mirrored))
    return np.stack([s[0] for s in seen]), np.array([s[1] for s in seen])


def _spread(a: Floats, b: Floats, width: float) -> float:
    return float(np.sqrt(((a - b)[..., :2] ** 2).sum(-1).mean()) / width)


class Estimate(NamedTuple):
    """Landmarks of the mesh network for one region, and how far they agree under test-time augmentation.

    Attributes:
        landmarks: (478, 3) picture pixels, the mean over the augmentations.
        presence: probability of a face, by the network.
        jitter: root mean square disagreement between moved, grown and turned inputs, face widths.
        inconsistency: jitter plus half of the disagreement between plain and mirrored inputs.
    """

    landmarks: Floats
    presence: float
    jitter: float
    inconsistency: float


def estimate_face(picture: Bytes, region: Region) -> Estimate | None:
    """The estimate for a region of a picture (H, W, 3); None where the mesh does not converge near it."""
    for _ in range(3):  # the mesh is more exact than the detector about where the face is
        points, presence = _Field(picture, region).mesh(region)
        found = _region_of(points)
        if presence < 0.1 or not 0.3 < found.side / region.side < 3.0:
            return None
        region = found
    readings, presences = _augmented_landmarks(_Field(picture, region), region, 6)
    landmarks = readings.mean(0)
    width = float(np.linalg.norm(landmarks[454] - landmarks[234]))
    plain, mirrored = readings[0::2], readings[1::2]
    jitter = max(_spread(side, side.mean(0), width) for side in (plain, mirrored))
    asymmetry = _spread(plain.mean(0), mirrored.mean(0), width)
    return Estimate(landmarks, float(presences.mean()), jitter, jitter + asymmetry / 2)


def _examine(picture: Bytes, region: Region) -> Face | None:
    """The face in a region, or None where what is there is no face that can be tracked."""
    estimate = estimate_face(picture, region)
    if estimate is None:
        return None
    landmarks = estimate.landmarks
    size = float(np.ptp(landmarks[:, :2], axis=0).max())
    logger.debug(
        "candidate %.0f px at %.0f, %.0f: presence %.2f, jitter %.4f, inconsistency %.4f",
        size, region.x, region.y, estimate.presence, estimate.jitter, estimate.inconsistency,
    )  # fmt: skip
    if estimate.presence < MIN_PRESENCE or estimate.jitter > MAX_JITTER or estimate.inconsistency > MAX_INCONSISTENCY:
        return None
    height, width = picture.shape[:2]
    inside = (landmarks[:, 0] > 0) & (landmarks[:, 0] < width) & (landmarks[:, 1] > 0) & (landmarks[:, 1] < height)
    if inside.mean() < 0.6:
        return None
    return Face(landmarks, estimate.presence, size)


class _View(NamedTuple):
    """A part of the picture, perhaps turned, to show to a detector: its pixels and the way back (2, 3)."""

    image: Bytes
    to_picture: Floats


def _tiles(picture: Bytes, count: int) -> Iterator[_View]:
    """Half-overlapping tiles: `count` along the shorter side, as many of the same size along the other.

    They are never smaller than four of the smallest faces, nor more than 100.
    """
    height, width = picture.shape[:2]
    least = max(4.0 * MIN_FACE, 2 * np.sqrt(height * width / 100))
    tile = int(np.ceil(max(2 * min(height, width) / (count + 1), least)))
    rows, columns = (max(1, int(np.ceil(2 * n / tile)) - 1) for n in (height, width))
    for y in np.linspace(0, max(height - tile, 0), rows).astype(int):
        for x in np.linspace(0, max(width - tile, 0), columns).astype(int):
            part = np.ascontiguousarray(picture[y : y + tile, x : x + tile])
            yield _View(part, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def _turned(picture: Bytes, degrees: float, zoom: float = 1.0) -> _View:
    """The whole picture turned about its centre, in a frame that holds all of it (times `zoom`)."""
    import cv2

    height, width = picture.shape[:2]
    shrink = max(1.0, max(height, width) / 640)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    size = np.ceil(np.array([width * abs(c) + height * abs(s), width * abs(s) + height * abs(c)]) * zoom / shrink)
    turn = shrink * np.array([[c, -s], [s, c]])
    offset = np.array([(width - 1) / 2, (height - 1) / 2]) - turn @ ((size - 1) / 2)
    back = np.column_stack([turn, offset])
    image = cv2.warpAffine(
        cv2.GaussianBlur(picture, (0, 0), 0.5 * shrink) if shrink > 1.2 else picture,
        back,
        (int(size[0]), int(size[1])),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(127, 127, 127),
    )
    return _View(np.asarray(image, np.uint8), back)


def candidates(views: Iterable[_View]) -> list[Region]:
    """Mesh fields in the picture, the surest first, the same face once."""
    found: list[tuple[float, Region]] = []
    for view in views:
        linear = view.to_picture[:, :2]
        scale = float(np.sqrt(np.linalg.det(linear)))
        turn = float(np.arctan2(linear[1, 0], linear[0, 0]))
        for network in DETECTORS:
            for score, box, (right, left) in networks().detect(view.image, network):
                side = MESH_MARGIN * float((box[2:] - box[:2]).max())
                if side < SMALLEST_FIELD:
                    continue
                centre = (box[:2] + box[2:]) / 2 - 0.5  # pixel centres are at whole numbers here
                x, y = view.to_picture @ (*centre, 1.0)
                angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
                found.append((score, Region(float(x), float(y), side * scale, angle + turn)))
    kept: list[Region] = []
    for _, region in sorted(found, key=lambda f: -f[0]):
        if not any(_same(region, other) for other in kept):
            kept.append(region)
    return kept[:MAX_CANDIDATES]


def _same(a: Region, b: Region) -> bool:
    near = np.hypot(a.x - b.x, a.y - b.y) < 0.25 * max(a.side, b.side)
    return bool(near and 0.5 < a.side / b.side < 2.0)


def stages(picture: Bytes) -> Iterator[Iterable[_View]]:
    """What is shown to the detectors, one stage after another, as long as none has found a face."""
    yield [_turned(picture, 0.0), *_tiles(picture, 3)]
    yield [*(_turned(picture, angle) for angle in (-40.0, 40.0, -20.0, 20.0)), _turned(picture, 0.0, 1.8)]
    yield _tiles(picture, 7)
    yield (_turned(picture, angle) for angle in (90.0, -90.0, 180.0, 60.0, -60.0))


def find_faces(picture: Bytes) -> list[Face]:
    """All faces of a picture (H, W, 3) uint8 RGB, largest first; empty where there is none.

    First the whole picture and half-overlapping quarters are searched; where that finds nothing, copies turned by 20
    and 40 degrees and one with a wide margin; then smaller tiles; then copies turned by 60, 90 and 180 degrees. What
    the mesh network then sees must stay in place when it is looked at a little moved, grown, turned or mirrored: on
    animals and patterns it does not.
    """
    faces: list[Face] = []
    for views in stages(picture):
        for region in candidates(views):
            if any(_same(region, _region_of(face.landmarks)) for face in faces):
                continue
            face = _examine(picture, region)
            if face is not None and not any(
                _same(_region_of(face.landmarks), _region_of(other.landmarks)) for other in faces
            ):
                faces.append(face)
        if faces:
            break
    return sorted(faces, key=lambda face: -face.size)


def _check_found(faces: list[Face], number: int | None, chooser: Chooser, picture: Bytes, factor: float) -> Face:
    """The face chosen. Raises NoFaceError if there is none, or if it is too small."""
    height, width = picture.shape[:2]
    if not faces:
        raise NoFaceError(
            f"no human face was found in the picture ({width} x {height}); expected one that is seen from the front or "
            f"up to three quarters, at least {MIN_FACE} pixels high; try another picture, or cut it closer to the face"
        )
    if number is None:
        raise NoFaceError(chooser.missing([face.landmarks for face in faces], factor))
    face = faces[number]
    if face.size < MIN_FACE:
        raise NoFaceError(
            f"the face is {face.size:.0f} pixels high in the picture of {width} x {height}; at least {MIN_FACE} are "
            "needed; give a larger picture, cut it closer to the face, or raise max_size"
        )
    return face


class _Found(NamedTuple):
    """A picture as it is used, the faces in it, and the chosen ones.

    Attributes:
        rgb, alpha: (H, W, 3); (H, W) or None.
        faces: all of them, largest first.
        chosen: of `faces`, in the order of the choosers.
    """

    rgb: Bytes
    alpha: Bytes | None
    faces: list[Face]
    chosen: list[Face]


def _search(picture: OpenedPicture, choosers: Sequence[Chooser], max_size: int, may_cut: bool) -> _Found:
    """The picture, at most `max_size` long, its alpha and its faces, so that the chosen ones are large enough if they can be.

    Faces that are not found or too small in the reduced picture are looked for in the whole one. If it is one, and the picture
    may be cut, it is then cut to `max_size` around it.
    """

    def numbers(faces: list[Face], rgb: Bytes, factor: float) -> list[int | None]:
        return [chooser.find([face.landmarks for face in faces], rgb, factor) for chooser in choosers]

    def large(faces: list[Face], chosen: list[int | None]) -> bool:
        return all(number is not None and faces[number].size >= MIN_FACE for number in chosen)

    def found(rgb: Bytes, alpha: Bytes | None, faces: list[Face], chosen: list[int | None], factor: float) -> _Found:
        checked = [
            _check_found(faces, number, chooser, rgb, factor) for number, chooser in zip(chosen, choosers, strict=True)
        ]
        return _Found(rgb, alpha, faces, checked)

    rgb, alpha = picture.read(max_size)
    reduced = max(rgb.shape) >= max_size - 1
    by_pixels = reduced and any(isinstance(chooser, ByBox) for chooser in choosers)
    factor = max(rgb.shape) / max(picture.read(FULL_SIZE)[0].shape) if by_pixels else 1.0
    faces = find_faces(rgb)
    chosen = numbers(faces, rgb, factor)
    if large(faces, chosen) or not reduced:
        return found(rgb, alpha, faces, chosen, factor)
    full, full_alpha = picture.read(FULL_SIZE)
    height, width = full.shape[:2]
    factor = max(rgb.shape) / max(full.shape)
    in_full = find_faces(full)
    chosen_in_full = numbers(in_full, full, 1.0)
    if not large(in_full, chosen_in_full):  # `_check_found` tells what is wrong
        return found(full, full_alpha, in_full, chosen_in_full, 1.0) if in_full else found(rgb, alpha, faces, chosen, factor)
    picked = [in_full[number] for number in chosen_in_full if number is not None]
    smallest = min(face.size for face in picked)
    if smallest * factor >= MIN_FACE:
        to_reduced = (rgb.shape[1] / width, rgb.shape[0] / height, factor)
        smaller = [Face(f.landmarks * to_reduced, f.presence, f.size * factor) for f in in_full]
        return found(rgb, alpha, smaller, chosen_in_full, factor)
    if not may_cut:
        raise NoFaceError(
            f"expected a max_size in which every face is {MIN_FACE} pixels high, got {max_size}, in which one is "
            f"{smallest * factor:.0f}; give {math.ceil(max(width, height) * MIN_FACE / smallest)} or more"
        )
    if np.ptp(picked[0].landmarks[:, :2], 0).max() > max_size:
        enough = math.ceil(min(2 * picked[0].size, max(width, height) * MIN_FACE / picked[0].size))  # cut, or whole
        raise NoFaceError(
            f"expected a max_size larger than the face, which is {picked[0].size:.0f} pixels high in the picture of {width} x "
            f"{height}, got {max_size}; give {enough} or more"
        )
    x0, y0, x1, y1 = cut_around(picked[0].landmarks, width, height, max_size)
    logger.warning(
        "the face is %.0f pixels high in the picture of %d x %d; the frames show %d x %d of it, around the face",
        picked[0].size, width, height, x1 - x0, y1 - y0,
    )  # fmt: skip
    part = full[y0:y1, x0:x1].copy(), None if full_alpha is None else full_alpha[y0:y1, x0:x1].copy()
    return found(*part, [face._replace(landmarks=face.landmarks - (x0, y0, 0)) for face in in_full], chosen_in_full, 1.0)


def _reference_patch(picture: Picture) -> Floats:
    """The patch of the largest face of a reference picture. Raises NoFaceError, ImageError."""
    rgb, _ = OpenedPicture(picture).read(MAX_SIZE)
    faces = find_faces(rgb)
    if not faces:
        raise NoFaceError("expected a reference picture with a face in it, got one without; give another, a number or a box")
    return face_patch(rgb, faces[0].landmarks)


def register(picture: Picture, face: FaceChoice = 0, max_size: int = MAX_SIZE) -> Portrait:
    """Find a face in a picture and learn what is needed to move it.

    Args:
        picture: a path, the bytes of a picture file, an open file, or pixels (see `ditto.media.images.read_picture`).
        face: which face: its number, largest first; a box (left, top, width, height) around it, in pixels of the upright
            picture as it is in the file; or a picture of that face, cut from this picture or like it.
        max_size: longer side of the picture in pixels; larger ones are reduced, or cut to that size around a face that
            would be too small then. A picture whose face fills more than the renderer draws sharply is reduced too: the crop
            covers at most 1280 pixels of it (`COARSEST * LARGEST_CROP`).

    Raises:
        ImageError: the picture cannot be read.
        NoFaceError: no human face, none like `face`, several that could be meant, a face under 40 pixels or larger than
            `max_size`, or one whose mouth, chin or eye is not in the picture.
        BundleError: a network of the lite bundle is missing.
        EngineError: ONNX Runtime is not installed or refuses a network.
        TypeError: `face` is of another kind.
    """
    return _register(picture, [face], max_size, may_cut=True)[0]


def register_faces(
    picture: Picture, faces: Sequence[FaceChoice] | None = None, max_size: int = MAX_SIZE
) -> tuple[Portrait, ...]:
    """Several faces of one picture, as portraits that share it, for `ditto.scene`.

    Args:
        picture, max_size: as of `register`; the picture is not cut.
        faces: which, each as of `register`; None: all that can be animated, largest first.

    Raises:
        ImageError, NoFaceError, BundleError, EngineError, TypeError: as of `register`.
        ValueError: no face, or one face twice.
    """
    if faces is not None and not faces:
        raise ValueError("expected one face or more, got none; leave faces out for all of them")
    return _register(picture, faces, max_size, may_cut=False)


def _register(
    picture: Picture, choices: Sequence[FaceChoice] | None, max_size: int, may_cut: bool
) -> tuple[Portrait, ...]:
    networks()  # imports all that is needed, in a way that `fork` can be called at any time
    choosers = [ByNumber(0)] if choices is None else [chooser_of(choice, _reference_patch) for choice in choices]
    rgb, alpha, faces, chosen = _search(OpenedPicture(picture), choosers, max_size, may_cut)
    if choices is None:
        chosen = [face for face in faces if face.size >= MIN_FACE and _is_seen(face, rgb, alpha)] or chosen
    for face in chosen:
        check_seen(face.landmarks, rgb.shape[1], rgb.shape[0], alpha)
    places = [next(i for i, face in enumerate(faces) if face is one) for one in chosen]
    if len(set(places)) < len(places):
        raise ValueError(f"expected different faces, got face {max(places, key=places.count)} twice; choose another face")
    landmarks = [face.landmarks for face in faces]
    across = max(_pixels_across(landmarks[place], rgb) for place in places)
    if across > COARSEST * LARGEST_CROP:
        factor = COARSEST * LARGEST_CROP / across
        rgb, alpha = reduce(rgb, alpha, factor)
        landmarks = [points * factor for points in landmarks]
    return tuple(
        register_face(rgb, landmarks[place], alpha, [points for i, points in enumerate(landmarks) if i != place])
        for place in places
    )


def _is_seen(face: Face, rgb: Bytes, alpha: Bytes | None) -> bool:
    try:
        check_seen(face.landmarks, rgb.shape[1], rgb.shape[0], alpha)
    except NoFaceError:
        return False
    return True


def _pixels_across(landmarks: Floats, rgb: Bytes) -> float:
    """How many pixels of a picture (H, W, 3) the crop around a face covers."""
    return CROP_SIZE * float(np.linalg.norm(choose_crop(landmarks, rgb.shape[1], rgb.shape[0], CROP_SIZE)[:2, 0]))


def crop_size(across: float) -> int:
    """S of a crop that covers as many picture pixels: the picture's own resolution where the face is large."""
    if across <= COARSEST * CROP_SIZE:
        return CROP_SIZE
    return min(LARGEST_CROP, CROP_STEP * round(across / CROP_STEP))


def refine_landmarks(picture: Bytes, landmarks: Floats) -> Floats:
    """Landmarks (478, 3) of a face of which a good guess is known: the mean over eight augmented inputs.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (478, 3) picture pixels, e.g. of the frame before.
    """
    region = _region_of(landmarks)
    readings, _ = _augmented_landmarks(_Field(picture, region), region)
    return np.asarray(readings.mean(0))


def register_face(
    rgb: Bytes, landmarks: Floats, alpha: Bytes | None = None, others: Sequence[Floats] = ()
) -> Portrait:
    """A portrait of the face at `landmarks` (478, 3) of a picture (H, W, 3): crop, finer landmarks, mask, pose.

    `others` are the landmarks of the other faces of the picture; their surroundings are left out of the mask. So is what
    `alpha` (H, W) tells to be transparent.
    """
    size = crop_size(_pixels_across(landmarks, rgb))
    crop_to_picture = choose_crop(landmarks, rgb.shape[1], rgb.shape[0], size)
    crop = sample_crop(rgb, crop_to_picture, size)
    into_crop = np.linalg.inv(crop_to_picture)
    zoom = float(np.sqrt(np.linalg.det(into_crop[:2, :2])))

    def to_crop(points: Floats) -> Floats:
        return np.column_stack([points[:, :2] @ into_crop[:2, :2].T + into_crop[:2, 2], points[:, 2] * zoom])

    region = _region_of(to_crop(landmarks))
    readings, _ = _augmented_landmarks(_Field(crop, region), region)
    points = np.asarray(readings.mean(0))
    if lip_inconsistency(readings[0::2], readings[1::2]) > INCONSISTENT_LIPS:
        logger.warning(
            "the mouth is hardly seen in the picture, as if something were before it; what is drawn there may not fit; "
            "give a picture with the mouth free"
        )
    scale_px, rotation, translation_px, canonical = fit_head(points)
    half = size / 2
    expression = own_expression(canonical)
    eye_open, eye_ball = eye_state(points, size)
    mirrored = networks().segment(np.ascontiguousarray(crop[:, ::-1]))[:, ::-1]
    mask = person_mask(crop, np.asarray((networks().segment(crop) + mirrored) / 2, np.float32), points, scale_px)
    if alpha is not None:
        mask = mask * opacity(alpha, crop_to_picture, points, size)
    return Portrait(
        picture=rgb,
        alpha=alpha,
        crop=crop,
        crop_to_picture=crop_to_picture,
        landmarks=points,
        mask=mask * nearness(points, [to_crop(other) for other in others], size),
        canonical_keypoints=keypoints(canonical) - expression,
        scale=scale_px / half,
        rotation=rotation,
        translation=(translation_px - (half, half, 0.0)) / half,
        expression=expression @ rotation,
        eye_open=eye_open,
        eye_ball=eye_ball,
    )
