"""Piecewise affine warp, and what moves along with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.checks import check_type
from ditto.ops.reference.warp import Parts

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def warp(texture: U8, triangles: npt.NDArray[np.int32], destination: F32, source: F32) -> tuple[U8, U8, F32, Parts]:
    """A texture drawn on moved triangles: colour (H, W, 3), alpha (H, W), where the middle of each pixel came from
    (2, H, W), and the parts of the pixels that came from several places.

    Later triangles cover earlier ones; what no triangle covers stays where it is. Sampling is bicubic (OpenCV's
    kernel). Where the map breaks off (a silhouette) or shrinks the texture to less than half, a pixel is put together
    of what each triangle shows at those of the pixel's 16 samples that the triangle covers; how far, rises smoothly
    with the break, so that a small movement makes a small change. A pixel that does not move is copied exactly.

    Args:
        texture: (H, W, 4) RGBA, at least 2 x 2.
        triangles: (N, 3) vertex numbers in painter's order.
        destination, source: (V, 2) pixels (x, y): vertex in the result and in the texture.

    Raises:
        ValueError: wrong shape, a vertex number out of range, or a position that is not finite.
        TypeError: wrong dtype.
    """
    check_type("warp", "texture", texture, np.uint8)
    check_type("warp", "triangles", triangles, np.int32)
    check_type("warp", "destination", destination, np.float32)
    check_type("warp", "source", source, np.float32)
    if texture.ndim != 3 or texture.shape[2] != 4 or min(texture.shape) < 2:
        raise ValueError(f"expected a texture (H, W, 4) of warp, 2 x 2 or more, got {texture.shape}; give RGBA")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"expected triangles (N, 3) of warp, got {triangles.shape}; give three vertices each")
    if destination.shape != source.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(
            f"expected destination and source (V, 2) of warp, got {destination.shape} and {source.shape}; give each "
            "vertex in both"
        )
    if triangles.size and not (0 <= triangles.min() and triangles.max() < len(source)):
        raise ValueError(
            f"expected triangles of {len(source)} vertices for warp, got numbers {triangles.min()} to {triangles.max()}; "
            "give those of this mesh"
        )
    if not (np.isfinite(destination).all() and np.isfinite(source).all()):
        raise ValueError("expected finite positions of vertices for warp, got NaN or infinity; limit the motion before")
    solid = np.ascontiguousarray
    colour, alpha, origin, pixels, places, weights = _native.warp(
        solid(texture), triangles=solid(triangles), destination=solid(destination), source=solid(source)
    )
    return colour, alpha, origin, Parts(pixels, places, weights)


def carry(plane: U8, origin: F32, parts: Parts) -> U8:
    """A plane (H, W), such as the alpha of what `warp` draws, at the places of its map `origin` (2, H, W): (H, W).

    Sampled as `warp` samples, but not at each sample where a triangle shrinks the texture.

    Raises:
        ValueError: wrong shape, a pixel of a part outside of the plane, or a place that is not finite.
        TypeError: wrong dtype.
    """
    check_type("carry", "plane", plane, np.uint8)
    check_type("carry", "origin", origin, np.float32)
    check_type("carry", "pixels of parts", parts.pixels, np.int32)
    check_type("carry", "places of parts", parts.places, np.float32)
    check_type("carry", "weights of parts", parts.weights, np.float32)
    if plane.ndim != 2 or plane.size == 0 or origin.shape != (2, *plane.shape):
        raise ValueError(
            f"expected a plane (H, W) and an origin (2, H, W) of carry, got {plane.shape} and {origin.shape}; give both "
            "of one size"
        )
    count = len(parts.pixels)
    if (parts.pixels.shape, parts.places.shape, parts.weights.shape) != ((count,), (count, 2), (count,)):
        shapes = ", ".join(str(array.shape) for array in parts)
        raise ValueError(f"expected parts (N,), (N, 2) and (N,) of carry, got {shapes}; give the parts of warp")
    if count and not (0 <= parts.pixels.min() and parts.pixels.max() < plane.size):
        raise ValueError(
            f"expected parts of {plane.size} pixels for carry, got numbers {parts.pixels.min()} to {parts.pixels.max()}; "
            "give the parts of this map"
        )
    if not (np.isfinite(origin).all() and np.isfinite(parts.places).all() and np.isfinite(parts.weights).all()):
        raise ValueError("expected finite places in the origin and parts of carry, got NaN or infinity; give the map of warp")
    solid = np.ascontiguousarray
    return _native.carry(
        solid(plane), flat=flat_around(plane), map=solid(origin),
        pixels=solid(parts.pixels), places=solid(parts.places), weights=solid(parts.weights),
    )  # fmt: skip


def flat_around(plane: U8) -> U8:
    """How far around each pixel of a plane (H, W) all values are the same, px along rows and columns, at most 255: (H, W)."""
    import cv2  # the GPU kernels' wrappers lie beside this, and need none

    square = np.ones((3, 3), np.uint8)
    flat = np.asarray(cv2.dilate(plane, square) == cv2.erode(plane, square), np.uint8)
    return np.minimum(cv2.distanceTransform(flat, cv2.DIST_C, 3), 255).astype(np.uint8)
