"""Training runs that hold the gradient of every update against one full batch of the test's own.

Spawned processes import their work from here.
"""

import copy
import inspect
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

import rankwise.optim
from helpers.prepared import reset_accelerate
from rankwise.core.tracker import of_run
from rankwise.data.prepared import Data
from rankwise.methods.parts.base import Method
from rankwise.models.tasks import classification, language_modelling, masked_language_modelling
from rankwise.optim.parts.processes import process_count
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.loop import Loop
from rankwise.training.pretrain import word_tokenizer

# The last window of an epoch is smaller, and some splits end it with a micro-batch of one example.
# Where two processes share that, one of them has none.
EXAMPLES = 37
WORDS = ["the", "a", "film", "plot", "cast", "is", "was", "not", "very", "good", "bad", "fine"]
TASKS = {
    "classification": classification,
    "language_modelling": language_modelling,
    "masked_language_modelling": masked_language_modelling,
}
# transformers computes the loss of language models in fp32, whatever the model's dtype.
TOLERANCE = {"language_modelling": 3e-6}
# (batch_size, accumulation_steps) -> examples of the updates of an epoch
SPLITS = {
    (16, 1): [16, 16, 5],
    (8, 2): [16, 16, 5],
    (4, 4): [16, 16, 5],
    (2, 8): [16, 16, 5],
    (5, 3): [15, 15, 7],
    (3, 5): [15, 15, 7],
}
SEED = 3
UPDATES = 4  # the last one is in the second epoch


class Update(NamedTuple):
    """One update: what the optimizer got, and what the full batch gives."""

    got: list[Tensor]
    expected: list[Tensor]
    loss: float  # sum over predictions
    predictions: int
    examples: list[int]


class Recorded(NamedTuple):
    """A run."""

    updates: list[Update]
    processes: int
    result: dict


class Examples(list):
    """Encoded examples, which note the numbers of those that were read."""

    def __init__(self, examples: list[dict]):
        super().__init__(examples)
        self.read: list[int] = []

    def __getitem__(self, number: int) -> dict:
        self.read.append(number)
        return super().__getitem__(number)


def tokenizer() -> PreTrainedTokenizerBase:
    return word_tokenizer([" ".join(WORDS)])


def examples(task: str) -> list[dict]:
    """Texts of 3 to 12 words; for language modelling, blocks of 6 tokens."""
    length = 6 if task == "language_modelling" else 16
    return TASKS[task].encode(rows(), tokenizer(), {"max_length_tokens": length})[:EXAMPLES]


def scored_examples(task: str) -> list[dict]:
    """The same texts, as they are scored: for language modelling, windows of 6 tokens."""
    if task != "language_modelling":
        return examples(task)
    settings = {"max_length_tokens": 6}
    batches = language_modelling.encode_scored_batches([rows()], tokenizer(), settings)
    return [window for batch in batches for window in batch][:EXAMPLES]


def rows() -> list[dict]:
    """Texts of 3 to 12 words."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(EXAMPLES):
        length = int(torch.randint(3, 13, (), generator=generator))
        words = torch.randint(len(WORDS), (length,), generator=generator)
        found.append({"text": " ".join(WORDS[word] for word in words), "label": number % 2})
    return found


def model(task: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model of two matrices' width 16, without dropout."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    if task == "language_modelling":
        made = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2}
        cls = BertForSequenceClassification if task == "classification" else BertForMaskedLM
        made = cls(BertConfig(**sizes, **off, max_position_embeddings=16))
    return made.to(dtype)


def summed_loss(made: nn.Module, batch: dict[str, Tensor], task: str) -> tuple[Tensor, int]:
    """The summed loss of a batch and the number of its predictions, from the logits alone."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits, labels = made(**inputs).logits, batch["labels"]
    if task == "language_modelling":
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    elif task == "masked_language_modelling":
        is_predicted = labels != -100
        logits, labels = logits[is_predicted], labels[is_predicted]
    loss = -logits.log_softmax(-1)[torch.arange(len(labels)), labels].sum()
    return loss, len(labels)


def make_optimizer(name: str, made: nn.Module, **options: object) -> torch.optim.Optimizer:
    """The optimizer `name`, with a small rank and interval where it has them, on every parameter."""
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    common = {"rank": 2, "interval_steps": 2, "release": False}
    known = {key: value for key, value in common.items() if key in arguments}
    return cls(made.parameters(), 1e-3, **{**known, **options})


def record(
    task: str,
    split: tuple[int, int],
    name: str = "Sgd",
    dtype: torch.dtype = torch.float64,
    schedule: dict | None = None,
    **options: object,
) -> Recorded:
    """Train with a split of the effective batch, and compute every update's gradient anew.

    Args:
        task: One of TASKS.
        split: `batch_size` and `accumulation_steps`.
        name: The optimizer.
        dtype: Of the model.
        schedule: Changes of the schedule.
        **options: Of the optimizer.
    """
    made = model(task, dtype)
    train = examples(task)
    recording = Examples(train)
    whole_batch = TASKS[task].Collate(tokenizer(), SEED)  # masks a window in one call
    optimizer = make_optimizer(name, made, **options)
    updates: list[Update] = []
    processes = set()

    def compare(*_: object) -> None:
        processes.add(process_count())
        same = copy.deepcopy(made)
        numbers, recording.read = recording.read, []
        batch = whole_batch([train[number] for number in numbers])
        loss, predictions = summed_loss(same, batch, task)
        if getattr(optimizer, "released", False):
            twin = make_optimizer(name, same, **options)
            twin.load_state_dict(before["state"])
            (loss / max(predictions, 1)).backward()
            got, expected = optimizer.gradients(), twin.gradients()
        else:
            (loss / max(predictions, 1)).backward()
            got = [param.grad for param in made.parameters() if param.grad is not None]
            expected = [param.grad for param in same.parameters() if param.grad is not None]
        got = [grad.clone() for grad in got]
        updates.append(Update(got, expected, loss.item(), predictions, numbers))

    # The state of a released optimizer can be read between steps only.
    before = {"state": copy.deepcopy(optimizer.state_dict())}

    def keep_state(*_: object) -> None:
        before["state"] = copy.deepcopy(optimizer.state_dict())

    optimizer.register_step_pre_hook(compare)
    optimizer.register_step_post_hook(keep_state)
    result = train_model(made, optimizer, task, split, recording, **(schedule or {}))
    return Recorded(updates, processes.pop(), result)


def train_model(
    made: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: str,
    split: tuple[int, int],
    training_examples: list[dict],
    **changes: object,
) -> dict:
    """Train a model of `model` and return the run's result.

    Args:
        made: The model.
        optimizer: Over its parameters.
        task: One of TASKS.
        split: `batch_size` and `accumulation_steps`.
        training_examples: Those of `examples`.
        **changes: Of the schedule.
    """
    collate = TASKS[task].Collate(tokenizer(), SEED)
    scored = scored_examples(task)[:8]
    data = Data(TASKS[task], tokenizer(), collate, training_examples, scored, scored)
    schedule = {
        "batch_size": split[0],
        "accumulation_steps": split[1],
        "eval_batch_size": 8,
        "updates": UPDATES,
        "epochs": None,
        "evaluate_every_updates": UPDATES,
        "max_gradient_norm": None,
        "precision": "fp32",
        "scheduler": "constant",
        "warmup_fraction": 0.0,
        "select": "last",
        "sharding": "ddp",
        **changes,
    }
    reset_accelerate()
    name = type(optimizer).__name__
    with Checkpoint({"task": task, "split": list(split), "name": name}) as checkpoint:
        loop = Loop(made, Method(), data, schedule, "cpu", checkpoint, of_run("windows", {}))
        return loop.run(optimizer, SEED)
