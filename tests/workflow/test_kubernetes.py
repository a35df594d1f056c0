"""profiles/kubernetes: dry, for there is no cluster here; its object store is real to the plugin (moto's server answers as S3 does)."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT, copy_repository
from rankwise.study.plan import Plan

pytestmark = pytest.mark.slow

PROFILE = "profiles/kubernetes"
RESULT = "results/profiles/distilbert/sst2/lora/r16/memory.json"
STORE = ["moto[s3]==5.1.22", "flask==3.1.*", "flask-cors==6.*"]
KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "any", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "any"}
# The plugins bring older versions of what the locks have, which a result then records.
ENVIRONMENT = {**CLEAN, **KEYS, "RANKWISE_ENVIRONMENT": "recorded"}


def environment_with(folder: Path, *packages: str, inherit: bool) -> Path:
    """The executables of a virtual environment with these packages, before this one's if it inherits them."""
    venv.create(folder)
    if inherit:
        library = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        (library / "inherited.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin/python",
        *packages,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an object store with an empty bucket `bucket`."""
    server = (
        environment_with(tmp_path_factory.mktemp("store"), *STORE, inherit=False) / "moto_server"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", address.rpartition(":")[2]], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(
                    urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=10
                ).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def workflow(store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A clone, and a command line for it with the versions that the profile names."""
    root = copy_repository(tmp_path_factory.mktemp("workflow") / "clone")
    plugins = re.findall(
        r"snakemake-[a-z0-9-]+==[\d.]+", (ROOT / PROFILE / "profile.yaml").read_text()
    )
    assert len(plugins) == 2
    programs = environment_with(tmp_path_factory.mktemp("plugins"), *plugins, inherit=True)
    given = ["--configfile", "config/demo.yaml", "--profile", PROFILE]
    bucket = [
        "--storage-s3-endpoint-url",
        store,
        "--default-storage-prefix",
        "s3://bucket/rankwise",
    ]
    return root, [str(programs / "python"), "-m", "snakemake", *given, *bucket]


def run(root: Path, command: list[str], *more: str) -> str:
    done = subprocess.run(
        [*command, *more], cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_pods_ask_for_gpus_and_files_come_from_the_store(
    workflow: tuple[Path, list[str]], plan: Plan
) -> None:
    printed = run(*workflow, "-n", "--set-resources", "train:gpu=1")
    trains = re.findall(r"^rule train:\n(?:    .*\n)+", printed, re.MULTILINE)
    assert len(trains) == len(plan.cells("train"))
    for job in trains:
        assert (
            "input: s3://bucket/rankwise/results/inputs/datasets/generated_reviews/dataset.json"
            in job
        )
        assert "gpu=1" in job
        assert "gpu_manufacturer=nvidia" in job
        assert "scale=0" in job
    others = re.findall(r"rule memory:\n(?:.*\n)*?\s+resources: (.*)", printed)
    assert len(others) == len(plan.cells("memory"))
    assert all("gpu=0" in asked for asked in others)


def test_a_profile_goes_through_the_store(workflow: tuple[Path, list[str]], store: str) -> None:
    root, command = workflow
    target, *options = RESULT, "--executor", "local", "--cores", "1"
    run(root, [*command[:3], target, *command[3:]], *options)
    assert not (root / RESULT).exists()
    signed = urllib.request.Request(
        f"{store}/bucket/rankwise/{RESULT}", headers={"Authorization": "AWS Signature=any"}
    )
    with urllib.request.urlopen(signed, timeout=10) as stored:
        assert json.loads(stored.read())["request"]["cell"]["method"] == "lora"
