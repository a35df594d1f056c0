"""Open the weights that a training run has kept, see `keeping.py`.

    model, tokenizer = rankwise.load_trained("results/.../adapter", "folder/of/the/base")

The model is in evaluation mode, with the weights that the run's metrics belong to.
"""

from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from rankwise.core import content, result, sound, tasks
from rankwise.core.store import Store
from rankwise.methods.parts.base import adapt, load_method
from rankwise.models import build, storage
from rankwise.training.keeping import (
    ADAPTER,
    MERGED,
    OWN_WEIGHTS,
    RECORD,
    copy_tokenizer,
)
from rankwise.training.merging import write_merged


def load(result_file: Path, base_folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The trained model of a run, from its result.

    A run that trained nothing gives the base, with the head that the run drew.

    Args:
        result_file: The run's train.json.
        base_folder: The prepared folder of its base model.

    Returns:
        The model in evaluation mode, on the CPU, and its tokenizer.

    Raises:
        ValueError: The run has no weights, or a file of them is not the one that it wrote.
    """
    run = result.read(result_file)
    if run["status"] != "ok":
        raise ValueError(
            f"{result_file}: status: got {run['status']}, allowed: ok, because a run that failed "
            "keeps no weights"
        )
    if "weights" in run:
        for name, expected in run["weights"]["files"].items():
            _check_file(result_file, name, expected)
        return load_trained(result_file.parent / run["weights"]["kind"], base_folder)
    if run["metrics"]["trainable_parameters"]:
        raise ValueError(
            f"{result_file}: keep: got none, allowed: adapter or merged; set `keep` in the grid of "
            "this run, and run snakemake again"
        )
    return _untrained(run["request"], base_folder)


def merge(result_file: Path, base_folder: Path, target: Path) -> None:
    """Write the merged model of a run that has kept an adapter.

    Args:
        result_file: The run's train.json.
        base_folder: The prepared folder of its base model.
        target: The folder to write.

    Raises:
        ValueError: The run has no weights, or its method does not merge.
    """
    model, _ = load(result_file, base_folder)
    record = result.read_json(result_file.parent / ADAPTER / RECORD)
    target.mkdir(parents=True)
    write_merged(load_method(record["method"]), model, target)
    copy_tokenizer(base_folder, target)
    result.write_json(target / RECORD, {**record, "format": MERGED})


def _check_file(result_file: Path, name: str, expected: str) -> None:
    """Check that a kept file is the one that the run wrote, or set the run aside.

    Args:
        result_file: The run's train.json.
        name: The file, relative to the result's folder.
        expected: Its SHA-256 in the run's result.

    Raises:
        ValueError: It is not there, or its content is another.
    """
    file = result_file.parent / name
    problem = content.difference(file, expected) if file.is_file() else "not there"
    if problem:
        remedy = sound.remedy(result_file, Store())
        raise ValueError(f"{file}: {problem}; allowed: the file that the run wrote; {remedy}")


def load_trained(
    folder: str | Path, base: str | Path | nn.Module | None = None
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Open a folder of kept weights: `adapter/`, `merged/`, or an export of one.

    Args:
        folder: The folder.
        base: The base model: its folder, with its tokenizer, or the model itself, in fp32, with the
            head of the run's task; it is used up. A merged model needs none.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        ValueError: The folder holds no kept weights, or an adapter is to be opened without a base.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise ValueError(
            f"{folder}: got a folder without {RECORD}, allowed: the folder adapter/ or merged/ of "
            "a run, or an export of it"
        )
    record = result.read_json(folder / RECORD)
    if record["format"] == MERGED:
        model = _merged(folder, record)
    elif base is None:
        raise ValueError(f"{folder}: got no base, allowed: the model {record['base']}")
    else:
        built = base if isinstance(base, nn.Module) else _base(Path(base), record)
        model = _adapted(folder, record, _stored(built, record))
    return model.eval(), build.tokenizer(folder)


def _merged(folder: Path, record: dict) -> nn.Module:
    auto_class = getattr(transformers, tasks.facts(record["task"]).auto_class)
    model = auto_class.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    if record["method"]["weights"] == "bf16":  # one in 4 or 8 bits was merged in fp32
        storage.store(model, "bf16", record["names"])
    return model


def _base(folder: Path, record: dict) -> nn.Module:
    return build.from_snapshot(
        folder, record["task"], record["classes"], record["names"]["new_head"]
    )


def _stored(base: nn.Module, record: dict) -> nn.Module:
    """The base in the storage of the run."""
    method, precision = record["method"], storage.DTYPES[record["precision"]]
    return storage.store(base, method["weights"], record["names"], precision, method.get("compute"))


def _adapted(folder: Path, record: dict, base: nn.Module) -> nn.Module:
    if record["format"] == "peft":
        model = PeftModel.from_pretrained(base, folder)
        load_method(record["method"]).opened(model, record["names"])
        return model
    method, model = adapt(record["method"], base, record["names"])
    tensors = load_file(folder / OWN_WEIGHTS)
    if _has_other_shapes(model, tensors):
        method.settle(model)  # parameters that were cut while they trained
    _, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected:
        raise ValueError(
            f"{folder / OWN_WEIGHTS}: got {unexpected[0]}, allowed: tensors of the adapted model; "
            "use the release of Rankwise that wrote the file"
        )
    return model


def _has_other_shapes(model: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return any(
        name in state and state[name].shape != value.shape for name, value in tensors.items()
    )


def _untrained(request: dict, base_folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model of a run in which nothing trained."""
    task = request["dataset"]["task"]
    record = {
        "task": task,
        "classes": len(request["dataset"].get("classes", [])),
        "method": request["method"],
        "names": build.names(request["model"], task),
        "precision": request["schedule"]["precision"],
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(request["cell"]["seed"])  # as the run did, so that a new head is its own
        base = _base(base_folder, record)
    _, model = adapt(request["method"], _stored(base, record), record["names"])
    return model.eval(), build.tokenizer(base_folder)
