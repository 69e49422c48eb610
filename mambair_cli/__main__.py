"""``mambair`` and ``python -m mambair_cli``: handle interrupts first, then import the command line."""

import sys

from mambair_cli.system.signals import EXIT_INTERRUPTED, end_as_interrupted, end_at_once


def main() -> int:
    """Run the command of this process and return its exit code."""
    end_at_once()
    from mambair_cli.cli import main as run
    from mambair_cli.system.process import leave_process

    code = run()
    if code == 0:  # otherwise threads may still run
        leave_process()
    elif code == EXIT_INTERRUPTED:
        end_as_interrupted()
    return code


if __name__ == "__main__":
    sys.exit(main())
