"""An encoder-decoder learns to copy, is scored as transformers scores it, and is profiled as it runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.encoder_decoders import ENTRY, prepare, rows, save_model, write
from helpers.prepared import reset_accelerate
from rankwise.core.config import ConfigError
from rankwise.data import datasets
from rankwise.data.prepared import load_data, read_split
from rankwise.measure.flops import count
from rankwise.measure.memory import ledger
from rankwise.measure.memory.persistent import memory
from rankwise.measure.speed import latency
from rankwise.methods.parts.base import adapt
from rankwise.methods.started_lora import StartedLora
from rankwise.models import build
from rankwise.models.tasks import sequence_to_sequence
from rankwise.study import dataset_entries
from rankwise.study.plan import Cell, Plan
from rankwise.training import run as training

GRID = {"models": ["copies"], "datasets": ["copies"]}
STUDY = {
    "name": "copies",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 84, "batch_size": 32, "eval_batch_size": 40},
    "train": [{**GRID, "methods": ["full"], "seeds": [0], "override": {"full": {"learning_rate": 1e-2}}}],
    "profile": [{**GRID, "methods": ["full", "lora"], "ranks": [4], "measurements": ["memory", "flops", "ledger"]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A project with a T5 and data, both prepared, and its plan."""
    root = tmp_path_factory.mktemp("copies")
    write(root)
    plan = Plan(STUDY, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        prepare(plan, root)
    return root, plan


@pytest.fixture(scope="module")
def request_of_training(project: tuple[Path, Plan]) -> dict:
    plan = project[1]
    return plan.request("train", plan.cells("train")[0])


@pytest.fixture(scope="module")
def result(project: tuple[Path, Plan], request_of_training: dict) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project[0])
        reset_accelerate()
        return training.train(request_of_training)


def test_a_t5_learns_to_copy(result):
    metrics = result["metrics"]
    losses = [row["selection_loss_nats"] for row in result["history"]]
    assert losses[-1] < losses[0] / 2
    # Who does not read the text knows neither the words, each one of eight, nor in the mean of 0.2
    # and 0.8 whether there is a third; the tokens around them are certain.
    of_length = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    assert metrics["perplexity"] < math.exp((2.8 * math.log(8) + of_length) / 4.8)


def test_metrics_are_means_over_the_tokens_of_the_targets(result):
    examples, metrics = result["examples"], result["metrics"]
    targets = [row["copy"].split() for row in rows("test", 40)]
    assert examples["predictions"] == [len(words) + 2 for words in targets]  # [CLS] and [SEP]
    weights = np.array(examples["predictions"]) / sum(examples["predictions"])
    assert metrics["perplexity"] == pytest.approx(math.exp(weights @ examples["loss_nats"]))
    assert metrics["accuracy_fraction"] == pytest.approx(weights @ examples["correct_fraction"])


def test_tokens_of_texts_and_of_targets_are_counted(
    project, request_of_training, result, monkeypatch
):
    monkeypatch.chdir(project[0])
    train = read_split(request_of_training, "copies", "train")
    texts = [min(len(row["text"].split()) + 2, 7) for row in train]  # cut to 7
    targets = [len(row["label"].split()) + 2 for row in train]
    epochs = 84 / 12  # of 380 rows, 32 an update
    assert result["metrics"]["tokens"] == epochs * (sum(texts) + sum(targets))


def test_scores_are_transformers_own_loss_of_each_example(
    project, request_of_training, monkeypatch
):
    root, _ = project
    monkeypatch.chdir(root)
    model = build.from_snapshot(root / "t5", "sequence_to_sequence", 0).eval()
    data = load_data(request_of_training, build.tokenizer(root / "t5"), seed=0)
    examples = [data.report[number] for number in range(6)]
    scores = sequence_to_sequence.scores(model, data.collate(examples))
    for number, example in enumerate(examples):
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        output = model(input_ids=ids, labels=labels)  # alone, so without padding
        assert scores["loss_nats"][number].item() == pytest.approx(output.loss.item(), rel=1e-5)
        right = (output.logits.argmax(-1) == labels).float().mean().item()
        assert scores["correct_fraction"][number].item() == pytest.approx(right)


def test_targets_are_cut_too(project):
    tokenizer = build.tokenizer(project[0] / "t5")
    texts = [{"text": "good", "label": "bad film very the a plot was"}]
    example = sequence_to_sequence.encode(texts, tokenizer, {"max_length_tokens": 5})[0]
    words = tokenizer.convert_ids_to_tokens(example["labels"])
    assert words[1:] == ["bad", "film", "very", tokenizer.sep_token]
    assert tokenizer.decode(example["input_ids"], skip_special_tokens=True) == "good"


# LoRA ---------------------------------------------------------------------------------------------


def test_lora_adapts_both_stacks_and_merges(project):
    _, plan = project
    entry = plan.request("memory", cell_of(plan, "memory", "lora"))["method"]
    torch.manual_seed(0)
    model = build.from_shapes(ENTRY, "sequence_to_sequence", 0, "cpu").eval()
    ids = torch.randint(1, 16, (2, 6))
    expected = model(input_ids=ids, labels=ids).logits.detach()
    method, adapted = adapt(entry, model, build.names(ENTRY, "sequence_to_sequence"))
    adapted.eval()  # LoRA has dropout of its own
    # Not to the bit: torch takes another kernel where the table of distances does not train.
    torch.testing.assert_close(adapted(input_ids=ids, labels=ids).logits, expected)
    trainable = {name: param for name, param in adapted.named_parameters() if param.requires_grad}
    # Query and value of three attentions: the encoder's, the decoder's own and that between them.
    assert sum(param.numel() for param in trainable.values()) == 6 * 4 * (32 + 32)
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad.abs().sum() > 0 for name, p in trainable.items() if "lora_B" in name)
    for param in trainable.values():
        torch.nn.init.normal_(param, std=0.1)
    moved = adapted(input_ids=ids, labels=ids).logits.detach()
    assert not torch.allclose(moved, expected, atol=1e-3)
    merged = method.merge(adapted)
    torch.testing.assert_close(merged(input_ids=ids, labels=ids).logits, moved)


def test_a_start_from_the_inputs_of_one_stack_is_refused():
    model = build.from_shapes(ENTRY, "sequence_to_sequence", 0, "meta")
    for init in ("eva", "corda_ipm", "corda_kpm"):
        method = StartedLora(rank=2, targets=("query",), init=init)
        reason = method.unsupported(model, build.names(ENTRY, "sequence_to_sequence"))
        assert reason == f"init {init} reads the inputs of one stack of layers; the model has two"


# Profiles -----------------------------------------------------------------------------------------


def cell_of(plan: Plan, measurement: str, method: str) -> Cell:
    return next(cell for cell in plan.cells(measurement) if cell.method == method)


def profile_request(plan: Plan, measurement: str, method: str) -> dict:
    """A request with 3 samples of 5 tokens."""
    request = plan.request(measurement, cell_of(plan, measurement, method))
    request["shapes"] |= {"batch_size": 3, "sequence_length_tokens": 5}
    return request


def test_flops_are_those_of_both_stacks(project):
    metrics = count.flops(profile_request(project[1], "flops", "full"))["metrics"]
    attention, gated = 4 * 32 * 32, 3 * 32 * 64
    weights = (attention + gated) + (2 * attention + gated) + 32 * 16  # encoder, decoder, head
    scores_and_values = 3 * 2 * 5 * 32  # three attentions, of 5 tokens a token
    forward = 2 * (3 * 5) * (weights + scores_and_values)
    assert metrics["forward_flops"] == metrics["fvcore_forward_flops"] == forward


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_the_predicted_peak_is_the_tracked_one(project, method):
    request = profile_request(project[1], "ledger", method)
    metrics = ledger.ledger({**request, "measured": True})["metrics"]
    assert metrics["tracked_peak_bytes"] == metrics["peak_bytes"]
    assert metrics["measured_peak_bytes"] == pytest.approx(metrics["peak_bytes"], rel=1e-3)
    state = memory(request)["metrics"]
    trainable = {"full": 25_568, "lora": 6 * 4 * (32 + 32)}[method]
    assert state["trainable_parameters"] == trainable


def test_speed_counts_the_tokens_of_both_stacks(project):
    request = profile_request(project[1], "flops", "full")
    request |= {"device": "cpu", "cpu_threads": 1, "batch_sizes": [2], "lengths_tokens": [5]}
    row = latency.forward(request, processes=1)["rows"][0]
    assert row["throughput_tokens_per_s"] == pytest.approx(10 * row["throughput_samples_per_s"])


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"classes": ["a", "b"]},
            "allowed: nothing: the labels of a sequence_to_sequence are texts",
        ),
        ({"label": ["copy", "text"]}, "allowed: one column"),
        ({"label": "text"}, "allowed: columns without the label"),
        (
            {"metric": "exact_match_fraction"},
            "a metric of sequence_to_sequence: perplexity, accuracy",
        ),
    ],
)
def test_mistakes_of_an_entry_are_one_sentence(tmp_path, project, change, sentence):
    entry = {**project[1].dataset_entry("copies"), **change}
    with pytest.raises(ConfigError, match=sentence):
        dataset_entries.check("mine", entry)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (3, "row 1: column 'copy' is 3 (int), allowed: a text"),
        (None, "row 1: column 'copy' is null, allowed: a text; correct the row, or remove it"),
        (" ", "row 1: column 'copy' is ' ', allowed: a text; correct the row, or remove it"),
    ],
)
def test_a_target_that_is_no_text_is_one_sentence(project, tmp_path, label, sentence):
    plan = project[1]
    for split in ("train", "test"):
        lines = [json.dumps(row) for row in [{"text": "a", "copy": label}, *rows("test", 30)]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    splits = {split: {"path": f"{split}.jsonl"} for split in ("train", "test")}
    files = {"folder": str(tmp_path), "format": "jsonl"}
    entry = {**plan.dataset_entry("copies"), "files": files, "splits": splits}
    found = datasets.problems(entry, "config/datasets.yaml: copies")
    assert len(found) == 1
    assert sentence in found[0]


def test_targets_that_the_tokenizer_does_not_know_are_refused(tmp_path, monkeypatch):
    write(tmp_path)
    for split in ("train", "test"):
        lines = [json.dumps({**row, "copy": f"{row['copy']} unheard"}) for row in rows(split, 100)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    plan = Plan(STUDY, tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare(plan, tmp_path)
    request = plan.request("train", plan.cells("train")[0])
    with pytest.raises(
        ValueError, match=r"does not know, allowed: at most 5\.0%.*knows these targets"
    ):
        load_data(request, build.tokenizer(tmp_path / "t5"), seed=0)


def test_a_decoder_without_a_first_token_is_refused(tmp_path):
    folder = save_model(tmp_path, decoder_start_token_id=None)
    with pytest.raises(
        ValueError, match=r"config\.json: decoder_start_token_id: got nothing, allowed"
    ):
        build.from_snapshot(folder, "sequence_to_sequence", 0)


def test_a_model_with_one_stack_is_refused_while_planning(project):
    study = {**STUDY, "train": [{**STUDY["train"][0], "models": ["tiny"]}], "profile": []}
    with pytest.raises(
        ConfigError, match="got 'sequence_to_sequence', allowed: tasks that tiny has"
    ):
        Plan(study, project[0])
