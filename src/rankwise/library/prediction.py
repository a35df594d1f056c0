"""The memory of a training step, predicted from shapes, as a value to look at in Python.

    import rankwise
    ledger = rankwise.predict("distilbert", "lora", rank=8, batch_size=32)
    print(ledger)

It is the ledger that a study's profile has (measure/memory/ledger.py): same request, same code.
"""

from dataclasses import dataclass, field
from pathlib import Path

from rankwise.core.config import library, pick, usual_dataset
from rankwise.core.errors import Unsupported
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.memory.phases import STEPS
from rankwise.measure.memory.tracker import KINDS
from rankwise.study.plan import Plan

CALLER = "rankwise.predict"  # how messages call the place of a wrong value
BYTES_PER_MIB = 2**20
# On CUDA: what the caching allocator takes beside the live storages.
OF_THE_ALLOCATOR = ("cublas_workspace", "rounding", "slack")


@dataclass(frozen=True)
class Ledger:
    """The predicted memory of one training step.

    Attributes:
        model: The entry of the model.
        method: The entry of the method.
        rank: As given; the entry may fix another, or have none.
        task: What the model is trained for. Its head and its labels belong to the peak.
        device: `cuda` or `cpu`: whose kernels and allocator are predicted.
        batch_size: Samples of the micro-batch.
        sequence_length_tokens: Tokens of each sample.
        peak_phase: The phase with the highest peak: forward, backward or update, of the first step
            (`first_forward`) or of a later one.
        peak_bytes: What the device needs at the peak: on CUDA what the caching allocator reserves,
            on a CPU the live storages. The CUDA context is not included.
        parts: Bytes by kind at the peak; they add up to `peak_bytes`.
        phases: Peak of each phase, in bytes of live storages.
        timeline: Live bytes by kind through the step, one row a moment.
        state: Bytes of the optimizer's state, one row a tensor's name and dtype.
    """

    model: str
    method: str
    rank: int
    task: str
    device: str
    batch_size: int
    sequence_length_tokens: int
    peak_phase: str
    peak_bytes: int
    parts: dict[str, int]
    phases: dict[str, int]
    timeline: list[dict] = field(repr=False)
    state: list[dict] = field(repr=False)

    def __str__(self) -> str:
        rows = [(name, self.parts[name]) for name in self.parts if self.parts[name]]
        lines = [
            f"{self.method} r{self.rank} on {self.model}, {self.task}, {self.batch_size} x "
            f"{self.sequence_length_tokens} tokens, {self.device}: peak in {self.peak_phase}"
        ]
        for name, size in [*rows, ("peak", self.peak_bytes)]:
            lines.append(f"{name.replace('_', ' '):<20}{size / BYTES_PER_MIB:>12,.2f} MiB")
        return "\n".join(lines)


def predict(
    model: str,
    method: str,
    *,
    rank: int = 8,
    dataset: str | None = None,
    batch_size: int = 8,
    length: int | str | None = None,
    device: str = "cuda",
    checkpointing: bool = False,
    loss: str = "full",
    accumulation_steps: int = 1,
    precision: str = "fp32",
    attention: str = "sdpa",
    padded: bool = False,
    override: dict | None = None,
) -> Ledger:
    """Predict the memory of a training step from shapes: no GPU, no weights, no download.

    Args:
        model: Name of an entry of models, of Rankwise or of the project in the current folder.
        method: Name of an entry of methods.
        rank: Where the entry leaves it open.
        dataset: Name of an entry of datasets, for its task and number of classes. If None, the
            first one that fits the model: of language modelling for a causal language model, of
            classification for an encoder.
        batch_size: Samples of the micro-batch.
        length: Tokens of each sample; the dataset's `max_length_tokens` if None. `dataset` takes
            the batch of an epoch that needs most, from the data that a study in the current folder
            has prepared.
        device: `cuda` or `cpu`.
        checkpointing: Recompute activations in backward.
        loss: `full`, or `chunked`: the cross-entropy without the logits of all tokens.
        accumulation_steps: Micro-batches in an update, whose gradients are summed up.
        precision: `fp32`, or `bf16` or `fp16` for products by autocast.
        attention: `sdpa`, `eager` or `flash`.
        padded: Whether batches have a padding mask.
        override: Changes of the method's entry, as in a study: `{"weights": "bf16"}`.

    Raises:
        ConfigError: A name or a value is wrong; the message says what is allowed.
        Unsupported: The method cannot train this model; the message is the reason.
        ValueError: With `length="dataset"`: the dataset or the model is not prepared.

    Example:
        >>> ledger = predict("distilbert", "lora", rank=8, batch_size=32)
        >>> ledger.parts["optimizer_state"]
        5916688
    """
    request = _request(model, method, rank, dataset, {
        "batch_size": batch_size,
        "device": device,
        "checkpointing": checkpointing,
        "loss": loss,
        "accumulation_steps": accumulation_steps,
        "precision": precision,
        "attention": attention,
        "padded": padded,
        **({"sequence_length_tokens": length} if length else {}),
        **({"override": {method: override}} if override else {}),
    })  # fmt: skip
    result = ledger(request)
    if "reason" in result:
        raise Unsupported(result["reason"])
    return _ledger(request, result)


def _request(model: str, method: str, rank: int, dataset: str | None, settings: dict) -> dict:
    """The request of the same profile in a study."""
    entries = library(Path.cwd())
    pick(entries["models"], model, CALLER, "model")
    pick(entries["methods"], method, CALLER, "method")
    if dataset is None:
        dataset = usual_dataset(entries, model)
    pick(entries["datasets"], dataset, CALLER, "dataset")
    grid = {
        "models": [model],
        "datasets": [dataset],
        "methods": [method],
        "ranks": [rank],
        "measurements": ["ledger"],
        "measured": False,
        **settings,
    }
    study = {"name": "predict", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, Path.cwd(), CALLER)
    (cell,) = plan.cells("ledger")
    return plan.request("ledger", cell)


def _ledger(request: dict, result: dict) -> Ledger:
    metrics, cell = result["metrics"], request["cell"]
    parts = {kind: metrics[f"{kind}_bytes"] for kind in KINDS}
    for name in OF_THE_ALLOCATOR:
        if f"{name}_bytes" in metrics:
            parts[name] = metrics[f"{name}_bytes"]
    return Ledger(
        model=cell["model"],
        method=cell["method"],
        rank=cell["rank"],
        task=request["shapes"]["task"],
        device=request["device"],
        batch_size=metrics["batch_size"],
        sequence_length_tokens=metrics["sequence_length_tokens"],
        peak_phase=metrics["peak_phase"],
        peak_bytes=metrics.get("peak_reserved_bytes", metrics["peak_bytes"]),
        parts=parts,
        phases={
            phase: metrics[f"{phase}_peak_bytes"]
            for phase in STEPS
            if f"{phase}_peak_bytes" in metrics
        },
        timeline=result["timeline"],
        state=result["state"],
    )
