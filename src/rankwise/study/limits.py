"""The ranks, granularities and active layers that a model allows, from its shapes."""

from rankwise.core.config import ConfigError
from rankwise.core.targets import ALL_LINEAR
from rankwise.study.origin import Origin

# What architectures of transformers call their number of layers.
LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
# Types of peft whose rank counts numbers of a matrix, and is not the rank of a product.
COUNTED = ("FOURIERFT", "TINYLORA", "WAVEFT")


def check_rank(
    name: str, origin: Origin, method: dict, optimizer: dict, model: dict, where: str
) -> None:
    """Check that a rank is at least 1 and at most the shorter side of its matrices.

    A rank in percent is at most 100, and one that counts numbers of a matrix is at most the
    matrix's size. A rank that applies to no matrix of its own is at most the model's width. A rank
    of null is none.

    Args:
        name: the entry's name in config/methods.yaml.
        origin: where the values of the entry come from.
        method: the resolved options of the method.
        optimizer: the resolved options of the optimizer.
        model: the model's entry.
        where: `file: key` of the grid's ranks.

    Raises:
        ConfigError: names the matrix.
    """
    for key, options in (("options", method), ("optimizer", optimizer)):
        if options.get("rank") is None:
            continue
        limit, why = _largest_rank(options, model)
        if not 1 <= options["rank"] <= limit:
            if origin.sets(key, "rank"):
                file, field = origin.place(key, "rank")
            else:
                file, field = where.split(": ", 1)
            allowed = f"ranks of {name} from 1 to {limit} ({why})"
            raise ConfigError(file, field, options["rank"], allowed)


def _largest_rank(options: dict, model: dict) -> tuple[int, str]:
    """The largest rank, and what limits it."""
    if options.get("rank_rule") == "percent":
        return 100, "percent"
    if not options.get("targets") and "granularity" not in options:
        return model["hidden_size"], "the model's width"
    shorter_sides = {}
    sizes = {}
    roles = options.get("targets", model["modules"])
    for role in model["modules"] if ALL_LINEAR in roles else roles:
        shape = model["modules"][role]["shape"]
        shorter_sides[role] = min(viewed(shape, options))
        sizes[role] = shape[0] * shape[1]
    largest_by_role = sizes if options.get("type") in COUNTED else shorter_sides
    smallest = min(largest_by_role, key=largest_by_role.get)
    return int(largest_by_role[smallest]), f"its {smallest} matrix"


def check_granularity(origin: Origin, optimizer: dict, model: dict) -> None:
    """Check that the granularity divides the sides of the model's matrices.

    Args:
        origin: where the values of the entry come from.
        optimizer: the resolved options of the optimizer; without `granularity` all is well.
        model: the model's entry.

    Raises:
        ConfigError: names the first matrix that it does not divide.
    """
    if "granularity" not in optimizer:
        return
    granularity = optimizer["granularity"]
    for role, module in model["modules"].items():
        m, n = module["shape"]
        if granularity <= 0 or not _is_whole(viewed(module["shape"], optimizer)):
            allowed = f"what divides both sides of {role}, {m} x {n}"
            raise ConfigError(*origin.place("optimizer", "granularity"), granularity, allowed)


def _is_whole(sides: tuple[float, float]) -> bool:
    return all(side == int(side) for side in sides)


def viewed(shape: list[int], options: dict) -> tuple[float, float]:
    """The sides of a matrix as it is projected with granularity c.

    Each row is cut into c pieces where the columns are projected; columns are cut where the rows
    are.

    Args:
        shape: rows m and columns n.
        options: of the optimizer: `side` and `granularity`.

    Returns:
        (rows, columns); a side that c does not divide is not a whole number.

    References:
        VLoRP, arXiv 2505.01744.
    """
    m, n = shape
    side, c = options.get("side", "short"), options.get("granularity", 1)
    projects_columns = (
        side == "right" or (side == "short" and m >= n) or (side in ("long", "both") and m < n)
    )
    return (m * c, n / c) if projects_columns else (m / c, n * c)


def check_active_layers(origin: Origin, optimizer: dict, model: dict) -> None:
    """Check that an optimizer of random layers (LISA) trains no more layers than there are.

    Args:
        origin: where the values of the entry come from.
        optimizer: the resolved options of the optimizer; without `active_layers` all is well.
        model: the model's entry.

    Raises:
        ConfigError: there are fewer layers.
    """
    counts = [model["architecture"].get(key) for key in LAYERS]
    counts = [count for count in counts if isinstance(count, int)]
    if "active_layers" not in optimizer or not counts:
        return
    if not 1 <= optimizer["active_layers"] <= counts[0]:
        allowed = f"1 to {counts[0]}, the layers of the model"
        raise ConfigError(
            *origin.place("optimizer", "active_layers"), optimizer["active_layers"], allowed
        )
