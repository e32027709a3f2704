"""The tiny model, made once, and both ways to multiply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from perdure.kernels import native
from perdure.runtime.tiny import TinyModel, make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


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


@pytest.fixture(scope="session")
def published() -> Path:
    """The published planner model, if it has been fetched."""
    from perdure.runtime.weights import locate

    path = locate("qwen2.5-coder-0.5b-instruct-q4_k_m")
    if path is None:
        pytest.skip("needs `perdure weights fetch`")
    return path
