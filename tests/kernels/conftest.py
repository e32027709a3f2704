"""Both ways to multiply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from perdure.kernels import native


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(params=["native", "torch"])
def kernels(request: pytest.FixtureRequest, build_dir: Path) -> Iterator[str]:
    """Each test that asks for it runs with the project's own C++ and with torch operators."""
    if request.param == "native":
        if not native.supported() or not native.enable(build_dir):
            pytest.skip("needs AVX-512 VNNI and a C++ compiler")
        yield "native"
        return
    with native.torch_only():
        yield "torch"


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield
