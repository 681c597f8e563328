"""What a client may ask for at most. Each limit is told to clients by `GET /api/info`, and by the error beyond it."""

from __future__ import annotations

LARGEST_PICTURE = 16 << 20  # bytes of an uploaded portrait; its pixels are limited by ditto.media.images.MAX_PIXELS
LARGEST_RECORDING = 64 << 20  # bytes of an uploaded sound file; decoded as it is spoken, never whole
LARGEST_OFFER = 1 << 17  # bytes of a WebRTC offer, ten times those of browsers
MOST_CANDIDATES = 100  # addresses in it; 1900 hold up the event loop for 1.6 s
LARGEST_MESSAGE = 1 << 20  # bytes of one WebSocket message: ten seconds of 48 kHz
LARGEST_COMMAND = 1 << 17  # characters of a JSON message: it is parsed on the event loop, in a few milliseconds
LONGEST_TEXT = 1000  # characters to be spoken at once
MOST_PORTRAITS = 16  # kept, about 11 MiB each; the one not used for longest makes room
MOST_WAITING_PORTRAITS = 4  # uploads that wait for the face finder, which does one at a time
MOST_SOCKETS = 256  # connections at once, of any kind
MOST_WAITING_ITEMS = 8  # recordings and texts that wait to be spoken by one client
MOST_WAITING_SECONDS = 120.0  # of pushed sound per client; then the server reads on only as it is spoken

START_SECONDS = 10.0  # from connecting to the "start" message, or to media that flows
SILENCE_SECONDS = 6.0  # after which a client that gave no sign of life, or took nothing, is gone
SPEAK_SECONDS = 20.0  # for espeak-ng
END_SECONDS = 5.0  # from asking a connection to end until nobody waits for it any more: a goodbye and a frame being drawn
STOP_SECONDS = 20.0  # from asking the server to end until its process does, whatever still runs
