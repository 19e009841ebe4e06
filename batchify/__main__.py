"""``python -m batchify``: the command line."""

import sys

from batchify._cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
