"""The errors of ditto. Messages say what was expected, what came and what to do: "expected X, got Y; do Z"."""

from __future__ import annotations


class DittoError(Exception):
    """Base of all errors that ditto raises, except ValueError and TypeError for arguments."""


class InputError(DittoError):
    """An input file or a request cannot be used (command line: exit code 2)."""


class UnsupportedError(InputError, ValueError):
    """A request needs what the bundle lacks; a ValueError too, as all arguments that cannot be used."""


class NoFaceError(InputError):
    """No usable face was found in a picture."""


class ImageError(InputError):
    """An image cannot be read or used."""


class AudioError(InputError):
    """Audio cannot be read or used."""


class VideoError(InputError):
    """A video cannot be read or used."""


class ExchangeError(InputError):
    """A file or packet of face animation, of this or another program, cannot be used; the message names line and field."""


class TimelineError(InputError):
    """A timeline file cannot be read or used; the message names file, line and field."""


class TakeError(InputError):
    """A take is missing or damaged, or it does not fit what it is used with."""


class DatasetError(InputError):
    """A folder of prepared clips is missing, damaged, or of another format."""


class TrainingError(DittoError):
    """Training cannot go on; the message names what it met, and the last checkpoint is good."""


class OutputError(InputError):
    """The output file cannot be written."""


class ProvenanceError(InputError):
    """A file cannot be signed: its certificate, key or the file itself; or its content credentials cannot be read."""


class BundleError(DittoError):
    """A bundle of weights is missing, damaged or in an unknown format."""


class NoBundleError(BundleError, InputError):
    """No bundle has this name or lies in this folder."""


class SessionError(DittoError):
    """A live session is closed, not entered yet, or broken."""


class BusyError(SessionError):
    """A head has as many open sessions as it may have."""


class TooSlowError(SessionError, InputError):
    """This machine draws too few frames a second for a live session."""


class EngineError(DittoError):
    """The chosen engine cannot run a network."""


class ClusterError(DittoError):
    """A worker of a batch, or the cluster that it runs on, was lost."""
