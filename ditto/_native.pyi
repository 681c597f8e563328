from typing import Any

import numpy as np
import numpy.typing as npt

def warp(
    texture: npt.NDArray[np.uint8],
    triangles: npt.NDArray[np.int32],
    destination: npt.NDArray[np.float32],
    source: npt.NDArray[np.float32],
    portable: bool = False,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]: ...
def composite(
    image: npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.uint8],
    plate: npt.NDArray[np.uint8],
    gate: npt.NDArray[np.float32],
) -> None: ...
def __getattr__(name: str) -> Any: ...
