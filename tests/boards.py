"""Stands in for TensorBoard, which may not be installed: what a run shows, in a list."""

import sys
import types


def recorded_board(monkeypatch):
    """Name, step and value of all that is shown from now on."""
    shown = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            shown.append(("opened", purge_step, folder))

        def add_scalar(self, name, value, step):
            shown.append((name, step, value))

        def add_image(self, name, picture, step):
            shown.append((name, step, picture))

        def close(self):
            shown.append(("closed", None, None))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return shown
