"""Which evaluations a study plans, their requests, and what is wrong with a grid in one sentence."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.checks import preflight
from rankwise.core.config import ConfigError, library
from rankwise.study import evaluations, job_requests, jobs, outputs
from rankwise.study.plan import Cell, Plan

STUDY = {
    "name": "asked",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 1, "batch_size": 2},
    "model": "stories260k",
    "data": "wikitext2_files",
    "train": [{"methods": ["frozen", "lora"], "ranks": [4], "seeds": [0, 1]}],
}
RUN = Cell("stories260k", "wikitext2_files", "frozen", 0, 0)


@pytest.fixture(autouse=True)
def weights_are_kept(monkeypatch):
    """LoRA's runs keep their weights, whatever a study's own default is."""
    plain = job_requests._training_request

    def keeping(plan, measurement, cell):
        kept = "none" if cell.method == "full" else "adapter"
        return {**plain(plan, measurement, cell), "keep": kept}

    monkeypatch.setattr(job_requests, "_training_request", keeping)


@pytest.fixture(scope="module")
def entries() -> dict:
    return library(ROOT)


@pytest.fixture
def plan_of(entries, monkeypatch):
    def make(*sections, evaluation=None, **study) -> Plan:
        changed = {**entries, "evaluations": {**entries["evaluations"], **(evaluation or {})}}
        monkeypatch.setattr("rankwise.study.plan.library", lambda _: changed)
        return Plan({**STUDY, "evaluate": list(sections), **study}, ROOT)

    return make


def refused(plan_of, *sections, **others) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(*sections, **others)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_training_cell_is_asked_every_task(plan_of):
    plan = plan_of({"tasks": ["boolq_files", "gsm8k_pattern"]})
    cells = plan.cells("evaluate")
    assert [(cell.evaluation, cell.method, cell.seed) for cell in cells] == [
        ("boolq_files", "frozen", 0), ("boolq_files", "frozen", 1),
        ("boolq_files", "lora", 0), ("boolq_files", "lora", 1),
        ("gsm8k_pattern", "frozen", 0), ("gsm8k_pattern", "frozen", 1),
        ("gsm8k_pattern", "lora", 0), ("gsm8k_pattern", "lora", 1),
    ]  # fmt: skip
    cell = RUN._replace(evaluation="boolq_files")
    digest = plan.cell_digest("evaluate", cell)
    assert plan.path("evaluate", cell) == (
        "results/asked/evaluations/stories260k/wikitext2_files/frozen/r0/seed0/boolq_files/"
        f"{digest}/evaluation.json"
    )


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"methods": ["lora"]}, {("lora", 0), ("lora", 1)}),
        ({"seeds": [1]}, {("frozen", 1), ("lora", 1)}),
        ({"ranks": [4], "seeds": [0]}, {("frozen", 0), ("lora", 0)}),
        ({"models": ["stories260k"], "methods": ["frozen"]}, {("frozen", 0), ("frozen", 1)}),
    ],
)
def test_a_grid_may_be_narrower(plan_of, narrowed, expected):
    plan = plan_of({"tasks": ["boolq_files"], **narrowed})
    assert {(cell.method, cell.seed) for cell in plan.cells("evaluate")} == expected


def test_a_run_without_kept_weights_is_left_out_and_named(plan_of):
    train = [{"methods": ["frozen", "full"], "seeds": [0]}]
    plan = plan_of({"tasks": ["boolq_files"]}, train=train)
    assert [cell.method for cell in plan.cells("evaluate")] == ["frozen"]
    (note,) = plan.evaluations.notes
    assert note.startswith(
        "study: evaluate.0: not evaluated, since their runs keep no weights: full"
    )


def test_a_mean_stands_for_its_evaluations(plan_of):
    plan = plan_of({"tasks": ["commonsense_pattern"], "methods": ["frozen"], "seeds": [0]})
    names = [cell.evaluation for cell in plan.cells("evaluate")]
    assert len(names) == 8
    assert plan.evaluations.means == {"commonsense_pattern": names}
    request = outputs.table_request(plan, "evaluations")
    assert request["means"] == {"commonsense_pattern": names}
    assert request["metrics"]["commonsense_pattern"] == "accuracy_fraction"


def test_what_only_limits_the_examples_of_a_prompt_is_in_no_request(plan_of):
    plan = plan_of({"tasks": ["mmlu"]})
    assert plan.library["evaluations"]["mmlu"]["few_shot_rows"] == 5
    assert "few_shot_rows" not in plan.evaluations.cells[RUN._replace(evaluation="mmlu")]


def test_a_request_names_the_run_and_everything_that_decides_a_score(plan_of):
    plan = plan_of({"tasks": ["mmlu_files"], "limit": 3, "few_shot": 2})
    cell = RUN._replace(method="lora", rank=4, evaluation="mmlu_files")
    request = plan.request("evaluate", cell)
    run = plan.cell_digest("train", cell.run)
    assert request["run"]["digest"] == run
    assert request["run"]["result"].endswith(f"seed0/{run}/train.json")
    entry = request["evaluation"]
    assert (entry["limit"], entry["few_shot"], entry["batch_size"]) == (3, 2, 8)
    assert entry["harness"] == {"package": "lm_eval", "version": "0.4.13"}
    assert entry["task_config"]["metadata"] == {"version": 1.0}
    shipped = plan.library["evaluations"]["mmlu_files"]["files"]["test"]["sha256"]
    assert entry["files"]["test"]["sha256"] == shipped
    assert "rankwise.evaluation.harness" in request["code"]
    assert "rankwise.evaluation.generation" not in request["code"]
    assert "rankwise.methods.lora" in request["code"]
    (job,) = [job for job in jobs.cell_jobs(plan, "evaluate") if job.cell == cell]
    assert job.inputs == (plan.path("train", cell.run), plan.input_path("model", cell.model))


def test_a_new_task_trains_nothing(plan_of):
    """A study that asks more of its runs has the same training requests."""
    before, after = plan_of(), plan_of({"tasks": ["boolq_files"]})
    for cell in before.cells("train"):
        assert before.cell_digest("train", cell) == after.cell_digest("train", cell)


def test_an_edited_file_of_a_task_is_another_request(plan_of, tmp_path):
    files = {"folder": str(tmp_path), "form": "llm_adapters", "test": {"path": "t.json"}}
    entry = {"kind": "answer_pattern", "files": files, "pattern": "a", "max_new_tokens": 4}
    entry |= {"batch_size": 8}
    digests = set()
    for text in ("[]", "[1]"):
        (tmp_path / "t.json").write_text(text)
        plan = plan_of({"tasks": ["mine"]}, evaluation={"mine": entry})
        digests.add(plan.cell_digest("evaluate", RUN._replace(evaluation="mine")))
    assert len(digests) == 2


ENCODER = {
    "model": "tiny",
    "data": "generated_reviews",
    "train": [{"methods": ["frozen"], "seeds": [0]}],
}


@pytest.mark.parametrize(
    ("section", "others", "expected"),
    [
        ({"tasks": ["bolq"]}, {}, "evaluate.0.tasks: got 'bolq', allowed: "),
        ({"tasks": ["boolq_files"], "limit": 0}, {}, "evaluate.0.limit: got 0, allowed: at least 1"),
        ({"tasks": ["boolq_files"], "few_shot": -1}, {}, "few_shot: got -1, allowed: at least 0"),
        (
            {"tasks": ["piqa_files"], "few_shot": 1}, {},
            "evaluate.0.few_shot: got 1, allowed: 0: piqa_files has no files.few_shot",
        ),
        (
            {"tasks": ["mmlu"], "few_shot": 6}, {},
            "evaluate.0.few_shot: got 6, allowed: at most 5, mmlu.few_shot_rows of config/evaluations",
        ),
        (
            {"tasks": ["boolq_pattern"], "few_shot": 1}, {},
            "evaluate.0.few_shot: got 1, allowed: few_shot for tasks of the harness",
        ),
        ({"tasks": ["boolq_files"], "methods": ["lor"]}, {}, "evaluate.0.methods: got 'lor', allowed: "),
        ({"tasks": ["boolq_files"], "seeds": [7]}, {}, "evaluate.0.seeds: got 7, allowed: seeds that"),
        ({"tasks": ["boolq_files"], "ranks": [8]}, {}, "evaluate.0.ranks: got 8, allowed: ranks that"),
        (
            {"tasks": ["boolq_files"]}, ENCODER,
            "evaluate.0.datasets: got 'generated_reviews', allowed: datasets of tasks with a language-model",
        ),
        (
            {"tasks": ["boolq_files"]}, {"train": [{"methods": ["full"], "seeds": [0]}]},
            "evaluate.0.methods: got 'full', allowed: methods whose runs keep their weights",
        ),
        (
            {"tasks": ["boolq_files"], "methods": ["full"]},
            {"train": [{"methods": ["full", "frozen"], "seeds": [0]}]},
            "evaluate.0.methods: got 'full', allowed: methods whose runs keep their weights",
        ),
        (
            {"tasks": ["boolq_files"]},
            {"train": [], "profile": [{"methods": ["lora"], "measurements": ["memory"]}]},
            "evaluate.0: got 'a study that trains nothing'",
        ),
    ],
)  # fmt: skip
def test_a_wrong_grid_is_one_sentence(plan_of, section, others, expected):
    assert expected in refused(plan_of, section, **others)


def test_one_setting_of_an_evaluation_in_a_study(plan_of):
    sections = [
        {"tasks": ["boolq_files"], "methods": ["lora"]},
        {"tasks": ["boolq_files"], "methods": ["frozen"], "limit": 5},
    ]
    assert "evaluate.1.tasks: got 'boolq_files with other settings" in refused(plan_of, *sections)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"kind": "harness", "task": "boolq", "metric": "accuracy_fraction"}, "mine: got 'neither', allowed: exactly one of hub and files"),
        ({"kind": "harness", "metric": "accuracy_fraction"}, "mine.task: got 'nothing'"),
        ({"kind": "generation", "dataset": "sst2", "max_new_tokens": 3}, "mine.dataset: got 'sst2', allowed: a dataset of the task instruction_tuning"),
        ({"kind": "generation", "dataset": "sst2", "max_new_tokens": 3, "pattern": "a"}, "mine.pattern: got 'a', allowed: keys of the kind generation"),
        ({"kind": "generation", "dataset": "generated_prompts", "max_new_tokens": 512}, "mine.max_new_tokens: got 512, allowed: below 512, the positions of stories260k"),
        ({"kind": "mean", "evaluations": ["boolq_files", "gsm8k_files"]}, "gsm8k_files with exact_match_flexible_extract_fraction', allowed: evaluations with one metric"),
        ({"kind": "mean", "evaluations": ["boolq_files", "commonsense"]}, "got 'commonsense', allowed: evaluations that are no mean"),
        (
            {"kind": "harness", "task": "arcs", "metric": "accuracy_fraction", "files": {"folder": "/", "form": "gsm8k", "test": {"path": "a"}}},
            "mine.task: got 'arcs', allowed: tasks for files: arc, boolq",
        ),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_one_sentence(plan_of, entry, expected):
    given = {"batch_size": 8, **entry}
    assert expected in refused(plan_of, {"tasks": ["mine"]}, evaluation={"mine": given})


def lacking(plan: Plan, kind: str) -> list[str]:
    return preflight.lacking(kind, jobs.cell_jobs(plan, "evaluate"), plan)


def own(folder: Path, rows: list[dict], **entry) -> dict:
    """An entry of the harness with files of its own."""
    (folder / "test.json").write_text(json.dumps(rows))
    (folder / "train.json").write_text(json.dumps(rows[:1]))
    files = {"folder": str(folder), "form": "llm_adapters"}
    files |= {"test": {"path": "test.json"}, "few_shot": {"path": "train.json"}}
    return {
        "kind": "harness", "task": "arc", "metric": "accuracy_fraction", "files": files,
        "batch_size": 8, **entry,
    }  # fmt: skip


ROW = {
    "instruction": "Please choose the correct answer to the question: q\n\nAnswer1: a Answer2: b\n\n"
    "Answer format: answer1/answer2",
    "answer": "answer2",
}


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ([ROW, ROW], {"few_shot": 2}, "mine.few_shot: got 2, allowed: at most 1, the examples in train.json"),
        ([], {}, "mine.files.test: {folder}/test.json: got no document for test"),
        ([{**ROW, "answer": "answer3"}], {}, "row 1: got 'answer3', allowed: one of answer1, answer2"),
    ],
)  # fmt: skip
def test_a_task_s_files_are_read_before_the_first_job(plan_of, tmp_path, rows, settings, expected):
    plan = plan_of({"tasks": ["mine"], **settings}, evaluation={"mine": own(tmp_path, rows)})
    (line,) = lacking(plan, "files")
    assert expected.format(folder=tmp_path) in line


def test_a_missing_file_a_missing_folder_and_another_file(plan_of, tmp_path, monkeypatch):
    entry = own(tmp_path, [ROW])
    entry["files"]["test"]["sha256"] = "0" * 64
    plan = plan_of({"tasks": ["mine"]}, evaluation={"mine": entry})
    (line,) = lacking(plan, "files")
    assert line.startswith("config/evaluations.yaml: mine.files.test: sha256 of ")
    (tmp_path / "test.json").unlink()
    (line,) = lacking(plan, "files")
    assert line.endswith(f"got {tmp_path}/test.json, allowed: a file that is there")
    monkeypatch.delenv("RANKWISE_DATA", raising=False)
    (line,) = lacking(plan_of({"tasks": ["boolq_files"]}), "files")
    assert line.endswith("allowed: a folder; set the environment variable in it first")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("boolqq", ["config/evaluations.yaml: mine.task: got 'boolqq', allowed: a task of the installed lm-evaluation-harness (nearest: 'boolq')"]),
        ("sciq", []),  # has a folder of its own
        ("arc_easy", []),  # is in the folder of arc
    ],
)  # fmt: skip
def test_a_task_that_the_harness_does_not_have(plan_of, task, expected):
    pytest.importorskip("lm_eval")
    hub = {"repo": "aps/super_glue", "revision": "3de24cf8022e94f4ee4b9d55a6f539891524d646"}
    entry = {"kind": "harness", "task": task, "metric": "accuracy_fraction", "hub": hub}
    plan = plan_of({"tasks": ["mine"]}, evaluation={"mine": {"batch_size": 8, **entry}})
    assert lacking(plan, "files") == expected


def test_the_harness_is_not_installed(plan_of, monkeypatch):
    plan = plan_of({"tasks": ["boolq_files"]})
    version = metadata.version

    def lacks(name):
        if name == "lm_eval":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", lacks)
    lines = [line for line in lacking(plan, "packages") if "lm_eval" in line]
    assert lines == [
        "study: evaluate: lm_eval: got nothing, allowed: 0.4.13, for evaluations of the kind "
        "harness; install it: python -m pip install lm_eval==0.4.13"
    ]
    pattern = plan_of({"tasks": ["boolq_pattern"]})
    assert not [line for line in lacking(pattern, "packages") if "lm_eval" in line]


def test_every_shipped_entry_is_whole(entries):
    for name, entry in entries["evaluations"].items():
        evaluations.check_entry(name, entry)
