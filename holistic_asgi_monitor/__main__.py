"""`python -m holistic_asgi_monitor`: the command line."""

from __future__ import annotations

import sys

from holistic_asgi_monitor.cli import main

if __name__ == "__main__":
    sys.exit(main())
