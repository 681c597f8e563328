"""Every failure ditto reports: what was wanted, what came, what to do."""

from __future__ import annotations


class DittoError(Exception):
    """Base of all errors ditto raises on its own account."""


class InputError(DittoError):
    """The caller's material or request cannot be used (command line: exit code 2)."""


class NoFaceError(InputError):
    """No usable face was found where one is needed."""


class ImageError(InputError):
    """An image cannot be read or used."""


class AudioError(InputError):
    """Audio cannot be read or used."""


class OutputError(InputError):
    """The result cannot be written where it was asked for."""


class BundleError(DittoError):
    """A bundle of weights is missing, damaged or of another format."""


class NoBundleError(BundleError, InputError):
    """There is no bundle of the name or at the place the caller gave."""


class SessionError(DittoError):
    """A live session is closed, not open yet, or broken."""


class BusyError(SessionError):
    """A head has as many sessions as it serves."""


class TooSlowError(SessionError, InputError):
    """This machine draws too few frames a second for a live session."""


class EngineError(DittoError):
    """A network cannot be run by the engine asked for."""
