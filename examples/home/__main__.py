"""The processes of a life: ``python -P -m perdure.examples.home``; `life` says what they are."""

import sys

from .life import main

main(sys.argv[1:])
