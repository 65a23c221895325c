"""The direction of imports, and that what is deployed does not pull the training framework in."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package below `root`, with the contracts of its pyproject.toml."""
    code = (
        "import sys; sys.path.insert(0, 'src'); "
        "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in result.stdout.split()}


def test_every_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("runtime/errors.py", "import predact.canbus.frames", "Imports point down"),
        ("canbus/frames.py", "import predact.rl", "Imports point down"),
        ("newcomer.py", "", "Imports point down"),
        ("runtime/artifacts.py", "import configs", "no configuration framework"),
        ("cli.py", "def later():\n    import hydra_zen", "no configuration framework"),
        ("detection/gat.py", "from lightning import LightningModule", "Lightning stays"),
        ("detection/gat.py", "import pytorch_lightning", "Lightning stays"),
        ("detection/training.py", "import fastapi", "The web framework stays"),
        ("rl/replay.py", "import redis", "The web framework stays"),
    ],
)
def test_a_wrong_import_breaks_its_contract(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src" / "predact" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert any(contract in row and "BROKEN" in row for row in " ".join(result.stdout.split("\n")).split("KEPT"))


def test_training_may_import_lightning(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module in ("detection/training.py", "canbus/datamodule.py", "runtime/trainer.py"):
        with (tmp_path / "src" / "predact" / module).open("a") as file:
            file.write("\nimport lightning\n")
    assert lint_imports(tmp_path).returncode == 0


@pytest.mark.parametrize(
    "module", ["predact.detection.gat", "predact.detection.prediction_cache", "predact.runtime.cache"]
)
def test_what_is_deployed_runs_without_the_training_framework(module: str) -> None:
    assert not {"lightning", "pytorch_lightning", "hydra", "omegaconf"} & loaded_by(f"import {module}")


def test_the_help_of_the_command_loads_nothing_heavy() -> None:
    loaded = loaded_by("from predact.cli import build_parser\nbuild_parser().format_help()")
    assert "predact" in loaded
    assert not {"torch", "numpy", "polars", "pyarrow", "rich", "lightning", "sklearn", "matplotlib"} & loaded


def test_everything_imported_is_a_declared_dependency() -> None:
    sources = [
        *ROOT.glob("*.py"),
        *ROOT.glob("configs/**/*.py"),
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]
    imported = {
        name.split(".")[0]
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    own = {
        "predact",
        *(path.stem for path in (*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py"))),
        "configs",
        "benchmarks",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines}
    providers = packages_distributions()
    missing = [
        name
        for name in sorted(imported - own - set(sys.stdlib_module_names))
        # Of an extra that is not installed, the package is taken to be called as its module is.
        if not declared & {canonical(package) for package in providers.get(name, [name])}
    ]
    assert not missing


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
