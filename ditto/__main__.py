"""The `ditto` command. Ctrl-C gives no traceback, even while the command line is being imported."""

from __future__ import annotations

from ditto.commands import interruption


def main() -> None:
    """Entry point of the `ditto` command."""
    interruption.watch(at_once=True)
    from ditto.app.cli import main as run

    run()


if __name__ == "__main__":
    main()
