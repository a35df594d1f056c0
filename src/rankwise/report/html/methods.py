"""The page's methods section: sentences made from the configuration and from what the results recorded."""

from math import exp

import pandas as pd

from rankwise.core import provenance
from rankwise.report import records

PROFILES = {
    "memory": "bytes kept between steps, counted from shapes",
    "ledger": "every byte of a training step at its peak, predicted on shapes and, where the device is there, measured",
    "fits": "the largest micro-batch that a memory holds, predicted from shapes",
    "flops": "products of forward, backward and optimizer, counted from shapes; refreshes are spread over their interval",
    "forward": "latency of a forward pass: medians and quartiles over repeats in several processes",
    "throughput": "times of a training update and its parts: medians and quartiles over repeats in several processes",
}
EVALUATION = (
    "The selection slice is held out of train; the state that is reported, and anything else that is chosen, is chosen on it "
    "alone. The reported split is evaluated once a run, after training. Seeds are set before the model is built, so that heads "
    "start alike across methods."
)
INTERVALS = (
    "An interval covers 95 %: of the mean over all seeds and all examples that might have been drawn, from the two-way table "
    "of scores by seed and example (a t interval on the sum of both variances; of accuracies, on their log-odds; of "
    "perplexities, on the mean loss). One seed gives no interval."
)
VERDICTS = (
    "Two curves are compared on the seeds and examples that they share. Better: the difference leaves zero out after Holm's "
    "adjustment over all pairs of a model and dataset, at 5 %. Tied: two one-sided tests place it inside the margin, adjusted "
    "likewise, even where it leaves zero out. Undecided: neither; the table says how many seeds would decide it."
)
CLAIMS = (
    "A published number is reproduced where ours differs from it by its tolerance at most, and not reproduced otherwise. It is "
    "not comparable where the two are not the same quantity, and not yet run where this study lacks the cell."
)


def sampled(dataset: dict) -> str:
    """What an entry says of its splits: `2,400 rows of train and 600 of validation; 400 of train are for selection`."""
    rows = dataset.get("generated", {}).get("rows", {})
    if not rows and "train_samples" in dataset:
        rows = {"train": dataset["train_samples"]}
    sizes = " and ".join(
        f"{count:,} {'rows of ' * (not i)}{'of ' * bool(i)}{split}"
        for i, (split, count) in enumerate(rows.items())
    )
    held = dataset.get("selection_rows")
    said = [
        sizes,
        f"{held:,} rows of train are for selection" if held else "",
        f"reported on {dataset['report_split']}",
    ]
    return "; ".join(filter(None, said))


def datasets(entries: list[dict]) -> list[dict[str, str]]:
    """Rows of the table of datasets."""
    return [
        {
            "name": one["name"],
            "task": one["task"].replace("_", " "),
            "rows": sampled(one),
            "length": f"{one['max_length_tokens']} tokens at most",
            "source": records.source(one),
            "licence": one.get("licence", records.UNKNOWN),
        }
        for one in entries
    ]


def models(entries: list[dict]) -> list[dict[str, str]]:
    """Rows of the table of models."""
    return [
        {
            "name": one["name"],
            "family": one["family"],
            "source": records.source(one) if "weights" in one else "shapes only, no weights",
            "licence": one.get("licence", records.UNKNOWN),
        }
        for one in entries
    ]


def methods(entries: list[dict], runs: pd.DataFrame | None) -> list[dict]:
    """Entries with their numbers as text; learning rates are those of the runs, chosen by a search or not."""
    rates = {} if runs is None else runs.groupby("method")["learning_rate"].unique()
    absent = {"source": "", "note": ""}
    numbers = [
        {"ranks": _numbers(one["ranks"]), "rates": _numbers(sorted(rates.get(one["name"], [])))}
        for one in entries
    ]
    return [
        {**absent, "label": one["name"], **one, **texts}
        for one, texts in zip(entries, numbers, strict=True)
    ]


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def schedules(groups: list[dict], search: pd.DataFrame | None) -> list[str]:
    """A sentence a schedule, and one on the search that came before, if there was one."""
    said = [_schedule(one) for one in groups]
    if search is None or not len(search):
        return said
    curves = len(search.groupby(["model", "dataset", "method", "rank"]))
    return [
        *said,
        f"{len(search):,} trials, judged on the selection slice, chose the settings of {curves:,} curves.",
    ]


def _schedule(group: dict) -> str:
    found = group["schedule"]
    length = (
        f"{found['updates']:,} updates" if found.get("updates") else f"{found['epochs']} epochs"
    )
    steps = found["accumulation_steps"]
    batch = f"batches of {found['batch_size']}" + (
        f" by {steps} micro-batches an update" if steps > 1 else ""
    )
    clip = (
        f"gradients clipped at norm {found['max_gradient_norm']:g}"
        if found["max_gradient_norm"]
        else "gradients not clipped"
    )
    seeds = group["seeds"]
    many = f"seeds {_numbers(seeds)}" if len(seeds) > 1 else f"one seed, {seeds[0]}"
    warm = (
        f", warm-up over {100 * found['warmup_fraction']:g} % of updates"
        if found["warmup_fraction"]
        else ""
    )
    return (
        f"{', '.join(group['models'])} on {', '.join(group['datasets'])}: {length}, {batch}, "
        f"{found['scheduler']} schedule{warm}, {clip}, {found['precision']}, the {found['select']} state is reported; {many}."
    )


def statistics(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Definitions of what the study's tables hold, with the margins that they used."""
    said = [EVALUATION] if "runs" in frames else []
    said += [INTERVALS] if "estimates" in frames else []
    if "comparisons" in frames:
        margins = frames["comparisons"].groupby("metric")["margin"].first().dropna()
        read = {
            "accuracy_fraction": lambda v: f"{100 * v:.3g} points of accuracy",
            "perplexity": lambda v: f"a ratio of {exp(v):.4g}",
        }
        words = [read[metric](value) for metric, value in margins.items()]
        said += [VERDICTS + (f" The margin is {' and '.join(words)}." if words else "")]
    return said + ([CLAIMS] if "claims" in frames else [])


def machines(results: list[dict]) -> list[dict[str, str]]:
    """Where results were made: lock, Python, packages, platform, the digest in tables, and how many there."""
    return [
        {
            "count": f"{count:,}",
            "lock": f"{place['lock']}, digest {place['digest']}",
            "python": place.get("python", records.UNKNOWN),
            "packages": ", ".join(
                f"{name} {version}" for name, version in place.get("packages", {}).items()
            ),
            "platform": ", ".join(
                filter(None, (place.get("platform", records.UNKNOWN), place.get("processor")))
            ),
            "digest": provenance.digest(place),
            "differs": ", ".join(
                f"{name} {how}" for name, how in place.get("differs_from_lock", {}).items()
            ),
        }
        for place, count in records.environments(results)
    ]


def devices(results: list[dict]) -> str:
    """`cpu (AMD EPYC)`."""
    named = records.device_names(results)
    return "; ".join(
        f"{device} ({', '.join(names)})" if names else device for device, names in named.items()
    )
