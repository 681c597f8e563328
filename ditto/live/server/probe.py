"""`python -m ditto.live.server.probe URL`: exit code 0 if a server answers 200. For health checks; sends DITTO_TOKEN."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

SECONDS = 4.0


def status_of(url: str) -> int:
    """The HTTP status that a server answers with, 0 if it does not answer."""
    token = os.environ.get("DITTO_TOKEN", "")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    sys.exit(0 if len(sys.argv) == 2 and status_of(sys.argv[1]) == 200 else 1)
