from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.floating]

class EyeView:
    def __init__(
        self,
        *,
        to_source: Numbers,
        centre: Numbers,
        reach: float,
        to_eye: Numbers,
        down: Numbers,
        xi_limit: float,
        sharpness: float,
        gain: float,
        lid: float,
        bared: float,
        crease: float,
        shut: float,
        turn: float,
        crisp: float,
        gaze: Numbers,
        layered: float,
        hair: float,
        shadow: float,
        reach_up: float,
        reach_down: float,
    ) -> None: ...

class MouthScene:
    def __init__(
        self,
        *,
        x_from_px: Numbers,
        y_from_px: Numbers,
        left: float,
        columns_per_unit: float,
        edge_px: float,
        teeth_per_unit: float,
        cavity: Numbers,
        tongue: Numbers,
        tongue_middle: float,
        tongue_back: float,
        tongue_tip: float,
        tongue_half_width: float,
        tongue_light: float,
        widest: float,
        own_shade: float,
        own_column: Numbers,
        own_row: Numbers,
        upper_shadow: float,
        upper_reach: float,
        lower_shadow: float,
        lower_reach: float,
        lower_roll_shade: float,
        upper_roll_shade: float,
        grain: float,
        grain_per_unit: float,
        tint: Numbers,
    ) -> None: ...

def warp(
    texture: U8, *, triangles: I32, destination: F32, source: F32, lanes: int = 0
) -> tuple[U8, U8, F32, I32, F32, F32]: ...
def carry(plane: U8, *, flat: U8, map: F32, pixels: I32, places: F32, weights: F32) -> U8: ...
def composite(image: U8, *, alpha: U8, plate: U8, gate: F32) -> None: ...
def paint_mouth(
    image: U8,
    *,
    left: int,
    top: int,
    right: int,
    bottom: int,
    columns: F32,
    scene: MouthScene,
    upper: F32,
    lower: F32,
    own: F32,
    grain: F32,
) -> None: ...
def smooth_corner(
    image: U8,
    *,
    left: int,
    top: int,
    right: int,
    bottom: int,
    x: float,
    y: float,
    outwards_x: float,
    outwards_y: float,
    scale: float,
    amount: float,
    reach: float,
    half: float,
) -> None: ...
def draw_eye(
    image: U8,
    *,
    left: int,
    top: int,
    right: int,
    bottom: int,
    texture: F32,
    curves: F32,
    strip: F32,
    view: EyeView,
) -> None: ...
def paste_back(
    picture: U8,
    *,
    source: U8,
    rendered: U8,
    ramp: F32,
    to_crop: F64,
    x: int,
    y: int,
    width: int,
    height: int,
    detail: I16,
    reduce: int,
) -> U8: ...

class Core:
    def __init__(self, blob: bytes | bytearray | memoryview) -> None: ...
    @staticmethod
    def unpack(
        model: bytes | bytearray | memoryview, numbers: bytes | bytearray | memoryview, picture: U8 | None, crop: U8, plate: U8
    ) -> Core: ...
    @property
    def size(self) -> int: ...
    def crop(self, motion: F32) -> U8: ...
    def with_plane(self, motion: F32, plane: U8, flat: U8, plate: U8) -> tuple[U8, U8]: ...
    def picture(self, motion: F32) -> U8: ...
    def frame(self, motion: F32) -> tuple[U8, U8]: ...
    def vertices(self, motion: F32) -> F32: ...
