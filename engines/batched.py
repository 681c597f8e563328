"""Run rows of different streams as one batch; each row gets the bits that it gets alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Engine, Tensor

LARGEST_BATCH = 8  # larger batches are not faster and take more memory


class BatchedEngine:
    """An engine whose result for a row does not depend, bit for bit, on the other rows of the batch.

    On the processors we know, ONNX Runtime adds in the same order for every batch size. It does not promise that: other
    shapes may run other kernels. So this engine also runs the first batch of each size row by row. If one bit differs,
    it runs that size row by row from then on. The first axis of every input and output is the batch.
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
            return self._engine(**arrays)  # which refuses inputs of different batch sizes
        ((rows,),) = sizes
        if rows > LARGEST_BATCH:
            parts = [self(**cut(arrays, start, LARGEST_BATCH)) for start in range(0, rows, LARGEST_BATCH)]
            return join(parts)
        if self._equal.get(rows):
            return self._engine(**arrays)
        alone = join([self._engine(**cut(arrays, row, 1)) for row in range(rows)])
        if rows not in self._equal:
            batched = self._engine(**arrays)
            equal = all(batched[name].tobytes() == alone[name].tobytes() for name in alone)
            if equal:
                self._equal.setdefault(rows, True)  # another thread may have found a difference meanwhile
            else:
                self._equal[rows] = False
        return alone


def cut(arrays: dict[str, npt.NDArray[Any]], start: int, rows: int) -> dict[str, npt.NDArray[Any]]:
    """The rows [start, start + rows) of each array."""
    return {name: array[start : start + rows] for name, array in arrays.items()}


def join(parts: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Concatenate arrays of the same names along the batch."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
