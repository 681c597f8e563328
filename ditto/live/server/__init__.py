"""`ditto serve`: a page to talk to a portrait, WebRTC behind it, and a WebSocket for everything else (docs/serve.md)."""
