"""The package as a wheel: outside of a clone, without Snakemake."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT

pytestmark = pytest.mark.slow
# What only the extras [workflow], [report] and [quantized] bring.
EXTRAS = ("snakemake", "pandas", "matplotlib", "bitsandbytes", "datasets", "fvcore")


def lowest(name: str) -> str:
    """The lowest version that the package allows of one of its dependencies, as pip takes it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = [found for found in project["dependencies"] if found.startswith(f"{name}>=")]
    return bound.replace(">=", "==")


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


def test_a_ledger_in_three_lines(python: Path, tmp_path: Path) -> None:
    code = """
import rankwise
ledger = rankwise.predict("distilbert", "lora", rank=8, batch_size=4, length=16)
print(sum(ledger.parts.values()) == ledger.peak_bytes, ledger.parts["optimizer_state"])
"""
    # Adam keeps two fp32 numbers for each that trains: on q and v of 6 layers, and in the new head.
    trained = 6 * 2 * 2 * 8 * 768 + (768 * 768 + 768) + (2 * 768 + 2)
    assert run(python, tmp_path, "-c", code).split() == ["True", str(8 * trained)]


def test_importing_the_package_loads_neither_torch_nor_pandas(python: Path, tmp_path: Path) -> None:
    code = """
import sys, rankwise
print(sorted({"torch", "pandas", "transformers"} & set(sys.modules)), dir(rankwise))
print(rankwise.__version__)
"""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    expected = ["[] ['load', 'load_trained', 'optim', 'predict']", version]
    assert run(python, tmp_path, "-c", code).splitlines() == expected


def test_what_an_extra_brings_is_said(python: Path, tmp_path: Path) -> None:
    code = "import rankwise\ntry: rankwise.load\nexcept ModuleNotFoundError as error: print(error)"
    expected = "rankwise.load needs pandas, in the extra rankwise[report]"
    assert run(python, tmp_path, "-c", code).strip() == expected


def test_the_lowest_versions_count_the_same(python: Path, tmp_path: Path) -> None:
    """Parameters and optimizer state of every entry, under the lowest versions and the locked."""
    older = tmp_path / "older"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    # transformers with what it needs; peft alone, because it would bring torch.
    for packages in ([lowest("transformers")], ["--no-deps", lowest("peft")]):
        subprocess.run([*pip, "--target", str(older), *packages], check=True)
    code = f"""
import sys
sys.path.insert(0, {str(older)!r})
import peft, transformers
print(f"transformers=={{transformers.__version__}} peft=={{peft.__version__}}", file=sys.stderr)
from rankwise.cli.main import main
sys.exit(main(["methods", "--model", "tiny"]))
"""
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{lowest('transformers')} {lowest('peft')}" in done.stderr
    now = run(python, tmp_path, str(python.with_name("rankwise")), "methods", "--model", "tiny")
    # A type of adapter that is newer than the lowest peft is said to be.
    pairs = zip(now.splitlines(), done.stdout.splitlines(), strict=True)
    different = {line.split()[0]: older_line for line, older_line in pairs if line != older_line}
    assert all("is too old for" in line for line in different.values()), different
