"""Kept weights open in a process of their own, and give the scores that the run has stored."""

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import rankwise
from helpers import kept_runs
from helpers.stopping import interrupted
from rankwise.core import result, store
from rankwise.core.store_parts import StoreError
from rankwise.models.build import pad_token_id, tokenizer
from rankwise.study import biases
from rankwise.training import keeping, kept
from rankwise.training import run as training

# Methods whose adapters peft opens, one of each kind; those of `PEFT_TYPES` are types of the method
# `peft`. A head of its own trains beside each of them in the classifier.
PEFT = ("lora", "dora", "pissa", "olora", "hira", "shira", "ia3", "vera", "oft", "miss", "sparse_lora", "lora_corda", "lora_ga", "adalora", "prompt_tuning", "p_tuning", "prefix_tuning")  # fmt: skip
PEFT_TYPES = ("boft", "c3a", "delora", "fourierft", "gralora", "hra", "loha", "lokr", "osf", "randlora", "unilora", "waveft", "beft", "road")  # fmt: skip
OWN = ("head_only", "bitfit", "adapter_houlsby", "adapter_pfeiffer", "weight_reduction_residual", "weight_reduction_shrunk", "ln_tuning", "trainable_tokens")  # fmt: skip
MERGED = ("full", "head_only", "lora", "dora", "pissa", "hira", "shira", "ia3", "vera", "oft", "miss", "adalora", "weight_reduction", "qlora", "beft", "lokr")  # fmt: skip
UNSUPPORTED = {("tiny", "prefix_tuning"), ("stories260k", "bitfit")}
# Planning refuses it: a Llama's layers have no bias, so transformers would drop those that BEFT trains.
NOT_MERGED = frozenset({("stories260k", "beft")})
TOLERANCE = kept_runs.TOLERANCE


class Runs:
    """Runs that keep their weights, trained when they are asked for.

    Attributes:
        root: The folder of their store.
        plan: The study of all of them.
    """

    def __init__(self, root: Path, methods: tuple[str, ...], **study: object):
        self.root, self.plan = root, kept_runs.plan_of(root, list(methods), **study)
        self._files: dict[tuple[str, str], Path] = {}

    def file(self, model: str, method: str) -> Path:
        """The result of a run with rank 4 and seed 0."""
        if (model, method) not in self._files:
            cells = self.plan.cells("train")
            cell = next(one for one in cells if (one.model, one.method) == (model, method))
            self._files[model, method] = kept_runs.run(self.plan, self.root, cell)
        return self._files[model, method]

    def base(self, model: str) -> Path:
        return kept_runs.base_folder(self.plan, self.root, model)

    def case(self, model: str, method: str, kind: str, **batches: int) -> dict:
        """What `reload_kept.py` reads; `batches`: `batch_size` and `pad`."""
        file = self.root / f"{model}.json"
        if not file.is_file():
            cell = next(cell for cell in self.plan.cells("train") if cell.model == model)
            kept_runs.write_inputs(self.plan, self.root, cell, file)
        folder = self.file(model, method).parent / kind
        classes = 2 if model == "tiny" else 0
        rows = result.read_json(file)
        return {"folder": str(folder), "base": str(self.base(model)), "classes": classes, "rows": rows, **batches}  # fmt: skip


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("few"), ("frozen", "lora", "head_only"))


def losses_of(file: Path) -> list[float]:
    return result.read(file)["examples"]["loss_nats"]


def check(runs: Runs, methods: tuple[str, ...], kind: str) -> None:
    pairs = [
        (model, method)
        for model in kept_runs.MODELS
        for method in methods
        if (model, method) not in UNSUPPORTED
        and not (kind == "merged" and (model, method) in NOT_MERGED)
    ]
    found = kept_runs.reloaded([runs.case(*pair, kind) for pair in pairs])
    wrong = {}
    for pair, losses in zip(pairs, found, strict=True):
        expected = losses_of(runs.file(*pair))
        if losses != pytest.approx(expected, **TOLERANCE):
            wrong[pair] = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
    assert not wrong


# By peft and transformers ----------------------------------------------------------------------------


@pytest.mark.slow
def test_an_adapter_of_each_method_opens_in_peft(tmp_path: Path) -> None:
    check(Runs(tmp_path, PEFT + PEFT_TYPES), PEFT + PEFT_TYPES, "adapter")


@pytest.mark.slow
def test_a_merged_model_of_each_method_opens_in_transformers(tmp_path: Path) -> None:
    check(Runs(tmp_path, MERGED, left_out=NOT_MERGED, keep="merged"), MERGED, "merged")


@pytest.mark.slow
def test_lily_scores_as_it_did_in_the_same_batches(tmp_path: Path) -> None:
    """Its router averages over a batch, so other batches give other scores."""
    runs = Runs(tmp_path, ("lily",))
    size = kept_runs.SCHEDULE["eval_batch_size"]
    for model in kept_runs.MODELS:
        pad = pad_token_id(tokenizer(runs.base(model)))
        same = runs.case(model, "lily", "adapter", batch_size=size, pad=pad)
        other = runs.case(model, "lily", "adapter")
        losses, alone = kept_runs.reloaded([same, other])
        expected = losses_of(runs.file(model, "lily"))
        assert losses == pytest.approx(expected, **TOLERANCE)
        assert alone != pytest.approx(expected, **TOLERANCE)


def test_a_merged_model_that_transformers_would_not_read_whole_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where planning does not know the family: here it believes that a Llama's layers have biases."""
    monkeypatch.delitem(biases.UNBIASED, "llama")
    runs = Runs(tmp_path, ("beft",), keep="merged")
    monkeypatch.setattr(training, "Loop", None)
    with pytest.raises(ValueError, match=r"v_proj.bias, which transformers would not read"):
        runs.file("stories260k", "beft")


# By Rankwise -----------------------------------------------------------------------------------------


def scored(model: torch.nn.Module, case: dict) -> list[float]:
    from helpers.reload_kept import losses

    return losses(model, case)


@pytest.mark.parametrize("method", ["frozen", "lora", "head_only"])
@pytest.mark.parametrize("model", kept_runs.MODELS)
def test_the_loader_gives_the_model_of_a_run(model: str, method: str, few: Runs) -> None:
    file = few.file(model, method)
    found, tokenizer = kept.load(file, few.base(model))
    assert not found.training
    assert tokenizer("word1 word2")["input_ids"]
    losses = scored(found, few.case(model, method, "adapter"))
    assert losses == pytest.approx(losses_of(file), **TOLERANCE)


@pytest.mark.slow
def test_what_peft_cannot_hold_opens_by_load_trained(tmp_path: Path) -> None:
    runs = Runs(tmp_path, OWN)
    for model in kept_runs.MODELS:
        for method in OWN:
            if (model, method) in UNSUPPORTED:
                continue
            case = runs.case(model, method, "adapter")
            folder = Path(case["folder"])
            has_new_head = model == "tiny"  # which peft does not save beside norms and tokens
            by_peft = method in ("ln_tuning", "trainable_tokens") and not has_new_head
            expected_format = "peft" if by_peft else "parameters"
            assert result.read_json(folder / "rankwise.json")["format"] == expected_format
            found, _ = rankwise.load_trained(folder, case["base"])
            expected = losses_of(runs.file(model, method))
            losses = scored(found, case)
            assert losses == pytest.approx(expected, **TOLERANCE), (model, method)


def test_the_heads_file_holds_the_trained_parameters_alone(few: Runs) -> None:
    """Two matrices and two biases, of DistilBERT's head."""
    from safetensors.torch import load_file

    tensors = load_file(few.file("tiny", "head_only").parent / "adapter/trained.safetensors")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "pre_classifier.weight": (64, 64),
        "pre_classifier.bias": (64,),
        "classifier.weight": (2, 64),
        "classifier.bias": (2,),
    }


# Which state -----------------------------------------------------------------------------------------


def test_the_kept_state_is_the_one_of_the_metrics(tmp_path: Path) -> None:
    """The last update makes this training worse, so the best state and the last one differ."""
    runs = Runs(tmp_path, ("lora",))
    kept_losses = {}
    for select in ("best", "last"):
        schedule = {**kept_runs.SCHEDULE, "evaluate_every_updates": 1, "select": select}
        grid = {**runs.plan.study["train"][1], "override": {"lora": {"learning_rate": 1.0}}}
        study = {**runs.plan.study, "schedule": schedule, "train": [grid]}
        plan = kept_runs.planned(study, runs.plan.library, tmp_path)
        (cell,) = plan.cells("train")
        file = kept_runs.run(plan, tmp_path, cell)
        history = [row["selection_loss_nats"] for row in result.read(file)["history"]]
        assert min(history) < history[-1]
        model, _ = kept.load(file, runs.base("stories260k"))
        kept_losses[select] = scored(model, runs.case("stories260k", "lora", "adapter"))
        assert kept_losses[select] == pytest.approx(losses_of(file), **TOLERANCE)
    assert kept_losses["best"] != pytest.approx(kept_losses["last"], rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "head_only"])
def test_a_resumed_run_keeps_the_same_bytes(method: str, few: Runs, tmp_path: Path) -> None:
    """Stopped within an evaluation and after an update; by peft's files and by our own."""
    expected = result.read(few.file("tiny", method))["weights"]
    runs = Runs(tmp_path, (method,))
    with contextlib.chdir(tmp_path):
        file = interrupted(lambda: runs.file("tiny", method), [2, 3])
    assert result.read(file)["weights"] == expected  # the SHA-256 of each file among them


# What goes wrong -------------------------------------------------------------------------------------


def test_a_changed_file_is_refused(few: Runs) -> None:
    file = few.file("tiny", "lora")
    weights = file.parent / "adapter/adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    try:
        with pytest.raises(
            ValueError, match=r"adapter_model.safetensors: sha256 is .*; allowed: the file"
        ):
            kept.load(file, few.base("tiny"))
    finally:
        weights.write_bytes(content)


def test_a_run_that_kept_nothing_says_so(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    request = {"method": {"module": "full"}}
    result.write(file, request, {"metrics": {"trainable_parameters": 3}}, {})
    with pytest.raises(
        ValueError, match=r"train.json: keep: got none, allowed: adapter or merged; set"
    ):
        kept.load(file, tmp_path)


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    result.write(file, {}, {"status": "diverged", "reason": "nan"}, {})
    with pytest.raises(ValueError, match=r"status: got diverged, allowed: ok"):
        kept.load(file, tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"got a folder without rankwise.json, allowed: the folder"
    ):
        rankwise.load_trained(tmp_path, tmp_path)


def test_an_adapter_needs_its_base(few: Runs) -> None:
    with pytest.raises(ValueError, match=r"adapter: got no base, allowed: the model tiny"):
        rankwise.load_trained(few.file("tiny", "lora").parent / "adapter")


def full_disk(*_: object, **__: object) -> None:
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("failure", "error"), [(full_disk, StoreError), (killed, KeyboardInterrupt)]
)
def test_a_run_whose_weights_were_not_written_is_no_result(
    failure: Callable, error: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the checkpoint stays, so that the next job need not train again."""
    runs = Runs(tmp_path, ("lora",))
    monkeypatch.setattr(keeping, "save_file", failure)
    with pytest.raises(error) as raised:
        runs.file("tiny", "lora")
    if error is StoreError:
        assert "No space left on device; nothing was stored" in str(raised.value)
        assert raised.value.__cause__.errno == errno.ENOSPC
    assert not list((tmp_path / store.DEFAULT).rglob("train.json"))
    assert not list((tmp_path / store.DEFAULT / "runs").rglob("adapter*"))
