"""Which settings each profile depends on, and which profiles need a GPU. Standard library only."""

from collections.abc import Iterable

from rankwise.core import compare, store, tasks
from rankwise.core.config import ConfigError

# Measurement -> its folder of results. All others are profiles.
FOLDERS = {name: store.FOLDERS[name] for name in ("train", "trial")}
MEASUREMENTS = ("memory", "flops", "forward", "ledger", "fits", "throughput")
# The profile that predicts what a training job will need. Every training run has one, whether the
# study asks for it or not; schedulers are asked for that much memory and time.
PREDICT = "predict"
# The evaluation of a run's kept weights on a task of its own.
EVALUATE = "evaluate"
# Profiles that measure the machine, not the shapes: they run in the study's own environment.
TIMED = compare.TIMED
UPDATING = frozenset({"ledger", "fits", "throughput"})  # profiles of whole updates
WITH_TARGETS = ("ledger", "fits")  # profiles whose targets may be shorter or longer than texts
# The value of `sequence_length_tokens` that stands for the lengths of the dataset's own texts, and
# the profiles that can take them.
OWN_LENGTHS, WITH_OWN_LENGTHS = "dataset", ("ledger", "fits")
# Keys of a profile that decide the batches of a run.
ORDER = ("group_by_length", "seed", "epochs")
# Keys of a ledger's evaluation, which has none of them unless its grid has.
OF_EVALUATION = ("eval_batch_size", "generated_tokens", "prompt_length_tokens")
STEP = ("accumulation_steps", "checkpointing", "loss")  # how an update is made
# More of the same, which a request leaves out at these defaults.
STEP_DEFAULTS = {
    "precision": "fp32",
    "attention": "sdpa",
    "padded": False,
    "masks": "boolean",
    "keeps_outputs": False,
    "use_cache": False,
    "zeroes_gradients": False,
    "zero_grad": "after_update",
    "loss_input": "fp32",
    "empties_cache": False,
    "keeps_softmax_inputs": False,
    "keeps_quantized_inputs": False,
    "quantized_from": None,
    "modules": "transformers",
    "adapted_on_gpu": False,
    "keeps_unit_inputs": False,
    "gpu": "ampere",
}
# Of these, what a timed update has: it is one of our own loop.
TIMED_STEP = ("precision", "attention", "padded")


def settings(  # noqa: PLR0911 - one return a measurement
    measurement: str, grid: dict, study: dict, dataset: dict, tokens: int
) -> dict:
    """The settings that one profile depends on.

    A setting that a request leaves out cannot rerun the profile, so each profile gets its own and
    no others.

    Args:
        measurement: One of `MEASUREMENTS`, or `PREDICT`.
        grid: The grid that asks for the profile; for `PREDICT`, the grid with its training
            schedule.
        study: The checked study.
        dataset: The dataset's entry.
        tokens: Length of a text in this grid.

    Raises:
        ValueError: there is no such measurement.
    """
    if measurement == PREDICT:
        return {**_prediction(grid, study["device"]), "lengths": _order(grid)}
    # A mask of all pairs of tokens keeps the examples of a pack apart.
    packed = {"packed": True} if dataset.get("packing") else {}
    own = {}
    if reads_data(measurement, grid):
        own = {"lengths": {**_order(grid), "epochs": grid.get("epochs", 1)}}
    match measurement:
        case "memory":
            return _picked(grid, "measured")
        case "flops":
            samples = dataset.get("train_samples")
            return {**_picked(grid, "accumulation_steps", "loss"), "train_samples": samples}
        case "forward":
            return {
                **_picked(grid, "device"),
                "cpu_threads": study["cpu_threads"],
                "lengths_tokens": grid.get("lengths_tokens", [tokens]),
                "batch_sizes": grid.get("batch_sizes", [grid["batch_size"]]),
            }
        case "ledger":
            evaluated = _picked(grid, *(name for name in OF_EVALUATION if name in grid))
            picked = _picked(grid, "device", "measured")
            step = {**_step(grid), **packed}
            return {**picked, **step, **evaluated, **several_processes(grid), **own}
        case "fits":
            return {
                **_picked(grid, "device", "memory_gib"),
                **_step(grid),
                **packed,
                "lengths_tokens": grid.get("lengths_tokens", [tokens]),
                **own,
            }
        case "throughput":
            return {
                **_picked(grid, "device"),
                **_step(grid, TIMED_STEP),
                **packed,
                "cpu_threads": study["cpu_threads"],
            }
    raise ValueError(f"measurement: got {measurement!r}, allowed: {', '.join(MEASUREMENTS)}")


def _picked(grid: dict, *names: str) -> dict:
    return {name: grid[name] for name in names}


def _step(grid: dict, names: Iterable[str] = STEP_DEFAULTS) -> dict:
    """How an update is made: the keys of `STEP`, and those of `names` that are not the default."""
    changed = {
        name: grid[name]
        for name in names
        if grid.get(name, STEP_DEFAULTS[name]) != STEP_DEFAULTS[name]
    }
    return {**_picked(grid, *STEP), **changed}


def several_processes(grid: dict) -> dict:
    """The keys of several processes; none for one, so that its profiles do not depend on them."""
    return _picked(grid, "processes", "sharding") if grid.get("processes", 1) > 1 else {}


def reads_data(measurement: str, grid: dict) -> bool:
    """Whether a profile takes its lengths from the prepared dataset.

    Args:
        measurement: One of `MEASUREMENTS`, or `PREDICT`.
        grid: The grid that asks for the profile.
    """
    return measurement == PREDICT or grid.get("sequence_length_tokens") == OWN_LENGTHS


def _order(grid: dict) -> dict:
    """The settings that decide the batches of an epoch, apart from the batch size."""
    return {"seed": grid.get("seed", 0), "group_by_length": grid.get("group_by_length", False)}


def _prediction(schedule: dict, device: str) -> dict:
    """The settings of the prediction of a training run."""
    return {
        **_step(schedule),
        **_picked(schedule, "eval_batch_size", "epochs", "updates"),
        **several_processes(schedule),
        # Liger's kernels run on a GPU alone. Of its loss, ours in chunks is what shapes can tell.
        "loss": "full" if schedule["loss"] == "full" else "chunked",
        "device": device,
    }


def on_gpu(measurement: str, grid: dict) -> bool:
    """Whether a profile needs a GPU. A prediction of what a GPU would do needs none.

    Args:
        measurement: One of `MEASUREMENTS`, or `PREDICT`.
        grid: The grid that asks for the profile.
    """
    measured = measurement in TIMED or (measurement == "ledger" and grid["measured"])
    return measured and grid["device"] == "cuda"


def lengths(grid: dict, tokens: int) -> list[int]:
    """Every sequence length that the grid's measurements use, in tokens.

    Args:
        grid: The grid of a study.
        tokens: Length of a text in this grid; it comes first.
    """
    return [tokens, *grid.get("lengths_tokens", [])]


def check_own_lengths(grid: dict, model: str, entry: dict, where: tuple[str, str]) -> None:
    """Check that the lengths of a dataset's own texts can be had, and that their order is used.

    Args:
        grid: A grid of profiles.
        model: Name of the model, for the message.
        entry: Of the model.
        where: File and key of the grid.

    Raises:
        ConfigError: A measurement of the grid takes one length; the model has no weights, and so no
            tokenizer; or a key has no effect.
    """
    file, key = where
    if grid.get("sequence_length_tokens") != OWN_LENGTHS:
        for name in ORDER:
            if name in grid:
                allowed = f"nothing without sequence_length_tokens: {OWN_LENGTHS}"
                raise ConfigError(file, f"{key}.{name}", grid[name], allowed)
        return
    at = (file, f"{key}.sequence_length_tokens")
    others = [name for name in grid["measurements"] if name not in WITH_OWN_LENGTHS]
    if others:
        takers = " and ".join(WITH_OWN_LENGTHS)
        allowed = f"a number with {', '.join(others)}; or a grid with {takers} alone"
        raise ConfigError(*at, OWN_LENGTHS, allowed)
    if "weights" not in entry:
        allowed = f"a number with {model}, which has no weights and so no tokenizer"
        raise ConfigError(*at, OWN_LENGTHS, allowed)
    for name in ("lengths_tokens", "target_length_tokens", "generated_tokens"):
        if name in grid:
            allowed = f"nothing with sequence_length_tokens: {OWN_LENGTHS}; leave one of them out"
            raise ConfigError(file, f"{key}.{name}", grid[name], allowed)
    if grid["padded"]:
        allowed = f"false with sequence_length_tokens: {OWN_LENGTHS}, which tells which are padded"
        raise ConfigError(file, f"{key}.padded", True, allowed)


def check_target(grid: dict, task: str, where: tuple[str, str]) -> None:
    """Check that a length of targets is given only where it has an effect.

    Args:
        grid: A grid of profiles.
        task: The dataset's task.
        where: File and key of the grid.

    Raises:
        ConfigError: The targets of the task have no length of their own, or a measurement of the
            grid takes targets that are as long as their texts.
    """
    if "target_length_tokens" not in grid:
        return
    allowed = None
    others = [name for name in grid["measurements"] if name not in WITH_TARGETS]
    if tasks.facts(task).labels != tasks.TEXT:
        allowed = f"nothing with the task {task}, whose labels have no length of their own"
    elif others:
        allowed = f"nothing with {', '.join(others)}; a grid with {', '.join(WITH_TARGETS)} alone"
    if allowed:
        got = grid["target_length_tokens"]
        raise ConfigError(where[0], f"{where[1]}.target_length_tokens", got, allowed)


def check_lengths(grid: dict, model: str, positions: int, where: tuple[str, str]) -> None:
    """Check that the model has positions for the lengths that the grid itself names.

    Args:
        grid: The grid of a study.
        model: Name of the model, for the message.
        positions: How many tokens the model has positions for.
        where: File and key of the grid.

    Raises:
        ConfigError: a length is above `positions`.
    """
    file, key = where
    named = [("lengths_tokens", tokens) for tokens in grid.get("lengths_tokens", [])]
    if "target_length_tokens" in grid:
        named.append(("target_length_tokens", grid["target_length_tokens"]))
    for name, tokens in named:
        if tokens > positions:
            allowed = f"at most {positions}, the positions of {model}"
            raise ConfigError(file, f"{key}.{name}", tokens, allowed)
    prompt = grid.get("prompt_length_tokens", grid.get("sequence_length_tokens", 0))
    if "generated_tokens" in grid and prompt + grid["generated_tokens"] > positions:
        allowed = f"at most {positions - prompt}: {model} has {positions} positions for both"
        raise ConfigError(file, f"{key}.generated_tokens", grid["generated_tokens"], allowed)
