"""The container image: its definitions agree with the locks, jobs run in it on request, and no
result is rerun because of it.

docker/test.sh builds the image and runs jobs in it. docker/check.sh makes the checks that need a
package index. Neither Debian 12 nor PyPI has a package of Apptainer. Where it is not installed,
these tests make dry runs with a stand-in that only prints a version.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT, edit, run_snakemake
from rankwise.core import environment
from rankwise.core.config import ConfigError
from rankwise.execution import container
from rankwise.study.plan import MEASUREMENTS, Plan

STUDY = """
name: small
question: Does an image change what reruns?
device: cpu
profile: [{models: [tiny], datasets: [generated_reviews], methods: [full], measurements: [memory]}]
"""
RESULT = "results/small/profiles/tiny/generated_reviews/full/r0/memory.json"
APPTAINER = ("--configfile", "config/small.yaml", "--profile", "profiles/apptainer", "--cores", "1")
DIGEST = "sha256:" + 64 * "0"


@pytest.fixture
def small(clone: Path) -> Path:
    (clone / "config/small.yaml").write_text(STUDY)
    return clone


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with apptainer on it: the installed one, or the stand-in."""
    if not shutil.which("apptainer"):
        stand_in = tmp_path / "bin/apptainer"
        stand_in.parent.mkdir()
        stand_in.write_text("#!/bin/sh\n[ $1 = --version ] && echo apptainer version 1.3.4\n")
        stand_in.chmod(0o755)
    return f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"


def test_both_definitions_pin_the_same_base_image() -> None:
    """Docker's names a tag too, beside the digest."""
    image = r"BASE_IMAGE=(\S+)@(sha256:[0-9a-f]{64})$"
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    definition = (ROOT / "docker/apptainer.def").read_text()
    docker = re.findall(f"^ARG {image}", dockerfile, re.MULTILINE)
    apptainer = re.findall(image, definition, re.MULTILINE)
    assert [(name.rpartition(":")[0], digest) for name, digest in docker] == apptainer
    assert len(docker) == 1


def test_the_lock_of_the_image_includes_the_locks_of_every_job() -> None:
    """Profiles from shapes follow cpu.lock and reports report.lock, in the GPU's image too."""
    cpu, report, gpu = (
        environment.locked_versions(ROOT / f"envs/{name}.lock") for name in ("cpu", "report", "gpu")
    )
    assert {**cpu, **report}.items() <= gpu.items()


def test_the_build_context_holds_exactly_the_files_that_the_image_copies() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    definition = (ROOT / "docker/apptainer.def").read_text()
    copied = re.search(r"^COPY (.*) /build/$", dockerfile, re.MULTILINE)[1].split()
    ignore_lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in ignore_lines if not line.startswith("#")]
    assert patterns == ["*", *(f"!{name}" for name in copied)]
    for name in copied:
        assert list(ROOT.glob(name)), name
        assert re.search(rf"^    {re.escape(name)} /build/", definition, re.MULTILINE)


def test_ci_workflows_pin_actions_by_commit_and_use_no_secret_but_the_forges() -> None:
    texts = [path.read_text() for path in sorted((ROOT / ".github/workflows").glob("*.yaml"))]
    assert len(texts) == 2
    for text in texts:
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        for line in text.splitlines():
            assert "uses:" not in line or re.search(r"@[0-9a-f]{40} # v\d", line)
        assert set(re.findall(r"secrets\.(\w+)", text)) <= {"GITHUB_TOKEN"}


@pytest.mark.parametrize(
    "name",
    [
        f"docker://ghcr.io/some-one/rankwise@{DIGEST}",
        "docker://localhost:5000/a/b:v1.2",
        "oras://x.org/a:1",
    ],
)
def test_a_published_image_with_a_version_is_accepted(name: str, tmp_path: Path) -> None:
    container.check(name, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "docker://ghcr.io/some-one/rankwise",
        f"docker://ghcr.io/a/b@{DIGEST[:-1]}",
        "docker://rankwise:1",
        "https://x.org/a.sif",
        "some.sif",
    ],
)
def test_an_image_that_is_missing_or_not_pinned_is_refused(name: str, tmp_path: Path) -> None:
    message = f"docker/image: image: got {name!r}, allowed: a file that is there"
    with pytest.raises(ConfigError, match=re.escape(message)):
        container.check(name, tmp_path)


def test_two_images_are_refused(small: Path) -> None:
    (small / "docker/image").write_text("one.sif\ntwo.sif # the other\n")
    with pytest.raises(ConfigError, match=r"got 'one\.sif two\.sif', allowed: one line"):
        container.reference(small)


def test_a_missing_image_is_named_before_planning(small: Path) -> None:
    done = run_snakemake(small, RESULT, *APPTAINER)
    message = "docker/image: image: got 'docker/rankwise.sif', allowed: a file that is there"
    assert done.returncode != 0
    assert message in done.stderr
    other = run_snakemake(small, RESULT, *APPTAINER, RANKWISE_IMAGE="other.sif")
    assert "RANKWISE_IMAGE: image: got 'other.sif', allowed: a file that is there" in other.stderr


def test_an_image_does_not_rerun_finished_jobs(small: Path, path: str) -> None:
    """A result made without an image stays, unless Snakemake is told to compare environments."""
    done = run_snakemake(small, RESULT, "--configfile", "config/small.yaml", "--cores", "1")
    assert done.returncode == 0, done.stderr
    (small / "docker/rankwise.sif").touch()
    again = run_snakemake(small, RESULT, *APPTAINER, "-n", PATH=path)
    assert "Nothing to be done" in again.stdout + again.stderr
    compared = run_snakemake(
        small, RESULT, *APPTAINER, "-n", "--rerun-triggers", "software-env", PATH=path
    )
    assert "rule memory:" in compared.stdout + compared.stderr, (
        "the container directive has no effect, so this test could never fail"
    )
    edit(small / "config/models.yaml", "n_heads: 4, dim: 64", "n_heads: 2, dim: 64")
    changed = run_snakemake(small, RESULT, *APPTAINER, "-n", PATH=path)
    assert "rule memory:" in changed.stdout + changed.stderr


def requests(plan: Plan) -> dict[tuple, dict]:
    """The request of every (measurement, cell) of a plan."""
    by_job = {}
    for measurement in ("train", *MEASUREMENTS):
        for cell in plan.cells(measurement):
            by_job[measurement, cell] = plan.request(measurement, cell)
    return by_job


def test_a_changed_lock_changes_the_requests_of_its_jobs_and_no_others(clone: Path) -> None:
    """In the paper's study, jobs on a GPU follow gpu.lock and all others cpu.lock."""
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    before = requests(Plan(study, clone, "config/config.yaml"))
    edit(clone / "envs/gpu.lock", "numpy==", "numpy==0")
    after = requests(Plan(study, clone, "config/config.yaml"))
    changed = {job for job in before if before[job] != after[job]}
    lock_of_job = {job: request["environment"]["lock"] for job, request in before.items()}
    assert changed == {job for job, lock in lock_of_job.items() if lock == "envs/gpu.lock"}
    changed_measurements = {measurement for measurement, _ in changed}
    assert "train" in changed_measurements
    assert {"memory", "flops"}.isdisjoint(changed_measurements)
