"""``mambair`` and ``python -m mambair_cli``: heed interrupts first, and import the command line then."""

import sys

from mambair_cli.system.signals import end_at_once


def main() -> int:
    """Run the command that the process was started for, and return its exit code."""
    end_at_once()
    from mambair_cli.cli import main as run
    from mambair_cli.system.process import leave_process

    code = run()
    if code == 0:  # else threads may be at work still
        leave_process()
    return code


if __name__ == "__main__":
    sys.exit(main())
