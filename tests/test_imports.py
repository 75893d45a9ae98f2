"""Which side of the product may import what: read from the source, so that a lazy import counts too."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "train": {"preprocess", "open3d"},
    "shared": {"preprocess", "train", "torch", "open3d", "open_clip"},
    "preprocess": {"train"},
}
# One command of stage 1 predicts scans: the one module that may import the one module of stage 2, when the command runs.
BRIDGE = ("preprocess/predict.py", "train.inference.predictor")

# Rooms from the ground up: a module imports its own room and those before it, at most.
ROOMS = {
    "shared": "lazy_names pairs errors processors figures labels sequences typed_json modalities weights schema pictures views "
    "store view_words csv_tables groups text text_model attention_file signed_json runs cache captions likeness option_file "
    "command_line",
    "preprocess": "compiled text_tower prompts caption_words captions geometry readers rendering datasets alignment sequences "
    "build single_scan synth inspection viewer predict arguments commands",
    "train": "parts tasks option_values options config option_parser model losses data protocols resolve runs reporting "
    "inference split experiment trackers training pretraining studies api arguments",
}
MAX_DEPTH = 2  # of folders below a package


def imported_names(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also by import_module("…") or __import__("…")."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value).split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_their_side(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = FORBIDDEN[package] - ({"train"} if path == ROOT / BRIDGE[0] else set())
        assert not imported_names(path) & forbidden, path


def test_stage_1_calls_stage_2_in_one_place() -> None:
    tree = ast.parse((ROOT / BRIDGE[0]).read_text(encoding="utf-8"))

    def stage_2(nodes: Iterable[ast.AST]) -> list[str]:
        modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        return [module for module in modules if module.split(".")[0] == "train"]

    assert stage_2(ast.walk(tree)) == [BRIDGE[1]]
    assert not stage_2(tree.body) and "train" in imported_names(ROOT / BRIDGE[0])


def imported_modules(path: Path) -> set[str]:
    """Modules of this product that a file imports anywhere, by their dotted names."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return {name for name in modules if (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()}


@pytest.mark.parametrize("package", ROOMS)
def test_imports_lead_down_the_rooms(package: str) -> None:
    rooms = [*ROOMS[package].split(), "__main__", "__init__"]
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        assert len(parts) <= MAX_DEPTH + 1, f"{path}: deeper than {MAX_DEPTH} folders"
        for name in imported_modules(path):
            top, *below = name.split(".")
            if top == package:
                assert rooms.index(below[0]) <= rooms.index(parts[0]), f"{path} imports {name}, a room above its own"


def test_the_reader_of_imports_sees_lazy_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "def f():\n    import open3d.core\n    importlib.import_module('torch.nn')\n    from preprocess import x\n"
    )
    assert imported_names(path) == {"open3d", "torch", "preprocess"}


def test_trainer_runs_without_open3d() -> None:
    """Neither our modules nor what they import pulls open3d in."""
    files = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "train").rglob("[a-z]*.py"))
    modules = [".".join(file.parts) for file in files]
    assert "train.studies.crossval.run" in modules
    code = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nsys.exit('open3d' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from train.arguments import build_parser as b; b().format_help(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_direct_imports_stand_in_the_requirements() -> None:
    """The product's in requirements.txt, the tests' in requirements-dev.txt, packages by the names they are installed by."""
    required = {name: read_requirements(ROOT / name) for name in ("requirements.txt", "requirements-dev.txt")}
    # object storage, videos, --log, the map, export --onnx
    optional = {"upath", "s3fs", "av", "mlflow", "wandb", "umap", "onnxruntime"}
    product = {
        name for package in FORBIDDEN for path in (ROOT / package).rglob("*.py") for name in imported_names(path)
    }
    tests = {name for path in (ROOT / "tests").glob("*.py") for name in imported_names(path)}
    own = {*sys.stdlib_module_names, *FORBIDDEN, *(path.stem for path in (ROOT / "tests").rglob("*")), ""}
    distributions = packages_distributions()

    def find_missing(names: set[str], known: set[str]) -> list[str]:
        return sorted(name for name in names - own if not known & {plain(d) for d in distributions.get(name, [name])})

    assert find_missing(product - optional, required["requirements.txt"]) == []
    assert find_missing(tests, required["requirements.txt"] | required["requirements-dev.txt"]) == []


def plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def read_requirements(path: Path) -> set[str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#-"]
    return {plain(re.split(r"[\[<>=!~ ]", line)[0]) for line in lines}
