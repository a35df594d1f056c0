"""The image's parts agree with each other and with the locks; jobs run in it when asked, and nothing reruns because of it.

Building it and running in it is docker/test.sh; docker/check.sh has what needs a package index. Apptainer is in no package of
Debian 12 or PyPI: where it is not, the profile is tested by a dry run, for which a stand-in says its version and no more.
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
RESULT = "results/profiles/tiny/generated_reviews/full/r0/memory.json"
APPTAINER = ("--configfile", "config/small.yaml", "--profile", "profiles/apptainer", "--cores", "1")
DIGEST = "sha256:" + 64 * "0"


@pytest.fixture
def small(clone: Path) -> Path:
    (clone / "config/small.yaml").write_text(STUDY)
    return clone


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with apptainer on it: this machine's, or the stand-in."""
    if not shutil.which("apptainer"):
        stand_in = tmp_path / "bin/apptainer"
        stand_in.parent.mkdir()
        stand_in.write_text("#!/bin/sh\n[ $1 = --version ] && echo apptainer version 1.3.4\n")
        stand_in.chmod(0o755)
    return f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"


def test_the_base_is_pinned_and_the_same_for_both() -> None:
    docker = re.findall(
        r"^ARG BASE_IMAGE=(\S+)@(sha256:[0-9a-f]{64})$",
        (ROOT / "docker/Dockerfile").read_text(),
        re.MULTILINE,
    )
    apptainer = re.findall(
        r"BASE_IMAGE=(\S+)@(sha256:[0-9a-f]{64})$",
        (ROOT / "docker/apptainer.def").read_text(),
        re.MULTILINE,
    )
    assert [(name.rpartition(":")[0], digest) for name, digest in docker] == apptainer
    assert len(docker) == 1


def test_the_lock_of_the_image_holds_those_of_every_job() -> None:
    """Profiles from shapes follow cpu.lock and reports report.lock, in the GPU's image too."""
    pins = {
        name: environment.locked_versions(ROOT / f"envs/{name}.lock")
        for name in ("cpu", "report", "gpu")
    }
    assert {**pins["cpu"], **pins["report"]}.items() <= pins["gpu"].items()


def test_what_the_image_is_built_from_is_let_through_and_no_more() -> None:
    copied = re.search(
        r"^COPY (.*) /build/$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE
    )[1].split()
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert lines == ["*", *(f"!{name}" for name in copied)]
    for name in copied:
        assert list(ROOT.glob(name)), name
        assert re.search(
            rf"^    {re.escape(name)} /build/",
            (ROOT / "docker/apptainer.def").read_text(),
            re.MULTILINE,
        )


def test_workflows_pin_actions_by_commit_and_hold_no_secret_but_the_forges() -> None:
    texts = [path.read_text() for path in sorted((ROOT / ".github/workflows").glob("*.yaml"))]
    assert len(texts) == 2
    for text in texts:
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert all(
            re.search(r"@[0-9a-f]{40} # v\d", line) for line in text.splitlines() if "uses:" in line
        )
        assert set(re.findall(r"secrets\.(\w+)", text)) <= {"GITHUB_TOKEN"}


@pytest.mark.parametrize(
    "name",
    [
        f"docker://ghcr.io/some-one/rankwise@{DIGEST}",
        "docker://localhost:5000/a/b:v1.2",
        "oras://x.org/a:1",
    ],
)
def test_a_published_image_says_which(name: str, tmp_path: Path) -> None:
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
def test_an_image_that_is_not_there_or_not_pinned_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=re.escape(f"docker/image: image: got {name!r}, allowed: a file that is there"),
    ):
        container.check(name, tmp_path)


def test_two_images_are_none(small: Path) -> None:
    (small / "docker/image").write_text("one.sif\ntwo.sif # the other\n")
    with pytest.raises(ConfigError, match=r"got 'one\.sif two\.sif', allowed: one line"):
        container.reference(small)


def test_a_missing_image_is_named_before_planning(small: Path) -> None:
    done = run_snakemake(small, RESULT, *APPTAINER)
    assert done.returncode != 0
    assert (
        "docker/image: image: got 'docker/rankwise.sif', allowed: a file that is there"
        in done.stderr
    )
    other = run_snakemake(small, RESULT, *APPTAINER, RANKWISE_IMAGE="other.sif")
    assert "RANKWISE_IMAGE: image: got 'other.sif', allowed: a file that is there" in other.stderr


def test_jobs_run_in_the_image_and_none_reruns_because_of_it(small: Path, path: str) -> None:
    """First without, then with: the command is Apptainer's, and what is done stays done unless software-env is asked for."""
    done = run_snakemake(small, RESULT, "--configfile", "config/small.yaml", "--cores", "1")
    assert done.returncode == 0, done.stderr
    (small / "docker/rankwise.sif").touch()
    again = run_snakemake(small, RESULT, *APPTAINER, "-n", PATH=path)
    assert "Nothing to be done" in again.stdout + again.stderr
    asked = run_snakemake(
        small, RESULT, *APPTAINER, "-n", "--rerun-triggers", "software-env", PATH=path
    )
    assert "rule memory:" in asked.stdout + asked.stderr, (
        "the directive does nothing: this test would never fail"
    )
    edit(small / "config/models.yaml", "n_heads: 4, dim: 64", "n_heads: 2, dim: 64")
    changed = run_snakemake(small, RESULT, *APPTAINER, "-n", PATH=path)
    assert "rule memory:" in changed.stdout + changed.stderr


def test_a_changed_lock_changes_the_requests_of_its_jobs_and_no_others(clone: Path) -> None:
    """Of the paper study: what runs on a GPU follows gpu.lock, everything else cpu.lock."""
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    before = requests(Plan(study, clone, "config/config.yaml"))
    edit(clone / "envs/gpu.lock", "numpy==", "numpy==0")
    after = requests(Plan(study, clone, "config/config.yaml"))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {
        key for key, request in before.items() if request["environment"]["lock"] == "envs/gpu.lock"
    }
    assert {measurement for measurement, _ in changed} >= {"train"}
    assert {"memory", "flops"}.isdisjoint(measurement for measurement, _ in changed)


def requests(plan: Plan) -> dict[tuple, dict]:
    return {
        (kind, cell): plan.request(kind, cell)
        for kind in ("train", *MEASUREMENTS)
        for cell in plan.cells(kind)
    }
