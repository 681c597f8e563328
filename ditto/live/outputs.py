"""Sessions of motion alone: what they give in place of a pixel format (`ditto.media.pixels`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOTION = "motion"  # in place of a format: frames have their motion and no picture
NO_PICTURE: npt.NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
NO_PICTURE.flags.writeable = False
