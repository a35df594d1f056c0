"""The package as a wheel: outside of a clone, without Snakemake."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT

pytestmark = pytest.mark.slow
# What only the extras [workflow], [report] and [quantized] bring.
EXTRAS = ("snakemake", "pandas", "matplotlib", "bitsandbytes")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, env={**os.environ})
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    (site,) = (folder / "venv/lib").glob("python3*/site-packages")
    # The other packages that the tests run with are the wheel's dependencies.
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith((*EXTRAS, "rankwise", "_editable_impl", "__editable__")):
            (packages / path.name).symlink_to(path)
    (site / "packages.pth").write_text(f"{packages}\n")
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=CLEAN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_the_wheels(python: Path, tmp_path: Path) -> None:
    code = "import rankwise.core.paths as paths; print(paths.WORKFLOW)"
    workflow = Path(run(python, tmp_path, "-c", code).strip())
    assert workflow.is_relative_to(python.parents[1])
    assert (workflow / "Snakefile").is_file()


@pytest.mark.parametrize("name", EXTRAS)
def test_extras_are_not_there(name: str, python: Path, tmp_path: Path) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert run(python, tmp_path, "-c", code).strip() == "None"


def test_optimizers_need_torch_alone(python: Path, tmp_path: Path) -> None:
    code = """
import sys, torch
from rankwise.optim import ProjectedAdam
weight = torch.nn.Parameter(torch.ones(8, 4))
optimizer = ProjectedAdam([weight], lr=0.1, rank=2)
weight.square().sum().backward()
optimizer.step()
assert not torch.equal(weight, torch.ones(8, 4))
print(sorted({name.split('.')[0] for name in sys.modules} & {'transformers', 'peft', 'yaml'}))
"""
    assert run(python, tmp_path, "-c", code).strip() == "[]"


def test_commands_work_with_the_shipped_entries(python: Path, tmp_path: Path) -> None:
    rankwise = [str(python.with_name("rankwise"))]
    assert run(python, tmp_path, *rankwise, "--version").startswith("rankwise ")
    lines = run(python, tmp_path, *rankwise, "methods").splitlines()
    # 2 (d^2 + d) + 2 r d for each of q and v of 6 layers at d = 768, r = 8, and the head.
    lora = next(line for line in lines if line.startswith("lora "))
    assert f"{6 * 2 * 2 * 8 * 768 + 592_130:,}" in lora
