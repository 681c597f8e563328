"""The `ditto` command: Ctrl-C is answered without a traceback even while the command line is still being loaded."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Entry point of the `ditto` command."""
    try:
        from ditto.app.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
