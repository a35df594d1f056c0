"""Resolve one method entry for one model and rank: defaults, references to the rank, limits."""

from pathlib import Path

from rankwise.core.config import ConfigError
from rankwise.study import claims
from rankwise.study.limits import FILE, check_granularity, check_rank
from rankwise.study.options import REQUIRED, Option, constant, defines, options

PACKAGE_DIR = Path(__file__).resolve().parents[1]
DENSE = ("fp32", "bf16")  # the others are rankwise.models.quantized


def module_options(folder: str, module: str, key: str) -> dict[str, Option]:
    """The options of methods/<module>.py or optim/<module>.py."""
    path = PACKAGE_DIR / folder / f"{module}.py"
    if not path.is_file():
        names = [file.stem for file in path.parent.glob("*.py") if file.stem != "__init__"]
        raise ConfigError(FILE, key, module, names)
    try:
        return options(path)
    except ValueError:
        raise ConfigError(FILE, key, module, "a module with settings of its own") from None


def observes(module: str) -> bool:
    """Whether the method of methods/<module>.py has quantities for the history."""
    return defines(PACKAGE_DIR / "methods" / f"{module}.py", "observe")


def _says(folder: str, module: str, name: str, default: object) -> object:
    """A constant of the class in methods/<module>.py or optim/<module>.py."""
    return constant(PACKAGE_DIR / folder / f"{module}.py", name, default)


def takes_rank(entry: dict, name: str) -> bool:
    """Whether the method or its optimizer has a rank that the entry leaves open; else it stands once in a grid, at rank 0."""
    method = module_options("methods", entry["module"], f"{name}.module")
    optimizer = module_options("optim", entry["optimizer"]["module"], f"{name}.optimizer.module")
    return any(
        "rank" in known and "rank" not in given
        for known, given in ((method, entry["options"]), (optimizer, entry["optimizer"]))
    )


def resolve_method(name: str, entry: dict, model: dict, rank: int, where: str) -> dict:
    """The entry with every option of its method and optimizer given, checked against their annotations.

    Option values `rank` and `hidden_size` stand for the cell's rank and the model's width; a rank in the entry is pinned.

    Raises:
        ConfigError: an option is unknown, missing or of the wrong type; a target is not in the model; rank or granularity
            does not fit its matrices; the method needs dense weights.
    """
    given = {key: value for key, value in entry["optimizer"].items() if key != "module"}
    method = _fill(f"{name}.options", "methods", entry["module"], entry["options"], model, rank)
    optimizer = _fill(
        f"{name}.optimizer", "optim", entry["optimizer"]["module"], given, model, rank
    )
    _check_targets(name, method, model)
    if entry["weights"] not in DENSE and not _says("methods", entry["module"], "QUANTIZED", False):
        raise ConfigError(
            FILE,
            f"{name}.weights",
            entry["weights"],
            f"{' or '.join(DENSE)} under {entry['module']}",
        )
    if entry["dense"] and "rank" not in optimizer:
        raise ConfigError(
            FILE,
            f"{name}.dense",
            entry["dense"],
            f"nothing: {entry['optimizer']['module']} projects no gradient",
        )
    check_granularity(name, optimizer, model)
    if not _says("methods", entry["module"], "PROMPT", False):
        check_rank(name, entry, method, optimizer, model, where)
    return {
        **entry,
        "options": method,
        "optimizer": {"module": entry["optimizer"]["module"], **optimizer},
    }


def check_length(name: str, method: dict, model: dict, tokens: int, where: tuple[str, str]) -> None:
    """Whether a text fits behind a method's virtual tokens.

    Raises:
        ConfigError: together they are more than the model's positions.
    """
    rank, positions = method["options"].get("rank", 0), model["max_positions_tokens"]
    if _says("methods", method["module"], "PROMPT", False) and not 1 <= rank <= positions - tokens:
        allowed = (
            f"1 to {positions - tokens} virtual tokens of {name} before {tokens} tokens of text"
        )
        raise ConfigError(where[0], f"{where[1]}.ranks", rank, allowed)


def check_release(name: str, optimizer: dict, schedule: dict, where: tuple[str, str]) -> None:
    """Whether a schedule can be had with gradients released: a step inside backward is taken once, and unclipped.

    Raises:
        ConfigError: the schedule accumulates or clips, and the optimizer steps inside backward.
    """
    if (
        not optimizer.get("release")
        or _says("optim", optimizer["module"], "RELEASE", "fused") == "gathered"
    ):
        return
    for key, needed in (("accumulation_steps", 1), ("max_gradient_norm", None)):
        if schedule[key] != needed:
            words = f"{'null' if needed is None else needed} with {name}, which steps inside backward (release)"
            raise ConfigError(where[0], f"{where[1]}.{key}", schedule[key], words)


def _fill(key: str, folder: str, module: str, given: dict, model: dict, rank: int) -> dict:
    known = module_options(folder, module, key)
    values = {"rank": rank, "hidden_size": model["hidden_size"]}
    for option in given:
        if option not in known:
            raise ConfigError(FILE, key, option, list(known) or "no options")
    filled = {}
    for option in known.values():
        value = given.get(option.name, rank if option.name == "rank" else option.default)
        if value is REQUIRED:
            raise ConfigError(FILE, f"{key}.{option.name}", "nothing", option.allowed)
        if "str" not in option.annotation and isinstance(value, str):
            value = values.get(value, value)
        if not option.accepts(value):
            raise ConfigError(FILE, f"{key}.{option.name}", value, option.allowed)
        filled[option.name] = value
    return filled


def _check_targets(name: str, method: dict, model: dict) -> None:
    for target in method.get("targets", ()):
        if target not in model["modules"]:
            raise ConfigError(FILE, f"{name}.options.targets", target, model["modules"])


def check_sources(library: dict[str, dict]) -> None:
    """Rules between keys and between entries, which a schema cannot say in one sentence.

    Raises:
        ConfigError: an entry has no or several sources, a source lacks its check, a dataset lacks its splits or
            classes, or a claim cannot be decided as it stands.
    """
    claims.check(library)
    for name, entry in library["datasets"].items():
        _one_of(entry, ("hub", "files", "generated"), "config/datasets.yaml", name)
        _check_dataset(name, entry)
    for name, entry in library["models"].items():
        if weights := entry.get("weights"):
            _one_of(weights, ("hub", "files", "pretrain"), "config/models.yaml", f"{name}.weights")
            for source, wanted in (("hub", "revision"), ("files", "sha256")):
                if source in weights and wanted not in weights:
                    raise ConfigError(
                        "config/models.yaml",
                        f"{name}.weights.{wanted}",
                        "nothing",
                        f"the {wanted} of {source}",
                    )


def _one_of(entry: dict, sources: tuple[str, ...], file: str, key: str) -> None:
    there = [source for source in sources if source in entry]
    if len(there) != 1:
        raise ConfigError(
            file, key, ", ".join(there) or "no source", f"exactly one of {', '.join(sources)}"
        )


def _check_dataset(name: str, entry: dict) -> None:
    file = "config/datasets.yaml"
    splits = entry["generated"]["rows"] if "generated" in entry else entry.get("splits", {})
    for key, split in (
        (f"{name}.report_split", entry["report_split"]),
        (f"{name}.splits", "train"),
    ):
        if split not in splits:
            raise ConfigError(file, key, split, ", ".join(splits) or "splits with a file each")
    for key in ("label", "classes") if entry["task"] == "classification" else ():
        if key not in entry:
            raise ConfigError(file, f"{name}.{key}", "nothing", f"the {key} of a classification")


def check_pair(
    library: dict[str, dict], model: str, dataset: str, tokens: int, where: tuple[str, str]
) -> None:
    """Whether a model can do a dataset's task at a length; `where` is the file and key of the grid.

    Raises:
        ConfigError: the model has no head for the task, or not so many positions.
    """
    entry, data = library["models"][model], library["datasets"][dataset]
    if data["task"] not in entry["head"]:
        raise ConfigError(
            *where, data["task"], f"tasks that {model} has a head for: {', '.join(entry['head'])}"
        )
    if tokens > entry["max_positions_tokens"]:
        given_here = tokens != data["max_length_tokens"]
        file, key = (
            (where[0], f"{where[1]}.sequence_length_tokens")
            if given_here
            else ("config/datasets.yaml", f"{dataset}.max_length_tokens")
        )
        raise ConfigError(
            file, key, tokens, f"at most {entry['max_positions_tokens']}, the positions of {model}"
        )
