"""`python -m shakeshake`, the same as the `shakeshake` command."""

from .cli.main import main

raise SystemExit(main())
