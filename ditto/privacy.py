"""Turns off the telemetry of packages that ditto uses, and the files that it writes into the user's folders.

ditto opens no connection and writes no file unless the user asks for it; but for the key with which it signs
(`ditto.provenance.credentials`). `ditto/__init__.py` calls `turn_off_telemetry`
before any module of ditto imports one of these packages.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

# ONNX Runtime (1.31 on Linux) otherwise writes a device id and an event database to the user's cache when it is
# imported, and a thread of it looks up mobile.events.data.microsoft.com. huggingface_hub, which `ditto bundle pull`
# uses, otherwise reports the installed frameworks to the hub.
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

    If the program imported it before ditto, the files are written already, and only its events can be turned off.

    Raises:
        ImportError: it is not installed.
    """
    onnxruntime = importlib.import_module("onnxruntime")
    disable = getattr(onnxruntime, "disable_telemetry_events", None)
    if disable is not None and os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        disable()
    return onnxruntime
