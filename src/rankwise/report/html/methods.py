"""The page's methods section: sentences from the configuration and from what results recorded."""

from math import exp

import pandas as pd

from rankwise.analysis import power
from rankwise.core import provenance
from rankwise.core.metrics import METRICS
from rankwise.report import records

PROFILES = {
    "memory": "bytes kept between steps, counted from shapes",
    "ledger": (
        "every byte of a training step at its peak, predicted from shapes and, if the device is "
        "available, measured"
    ),
    "fits": "the largest micro-batch that fits into memory of a given size, predicted from shapes",
    "flops": (
        "matrix products of forward, backward and optimizer, counted from shapes; refreshes are "
        "spread over their interval"
    ),
    "forward": (
        "latency of a forward pass: medians and quartiles over repeats in several processes"
    ),
    "throughput": (
        "times of a training update and its parts: medians and quartiles over repeats in several "
        "processes"
    ),
}
EVALUATION = (
    "The selection slice is held out of train. The reported state, and everything else that is "
    "chosen, is chosen on it alone. The reported split is evaluated once per run, after training. "
    "Random seeds are set before the model is built, so that the heads of all methods start from "
    "the same weights."
)
INTERVALS = (
    "The 95 % interval of a curve is for its mean over all seeds and all examples that might have "
    "been drawn. It comes from the two-way table of scores by seed and example: a t interval on "
    "the sum of both variances, for accuracies on their log-odds, for perplexities on the mean "
    "loss. It is of that curve alone: two such intervals do not compare two curves. One seed gives "
    "no interval."
)
VERDICTS = (
    "Two curves are compared on the seeds and examples that they share. The 95 % intervals of "
    "their differences and ratios are simultaneous: in 95 % of studies all those of a model and "
    "dataset hold at once (Bonferroni over its pairs; ratios after Fieller). A verdict says what "
    "the interval shows. The curves are tied if it lies inside the margin, even if it excludes "
    "zero. Otherwise one is better if it excludes zero. Otherwise the pair is undecided, and the "
    f"table says how many seeds would decide it with a probability of {100 * power.POWER:.0f} %, "
    "were the difference and the spread as they were found."
)
CLAIMS = (
    "A published number is reproduced if ours differs from it by at most its tolerance, or if it "
    "lies in our 95 % interval, widened by the tolerance; otherwise it is not reproduced. It is "
    "not comparable if the two numbers are not the same quantity, and not yet run if this study "
    "lacks the cell."
)


# Training --------------------------------------------------------------------------------------


def schedules(groups: list[dict], search: pd.DataFrame | None) -> list[str]:
    """A sentence for each schedule, and one about the search that came before, if any."""
    sentences = [_schedule(group) for group in groups]
    if search is not None and len(search):
        curves = len(search.groupby(["model", "dataset", "method", "rank"]))
        sentences.append(
            f"{len(search):,} trials, judged on the selection slice, chose the settings of "
            f"{curves:,} curves."
        )
    return sentences


def _schedule(group: dict) -> str:
    schedule, seeds = group["schedule"], group["seeds"]
    length = f"{schedule['epochs']} epochs"
    if schedule.get("updates"):
        length = f"{schedule['updates']:,} updates"
    batch = f"batches of {schedule['batch_size']}"
    if schedule["accumulation_steps"] > 1:
        batch += f" by {schedule['accumulation_steps']} micro-batches per update"
    scheduler = f"{schedule['scheduler']} schedule"
    if schedule["warmup_fraction"]:
        scheduler += f", warm-up over {100 * schedule['warmup_fraction']:g} % of updates"
    clipping = "gradients not clipped"
    if schedule["max_gradient_norm"]:
        clipping = f"gradients clipped at norm {schedule['max_gradient_norm']:g}"
    selection = f"the {schedule['select']} state is reported"
    seed_text = f"seeds {_numbers(seeds)}" if len(seeds) > 1 else f"one seed, {seeds[0]}"
    where = f"{', '.join(group['models'])} on {', '.join(group['datasets'])}"
    how = ", ".join([length, batch, scheduler, clipping, schedule["precision"], selection])
    return f"{where}: {how}; {seed_text}."


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def statistics(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Definitions of what the study's tables hold, with the margins that were used."""
    texts = []
    if "runs" in frames:
        texts.append(EVALUATION)
    if "estimates" in frames:
        texts.append(INTERVALS)
    if "comparisons" in frames:
        texts.append(VERDICTS + _margin_sentence(frames["comparisons"]))
    if "claims" in frames:
        texts.append(CLAIMS)
    return texts


def _margin_sentence(comparisons: pd.DataFrame) -> str:
    margins = comparisons.groupby("metric")["margin"].first().dropna()
    texts = []
    for metric, margin in margins.items():
        declared = METRICS[metric]
        if declared.is_fraction:
            texts.append(f"{100 * margin:.3g} points of {declared.label}")
        elif declared.is_log:  # the margin of a perplexity is the logarithm of a ratio
            texts.append(f"a ratio of {exp(margin):.4g}")
        else:
            texts.append(f"{margin:.3g} of {declared.label}")
    return f" The margin is {' and '.join(texts)}." if texts else ""


# Entries ---------------------------------------------------------------------------------------


def methods(entries: list[dict], runs: pd.DataFrame | None) -> list[dict]:
    """Entries of the methods, with their ranks and learning rates as text.

    The learning rates are the ones of the runs, whether a search chose them or not.
    """
    rates = {} if runs is None else runs.groupby("method")["learning_rate"].unique()
    shown = []
    for entry in entries:
        name = entry["name"]
        defaults = {"label": name, "source": "", "note": ""}
        texts = {
            "ranks": _numbers(entry["ranks"]),
            "rates": _numbers(sorted(rates.get(name, []))),
        }
        shown.append({**defaults, **entry, **texts})
    return shown


def datasets(entries: list[dict]) -> list[dict[str, str]]:
    """Rows of the table of datasets."""
    rows = []
    for entry in entries:
        row = {
            "name": entry["name"],
            "task": _task(entry),
            "rows": _split_sizes(entry),
            "length": _length(entry),
            "source": records.source(entry),
            "licence": entry.get("licence", records.UNKNOWN),
        }
        rows.append(row)
    return rows


def _task(dataset: dict) -> str:
    """The task; of conversations also what is trained on."""
    name = dataset["task"].replace("_", " ")
    return f"{name}, the last message of each conversation" if "messages" in dataset else name


def _length(dataset: dict) -> str:
    """The length of texts, or of the windows of running text and how far they move."""
    length = dataset["max_length_tokens"]
    if dataset["task"] != "language_modelling":
        return f"at most {length} tokens"
    return (
        f"windows of {length} tokens, scored at a stride of {dataset.get('stride_tokens', length)}"
    )


def _split_sizes(dataset: dict) -> str:
    """The sizes of splits as far as the entry says them.

    Such as `2,400 rows of train and 600 of validation; 400 rows of train are for selection`.
    """
    rows = dataset.get("generated", {}).get("rows", {})
    if not rows and "train_samples" in dataset:
        rows = {"train": dataset["train_samples"]}
    texts = []
    if rows:
        sizes = " and ".join(f"{count:,} of {split}" for split, count in rows.items())
        texts.append(sizes.replace(" of ", " rows of ", 1))
    if dataset.get("selection_rows"):
        texts.append(f"{dataset['selection_rows']:,} rows of train are for selection")
    texts.append(f"reported on {dataset['report_split']}")
    return "; ".join(texts)


def models(entries: list[dict]) -> list[dict[str, str]]:
    """Rows of the table of models."""
    rows = []
    for entry in entries:
        row = {
            "name": entry["name"],
            "family": entry["family"],
            "source": records.source(entry) if "weights" in entry else "shapes only, no weights",
            "licence": entry.get("licence", records.UNKNOWN),
        }
        rows.append(row)
    return rows


# Machines --------------------------------------------------------------------------------------


def machines(results: list[dict]) -> list[dict[str, str]]:
    """Each environment that results were made in, and their number.

    Its `digest` is the column `environment_digest` of tables.
    """
    rows = []
    for environment, count in records.environments(results):
        packages = environment.get("packages", {}).items()
        differences = environment.get("differs_from_lock", {}).items()
        platform = environment.get("platform", records.UNKNOWN)
        if environment.get("processor"):
            platform += f", {environment['processor']}"
        row = {
            "count": f"{count:,}",
            "lock": f"{environment['lock']}, digest {environment['digest']}",
            "python": environment.get("python", records.UNKNOWN),
            "packages": ", ".join(f"{name} {version}" for name, version in packages),
            "platform": platform,
            "digest": provenance.digest(environment),
            "differs": ", ".join(f"{name} {how}" for name, how in differences),
        }
        rows.append(row)
    return rows


def devices(results: list[dict]) -> str:
    """The devices that jobs ran on, with their names: `cpu; cuda (NVIDIA H100)`."""
    texts = []
    for device, names in records.device_names(results).items():
        texts.append(f"{device} ({', '.join(names)})" if names else device)
    return "; ".join(texts)
