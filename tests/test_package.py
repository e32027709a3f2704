"""The promises of the package as a whole: what imports what, what is exported, what the documents say."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import perdure
import pytest
from perdure.cli import app
from typer.main import get_command

ROOT = Path(perdure.__file__).resolve().parent
FLOORS = ["kernels", "runtime", "perception", "memory", "world_model", "agent", "examples"]


def _modules(room: str) -> list[Path]:
    return [p for p in (ROOT / room).rglob("*.py") if "migrations" not in p.parts]


def _rooms_imported(path: Path, room: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(ROOT / room).parts)
            if node.level == depth + 1 and node.module:
                found.add(node.module.split(".")[0])
            elif node.level == 0 and (node.module or "").startswith("perdure."):
                found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down_only(room: str) -> None:
    above = set(FLOORS[FLOORS.index(room) + 1 :])
    for path in _modules(room):
        assert not _rooms_imported(path, room) & above, f"{path} imports a room above it"


def test_everything_that_is_exported_exists() -> None:
    for name in perdure.__all__:
        assert getattr(perdure, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = perdure.nonsense


@pytest.mark.parametrize("module", ["perdure", "perdure.kernels"])
def test_the_lower_floors_import_with_torch_alone(module: str) -> None:
    code = (
        "import sys\n"
        "class Deny:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'transformers','faiss','cv2','sqlalchemy','gguf','llguidance'}:\n"
        "            raise ImportError(name)\n"
        f"sys.meta_path.insert(0, Deny()); import {module}"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_runtime_imports_with_torch_transformers_and_safetensors_alone() -> None:
    denied = "{'faiss','cv2','sqlalchemy','open_clip','gguf','llguidance','filelock','platformdirs','timm'}"
    code = (
        "import sys\n"
        "class Deny:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {denied}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Deny()); import perdure.runtime"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def _commands() -> list[str]:
    names = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names += [f"{name} {sub}" for sub in inner] if inner else [name]
    return names


def test_the_readme_names_every_command_and_no_other() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name in _commands():
        assert f"perdure {name}" in text, f"README.md does not show `perdure {name}`"
    known = {name.split()[0] for name in _commands()} | {"--version"}
    for word in re.findall(r"^\s*(?:\.venv/bin/)?perdure ([a-z-]+)", text, re.MULTILINE):
        assert word in known, f"README.md shows `perdure {word}`, which does not exist"


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ROOT)) for room in FLOORS for p in _modules(room)))
def test_no_module_prints_or_says_todo(path: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert "TODO" not in text
    assert "being filled in" not in text.lower()


def test_every_folder_of_code_is_tested_by_a_folder_of_its_name() -> None:
    for room in FLOORS:
        assert (ROOT / "tests" / room).is_dir(), room


def test_the_page_of_benchmarks_is_made_from_the_files_beside_it() -> None:
    folder = ROOT / "docs" / "benchmarks"
    page = runpy.run_path(str(folder / "page.py"))["page"]
    assert (folder / "README.md").read_text("utf-8") == page()
