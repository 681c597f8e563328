"""What packages below ditto do of their own accord, turned off: telemetry, and files in the user's folders.

ditto opens no connection and writes no file that it was not asked for. `ditto/__init__.py` runs `turn_off_telemetry`,
so it has happened before any module of ditto imports any of these packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# ONNX Runtime (1.31 on Linux) otherwise writes a device id and an event database to the user's cache when it is
# imported, and a thread of it looks up mobile.events.data.microsoft.com. huggingface_hub, which `ditto bundle pull`
# uses, otherwise tells the hub which frameworks are installed.
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")


def turn_off_telemetry() -> None:
    """Set the environment variables that turn telemetry off, for this process and its children.

    A variable that the user has set stays: ORT_DISABLE_TELEMETRY=0 keeps ONNX Runtime's telemetry.
    """
    for name in SWITCHES:
        if not os.environ.get(name):
            os.environ[name] = "1"


def import_onnxruntime() -> ModuleType:
    """The onnxruntime module, without telemetry unless ORT_DISABLE_TELEMETRY=0.

    If the program imported it before ditto, only its events can still be turned off: the files are written by then.

    Raises:
        ImportError: it is not installed.
    """
    onnxruntime = importlib.import_module("onnxruntime")
    disable = getattr(onnxruntime, "disable_telemetry_events", None)
    if disable is not None and os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        disable()
    return onnxruntime


class _Deferred(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            sys.modules.pop(self.__name__, None)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def without_matplotlib() -> Iterator[None]:
    """Import MediaPipe inside of this: its drawing functions import matplotlib, which nothing here uses.

    Matplotlib writes a list of fonts to the user's folders (or warns that it cannot) and takes half of the time.
    Whoever calls a drawing function of MediaPipe later gets matplotlib then.
    """
    if sys.modules.keys() & {"matplotlib", "mediapipe"}:
        yield
        return
    top, pyplot = _Deferred("matplotlib"), _Deferred("matplotlib.pyplot")
    vars(top)["pyplot"] = pyplot
    sys.modules |= {top.__name__: top, pyplot.__name__: pyplot}
    try:
        yield
    finally:
        for module in (top, pyplot):
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]
