"""``python -m advrl`` is the command ``advrl``."""

from advrl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
