"""Sound and pictures in and out: decoding, resampling, mixing, video files, the rates of both.

Imports no other room of ditto, only `ditto.errors` and the other modules that every room may use.
"""
