"""profiles/kubernetes, in dry runs because tests have no cluster.

Its object store is moto's server, which answers the storage plugin as S3 does.
"""

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
from rankwise.study.jobs import targets
from rankwise.study.plan import Plan

pytestmark = pytest.mark.slow

PROFILE = "profiles/kubernetes"
RESULT = "results/demo/profiles/distilbert/sst2/lora/r16/memory.json"
STORE = ["moto[s3]==5.1.22", "flask==3.1.*", "flask-cors==6.*"]
KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "any", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "any"}
# The plugins install older versions of packages than the locks name. Results record that.
ENVIRONMENT = {**CLEAN, **KEYS, "RANKWISE_ENVIRONMENT": "recorded"}


def environment_with(folder: Path, *packages: str, inherit: bool) -> Path:
    """Make a virtual environment with these packages.

    Args:
        folder: Where to make it.
        *packages: Requirements, as pip reads them.
        inherit: Whether packages of the current environment can be imported too.

    Returns:
        The folder of its executables.
    """
    venv.create(folder)
    if inherit:
        library = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        (library / "inherited.pth").write_text(sysconfig.get_path("purelib") + "\n")
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an object store with an empty bucket `bucket`."""
    programs = environment_with(tmp_path_factory.mktemp("store"), *STORE, inherit=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [programs / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    create_bucket = urllib.request.Request(f"{address}/bucket", method="PUT")
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(create_bucket, timeout=10).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def workflow(store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A clone, and a Snakemake command for it with the plugins' versions that the profile names."""
    root = copy_repository(tmp_path_factory.mktemp("workflow") / "clone")
    profile = (ROOT / PROFILE / "profile.yaml").read_text()
    plugins = re.findall(r"snakemake-[a-z0-9-]+==[\d.]+", profile)
    assert len(plugins) == 2
    programs = environment_with(tmp_path_factory.mktemp("plugins"), *plugins, inherit=True)
    command = [str(programs / "python"), "-m", "snakemake"]
    command += ["--configfile", "config/demo.yaml", "--profile", PROFILE]
    command += ["--storage-s3-endpoint-url", store]
    command += ["--default-storage-prefix", "s3://bucket/rankwise"]
    return root, command


def run(root: Path, command: list[str], *more: str) -> str:
    done = subprocess.run(
        [*command, *more], cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_pods_request_gpus_and_read_from_the_store(
    workflow: tuple[Path, list[str]], plan: Plan
) -> None:
    printed = run(*workflow, "-n", "-p", "--set-resources", "train:gpu=1")
    train_jobs = re.findall(r"^rule train:\n(?:    .*\n)+", printed, re.MULTILINE)
    assert len(train_jobs) == len(plan.cells("train"))
    dataset = f"s3://bucket/rankwise/{plan.input_path('dataset', 'generated_reviews')}"
    for job in train_jobs:
        assert f"input: {dataset}" in job
        assert "gpu=1" in job
        assert "gpu_manufacturer=nvidia" in job
        assert "scale=0" in job
    memory_resources = re.findall(r"rule memory:\n(?:.*\n)*?\s+resources: (.*)", printed)
    assert len(memory_resources) == len(plan.cells("memory"))
    assert all("gpu=0" in resources for resources in memory_resources)


def test_the_result_of_a_profile_is_written_to_the_store(
    workflow: tuple[Path, list[str]], store: str, plan: Plan
) -> None:
    root, command = workflow
    snakemake, options = command[:3], command[3:]
    run(root, [*snakemake, RESULT, *options], "--executor", "local", "--cores", "1")
    path = targets(plan)[RESULT]
    assert not (root / path).exists()
    signed = urllib.request.Request(
        f"{store}/bucket/rankwise/{path}", headers={"Authorization": "AWS Signature=any"}
    )
    with urllib.request.urlopen(signed, timeout=10) as stored:
        assert json.loads(stored.read())["request"]["cell"]["method"] == "lora"
