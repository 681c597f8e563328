"""Under nohup, or in the background of a script, signals are ignored and programs inherit that; those of tests must not."""

import signal


def pytest_configure():
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # as deaf as before, but nothing to inherit
