#!/usr/bin/env python
"""Django's command line: migrate, createsuperuser, shell and so on."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Run a management command with the settings of this project."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
