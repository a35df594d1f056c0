"""Which edit reruns which job? One line a promise, checked with the real workflow after a real run.

docs/generate/rerun_table.py makes the documentation's table of reruns from `PROMISES`.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.repository import CLEAN, copy_repository, edit, run_snakemake
from helpers.stored import made

pytestmark = pytest.mark.slow

STUDY = "tests/studies/rerun.yaml"
RESULTS = "results/rerun"
RUNS_TABLE = f"{RESULTS}/tables/runs.csv"
ALL = {"full", "lora", "rsvd"}


def jobs(rule: str, names: set[str]) -> set[str]:
    return {f"{rule} {name}" for name in names}


TRAIN, MEMORY = jobs("train", ALL), jobs("memory", ALL)
LORA = {f"{kind} lora" for kind in ("memory", "flops", "forward", "ledger")}
PROFILES = MEMORY | LORA
INPUTS = {"dataset generated_reviews", "dataset generated_text", "model tiny"}
TABLES = {
    f"table {name}"
    for name in (
        "runs",
        "history",
        "memory",
        "flops",
        "forward",
        "ledger",
        "timeline",
        "state",
        "estimates",
        "comparisons",
        "summary",
        "fronts",
        "views",
        "claims",
    )
}
FIGURES = {
    f"figure {name}"
    for name in (
        "memory",
        "loss",
        "accuracy_memory",
        "flops",
        "latency",
        "ledger",
        "predicted",
        "timeline",
        "metric_by_rank",
        "heatmap",
        "critical_difference",
        "gradient_norms",
        "spectra",
    )
}
EVIDENCE = {"table estimates", "table comparisons", "table fronts", "table views"}
REPORT = TABLES | FIGURES | {"page"}
# Table or figure -> the kinds of jobs, or the tables, that it reads.
NEEDS = {
    "table runs": ("train",), "table history": ("train",), "table memory": ("memory",), "table flops": ("flops",),
    "table forward": ("forward",), "table ledger": ("ledger",), "table timeline": ("ledger",),
    "table estimates": ("table runs",), "table comparisons": ("table runs",),
    "table summary": ("table estimates", "table memory", "table ledger"),
    "table fronts": ("table estimates", "table memory", "table ledger", "table flops"),
    "table views": ("table estimates", "table memory", "table ledger", "table flops"), "table state": ("ledger",),
    "table claims": ("table memory", "table flops", "table ledger", "table state", "table runs"),
    "figure memory": ("table memory",), "figure loss": ("table history", "table runs"), "figure flops": ("table flops",),
    "figure accuracy_memory": ("table runs", "table memory"), "figure latency": ("table forward",),
    "figure ledger": ("table ledger",), "figure predicted": ("table ledger",), "figure timeline": ("table timeline", "table ledger"),
    "figure metric_by_rank": ("table estimates", "table runs"), "figure heatmap": ("table comparisons", "table estimates", "table runs"),
    "figure critical_difference": ("table comparisons", "table estimates", "table runs"),
    "figure gradient_norms": ("table history", "table runs"), "figure spectra": ("table history", "table runs"),
}  # fmt: skip


def with_downstream(edited: set[str]) -> set[str]:
    """The jobs, and every table, figure and page that is made from them.

    `NEEDS` names a table before the tables and figures that read it, so one pass is enough.
    """
    jobs = set(edited)
    for summary, needs in NEEDS.items():
        prefixes = tuple(f"{need} " for need in needs)
        if jobs.intersection(needs) or any(job.startswith(prefixes) for job in jobs):
            jobs.add(summary)
    if any(job.startswith(("table", "figure")) for job in jobs):
        jobs.add("page")
    return jobs


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: edit(root / file, old, new)


def touch(*files: str) -> Callable[[Path], None]:
    return lambda root: [(root / file).touch() for file in files]


def older(change: Callable[[Path], None], file: str) -> Callable[[Path], None]:
    """The new content, with a time stamp from before every result.

    rsync, tar and image layers leave such files.
    """

    def apply(root: Path) -> None:
        change(root)
        os.utime(root / file, (1_000_000_000, 1_000_000_000))

    return apply


SRC = "src/rankwise"
METHODS = "config/methods.yaml"
DATA = "config/datasets.yaml"
MODELS = "config/models.yaml"
# Edit -> (how to make it, the jobs that rerun without their tables, figures and page).
PROMISES = {
    # Options and entries
    "swap two option values": (
        replace(METHODS, "oversample: 4,\n     power_iterations: 1", "oversample: 1,\n     power_iterations: 4"),
        jobs("train", {"rsvd"}) | jobs("memory", {"rsvd"}),
    ),
    "learning rate of one method": (
        replace(METHODS, "dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4"),
        {"train lora"},
    ),
    "reordered keys": (replace(METHODS, "alpha: rank, dropout: 0.1", "dropout: 0.1, alpha: rank"), set()),
    "another spelling of a default": (replace(METHODS, "{module: full, learning", "{module: full, options: {}, learning"), set()),
    "label of a method": (replace(METHODS, "label: LoRA\n", "label: LoRA 2021\n"), {"table summary", *FIGURES, "page"}),
    "source of a method": (replace(METHODS, "arXiv 2106.09685", "arXiv:2106.09685"), {"page"}),
    "new method, not in the study": (
        replace(METHODS, "lora_qkv:\n", "newcomer: {module: full, learning_rate: 1.0e-3}\nlora_qkv:\n"),
        {"table summary", *FIGURES, "page"},
    ),
    "new method": (replace(STUDY, "methods: [full, lora, rsvd]", "methods: [full, lora, rsvd, head_only]"), {"train head_only"}),
    "new rank": (replace(STUDY, "ranks: [2], seeds", "ranks: [2, 4], seeds"), jobs("train", {"lora r4", "rsvd r4"})),
    "new seed": (replace(STUDY, "seeds: [0]", "seeds: [0, 1]"), {f"train {name} seed1" for name in ALL}),
    "batch size of the schedule": (replace(STUDY, "batch_size: 8", "batch_size: 4"), TRAIN),
    "question of the study": (replace(STUDY, "Which edit", "What edit"), {"page"}),
    "weights to keep": (replace(STUDY, "device: cpu", "device: cpu\nkeep: none"), {"train lora"}),
    "tracker": (replace(STUDY, "device: cpu", "device: cpu\ntracker: tensorboard"), set()),
    "dataset revision": (
        replace(DATA, "{kind: reviews, seed: 0", "{kind: reviews, seed: 7"),
        {"dataset generated_reviews"} | TRAIN,
    ),
    "pre-training": (replace(MODELS, "learning_rate: 3.0e-3", "learning_rate: 2.0e-3"), {"model tiny"} | TRAIN),
    "note of a model": (replace(MODELS, "note: pre-trained by", "note: trained by"), set()),
    "architecture": (replace(MODELS, "n_heads: 4, dim: 64", "n_heads: 2, dim: 64"), {"model tiny"} | TRAIN | PROFILES),
    "a claim": (replace("config/claims.yaml", "4: 3060664", "4: 3060665"), {"table claims"}),
    # Sources
    "one method": (replace(f"{SRC}/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha"), {"train lora"} | LORA),
    "a shared projector": (
        replace(f"{SRC}/optim/parts/projectors.py", "q @ u[..., :rank], s", "q @ u[..., :rank] + 0, s"),
        {"train rsvd", "memory rsvd"},
    ),
    "default of an option": (replace(f"{SRC}/optim/projected_adam.py", "eps: float = 1e-8", "eps: float = 1e-7"), {"train rsvd", "memory rsvd"}),
    "the loop": (replace(f"{SRC}/training/progress.py", "float(self.gradient_norm) / self.updates", "1.0 * self.gradient_norm.item() / self.updates"), {"model tiny"} | TRAIN),
    "from a request to its result": (replace(f"{SRC}/training/run.py", '"reason": str(error)}', '"reason": f"{error}"}'), TRAIN),
    "a task": (replace(f"{SRC}/models/tasks/classification.py", "(predicted == labels)", "(labels == predicted)"), {"model tiny"} | TRAIN),
    "another task": (replace(f"{SRC}/models/tasks/language_modelling.py", "loss.sum(1)", "1 * loss.sum(1)"), set()),
    "a method that is not in the study": (replace(f"{SRC}/methods/frozen.py", "requires_grad_(False)", "requires_grad_(not True)"), set()),
    "an optimizer that is not in the study": (replace(f"{SRC}/optim/fira.py", "1e-8)", "2e-8)"), set()),
    "storage that is not in the study": (replace(f"{SRC}/models/quantized.py", "NF4_BLOCK = 64", "NF4_BLOCK = 32"), set()),
    "what tracks memory": (replace(f"{SRC}/measure/memory/tracker.py", "tensor.layout == torch.sparse_coo", "torch.sparse_coo == tensor.layout"), {"ledger lora"}),
    "one measurement": (replace(f"{SRC}/measure/flops/count.py", "micro_batch + amortised,", "amortised + micro_batch,"), {"flops lora"}),
    "a comment": (replace(f"{SRC}/training/loop.py", "import time", "# the loop of all loops\nimport time"), set()),
    "a docstring": (replace(f"{SRC}/training/loop.py", "The one training loop, on", "The loop, on"), set()),
    "layout": (replace(f"{SRC}/training/loop.py", "import time\n", "import time\n\n\n"), set()),
    "a script": (replace("workflow_scripts/train.py", "run(train,", "run(measure=train,"), TRAIN),
    "a script of a report": (replace("workflow_scripts/figure.py", "document(draw)", "document(make=draw)"), FIGURES),
    "a figure": (replace(f"{SRC}/report/memory.py", "import ", "import math  # noqa\nimport "), {"figure memory"}),
    "plotting style": (replace(f"{SRC}/report/style.py", "import ", "import math  # noqa\nimport "), FIGURES),
    "bookkeeping": (replace(f"{SRC}/core/provenance.py", "[:DIGEST_LENGTH]", "[0:DIGEST_LENGTH]"), set()),
    "the plan": (replace(f"{SRC}/core/config.py", "merged = dict(base)", "merged = {**base}"), TABLES - EVIDENCE - {"table summary", "table claims"}),
    "docstring of a method": (replace(f"{SRC}/methods/lora.py", "LoRA and its variants by option", "LoRA, with variants by option"), {"page"}),
    "style of the page": (replace(f"{SRC}/report/html/page.css", "margin: 0;", "margin: 0 ;"), {"page"}),
    # Locks
    "lock of the jobs": (replace("envs/cpu.lock", "numpy==", "numpy==0"), INPUTS | TRAIN | PROFILES),
    "comment in a lock": (replace("envs/cpu.lock", "numpy==", "# pinned\nnumpy=="), set()),
    "lock of the report": (replace("envs/report.lock", "matplotlib==", "matplotlib==0"), REPORT),
    "lock of the container": (replace("envs/gpu.lock", "numpy==", "numpy==0"), set()),
    # Time stamps
    "touch": (touch(f"{SRC}/training/run.py", METHODS, STUDY, "Snakefile", "workflow_scripts/train.py"), set()),
    "older time stamp, new content": (
        older(replace(f"{SRC}/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha"), f"{SRC}/methods/lora.py"),
        {"train lora"} | LORA,
    ),
    "new line in a rule's docstring": (replace("rules/train.smk", "Fine-tune one cell.", "Fine-tune a cell."), set()),
}  # fmt: skip


# The reasons that a plan may give for a job whose result holds its request.
REASON = re.compile(
    r"(src/rankwise|workflow_scripts)/[\w/]+\.\w+ changed|envs/\w+\.lock changed|(dataset|model) prepared anew"
    r"|not there yet|[\w.]+: .+ -> .+"
)


def job_name(path: str) -> str | None:
    """The name of the job that writes a file. None for a table's or figure's second file.

    Example: `results/rerun/runs/tiny/generated_reviews/lora/r2/seed0/{digest}/train.json` is
    `train lora`. Ranks and seeds other than the study's are a part of the name.
    """
    file = Path(path).relative_to(RESULTS)
    parts, stem = file.parts, file.stem
    if parts[0] in ("runs", "profiles"):
        rest = [part for part in parts[4:-2] if part not in ("r0", "r2", "seed0")]
        return " ".join([stem, parts[3], *rest])
    if parts[0] == "inputs":
        return f"{stem} {parts[2]}"
    if parts[0].startswith("claims"):
        return "table claims" if parts[0] == "claims.csv" else None
    kinds = {"tables": "table", "figures": "figure"}
    if parts[0] in kinds:
        return f"{kinds[parts[0]]} {stem}" if path.endswith((".csv", ".png")) else None
    return "page"


def job_names(planned_jobs: list[dict]) -> set[str]:
    names = set()
    for job in planned_jobs:
        names |= {job_name(file) for file in job["files"]}
    return names - {None}


def planned(root: Path) -> dict:
    """What `rankwise plan` prints: the jobs that Snakemake would run, with their reasons and cost."""
    command = [sys.executable, "-m", "rankwise.cli.main", "plan", "--study", STUDY, "--json"]
    environment = {**CLEAN, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pending(root: Path) -> set[str]:
    return job_names(planned(root)["jobs"])


EDITABLE = ("src", "config", "envs", "rules", "tests", "workflow_scripts", "Snakefile")


@contextlib.contextmanager
def edited(root: Path, *promises: str) -> Iterator[None]:
    """Make the edits of promises. Afterwards, restore contents and time stamps of all sources."""
    originals = {}
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).parts[0] in EDITABLE:
            originals[path] = (path.read_bytes(), path.stat())
    try:
        for promise in promises:
            change, _ = PROMISES[promise]
            change(root)
        yield
    finally:
        for path, (content, stat) in originals.items():
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the study has been built.

    The tiny model is pre-trained for two updates only.
    """
    root = copy_repository(tmp_path_factory.mktemp("rerun") / "clone")
    edit(root / MODELS, "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / DATA, "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, "--configfile", STUDY, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    assert pending(root) == set()
    return root


@pytest.fixture(scope="module")
def plan_after(finished: Path) -> Callable[[str], dict]:
    """What `rankwise plan` prints after the edit of a promise; several tests read one plan."""

    @functools.cache
    def plan(promise: str) -> dict:
        with edited(finished, promise):
            return planned(finished)

    return plan


HARMLESS = [promise for promise, (_, expected) in PROMISES.items() if not expected]


def test_harmless_edits_rerun_nothing(finished: Path) -> None:
    """All at once: no job is pending only if none of them makes one pending."""
    assert len(HARMLESS) > 10
    with edited(finished, *HARMLESS):
        assert planned(finished)["jobs"] == []


@pytest.mark.parametrize("promise", [name for name in PROMISES if name not in HARMLESS])
def test_an_edit_reruns_exactly_the_promised_jobs(
    promise: str, finished: Path, plan_after: Callable[[str], dict]
) -> None:
    _, expected = PROMISES[promise]
    planned_jobs = plan_after(promise)["jobs"]
    assert job_names(planned_jobs) == with_downstream(expected)
    holds_request = tuple(f"{RESULTS}/{part}" for part in ("runs", "profiles", "inputs"))
    for job in planned_jobs:
        if job["files"][0].startswith(holds_request):
            assert all(REASON.fullmatch(why) for why in job["why"]), job


@pytest.mark.parametrize(("promise", "job", "why"), [
    ("one method", "train", ["src/rankwise/methods/lora.py changed"]),
    ("learning rate of one method", "train", ["method.learning_rate: 0.0002 -> 0.0003"]),
    ("lock of the jobs", "flops", ["envs/cpu.lock changed"]),
    ("dataset revision", "train", ["dataset prepared anew", "dataset.generated.seed: 0 -> 7"]),
])  # fmt: skip
def test_a_plan_gives_reasons(
    promise: str, job: str, why: list[str], plan_after: Callable[[str], dict]
) -> None:
    reasons = []
    for planned_job in plan_after(promise)["jobs"]:
        if planned_job["job"] == job and "/lora/" in planned_job["name"]:
            reasons.append(planned_job["why"])
    assert reasons == [why]


@pytest.mark.parametrize(("promise", "cost"), [
    ("learning rate of one method", lambda times: times["lora"]),  # the time of the same cell
    ("new seed", lambda times: sum(times.values())),  # the time of a cell of the same curve
    ("new rank", lambda times: 2 * statistics.median(times.values())),  # the median of all cells
])  # fmt: skip
def test_a_plan_estimates_its_cost_from_earlier_jobs(
    promise: str,
    cost: Callable[[dict], float],
    finished: Path,
    plan_after: Callable[[str], dict],
) -> None:
    times_s = {}
    for path in finished.glob(f"{RESULTS}/runs/*/*/*/*/seed0/*/train.json"):
        method = path.parts[-5]
        times_s[method] = json.loads(path.read_text())["environment"]["job_time_s"]
    estimate = plan_after(promise)["cost"]
    assert set(times_s) == ALL
    assert estimate["hours"] == pytest.approx(cost(times_s) / 3600)
    assert (estimate["unknown"], estimate["gpu_hours"]) == (0, 0)


def build(root: Path, *targets: str, **environment: str) -> str:
    """Run Snakemake, which must end well; what it printed."""
    arguments = [*targets, "--configfile", STUDY, "--cores", "2"]
    done = run_snakemake(root, *arguments, **environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout + done.stderr


def trained(root: Path) -> set[Path]:
    """The training results in the store."""
    return set((root / "results/store/runs").rglob("train.json"))


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished clone, by `cp -r`: all its files have new times."""
    subprocess.run(["cp", "-r", finished, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


LINKS = tuple(f"{RESULTS}/{part}" for part in ("runs", "profiles", "inputs"))


@pytest.mark.parametrize("lost", [
    (), (".snakemake", "results/.requests", "results/.cache"), LINKS, (".snakemake", *LINKS),
], ids=["nothing", "records", "links", "records and links"])  # fmt: skip
def test_a_copy_reruns_nothing_whatever_it_lost(lost: tuple[str, ...], clone: Path) -> None:
    """The copy has new times. What it lost of a study's links, the store gives back."""
    for folder in lost:
        shutil.rmtree(clone / folder)
    assert pending(clone) == set()


def test_a_moved_clone_reruns_nothing(clone: Path, tmp_path: Path) -> None:
    assert pending(clone.rename(tmp_path / "moved")) == set()


def test_copies_that_follow_links_are_taken_into_the_store(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "followed"
    subprocess.run(["cp", "-rL", finished, root], check=True)
    shutil.rmtree(root / "results/store")
    shutil.rmtree(root / RESULTS / "inputs")  # followed links have no data files beside them
    assert pending(root) == set()
    assert len(trained(root)) == len(ALL)
    assert all(path.is_symlink() for path in (root / RESULTS / "runs").rglob("train.json"))


def test_deleted_documents_are_made_again(clone: Path) -> None:
    (clone / RUNS_TABLE).unlink()
    assert pending(clone) == with_downstream({"table runs"})
    (clone / RESULTS / "figures/memory.svg").unlink()
    assert pending(clone) == with_downstream({"table runs"}) | {"figure memory"}


def test_lost_records_hide_no_edit(clone: Path) -> None:
    """Without them Snakemake cannot know which request made a table or a figure."""
    shutil.rmtree(clone / ".snakemake")
    entry = "alpha: rank, dropout: {}}}\n  learning_rate: 2.0e-4"
    edit(clone / METHODS, entry.format("0.1"), entry.format("0.2"))
    assert pending(clone) == with_downstream({"train lora"} | LORA)


def test_what_is_not_as_it_was_written_is_made_again_without_records(clone: Path) -> None:
    """A result of another run, copied over one; and a table in which a number was typed."""
    shutil.rmtree(clone / ".snakemake")
    runs = f"{RESULTS}/runs/tiny/generated_reviews"
    lora, rsvd = (made(clone, f"{runs}/{name}/r2/seed0/train.json") for name in ("lora", "rsvd"))
    before = lora.read_bytes()
    shutil.copyfile(rsvd, lora)
    jobs = planned(clone)["jobs"]
    assert job_names(jobs) == with_downstream({"train lora"})
    reasons = [job["why"] for job in jobs if job["job"] == "train"]
    assert reasons == [["its result was not as it was written, and is set aside"]]
    (aside,) = (clone / "results/store/runs").rglob("*.damaged-1")
    (aside / "train.json").write_bytes(before)
    aside.rename(aside.with_name(aside.name.removesuffix(".damaged-1")))
    assert pending(clone) == set()
    edit(clone / RUNS_TABLE, "lora", "lorb")
    assert pending(clone) == with_downstream({"table runs"})


def test_an_old_setting_again_trains_nothing(clone: Path) -> None:
    """Back and forth between two settings; the second result is beside the first."""
    before = trained(clone)
    old, new = (f"dropout: 0.1}}\n  learning_rate: {rate}e-4" for rate in ("2.0", "3.0"))
    edit(clone / METHODS, old, new)
    build(clone, RUNS_TABLE)
    there = trained(clone)
    assert len(there) == len(before) + 1
    contents = {path: path.read_bytes() for path in there}  # with the time that each job took
    # Only the table of runs is made anew here, so the table of history is of the old setting.
    for change, history in (((new, old), set()), ((old, new), {"table history"})):
        edit(clone / METHODS, *change)
        assert pending(clone) == with_downstream({"table runs", *history})
        printed = build(clone, RUNS_TABLE)
        assert "rule train:" not in printed and "rule collect:" in printed
    assert {path: path.read_bytes() for path in trained(clone)} == contents


def test_a_second_study_with_the_same_cells_trains_nothing(clone: Path) -> None:
    """It has a folder of its own, and leaves the first study's files alone."""
    other = clone / "tests/studies/again.yaml"
    other.write_text((clone / STUDY).read_text().replace("name: rerun", "name: again"))
    table = "results/again/tables/runs.csv"
    done = run_snakemake(clone, table, "--configfile", str(other), "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert "rule train:" not in done.stdout + done.stderr
    assert (clone / table).read_text() == (clone / RUNS_TABLE).read_text()
    assert pending(clone) == set()


def test_a_shared_store_serves_another_clone(finished: Path, tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "other")
    for file in (MODELS, DATA):
        shutil.copy(finished / file, root / file)
    printed = build(root, RUNS_TABLE, RANKWISE_STORE=str(finished / "results/store"))
    assert "rule train:" not in printed and "rule prepare" not in printed
    assert (root / RUNS_TABLE).read_text() == (finished / RUNS_TABLE).read_text()
    assert not (root / "results/store").exists()


def test_a_failed_rerun_leaves_the_last_good_result(clone: Path) -> None:
    before = trained(clone)
    source = clone / SRC / "methods/lora.py"
    good = source.read_text()
    edit(source, "lora_alpha=self.alpha", "lora_alpha=self.no_such_thing")
    done = run_snakemake(clone, RUNS_TABLE, "--configfile", STUDY, "--cores", "2")
    assert done.returncode != 0
    assert trained(clone) == before
    source.write_text(good)
    assert pending(clone) <= with_downstream({"table runs"})
    assert "rule train:" not in build(clone, RUNS_TABLE)


def test_forced_jobs_find_their_results(clone: Path) -> None:
    before = {path: path.read_bytes() for path in trained(clone)}
    build(clone, RUNS_TABLE, "--forcerun", "train")
    assert {path: path.read_bytes() for path in trained(clone)} == before
    assert pending(clone) == set()


def test_lost_inputs_are_made_again_for_a_new_cell(clone: Path) -> None:
    """The jobs of old cells run, too, since their inputs are new; they find their results."""
    shutil.rmtree(clone / "results/store/inputs")
    assert pending(clone) == set()
    edit(clone / STUDY, "seeds: [0]", "seeds: [0, 1]")
    new_cells = {f"train {name} seed1" for name in ALL}
    reasons = {job_name(job["files"][0]): job["why"] for job in planned(clone)["jobs"]}
    assert set(reasons) - REPORT - {None} == INPUTS | TRAIN | new_cells
    for name in TRAIN:
        assert "the store" in reasons[name][0]


def test_a_result_is_rebuilt_from_its_own_request_to_the_byte(
    finished: Path, tmp_path: Path
) -> None:
    for method in sorted(ALL):
        rank = "r0" if method == "full" else "r2"
        cell = f"tiny/generated_reviews/{method}/{rank}/seed0"
        stored = made(finished, f"{RESULTS}/runs/{cell}/train.json")
        again = tmp_path / "again.json"
        command = [sys.executable, "workflow_scripts/train.py"]
        command += ["--request", f"@{stored}", "--output", str(again)]
        environment = {**os.environ, "PYTHONPATH": str(finished / "src")}
        done = subprocess.run(
            command, cwd=finished, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        old, new = (json.loads(path.read_text()) for path in (stored, again))
        assert json.dumps(new["metrics"]) == json.dumps(old["metrics"])
        assert json.dumps(new["history"]) == json.dumps(old["history"])
        assert new["request"] == old["request"]
