"""`python -m progidiff`: the command line where the `progidiff` script is not on the path."""

import sys

from progidiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
