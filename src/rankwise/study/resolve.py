"""Resolve a method's entry for one model and rank: fill in defaults, and check every value.

The module also has the rules between keys, and between the entries of methods, models and datasets,
that a schema cannot express.
"""

from pathlib import Path

from rankwise.core import plugins, tasks
from rankwise.core.config import ConfigError
from rankwise.core.dataset_defaults import LENGTH_TOKENS
from rankwise.core.paths import PACKAGE, module_file, own_folder
from rankwise.core.targets import ALL, ALL_LINEAR
from rankwise.study import claims, dataset_entries, peft_settings
from rankwise.study.class_kinds import check_kind, check_reference
from rankwise.study.class_source import main_class
from rankwise.study.dataset_formats import check_format
from rankwise.study.limits import check_active_layers, check_granularity, check_rank
from rankwise.study.memory_options import check_dtypes, check_kernel, check_loss
from rankwise.study.options import REQUIRED, Option, constant, defines, options, takes_argument
from rankwise.study.origin import FILE, Origin, entry_origin

PACKAGE_DIR = PACKAGE  # the name that callers of this module use
# Roles of a matrix that holds several others, stacked -> the roles of these.
FUSED = {"attention": ("query", "key", "value"), "gate_up": ("gate", "up")}
DENSE = ("fp32", "bf16")  # every other kind of storage is in rankwise.models.quantized
MODELS, DATASETS = "config/models.yaml", "config/datasets.yaml"


# Modules ------------------------------------------------------------------------------------------


def module_options(folder: str, module: str, key: str, file: str = FILE) -> dict[str, Option]:
    """The options of methods/<module>.py or optim/<module>.py, or of a package's class.

    Args:
        folder: methods or optim.
        module: the name of a file, packaged or the user's own, without `.py`; or
            `package.module:Class` of an installed package.
        key: where the module is named in the file, for messages.
        file: config/methods.yaml, or the study that overrides it.

    Raises:
        ConfigError: there is no such file or class, it cannot be read, or it is no method or
            optimizer.
    """
    if plugins.is_reference(module):
        check_reference(module, key, file)
    elif module not in module_names(folder):
        raise ConfigError(file, key, module, module_names(folder))
    name = plugins.source_name(folder, module)
    check_kind(folder, name)
    return options(name)


def module_names(folder: str) -> list[str]:
    """The names of all files in methods/ or optim/, packaged and the user's own, sorted."""
    names = set()
    for place in (PACKAGE / folder, own_folder(folder)):
        names |= {file.stem for file in place.glob("*.py") if file.stem != "__init__"}
    return sorted(names)


def has_module(folder: str, module: str) -> bool:
    """Whether there may be such a method or optimizer: a file, or a class of a package."""
    return plugins.is_reference(module) or module in module_names(folder)


def module_path(folder: str, module: str) -> Path:
    """The file in which the class of a method or optimizer stands.

    Args:
        folder: methods or optim.
        module: as an entry has it.

    Raises:
        ConfigError: the class cannot be read, or Rankwise and the user's own folder both have it.
    """
    return module_file(main_class(plugins.source_name(folder, module)).module)


def observes(module: str) -> bool:
    """Whether a method reports quantities for the history."""
    return defines(plugins.source_name("methods", module), "observe")


def _method_constant(module: str, name: str) -> bool:
    """A constant of a method's class (QUANTIZED, PROMPT); false if it has none."""
    return bool(constant(plugins.source_name("methods", module), name, False))


def takes_rank(entry: dict, name: str) -> bool:
    """Whether the method or its optimizer has a rank that the entry does not fix.

    A method without such a rank stands once in a grid, at rank 0.

    Args:
        entry: the entry, with defaults of the schema.
        name: the entry's name in config/methods.yaml.

    Raises:
        ConfigError: there is no such method or optimizer, or its class cannot be read.
    """
    method = module_options("methods", entry["module"], f"{name}.module")
    optimizer = module_options("optim", entry["optimizer"]["module"], f"{name}.optimizer.module")
    in_method = "rank" in method and "rank" not in entry["options"]
    in_optimizer = "rank" in optimizer and "rank" not in entry["optimizer"]
    return in_method or in_optimizer


# A method's entry ---------------------------------------------------------------------------------


def resolve_method(
    name: str, entry: dict, model: dict, rank: int, where: str, origin: Origin | None = None
) -> dict:
    """The entry with every option of its method and optimizer filled in and checked.

    Option values `rank` and `hidden_size` stand for the cell's rank and the model's width, and
    `targets: all` for every role of the model, in the order of its entry. `targets: all-linear`
    stands for every linear layer, which the job looks for. A rank in the entry is kept whatever the
    cell's rank is.

    Args:
        name: the entry's name in config/methods.yaml.
        entry: the entry, with defaults of the schema.
        model: the entry of the model.
        rank: the cell's rank.
        where: `file: key` of the grid's ranks, for messages.
        origin: where the values of the entry come from, for messages; config/methods.yaml if not
            given.

    Raises:
        ConfigError: an option is unknown, missing or of the wrong type; a target is not in the
            model; rank or granularity does not fit its matrices; the method needs dense weights.
    """
    origin = origin or entry_origin(name, entry)
    module, optimizer_module = entry["module"], entry["optimizer"]["module"]
    optimizer_options = {key: value for key, value in entry["optimizer"].items() if key != "module"}
    known = module_options("methods", module, f"{name}.module")
    method = _fill("options", known, entry["options"], model, rank, origin)
    file, key = origin.place("optimizer", "module")
    known = module_options("optim", optimizer_module, key, file)
    _check_left_over(known, optimizer_module, optimizer_options, origin)
    optimizer = _fill("optimizer", known, optimizer_options, model, rank, origin)
    if module == peft_settings.MODULE:
        peft_settings.check(method, entry["weights"] not in DENSE, origin)
    _check_targets(method, model, origin)
    _check_storage(entry, optimizer, origin)
    check_dtypes(entry, DENSE, origin)
    check_kernel(optimizer, origin)
    _check_pairs(entry, origin)
    check_granularity(origin, optimizer, model)
    check_active_layers(origin, optimizer, model)
    if not _method_constant(module, "PROMPT"):
        check_rank(name, origin, method, optimizer, model, where)
    return {**entry, "options": method, "optimizer": {"module": optimizer_module, **optimizer}}


def _check_targets(method: dict, model: dict, origin: Origin) -> None:
    """Check that the model has every target of a method; name the fused matrix that holds one."""
    roles = model["modules"]
    targets = method.get("targets") or ()
    if list(targets) == [ALL_LINEAR]:
        return
    for target in targets:
        if target in roles:
            continue
        place = origin.place("options", "targets")
        for fused, held in FUSED.items():
            if fused in roles and target in held:
                hint = f"nearest: {fused!r}, one matrix that holds {', '.join(held)}"
                allowed = f"{ALL}, {ALL_LINEAR}, or {', '.join(sorted(roles))} ({hint})"
                raise ConfigError(*place, target, allowed)
        if target == ALL_LINEAR:
            allowed = f"roles alone, or {ALL_LINEAR} alone, without brackets"
            raise ConfigError(*place, ", ".join(targets), allowed)
        raise ConfigError(*place, target, roles)


def _check_left_over(known: dict[str, Option], module: str, given: dict, origin: Origin) -> None:
    """Check that an override that changes the optimizer leaves no option of the former one."""
    for name in given:
        if name not in known and origin.is_newer(("optimizer", "module"), ("optimizer", name)):
            place = ": ".join(origin.place("optimizer", name))
            allowed = f"an optimizer with the option {name!r}, which {place} sets"
            raise ConfigError(*origin.place("optimizer", "module"), module, allowed)


def _fill(
    part: str, known: dict[str, Option], given: dict, model: dict, rank: int, origin: Origin
) -> dict:
    """Every option of a module: the value given in the entry, or the default.

    Args:
        part: options (of the method) or optimizer.
        known: the module's options.
        given: the part of the entry.
        model: the model's entry.
        rank: the cell's rank.
        origin: where the values of the entry come from.
    """
    for name in given:
        if name not in known:
            file, key = origin.place(part, name)
            raise ConfigError(file, key.removesuffix(f".{name}"), name, list(known) or "no options")
    references = {"rank": rank, "hidden_size": model["hidden_size"]}
    filled = {}
    for name, option in known.items():
        default = rank if name == "rank" else option.default
        value = given.get(name, default)
        if name == "targets" and not model["modules"]:
            _refuse_roles(value, origin)
        if name == "targets" and value in (ALL, ALL_LINEAR):
            value = list(model["modules"]) if value == ALL else [ALL_LINEAR]
        if value is REQUIRED:
            file, key = origin.of_part(part)
            raise ConfigError(file, f"{key}.{name}", "nothing", option.allowed)
        is_reference = isinstance(value, str) and not option.takes_text and value in references
        if is_reference:
            value = references[value]
        if not option.accepts(value):
            raise ConfigError(*origin.place(part, name), value, option.allowed)
        # A rank of the cell that is wrong is told with the grid's ranks (`check_rank`).
        if not is_reference and (allowed := option.violated(value)):
            raise ConfigError(*origin.place(part, name), value, allowed)
        filled[name] = option.converted(value)
    return filled


def _refuse_roles(value: object, origin: Origin) -> None:
    """Refuse targets by role, or all of them, in a model whose entry names none."""
    roles = [value] if isinstance(value, str) else value
    if not isinstance(roles, list | tuple) or not roles or list(roles) == [ALL_LINEAR]:
        return
    allowed = (
        f"{ALL_LINEAR}, since the model's entry names no module; `rankwise add model` lists "
        f"the matrices of a model, and modules.ROLE.name in {MODELS} names one"
    )
    got = ", ".join(map(str, roles))
    raise ConfigError(*origin.place("options", "targets"), got, allowed)


def _check_storage(entry: dict, optimizer: dict, origin: Origin) -> None:
    """Check that the method works on such a base, and that `dense` exempts from a projection."""
    module, stored = entry["module"], entry["weights"]
    if stored not in DENSE and not _method_constant(module, "QUANTIZED"):
        allowed = f"{' or '.join(DENSE)} under {module}"
        raise ConfigError(*origin.place("weights"), stored, allowed)
    start = entry["options"].get("init")
    quantized_only = constant(plugins.source_name("methods", module), "QUANTIZED_ONLY", ())
    if stored in DENSE and start in quantized_only:
        allowed = f"nf4, nf4_double or int8 under {module} with init {start}"
        raise ConfigError(*origin.place("weights"), stored, allowed)
    if entry["dense"] and "rank" not in optimizer and not _treats_matrices_apart(entry):
        optimizer_module = entry["optimizer"]["module"]
        if origin.is_newer(("optimizer", "module"), ("dense",)):
            place = ": ".join(origin.place("dense"))
            allowed = f"an optimizer that projects gradients, since {place} is {entry['dense']}"
            raise ConfigError(*origin.place("optimizer", "module"), optimizer_module, allowed)
        allowed = f"nothing: {optimizer_module} projects no gradient"
        raise ConfigError(*origin.place("dense"), entry["dense"], allowed)


def _check_pairs(entry: dict, origin: Origin) -> None:
    """Check that a method has LoRA's pairs, if the optimizer steps these."""
    module = entry["optimizer"]["module"]
    if not takes_argument(plugins.source_name("optim", module), "pairs"):
        return
    if not defines(plugins.source_name("methods", entry["module"]), "factors"):
        with_factors = []
        for name in module_names("methods"):
            if defines(f"rankwise.methods.{name}", "factors"):
                with_factors.append(name)
        allowed = (
            f"an optimizer that does not step LoRA's pairs of factors, or one of the methods "
            f"{', '.join(with_factors)}, since the method {entry['module']} has none"
        )
        raise ConfigError(*origin.place("optimizer", "module"), module, allowed)


def _treats_matrices_apart(entry: dict) -> bool:
    """Whether the optimizer steps matrices unlike other parameters, although it has no rank."""
    source = plugins.source_name("optim", entry["optimizer"]["module"])
    return constant(source, "MATRICES_APART", False)


def check_length(name: str, method: dict, model: dict, tokens: int, where: tuple[str, str]) -> None:
    """Whether a text fits behind a method's virtual tokens.

    Args:
        name: the entry's name.
        method: the resolved entry.
        model: the model's entry.
        tokens: the longest text of the grid.
        where: file and key of the grid, for messages.

    Raises:
        ConfigError: virtual tokens and text are more than the model's positions.
    """
    if not _method_constant(method["module"], "PROMPT"):
        return
    rank, room = method["options"].get("rank", 0), model["max_positions_tokens"] - tokens
    if not 1 <= rank <= room:
        allowed = f"1 to {room} virtual tokens of {name} before {tokens} tokens of text"
        raise ConfigError(where[0], f"{where[1]}.ranks", rank, allowed)


def check_release(name: str, optimizer: dict, schedule: dict, where: tuple[str, str]) -> None:
    """Check that a schedule is possible with gradients released, or without any.

    A step inside backward is taken once, and its gradients are not clipped. An optimizer that
    computes no gradient has none to clip.

    Args:
        name: the entry's name in config/methods.yaml.
        optimizer: the resolved options of the optimizer, with its module.
        schedule: with `accumulation_steps` and `max_gradient_norm`.
        where: file and key of the schedule, for messages.

    Raises:
        ConfigError: the schedule accumulates or clips gradients, and the optimizer steps inside
            backward; or it clips gradients, and there are none.
    """
    source = plugins.source_name("optim", optimizer["module"])
    if constant(source, "FORWARD_ONLY", False):
        if schedule["max_gradient_norm"] is not None:
            key = f"{where[1]}.max_gradient_norm"
            allowed = f"null with {name}, which computes no gradient"
            raise ConfigError(where[0], key, schedule["max_gradient_norm"], allowed)
        return
    if not optimizer.get("release"):
        return
    if constant(source, "RELEASE", "fused") == "gathered":
        return  # projections are accumulated and clipped, so nothing is lost
    inside = f"with {name}, which steps inside backward (release)"
    if schedule["accumulation_steps"] != 1:
        key = f"{where[1]}.accumulation_steps"
        raise ConfigError(where[0], key, schedule["accumulation_steps"], f"1 {inside}")
    if schedule["max_gradient_norm"] is not None:
        key = f"{where[1]}.max_gradient_norm"
        raise ConfigError(where[0], key, schedule["max_gradient_norm"], f"null {inside}")


# Models and datasets ------------------------------------------------------------------------------


def check_sources(library: dict[str, dict]) -> None:
    """Check the rules between keys and between entries that a schema cannot say in one sentence.

    Raises:
        ConfigError: an entry has no or several sources, a source lacks its check, a dataset lacks
            its splits or classes, two roles have one module, or a claim cannot
            be decided as it stands.
    """
    claims.check(library)
    for name, entry in library["datasets"].items():
        _check_one_source(entry, ("hub", "files", "generated"), DATASETS, name)
        dataset_entries.check(name, entry)
        check_format(name, entry)
    for name, entry in library["models"].items():
        _check_roles(name, entry["modules"])
        if weights := entry.get("weights"):
            _check_weights(f"{name}.weights", weights)
            _check_pretraining_loss(library["datasets"], name, entry)


def _check_roles(name: str, modules: dict[str, dict]) -> None:
    """A module has one role. Of two roles with one module, methods would find the last one only."""
    role_by_module: dict[str, str] = {}
    for role, module in modules.items():
        first = role_by_module.setdefault(module["name"], role)
        if first != role:
            allowed = f"a module that has no role yet; this one is {first}"
            raise ConfigError(MODELS, f"{name}.modules.{role}.name", module["name"], allowed)


def _check_weights(key: str, weights: dict) -> None:
    _check_one_source(weights, ("hub", "files", "pretrain"), MODELS, key)
    schedule = weights.get("pretrain", {}).get("schedule", {})
    if schedule.get("processes", 1) != 1:
        where = f"{key}.pretrain.schedule.processes"
        raise ConfigError(MODELS, where, schedule["processes"], "1: one process pre-trains")
    if schedule.get("attention") == "flash":
        where = f"{key}.pretrain.schedule.attention"
        raise ConfigError(MODELS, where, "flash", "sdpa or eager: pre-training runs on the CPU")
    for source, proof in (("hub", "revision"), ("files", "sha256")):
        if source in weights and proof not in weights:
            raise ConfigError(MODELS, f"{key}.{proof}", "nothing", f"the {proof} of {source}")


def _check_pretraining_loss(datasets: dict[str, dict], name: str, entry: dict) -> None:
    pretrain = entry["weights"].get("pretrain", {})
    corpus = datasets.get(pretrain.get("dataset"))
    if corpus is not None:  # an unknown one is told where it is used
        kind = pretrain["schedule"]["loss"]
        where = (MODELS, f"{name}.weights.pretrain.schedule.loss")
        check_loss(kind, corpus["task"], name, entry, "cpu", where)


def _check_one_source(entry: dict, sources: tuple[str, ...], file: str, key: str) -> None:
    given = [source for source in sources if source in entry]
    if len(given) != 1:
        got = ", ".join(given) or "no source"
        raise ConfigError(file, key, got, f"exactly one of {', '.join(sources)}")


def check_pair(
    library: dict[str, dict], model: str, dataset: str, tokens: int, where: tuple[str, str]
) -> None:
    """Whether a model can do a dataset's task at a length of text.

    Args:
        library: the checked entries.
        model: the model's name.
        dataset: the dataset's name.
        tokens: the length of a text in this grid.
        where: file and key of the grid, for messages.

    Raises:
        ConfigError: the model has no head for the task, or not so many positions.
    """
    entry, data = library["models"][model], library["datasets"][dataset]
    if not tasks.head(entry, data["task"]):
        able = [task for task in tasks.names() if tasks.head(entry, task)]
        allowed = f"tasks that {model} has a head for: {', '.join(able)}"
        raise ConfigError(*where, data["task"], allowed)
    positions = entry["max_positions_tokens"]
    if tokens > positions:
        allowed = f"at most {positions}, the positions of {model}"
        if tokens == data["max_length_tokens"]:
            file, key = DATASETS, f"{dataset}.max_length_tokens"
            if tokens == LENGTH_TOKENS and tasks.facts(data["task"]).labels == tasks.ANSWER:
                allowed += f"; {tokens} also stands for an entry that leaves it out"
        else:
            file, key = where[0], f"{where[1]}.sequence_length_tokens"
        raise ConfigError(file, key, tokens, allowed)
