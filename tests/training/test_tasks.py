"""Every task trains on rows of its own kind, and reports metrics that equal an independent computation."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, List, Value
from scipy import stats

from helpers.prepared import prepare, reset_accelerate
from rankwise.core.config import ConfigError
from rankwise.data import datasets
from rankwise.measure import step
from rankwise.measure.flops import count
from rankwise.measure.memory import ledger
from rankwise.measure.memory.persistent import memory
from rankwise.models.tasks import token_classification
from rankwise.study.plan import Plan
from rankwise.training import run as training

WORDS = ("good", "bad", "film", "very", "the", "a", "is", "was", "not", "plot")
CLASSES = {
    "token_classification": ["O", "B-X", "I-X", "B-Y", "I-Y"],
    "multi_label": ["p", "q", "r"],
}
TASKS = ("regression", "multi_label", "token_classification")


def rows_of(task: str, split: str, size: int) -> list[dict]:
    """Rows whose label follows from the words, so that something can be learnt."""
    chance = np.random.default_rng(len(split))
    rows = []
    for number in range(size):
        words = [WORDS[index] for index in chance.integers(0, len(WORDS), chance.integers(4, 9))]
        if task == "token_classification":
            names = {"good": "B-X", "film": "I-X", "bad": "B-Y"}
            rows.append({"text": words, "label": [names.get(word, "O") for word in words]})
        elif task == "multi_label":
            label = [
                name
                for name, word in zip("pqr", ("good", "bad", "film"), strict=True)
                if word in words
            ]
            rows.append({"text": " ".join(words), "label": label})
        else:
            half = WORDS[:5] if number % 2 else WORDS[5:]
            text = " ".join(half[WORDS.index(word) % 5] for word in words)
            rows.append({"text": text, "label": len(words) / 4 if number % 2 else -1.5})
    return rows


def write(folder: Path, task: str) -> dict:
    """The files of a dataset, and its entry."""
    for split, number in (("train", 120), ("test", 40)):
        lines = [json.dumps(row) for row in rows_of(task, split, number)]
        (folder / f"{task}-{split}.jsonl").write_text("\n".join(lines) + "\n")
    entry = {
        "task": task,
        "files": {"folder": str(folder), "format": "jsonl"},
        "splits": {split: {"path": f"{task}-{split}.jsonl"} for split in ("train", "test")},
        "report_split": "test",
        "text": "text",
        "label": "label",
        "max_length_tokens": 16,
        "selection_rows": 20,
        "max_unknown_fraction": 1,  # the tiny model knows few of these words
    }
    return {**entry, "classes": CLASSES[task]} if task in CLASSES else entry


def study(methods: list[str]) -> dict:
    grid = {"models": ["tiny"], "datasets": list(TASKS), "methods": methods}
    override = {name: {"learning_rate": 5e-3} for name in methods if name != "frozen"}
    return {
        "name": "tasks",
        "question": "?",
        "device": "cpu",
        "schedule": {"updates": 18, "batch_size": 16, "eval_batch_size": 64},
        "train": [{**grid, "seeds": [0], "ranks": [2], "override": override}],
        "profile": [{**grid, "measurements": ["memory", "flops", "ledger"], "ranks": [2]}],
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A project with datasets of its own, their prepared splits, and its plan."""
    root = tmp_path_factory.mktemp("tasks")
    (root / "config").mkdir()
    entries = {task: write(root, task) for task in TASKS}
    (root / "config/datasets.yaml").write_text(yaml.safe_dump(entries))
    plan = Plan(study(["full", "lora"]), root)
    prepare(plan, root, updates=3)
    return root, plan


@pytest.fixture(scope="module")
def results(project: tuple[Path, Plan]) -> dict[tuple[str, str], dict]:
    root, plan = project
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for cell in plan.cells("train"):
            reset_accelerate()
            found[cell.dataset, cell.method] = training.train(plan.request("train", cell))
    return found


def columns(result: dict, *names: str) -> list[np.ndarray]:
    return [np.array(result["examples"][name]) for name in names]


def test_a_regression_reports_scipys_correlations(results):
    for method in ("full", "lora"):
        result = results["regression", method]
        label, predicted = columns(result, "label", "predicted")
        assert label.tolist() == [row["label"] for row in rows_of("regression", "test", 40)]
        metrics = result["metrics"]
        assert metrics["spearman_correlation"] == pytest.approx(
            stats.spearmanr(label, predicted).statistic
        )
        assert metrics["pearson_correlation"] == pytest.approx(
            stats.pearsonr(label, predicted).statistic
        )
        assert metrics["mean_squared_error"] == pytest.approx(((label - predicted) ** 2).mean())
        assert metrics["eval_loss_nats"] == pytest.approx(metrics["mean_squared_error"])


def test_several_labels_report_micro_f1_of_the_counts(results):
    result = results["multi_label", "full"]
    right, named, labelled, exact = columns(
        result, "right", "named", "labelled", "exact_match_fraction"
    )
    wanted = [len(row["label"]) for row in rows_of("multi_label", "test", 40)]
    assert labelled.tolist() == wanted
    assert result["metrics"]["micro_f1_fraction"] == pytest.approx(
        2 * right.sum() / (named.sum() + labelled.sum())
    )
    assert result["metrics"]["exact_match_fraction"] == pytest.approx(exact.mean())
    assert all((right == named) & (right == labelled)) == (exact.mean() == 1)


def test_tags_are_counted_in_words_and_spans(results):
    result = results["token_classification", "full"]
    rows = rows_of("token_classification", "test", 40)
    labelled, predictions = columns(result, "labelled", "predictions")
    assert predictions.tolist() == [len(row["text"]) for row in rows]
    begins = [
        sum(tag != "O" and not continues(row["label"], i) for i, tag in enumerate(row["label"]))
        for row in rows
    ]
    assert labelled.tolist() == begins


def continues(tags: list[str], place: int) -> bool:
    """Whether a tag goes on with the span before it."""
    before = tags[place - 1] if place else "O"
    return tags[place].startswith("I-") and before[2:] == tags[place][2:]


def test_training_lowers_the_loss_of_every_task(results):
    for (task, _), result in results.items():
        losses = [row["selection_loss_nats"] for row in result["history"]]
        assert min(losses[1:]) < losses[0], task


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([0, 1, 2, 0], {(1, 3, 0)}),
        ([1, 1, 2], {(0, 1, 0), (1, 3, 0)}),
        ([2, 2, 0, 4], {(0, 2, 0), (3, 4, 1)}),  # an I without a B begins a span
        ([1, 4, 4, 3], {(0, 1, 0), (1, 3, 1), (3, 4, 1)}),
        ([], set()),
    ],
)
def test_spans_are_those_of_seqeval(tags, expected):
    assert token_classification.spans(tags) == expected


# Profiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_step_of_every_task_has_the_loss_of_its_labels(project, task):
    _, plan = project
    cell = next(
        cell for cell in plan.cells("memory") if (cell.dataset, cell.method) == (task, "full")
    )
    request = plan.request("memory", cell)
    request["shapes"] |= {"batch_size": 2, "sequence_length_tokens": 5}
    torch.manual_seed(0)
    one = step.step(request, "cpu")
    output = one.model.eval()(**one.batch)
    logits, labels = output.logits, one.batch["labels"]
    if task == "regression":
        expected = ((logits[:, 0] - labels) ** 2).mean()
    elif task == "multi_label":
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    else:
        expected = torch.nn.functional.cross_entropy(logits.mT, labels)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert memory(request)["metrics"]["trainable_parameters"] == sum(
        p.numel() for p in one.model.parameters()
    )


@pytest.mark.parametrize("task", TASKS)
def test_flops_of_every_task_are_counted(project, task):
    _, plan = project
    cell = next(
        cell for cell in plan.cells("flops") if (cell.dataset, cell.method) == (task, "full")
    )
    metrics = count.flops(plan.request("flops", cell))["metrics"]
    assert metrics["backward_flops"] > metrics["forward_flops"] > 0


# Mistakes -----------------------------------------------------------------------------------------

Change = Callable[[dict], None]


@pytest.mark.parametrize(
    ("task", "change", "sentence"),
    [
        ("regression", {"task": "regresion"}, "task: got 'regresion', allowed: classification"),
        ("regression", {"classes": ["a", "b"]}, "classes: got \\['a', 'b'\\], allowed: nothing"),
        (
            "regression",
            {"metric": "accuracy_fraction"},
            "metric: got 'accuracy_fraction', allowed: a metric of regression: spearman",
        ),
        ("multi_label", {"label": ["x", "y"]}, "allowed: 3 columns, one for each of classes"),
        ("regression", {"label": ["x", "y"]}, "allowed: one column"),
        (
            "token_classification",
            {"classes": ["B-X", "I-X", "O"]},
            "allowed: O first, then B-TYPE and I-TYPE",
        ),
    ],
)
def test_mistakes_of_an_entry_are_one_sentence(project, task, change, sentence):
    root, _ = project
    entries = yaml.safe_load((root / "config/datasets.yaml").read_text())
    kept = (root / "config/datasets.yaml").read_text()
    (root / "config/datasets.yaml").write_text(
        yaml.safe_dump({**entries, task: {**entries[task], **change}})
    )
    try:
        with pytest.raises(ConfigError, match=sentence):
            Plan(study(["full"]), root)
    finally:
        (root / "config/datasets.yaml").write_text(kept)


@pytest.mark.parametrize(
    ("task", "row", "sentence"),
    [
        (
            "regression",
            {"text": "a", "label": "high"},
            "row 1: column 'label' is 'high', allowed: a finite number",
        ),
        (
            "regression",
            {"text": "a", "label": None},
            "row 1: column 'label' is nothing, allowed: a finite number",
        ),
        (
            "multi_label",
            {"text": "a", "label": ["p", "z"]},
            "column 'label' has 'z', allowed: p, q, r, each once",
        ),
        ("multi_label", {"text": "a", "label": "p"}, "allowed: a list of names of classes"),
        (
            "token_classification",
            {"text": ["a", "b"], "label": ["O"]},
            "is 1 tags, allowed: a list of 2 tags",
        ),
        (
            "token_classification",
            {"text": ["a"], "label": ["Q"]},
            "has the tag 'Q', allowed: O, B-X",
        ),
        (
            "token_classification",
            {"text": "a b", "label": ["O", "O"]},
            "column 'text' is 'a b', allowed: a list of words",
        ),
    ],
)
def test_mistakes_of_a_row_are_one_sentence(project, tmp_path, task, row, sentence):
    root, plan = project
    entry = plan.dataset_entry(task)
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    splits = {"train": {"path": "train.jsonl"}, "test": {"path": f"{root}/{task}-test.jsonl"}}
    broken = {**entry, "files": {"folder": str(tmp_path), "format": "jsonl"}, "splits": splits}
    found = datasets.problems(broken, "config/datasets.yaml: x")
    assert len(found) == 1
    assert sentence in found[0]


def test_columns_of_0_and_1_are_the_classes(tmp_path):
    (tmp_path / "train.csv").write_text("text,p,q\nfirst,0,1\nsecond,1,1\n")
    entry = {
        "task": "multi_label", "files": {"folder": str(tmp_path), "format": "csv"}, "report_split": "train",
        "splits": {"train": {"path": "train.csv"}}, "text": "text", "label": ["p", "q"], "classes": ["p", "q"],
        "quotes": None, "missing_text": "refuse",
    }  # fmt: skip
    assert [row["label"] for row in datasets.rows(entry, "train")] == [[0, 1], [1, 1]]


def test_numbers_of_tags_are_read_by_the_names_in_the_file(tmp_path):
    """The file's order of classes is not the entry's: its numbers mean its own names."""
    features = Features(
        {"text": List(Value("string")), "label": List(ClassLabel(names=["B-X", "I-X", "O"]))}
    )
    rows = {"text": [["a", "b", "c"]], "label": [[2, 0, 1]]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    entry = {
        "task": "token_classification", "files": {"folder": str(tmp_path), "format": "parquet"},
        "report_split": "train", "splits": {"train": {"path": "train.parquet"}}, "text": "text", "label": "label",
        "classes": ["O", "B-X", "I-X"], "first_label": 0, "missing_text": "refuse",
    }  # fmt: skip
    assert datasets.rows(entry, "train")[0]["label"] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_predicted_peak_of_every_task_is_the_tracked_one(project, task):
    _, plan = project
    cell = next(
        cell for cell in plan.cells("ledger") if (cell.dataset, cell.method) == (task, "lora")
    )
    request = plan.request("ledger", cell)
    request["shapes"] |= {"batch_size": 4, "sequence_length_tokens": 12}
    metrics = ledger.ledger({**request, "measured": True})["metrics"]
    # torch's CPU kernel keeps the errors of all examples in the storage of their mean, 4 bytes each.
    kept = 4 * (4 - 1) if task == "regression" else 0
    assert metrics["tracked_peak_bytes"] - metrics["peak_bytes"] == kept
    assert metrics["measured_peak_bytes"] == pytest.approx(metrics["peak_bytes"], rel=1e-3)
