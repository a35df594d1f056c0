"""What a rank and a granularity may be, from the shapes of the model's matrices."""

from rankwise.core.config import ConfigError

FILE = "config/methods.yaml"


def check_rank(
    name: str, entry: dict, method: dict, optimizer: dict, model: dict, where: str
) -> None:
    """1 <= rank <= the shorter side of every matrix that it applies to; tokens: the model's positions; percent: 100.

    Raises:
        ConfigError: names the matrix.
    """
    for options, key, given in (
        (method, "options", entry["options"]),
        (optimizer, "optimizer", entry["optimizer"]),
    ):
        if "rank" in options:
            limit, why = _limit(options, model)
            if not 1 <= options["rank"] <= limit:
                file, field = (
                    (FILE, f"{name}.{key}.rank") if "rank" in given else where.split(": ", 1)
                )
                raise ConfigError(
                    file, field, options["rank"], f"ranks of {name} from 1 to {limit} ({why})"
                )


def _limit(options: dict, model: dict) -> tuple[int, str]:
    if options.get("rank_rule") == "percent":
        return 100, "percent"
    if "targets" not in options and "granularity" not in options:
        return model["hidden_size"], "the model's width"
    shapes = {
        role: model["modules"][role]["shape"] for role in options.get("targets", model["modules"])
    }
    sides = {role: min(viewed(shape, options)) for role, shape in shapes.items()}
    smallest = min(sides, key=sides.get)
    return int(sides[smallest]), f"its {smallest} matrix"


def check_granularity(name: str, optimizer: dict, model: dict) -> None:
    """Whether the granularity divides the sides of the model's matrices.

    Raises:
        ConfigError: names the first matrix that it does not divide.
    """
    for role, module in model["modules"].items() if "granularity" in optimizer else ():
        if optimizer["granularity"] <= 0 or any(
            side != int(side) for side in viewed(module["shape"], optimizer)
        ):
            allowed = (
                f"what divides both sides of {role}, {module['shape'][0]} x {module['shape'][1]}"
            )
            raise ConfigError(
                FILE, f"{name}.optimizer.granularity", optimizer["granularity"], allowed
            )


def viewed(shape: list[int], options: dict) -> tuple[float, float]:
    """The sides of a matrix as it is projected: rows cut in c pieces, or c rows joined where the rows are projected."""
    m, n = shape
    side, c = options.get("side", "short"), options.get("granularity", 1)
    right = side == "right" or (side == "short" and m >= n) or (side in ("long", "both") and m < n)
    return (m * c, n / c) if right else (m / c, n * c)
