"""The `ditto` command. Ctrl-C gives no traceback, even while the command line is being imported."""

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
