"""The entry point of `gpt2wgpu` and `python -m gpt2wgpu`."""

import signal


def entry_point() -> None:
    """Run the command line. Ctrl-C while its modules are imported ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main

    main()


if __name__ == "__main__":
    entry_point()
