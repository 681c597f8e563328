"""Limits on what clients may ask for. Errors state them; `GET /api/info` lists those on sizes."""

from __future__ import annotations

MAX_PICTURE_BYTES = 16 << 20  # bytes of an uploaded portrait; its pixels are limited by ditto.media.images.MAX_PIXELS
MAX_RECORDING_BYTES = 64 << 20  # bytes of an uploaded sound file; decoded as it is spoken, never whole
MAX_OFFER_BYTES = 1 << 17  # bytes of a WebRTC offer, ten times those of browsers
MAX_CANDIDATES = 100  # addresses in an offer; 1900 of them block the event loop for 1.6 s
MAX_MESSAGE_BYTES = 1 << 20  # bytes of one WebSocket message: ten seconds of 48 kHz
MAX_COMMAND_CHARACTERS = 1 << 17  # characters of a JSON message: it is parsed on the event loop, in a few milliseconds
MAX_TEXT_CHARACTERS = 1000  # characters of a text to speak
MAX_PORTRAITS = 16  # uploaded ones in memory, about 11 MiB each; the least recently used is dropped
MAX_WAITING_PORTRAITS = 4  # uploads under way; faces are found in one at a time
MAX_CONNECTIONS = 256  # connections at once, of any kind
MAX_WAITING_ITEMS = 8  # recordings and texts in the queue of one client
MAX_WAITING_SECONDS = 120.0  # of speech in the queue of one client; then the server stops reading until some is spoken

START_SECONDS = 10.0  # from connecting to the "start" message, or to a WebRTC answer
SILENCE_SECONDS = 6.0  # a client that sends or takes nothing for this long is disconnected
SPEAK_SECONDS = 20.0  # that espeak-ng may take
END_SECONDS = 5.0  # for a connection to end: time for a last message and for the frame being drawn
MAX_TESTS = 4  # reachability tests at once
TEST_SECONDS = 15.0  # that one may last
STOP_SECONDS = 20.0  # for the server to end; then its process ends anyway
