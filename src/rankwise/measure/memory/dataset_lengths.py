"""Predictions at a dataset's lengths: the batches of an epoch, each padded to its longest text.

A request with `lengths` names a prepared dataset and a prepared model, whose tokenizer decides the
lengths. Here it becomes requests with one length each.

The ledger is that of the batch of a run that needs most; the mean length and the 99th percentile
stand beside it. What a training run needs is that of a full batch with the longest text, which no
batch of any epoch and any random seed exceeds.

Where an update has several micro-batches, gradients are alive from the second one on. The first one
of an update therefore needs less than the same batch in a later place. Where batches are grouped by
length, an epoch begins with the longest text, so that is the first micro-batch of an update.

Imported by name, so that profiles with a length of their own depend on no data.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from rankwise.data import epoch_lengths
from rankwise.data.epoch_lengths import BatchShape, Lengths
from rankwise.data.prepared import Data, load_data, model_folder
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import track
from rankwise.models import build

OF_DATA = ("lengths", "dataset", "inputs")  # keys of a request that say which data to read


class Training(NamedTuple):
    """What is to be predicted of a training run.

    Attributes:
        worst: The request of a full batch with the longest text, or of another one where that is
            the first of its update.
        mean: The request of a batch of the mean length, for FLOPs.
        batches: How many batches an epoch has.
        columns: Lengths in tokens, by name.
    """

    worst: dict
    mean: dict
    batches: int
    columns: dict[str, int]


def training(request: dict) -> Training:
    """What a training run on a dataset needs, whatever its random seed.

    Args:
        request: Of a prediction.
    """
    data = _data(request)
    batches = list(itertools.chain(*_windows(request, data)))
    mean = epoch_lengths.mean(batches)
    worst = _needs_most(_of_any_seed(request, data), data)
    return Training(
        worst=_with_batch(*worst, data),
        mean=_with_batch(request, mean, data),
        batches=len(batches),
        columns={**_lengths("mean", mean), **_lengths("worst", worst.batch)},
    )


class Placed(NamedTuple):
    """A micro-batch with its place in an update.

    Attributes:
        request: With one micro-batch an update if this is the first one: no gradient is alive.
        batch: Its shape.
    """

    request: dict
    batch: BatchShape


def _first(request: dict) -> dict:
    """The request of an update's first micro-batch."""
    return {**request, "accumulation_steps": 1}


def _of_any_seed(request: dict, data: Data) -> list[Placed]:
    """The micro-batches of which one needs most, whatever the epoch and the random seed."""
    lengths = Lengths.of(data.train, request["shapes"]["task"])
    whole = _whole_batch_size(request)
    longest = lengths.largest(whole)
    is_first = request["lengths"]["group_by_length"] and request["accumulation_steps"] > 1
    if not is_first:
        return [Placed(request, longest)]
    # The longest text is in the first batch. In one pool so are those that follow it in length.
    examples = len(lengths.texts)
    longer = whole if examples <= epoch_lengths.pool_examples(whole) else 1
    if longer >= examples:
        return [Placed(_first(request), longest)]
    return [Placed(_first(request), longest), Placed(request, lengths.largest(whole, longer))]


def longest(request: dict) -> dict:
    """The request of a batch with the longest text, for a search among batch sizes."""
    data = _data(request)
    largest = Lengths.of(data.train, request["shapes"]["task"]).largest(len(data.train))
    settled = _with_batch(request, largest, data)
    return {**settled, "lengths_tokens": [largest.text_tokens]}


def ledger(request: dict, of_one_length: Callable[[dict], dict]) -> dict:
    """The ledger of the batch of an epoch that needs most, beside what others need.

    Args:
        request: A ledger's request with `lengths`.
        of_one_length: Makes the ledger of a request with one length.

    Returns:
        The ledger of the worst batch. For `mean`, `p99` and `worst` its metrics also have
        `{name}_batch_length_tokens`, `{name}_batch_peak_bytes` (on CUDA what the allocator
        reserves) and, where targets have a length, `{name}_batch_target_tokens`. Or a result with
        the reason why there is none.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    data = _data(request)
    windows = _windows(request, data)
    first = {window[0] for window in windows}
    later = {batch for window in windows for batch in window[1:]}
    worst = _worst(request, first, later, data)
    result = of_one_length(_with_batch(*worst, data))
    if "metrics" not in result:
        return result
    metrics = result["metrics"]
    columns = _lengths("worst", worst.batch)
    columns["worst_batch_peak_bytes"] = metrics.get("peak_reserved_bytes", metrics["peak_bytes"])
    batches = list(itertools.chain(*windows))
    p99 = epoch_lengths.percentile(batches)
    others = {
        "mean": Placed(request, epoch_lengths.mean(batches)),
        "p99": Placed(request if p99 in later else _first(request), p99),
    }
    for name, placed in others.items():
        columns |= _lengths(name, placed.batch)
        columns[f"{name}_batch_peak_bytes"] = _peak_bytes(_with_batch(*placed, data))
    return {**result, "metrics": {**metrics, **columns}}


def _worst(request: dict, first: set[BatchShape], later: set[BatchShape], data: Data) -> Placed:
    """The micro-batch that needs most.

    Args:
        request: A ledger's request with `lengths`.
        first: The shapes of the first micro-batches of updates.
        later: Of those that follow others.
        data: The encoded dataset.
    """
    largest = epoch_lengths.largest(later)
    candidates = [Placed(request, batch) for batch in largest]
    for batch in epoch_lengths.largest(first):
        if not any(batch.needs_at_most(other) for other in largest):
            candidates.append(Placed(_first(request), batch))
    return _needs_most(candidates, data)


def _needs_most(candidates: list[Placed], data: Data) -> Placed:
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda placed: _peak_bytes(_with_batch(*placed, data)))


def _peak_bytes(request: dict) -> int:
    """What the device needs for a step: on CUDA what the allocator reserves."""
    tracker, _ = track(request, "meta", evaluates=False)
    reserved = account.allocator_columns(tracker, request).get("peak_reserved_bytes")
    return account.peak_bytes(tracker) if reserved is None else reserved


def _lengths(name: str, batch: BatchShape) -> dict[str, int]:
    columns = {f"{name}_batch_length_tokens": batch.text_tokens}
    if batch.target_tokens:
        columns[f"{name}_batch_target_tokens"] = batch.target_tokens
    return columns


# The data -----------------------------------------------------------------------------------------


def _data(request: dict) -> Data:
    """The encoded dataset of a request.

    Raises:
        ValueError: The dataset or the model is not prepared, or was prepared for another request,
            or a file was changed since.
    """
    try:
        tokenizer = build.tokenizer(model_folder(request))
        return load_data(request, tokenizer, request["lengths"]["seed"])
    except FileNotFoundError as error:
        cell = request["cell"]
        raise ValueError(
            f"{error}; lengths are read from prepared data: those of a study that trains "
            f"{cell['model']} on {cell['dataset']}, or has a profile of both with "
            "sequence_length_tokens: dataset"
        ) from error


def _windows(request: dict, data: Data) -> list[list[BatchShape]]:
    """The micro-batches of each update of a run, of all processes together."""
    lengths = request["lengths"]
    drawn_by = {
        **lengths,
        "batch_size": _whole_batch_size(request),
        "accumulation_steps": request["accumulation_steps"],
    }
    task, epochs = request["shapes"]["task"], lengths.get("epochs", 1)
    return epoch_lengths.windows(data.train, task, drawn_by, lengths["seed"], epochs)


def _whole_batch_size(request: dict) -> int:
    """Samples of a full batch of all processes together."""
    return request["shapes"]["batch_size"] * request.get("processes", 1)


def _with_batch(request: dict, batch: BatchShape, data: Data) -> dict:
    """The request of steps on one batch, and of an evaluation on the largest evaluated batch."""
    shapes = {**request["shapes"], **_shape(batch)}
    shapes["batch_size"] = math.ceil(batch.rows / request.get("processes", 1))
    settled = {key: value for key, value in request.items() if key not in OF_DATA}
    is_packed = request["dataset"].get("packing", False)
    settled |= {"shapes": shapes, "padded": batch.has_padding or is_packed}
    if is_packed:
        settled["packed"] = True
    if "eval_batch_size" in request:
        settled["evaluation_shapes"] = _evaluated(request, data)
    return settled


def _evaluated(request: dict, data: Data) -> dict[str, int]:
    """The shape that no batch of an evaluation exceeds."""
    task, batch_size = request["shapes"]["task"], request["eval_batch_size"]
    splits = [
        Lengths.of(split, task).largest(batch_size) for split in (data.selection, data.report)
    ]
    return _shape(BatchShape(*map(max, *splits)))


def _shape(batch: BatchShape) -> dict[str, int]:
    shape = {"batch_size": batch.rows, "sequence_length_tokens": batch.text_tokens}
    if batch.target_tokens:
        shape["target_length_tokens"] = batch.target_tokens
    return shape
