"""``python -m mambair_cli`` is ``mambair``."""

import sys

from mambair_cli.cli import main

sys.exit(main())
