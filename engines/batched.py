"""Rows of different streams through one network as one batch, with the bits each row has alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Engine, Tensor

LARGEST_BATCH = 8  # more rows at once win nothing more, and hold more memory


class BatchedEngine:
    """An engine whose answer to a row does not depend, bit for bit, on how many rows go with it.

    ONNX Runtime adds up in the same order whatever the batch is on the processors we know, but nobody promises it: it
    may take other routines for other shapes. So the first batch of each size is also run row by row, and where one bit
    differs this engine runs row by row from then on. Every input and output has the batch first.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._equal: dict[int, bool] = {}  # by batch size

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._engine.outputs

    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run the network; raises what the engine raises."""
        sizes = {array.shape[:1] for array in arrays.values()}
        if len(sizes) != 1 or sizes <= {(), (0,), (1,)}:
            return self._engine(**arrays)  # which says what is wrong where sizes differ
        ((rows,),) = sizes
        if rows > LARGEST_BATCH:
            parts = [self(**cut(arrays, start, LARGEST_BATCH)) for start in range(0, rows, LARGEST_BATCH)]
            return join(parts)
        if self._equal.get(rows):
            return self._engine(**arrays)
        alone = join([self._engine(**cut(arrays, row, 1)) for row in range(rows)])
        if rows not in self._equal:
            together = self._engine(**arrays)
            equal = all(together[name].tobytes() == alone[name].tobytes() for name in alone)
            if equal:
                self._equal.setdefault(rows, True)  # another thread may have seen a difference meanwhile
            else:
                self._equal[rows] = False
        return alone


def cut(arrays: dict[str, npt.NDArray[Any]], start: int, rows: int) -> dict[str, npt.NDArray[Any]]:
    """The rows [start, start + rows) of each array."""
    return {name: array[start : start + rows] for name, array in arrays.items()}


def join(parts: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the same names, one after another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
