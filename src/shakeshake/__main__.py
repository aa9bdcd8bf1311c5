"""``python -m shakeshake``."""

from .cli import main

raise SystemExit(main())
