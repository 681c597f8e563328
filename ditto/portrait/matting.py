"""The person cut out of an opaque picture: how opaque each pixel is, and its colour without the background.

A network made for selfies looks at the picture in squares of several sizes. Where they agree, away from the person's edge, is
person or background. Between the two, alpha is solved for by the colours around each pixel, which brings out strands of
hair, and what shines through of the background is taken out of the colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.errors import ImageError
from ditto.media.images import BACKDROP, Bytes
from ditto.portrait.cropping import opacity, sample_crop
from ditto.portrait.face_mesh import FACE_OVAL, smoothstep
from ditto.portrait.face_networks import SEGMENTATION_SIZE, cut, networks
from ditto.portrait.portrait import Portrait

Floats = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Lengths are parts of the crop's side, which is about twice the face's. Numbers without a note were chosen by eye on 16
# portraits (photographs and paintings) over green, white and a photograph.
VIEWS = ((1.0, 0.0), (1.25, 0.05), (1.6, 0.15), (2.2, 0.3))  # side of a square, and how far below the crop's middle it lies
VIEW_FADE = 0.12  # of the view's side: towards its border it counts less
UNSURE = (0.35, 0.75)  # probabilities between which the network leaves the person's edge open
LEAST_BELIEF = 0.5  # mean probability on the face; below it the network sees no person (some statues and drawings)
INSIDE = 0.02  # this far inside of the edge all is the person's
OUTSIDE = 0.06  # this far outside nothing is: the network leaves loose hair out
SOLVED_SIZE = 1024  # longer side at which alpha is solved for; a finer picture takes the lines of colours over
LEVELS = (0.25, 0.5, 1.0)  # of that size: each starts from the one before
RADIUS = 2  # px of the windows in which alpha is a linear function of colour
EPSILON = 1e-5
KNOWN, GUESSED = 10.0, 3e-3  # weight of what is known and of the network's guess elsewhere; a window's is 1
MAX_STEPS = 60
RESIDUAL = 4e-9  # mean square at which the solution stands
CLEAR, SOLID = 0.04, 0.97  # alpha at and beyond these is 0 and 1
REGULAR = 1e-5  # this and the next three: of the foreground's colours, by Germer et al. 2020
COARSE_SIZE, COARSE_STEPS, FINE_STEPS = 32, 10, 2


def cut_out(portrait: Portrait) -> Portrait:
    """The portrait with its person cut out, as if its picture had been transparent around them. Takes about two seconds.

    The alpha is that of the person the face belongs to, with hair, clothes and what they hold. The colours are without the
    old background, over white, as of every portrait with alpha. A portrait that has alpha already is given back as it is.

    Raises:
        ImageError: no person stands out in the picture.
        BundleError: the network of the lite bundle is missing.
        EngineError: ONNX Runtime is not installed or refuses it.
    """
    if portrait.alpha is not None:
        return portrait
    matte = person_matte(portrait)
    colours = foreground_colours(portrait.picture, matte)
    alpha = np.rint(255.0 * matte).astype(np.uint8)
    share = (alpha / np.float32(255.0))[..., None]
    picture = np.rint(colours * share + BACKDROP * (1.0 - share)).astype(np.uint8)
    size = len(portrait.crop)
    return replace(
        portrait,
        picture=picture,
        alpha=alpha,
        crop=sample_crop(picture, portrait.crop_to_picture, size),
        mask=portrait.mask * opacity(alpha, portrait.crop_to_picture, portrait.landmarks, size),
    )


def person_matte(portrait: Portrait) -> F32:
    """(H, W) in [0, 1]: how opaque the portrait's person is in its picture.

    Raises:
        ImageError, BundleError, EngineError: as of `cut_out`.
    """
    picture = portrait.picture
    height, width = picture.shape[:2]
    factor = min(1.0, SOLVED_SIZE / max(height, width))
    small = _resized(picture, factor)
    to_small = np.diag([small.shape[1] / width, small.shape[0] / height, 1.0]) @ portrait.crop_to_picture
    side = factor * _crop_side(portrait)
    oval = portrait.landmarks[FACE_OVAL, :2] @ to_small[:2, :2].T + to_small[:2, 2]
    face = cv2.fillPoly(np.zeros(small.shape[:2], np.uint8), [np.rint(oval).astype(np.int32)], (1,)) > 0
    probability = _probability(small, to_small, len(portrait.crop))
    if not face.any() or probability[face].mean() < LEAST_BELIEF:
        raise ImageError(
            "expected a person that stands out from the background, got a picture in which the person is not recognised; cut "
            "the person out yourself, and save the picture as PNG or WebP with transparency"
        )
    lines, matte = _solved(small, _trimap(probability, face, side))
    if factor < 1.0:
        matte = lines.drawn(picture, matte)
    return np.asarray(np.clip((matte - CLEAR) / (SOLID - CLEAR), 0.0, 1.0), np.float32)


def _crop_side(portrait: Portrait) -> float:
    """The side of the crop, in pixels of the picture."""
    return len(portrait.crop) * math.sqrt(np.linalg.det(portrait.crop_to_picture[:2, :2]))


def _resized(picture: Bytes, factor: float) -> Bytes:
    if factor == 1.0:
        return picture
    size = (max(8, round(picture.shape[1] * factor)), max(8, round(picture.shape[0] * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


class _View(NamedTuple):
    """A square of a picture: centre and side in pixels, angle in radians (clockwise on the screen)."""

    centre: Floats
    side: float
    angle: float


def _views(crop_to_picture: Floats, size: int, width: int, height: int) -> Iterator[_View]:
    """The whole picture, and squares around the head that are not much larger."""
    linear = crop_to_picture[:2, :2]
    middle = linear @ np.full(2, (size - 1) / 2) + crop_to_picture[:2, 2]
    longer, side = float(max(width, height)), size * math.sqrt(np.linalg.det(linear))
    yield _View(np.array([width, height]) / 2, longer, 0.0)
    for scale, drop in VIEWS:
        if scale * side < 1.3 * longer:
            down = linear @ np.array([0.0, drop * size])
            yield _View(middle + down, scale * side, math.atan2(linear[1, 0], linear[0, 0]))


def _probability(picture: Bytes, crop_to_picture: Floats, size: int) -> F32:
    """(H, W) that a pixel shows a person: the mean of several views, those that see it finely more than others."""
    height, width = picture.shape[:2]
    cells = SEGMENTATION_SIZE
    ramp = smoothstep(0.0, 1.0, np.minimum(np.arange(cells), np.arange(cells)[::-1]) / (VIEW_FADE * cells))
    window = (ramp[:, None] * ramp).astype(np.float32)
    sums, weights = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for number, view in enumerate(_views(crop_to_picture, size, width, height)):
        step = view.side / cells
        source = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 * step), np.uint8) if step > 1.5 else picture
        x, y = view.centre.tolist()
        seen = cut(source, (x, y), view.side, view.angle, cells, beyond_is_black=True)
        mirrored = networks().segment(np.ascontiguousarray(seen[:, ::-1]))[:, ::-1]
        probability = (networks().segment(seen) + mirrored) / 2
        weight = (np.ones_like(window) if number == 0 else window) / np.float32(math.sqrt(view.side))
        turn = step * np.array(
            [[np.cos(view.angle), -np.sin(view.angle)], [np.sin(view.angle), np.cos(view.angle)]]
        )
        to_picture = np.column_stack([turn, view.centre - turn @ np.full(2, cells / 2)])
        border = cv2.BORDER_REPLICATE if number == 0 else cv2.BORDER_CONSTANT
        drawn = cv2.warpAffine(
            np.dstack([probability * weight, weight]).astype(np.float32), to_picture, (width, height), borderMode=border
        )
        sums += drawn[..., 0]
        weights += drawn[..., 1]
    return np.asarray(sums / weights, np.float32)


class _Trimap(NamedTuple):
    """What is known of a matte.

    Attributes:
        person, background: (H, W) where alpha is 1 and 0.
        guess: (H, W) in [0, 1], also elsewhere.
    """

    person: Mask
    background: Mask
    guess: F32

    def resized(self, size: tuple[int, int]) -> _Trimap:
        """For a picture of (width, height)."""
        planes = np.dstack([self.person, self.background, self.guess]).astype(np.float32)
        small = cv2.resize(planes, size, interpolation=cv2.INTER_AREA)
        return _Trimap(small[..., 0] > 0.99, small[..., 1] > 0.99, np.ascontiguousarray(small[..., 2]))


def _trimap(probability: F32, face: Mask, side: float) -> _Trimap:
    """The trimap of the person whose face is given; persons apart from them are background.

    Args:
        side: of the crop, px.
    """
    _, labels = cv2.connectedComponents(((probability > 0.5) | face).astype(np.uint8))
    own = np.asarray(labels == np.bincount(labels[face]).argmax(), np.uint8)
    beyond = cv2.copyMakeBorder(own, 1, 1, 1, 1, cv2.BORDER_REPLICATE)  # the person goes on beyond the picture
    inside = cv2.distanceTransform(beyond, cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform(np.asarray(1 - own, np.uint8), cv2.DIST_L2, 5)
    background = np.asarray(outside > OUTSIDE * side)
    person = np.asarray((inside > INSIDE * side) | face)
    guess = np.where(person, 1.0, np.where(background, 0.0, smoothstep(*UNSURE, probability)))
    return _Trimap(person, background, guess.astype(np.float32))


class _ColourLines:
    """A picture's windows, in each of which alpha is taken as a linear function of the colour.

    Source: Levin, Lischinski, Weiss, "A closed-form solution to natural image matting", 2008, eq. 10 to 12; without its
    matrix: He, Sun, Tang, "Fast matting using large kernel matting Laplacian matrices", 2010, eq. 7 to 10.
    """

    def __init__(self, picture: Bytes) -> None:
        height, width = picture.shape[:2]
        self._image = picture.astype(np.float32) / np.float32(255.0)
        self._whole = np.zeros((height, width), np.float32)  # 1 at the middles of windows that lie in the picture
        self._whole[RADIUS : height - RADIUS, RADIUS : width - RADIUS] = 1.0
        self._mean = _sum(self._image) / _AREA
        outer = (self._image[..., :, None] * self._image[..., None, :]).reshape(height, width, 9)
        spread = (_sum(outer) / _AREA).reshape(height, width, 3, 3) - self._mean[..., :, None] * self._mean[..., None, :]
        inverse = np.linalg.inv(spread.astype(np.float64) + EPSILON * np.eye(3)).astype(np.float32)
        self._inverse = [[np.ascontiguousarray(inverse[..., row, column]) for column in range(3)] for row in range(3)]
        self.windows: F32 = _sum(self._whole) / np.float32(_AREA)

    def _lines(self, alpha: F32) -> tuple[F32, F32]:
        """Slope (H, W, 3) and offset (H, W) of the line that fits `alpha` (H, W) best in the window around each pixel."""
        mean = _sum(alpha) / np.float32(_AREA)
        covariance = cv2.split(_sum(self._image * alpha[..., None]) / _AREA - self._mean * mean[..., None])
        slope = np.dstack([sum(a * c for a, c in zip(row, covariance, strict=True)) for row in self._inverse])
        slope *= self._whole[..., None]
        return slope, (mean - (slope * self._mean).sum(-1)) * self._whole

    def rough(self, alpha: F32) -> F32:
        """(H, W): the matting Laplacian times alpha, over the area of a window."""
        slope, offset = self._lines(alpha)
        lines = (_sum(slope) * self._image).sum(-1) + _sum(offset)
        return np.asarray(self.windows * alpha - lines / np.float32(_AREA), np.float32)

    def drawn(self, picture: Bytes, alpha: F32) -> F32:
        """`alpha` of this picture drawn with the lines of its colours in a finer copy of it.

        Source: He, Sun, "Fast guided filter", 2015.
        """
        slope, offset = self._lines(alpha)
        count = np.maximum(_sum(self._whole), 1.0)
        lines = np.dstack([_sum(slope), _sum(offset)]) / count[..., None]
        size = (picture.shape[1], picture.shape[0])
        fine = cv2.resize(lines, size, interpolation=cv2.INTER_LINEAR)
        fine_alpha = (fine[..., :3] * picture).sum(-1) / np.float32(255.0) + fine[..., 3]
        plain = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(np.where((plain > 0.0) & (plain < 1.0), fine_alpha, plain), np.float32)


_WINDOW = (2 * RADIUS + 1, 2 * RADIUS + 1)
_AREA = _WINDOW[0] * _WINDOW[1]


def _sum(values: F32) -> F32:
    """Over the window around each pixel, zeros beyond the picture."""
    return np.asarray(cv2.boxFilter(values, -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT), np.float32)


def _solved(picture: Bytes, trimap: _Trimap) -> tuple[_ColourLines, F32]:
    """The alpha (H, W) that fits the trimap and the lines of the picture's colours best, and these.

    Conjugate gradients from coarse to fine; the sum of squares is that of Levin et al. 2008, eq. 13, with the guess added.
    """
    height, width = picture.shape[:2]
    alpha: F32 | None = None
    for level in LEVELS:
        small = _resized(picture, level)
        size = (small.shape[1], small.shape[0])
        known = trimap.resized(size)
        fixed = known.person | known.background
        weight = np.where(fixed, KNOWN, GUESSED).astype(np.float32)
        start = known.guess if alpha is None else cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
        alpha = np.where(fixed, known.guess, start).astype(np.float32)
        lines = _ColourLines(small)
        scale = 1.0 / (weight + lines.windows)
        residual = weight * (known.guess - alpha) - lines.rough(alpha)
        step = scale * residual
        power = float((residual * step).sum())
        for _ in range(MAX_STEPS):
            if power < RESIDUAL * residual.size:
                break
            image = lines.rough(step) + weight * step
            length = np.float32(power / float((step * image).sum()))
            alpha += length * step
            residual -= length * image
            scaled = scale * residual
            before, power = power, float((residual * scaled).sum())
            step = scaled + np.float32(power / before) * step
        alpha = np.clip(alpha, 0.0, 1.0)
    assert alpha is not None and alpha.shape == (height, width)
    return lines, alpha


def foreground_colours(picture: Bytes, alpha: F32) -> F32:
    """The colours (H, W, 3), 0 to 255, of what has `alpha` (H, W) in [0, 1] over an unknown background in `picture` (H, W, 3).

    Source: Germer, Uelwer, Conrad, Harmeling, "Fast multi-level foreground estimation", 2020, algorithm 1, with their
    numbers; each step takes the step before it for the neighbours (Jacobi).
    """
    height, width = alpha.shape
    image = picture.astype(np.float32)
    levels = math.ceil(math.log2(max(height, width)))
    share = alpha[..., None]
    front = (image * share).sum((0, 1), keepdims=True) / max(float(alpha.sum()), 1.0)
    behind = (image * (1.0 - share)).sum((0, 1), keepdims=True) / max(float((1.0 - alpha).sum()), 1.0)
    for level in range(1, levels + 1):
        size = (round(width ** (level / levels)), round(height ** (level / levels)))
        shape = (size[1], size[0], 3)
        seen = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(shape)
        opaque = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).reshape(shape[:2])
        front, behind = (cv2.resize(x, size, interpolation=cv2.INTER_NEAREST).reshape(shape) for x in (front, behind))
        weights = [REGULAR + np.abs(opaque - other) for other in _neighbours(opaque)]
        pull = sum(weights, np.zeros_like(opaque))
        own, other = opaque[..., None] * seen, (1.0 - opaque)[..., None] * seen
        a, b, c = opaque**2 + pull, opaque * (1.0 - opaque), (1.0 - opaque) ** 2 + pull
        a, b, c = (x[..., None] / (a * c - b * b)[..., None] for x in (a, b, c))
        for _ in range(COARSE_STEPS if max(size) <= COARSE_SIZE else FINE_STEPS):
            sums = [
                light + sum((w[..., None] * x for w, x in zip(weights, _neighbours(colours), strict=True)))
                for light, colours in ((own, front), (other, behind))
            ]
            front = np.clip(c * sums[0] - b * sums[1], 0.0, 255.0)
            behind = np.clip(a * sums[1] - b * sums[0], 0.0, 255.0)
    return np.asarray(np.where(share == 1.0, image, front), np.float32)


def _neighbours(values: F32) -> list[F32]:
    """What each pixel of (H, W) or (H, W, C) has above, below, left and right; at the border, itself."""
    up, down = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    left = np.concatenate([values[:, :1], values[:, :-1]], 1)
    return [up, down, left, np.concatenate([values[:, 1:], values[:, -1:]], 1)]
