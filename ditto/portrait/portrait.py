"""Portrait: everything ditto knows about one picture of a face, saved and loaded without pickle."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.media.files import write_file
from ditto.motion.motion import KEYPOINTS
from ditto.portrait import packed
from ditto.portrait.face_mesh import LANDMARKS
from ditto.values import is_same

Floats = npt.NDArray[np.float64]

FORMAT = "ditto portrait"
VERSION = 1
IMAGES = ("picture", "alpha", "crop")  # saved as PNG, lossless
PACKED_SUFFIX = ".portrait"
SUFFIXES = (".npz", PACKED_SUFFIX)
MAX_FILE_BYTES = 1 << 29
_DAMAGED = (SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error)  # by NumPy, zipfile and Pillow
ADVICE = "make portraits with `register` or `Portrait.load`"


@dataclass(frozen=True, eq=False)
class Portrait:
    """One registered face. Arrays are read-only.

    Attributes:
        picture: (H, W, 3) uint8 RGB, even sizes: the whole picture the face is pasted back into; what is transparent
            in it is laid over white.
        alpha: (H, W) uint8 or None: the picture's own transparency (`straight_colours` of `ditto.media.images` takes the
            white off).
        crop: (S, S, 3) uint8 RGB face crop; where it leaves the picture it is filled plausibly, never streaked.
        crop_to_picture: (3, 3) affine, crop pixels -> picture pixels (x, y, 1) column vectors; pixel centres lie at
            whole numbers.
        landmarks: (478, 3) crop pixels, z in the same scale.
        mask: (S, S) float32 in [0, 1]: 1 where the person is.
        canonical_keypoints: (21, 3) face units, head frame, neutral expression with closed lips.
        scale, rotation, translation: pose of the source; model units per face unit, (3, 3) row vectors, (3,) model
            units.
        expression: (21, 3) face units, camera frame: how the source deviates from its neutral.
        eye_open: (2,) opening ratio of the source's eyes, the one on the left of the picture first; eye_ball: (6,)
            their gaze, xL xR yL yR zL zR (`ditto.portrait.face_state.eye_state`).
        packed: the bytes of the packed portrait that it was loaded from, with what a renderer has prepared of it
            (`ditto.portrait.packed`); None otherwise, and in what `dataclasses.replace` makes of it.

    Raises:
        ValueError: an array has another shape or type, or values that are not finite.
    """

    picture: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.uint8] | None
    crop: npt.NDArray[np.uint8]
    crop_to_picture: Floats
    landmarks: Floats
    mask: npt.NDArray[np.float32]
    canonical_keypoints: Floats
    scale: float
    rotation: Floats
    translation: Floats
    expression: Floats
    eye_open: npt.NDArray[np.float32]
    eye_ball: npt.NDArray[np.float32]
    packed: bytes | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        height, width = np.shape(self.picture)[:2] if np.ndim(self.picture) == 3 else (-1, -1)
        size = len(self.crop)
        expected: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "picture": (np.uint8, (height, width, 3)),
            "alpha": (np.uint8, (height, width)),
            "crop": (np.uint8, (size, size, 3)),
            "crop_to_picture": (np.float64, (3, 3)),
            "landmarks": (np.float64, (LANDMARKS, 3)),
            "mask": (np.float32, (size, size)),
            "canonical_keypoints": (np.float64, (KEYPOINTS, 3)),
            "scale": (np.float64, ()),
            "rotation": (np.float64, (3, 3)),
            "translation": (np.float64, (3,)),
            "expression": (np.float64, (KEYPOINTS, 3)),
            "eye_open": (np.float32, (2,)),
            "eye_ball": (np.float32, (6,)),
        }
        for name, (dtype, shape) in expected.items():
            given = getattr(self, name)
            if given is None and name == "alpha":
                continue
            array = np.asarray(given)
            if array.shape != shape:
                raise ValueError(f"expected {name} {shape} of a portrait, got {array.shape}; {ADVICE}")
            if dtype is np.uint8 and array.dtype != np.uint8:
                raise ValueError(f"expected {name} of a portrait as uint8, got {array.dtype}; {ADVICE}")
            view = np.ascontiguousarray(array, dtype).reshape(shape).view()
            if not np.isfinite(view).all():
                raise ValueError(f"expected finite {name} of a portrait, got NaN or infinity; {ADVICE}")
            view.flags.writeable = False
            object.__setattr__(self, name, float(view) if name == "scale" else view)
        if min(height, width, size) < 2 or not self.scale > 0.0:
            raise ValueError(f"expected pixels and a scale above 0, got {width} x {height}, {size}, {self.scale}; {ADVICE}")
        if abs(np.linalg.det(self.crop_to_picture[:2, :2])) < 1e-9:
            raise ValueError(f"expected a crop_to_picture that can be inverted, got another; {ADVICE}")
        if not np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(self.rotation) < 0:
            raise ValueError(f"expected a rotation of a portrait, got another matrix; {ADVICE}")
        face = self.landmarks[:, :2]
        if np.ptp(face, axis=0).min() < 1.0 or np.abs(face - size / 2).max() > 4 * size or self.scale > 100.0:
            raise ValueError(f"expected landmarks and scale of a face in the crop, got others; {ADVICE}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the portrait to one file (npz: images as PNG, no pickle); it appears under its name when complete.

        Every number stays as it is. `TalkingHead.pack` writes a smaller file, which needs no preparation.

        Raises:
            OutputError: the file cannot be written there.
        """
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in (one.name for one in fields(self) if one.init):
            value = getattr(self, name)
            if value is not None:
                arrays[name] = _png(value) if name in IMAGES else np.asarray(value)
        meta = json.dumps({"format": FORMAT, "version": VERSION}).encode()
        arrays["meta"] = np.frombuffer(meta, np.uint8)
        packed = io.BytesIO()  # not straight into the file: zipfile complains at length when a disk is full
        np.savez_compressed(packed, allow_pickle=False, **arrays)
        write_file(path, packed.getbuffer())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Portrait:
        """A portrait written by `save` or by `TalkingHead.pack`. Needs no networks.

        Raises:
            InputError: the file is missing, damaged, no portrait, or of a newer version.
        """
        name = os.fspath(path)
        advice = "register the picture again and save it"
        try:
            size = os.stat(path).st_size
            if size > MAX_FILE_BYTES:
                raise InputError(f"{name} is {size >> 20} MiB, larger than any portrait; {advice}")
            with open(path, "rb") as file:
                if file.read(len(packed.MAGIC)) == packed.MAGIC:
                    return cls.from_packed(packed.MAGIC + file.read(), name)
            with np.load(path, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile) or "meta" not in archive.files:
                    raise InputError(f"{name} is no saved portrait; expected a file written by Portrait.save; {advice}")
                meta = json.loads(archive["meta"].tobytes())
                if meta.get("format") != FORMAT:
                    raise InputError(f"{name} is no saved portrait but {meta.get('format')!r}; {advice}")
                if not is_same(meta.get("version"), VERSION):
                    raise InputError(
                        f"{name} is a portrait of version {meta.get('version')}, this ditto reads version {VERSION}; "
                        f"update ditto, or {advice}"
                    )
                arrays: dict[str, Any] = {n: archive[n] for n in archive.files if n != "meta"}
            arrays.setdefault("alpha", None)
            for image in IMAGES:
                if arrays[image] is not None:
                    arrays[image] = _from_png(arrays[image])
            return cls(**arrays)
        except FileNotFoundError:
            raise InputError(f"{name}: no such file; expected a saved portrait") from None
        except PermissionError as error:
            raise InputError(f"the portrait {name} may not be read ({error.strerror}); check its permissions") from None
        except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, *_DAMAGED) as error:
            reason = "another kind of file" if "pickle" in str(error) else error  # NumPy advises to load it unsafely
            raise InputError(f"{name} is damaged or no saved portrait ({reason}); {advice}") from None

    @classmethod
    def from_packed(cls, data: bytes, name: str = "the packed portrait") -> Portrait:
        """A portrait from what `TalkingHead.pack` gives.

        Args:
            name: of the file, for messages.

        Raises:
            InputError: damaged, of another version, or no packed portrait.
        """
        try:
            portrait = cls(**packed.fields_of(data, name))
        except ValueError as error:
            raise InputError(f"{name} is no usable portrait: {error}; make it again with `ditto pack`") from None
        object.__setattr__(portrait, "packed", data)
        return portrait


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is a saved portrait, not a picture."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def _png(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _from_png(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data.tobytes()), formats=["PNG"]) as image:
        return np.array(image)
