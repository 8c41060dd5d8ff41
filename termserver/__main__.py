"""`python -m termserver`."""

from termserver.cli import main

raise SystemExit(main())
