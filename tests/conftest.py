"""What every test gets: fixed seeds, no warnings let through, few threads."""

import random

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
