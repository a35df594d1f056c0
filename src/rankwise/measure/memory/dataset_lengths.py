"""Predictions at a dataset's lengths: the batches of an epoch, each padded to its longest text.

A request with `lengths` names a prepared dataset and a prepared model, whose tokenizer decides the
lengths. Here it becomes requests with one length each.

The ledger is that of the batch of an epoch that needs most; the mean length and the 99th percentile
stand beside it. What a training run needs is that of a full batch with the longest text, which no
batch of any epoch and any random seed exceeds.

Where an update has several micro-batches, the worst one is taken to follow another, so that the
gradients of that one are alive.

Imported by name, so that profiles with a length of their own depend on no data.
"""

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
        worst: The request of a full batch with the longest text.
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
    batches = _epoch(request, data)
    whole = _whole_batch_size(request)
    longest = Lengths.of(data.train, request["shapes"]["task"]).largest(whole)
    mean = epoch_lengths.mean(batches)
    return Training(
        worst=_with_batch(request, longest, data),
        mean=_with_batch(request, mean, data),
        batches=len(batches),
        columns={**_lengths("mean", mean), **_lengths("worst", longest)},
    )


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
    batches = _epoch(request, data)
    worst = _worst(request, batches, data)
    result = of_one_length(_with_batch(request, worst, data))
    if "metrics" not in result:
        return result
    metrics = result["metrics"]
    columns = _lengths("worst", worst)
    columns["worst_batch_peak_bytes"] = metrics.get("peak_reserved_bytes", metrics["peak_bytes"])
    others = {"mean": epoch_lengths.mean(batches), "p99": epoch_lengths.percentile(batches)}
    for name, batch in others.items():
        columns |= _lengths(name, batch)
        columns[f"{name}_batch_peak_bytes"] = _peak_bytes(_with_batch(request, batch, data))
    return {**result, "metrics": {**metrics, **columns}}


def _worst(request: dict, batches: list[BatchShape], data: Data) -> BatchShape:
    """The batch of an epoch that needs most."""
    candidates = epoch_lengths.largest(batches)
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda batch: _peak_bytes(_with_batch(request, batch, data)))


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


def _epoch(request: dict, data: Data) -> list[BatchShape]:
    """The batches of an epoch, of all processes together."""
    lengths = request["lengths"]
    drawn_by = {**lengths, "batch_size": _whole_batch_size(request)}
    task = request["shapes"]["task"]
    return epoch_lengths.epoch(data.train, task, drawn_by, lengths["seed"])


def _whole_batch_size(request: dict) -> int:
    """Samples of a full batch of all processes together."""
    return request["shapes"]["batch_size"] * request.get("processes", 1)


def _with_batch(request: dict, batch: BatchShape, data: Data) -> dict:
    """The request of steps on one batch, and of an evaluation on the largest evaluated batch."""
    shapes = {**request["shapes"], **_shape(batch)}
    shapes["batch_size"] = math.ceil(batch.rows / request.get("processes", 1))
    settled = {key: value for key, value in request.items() if key not in OF_DATA}
    is_packed = request["dataset"].get("packing", False)  # a mask keeps the texts of a pack apart
    settled |= {"shapes": shapes, "padded": batch.has_padding or is_packed}
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
