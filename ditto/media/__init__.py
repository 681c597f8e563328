"""Sound and pictures in and out: decoding, resampling, mixing, video files, the rates of both.

Imports no other room of ditto but `ditto.errors` and its like.
"""
