"""Builds the wheel from a clean copy, installs it elsewhere, and imports every module of it from another folder.

Run by ``make test``: ``python -P tests/check_wheel.py``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORT_ALL = """
import importlib, pkgutil, warnings
warnings.simplefilter("error", DeprecationWarning)
import perdure
names = [m.name for m in pkgutil.walk_packages(perdure.__path__, "perdure.") if ".migrations." not in m.name]
for name in names:
    if name != "perdure.__main__":
        importlib.import_module(name)
print(perdure.__file__, len(names))
"""


def main() -> None:
    """Build, install and import; exits with an error if any step fails."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source = scratch / "source"
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for path in filter(None, files.split("\0")):
            target = source / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target, follow_symlinks=False)
        _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(scratch), str(source)])
        wheel = next(scratch.glob("*.whl"))
        contents = zipfile.ZipFile(wheel).namelist()
        expected = {
            str(Path("perdure") / p)
            for p in filter(None, files.split("\0"))
            if p.endswith((".py", ".toml", ".html", ".css", ".js", ".cpp", ".h", "py.typed"))
            and p.split("/")[0] not in {"tests", "docs", ".pkg", "pyproject.toml"}
        }
        missing = sorted(expected - set(contents))
        assert not missing, f"not in the wheel: {missing}"
        site = scratch / "site"
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)])
        found = subprocess.run(
            [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{IMPORT_ALL}"],
            cwd=scratch, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        assert found.startswith(str(site)), f"imported from elsewhere: {found}"
        print(f"wheel {wheel.name}: {found.split()[-1]} modules import")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
