"""The processes of a life: ``python -P -m perdure.examples.home``; `life` says what they are."""

import sys

from .life import main

if __name__ == "__main__":
    main(sys.argv[1:])
