"""``python -m shakeshake``."""

from .cli.main import main

raise SystemExit(main())
