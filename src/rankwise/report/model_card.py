"""README.md of exported weights: a model card that is made of the run's result alone.

Its head is what the hub reads (YAML). Nothing in it is typed by hand, and no path of the machine
that trained is in it.
"""

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import yaml

from rankwise.analysis import run_intervals
from rankwise.analysis.run_intervals import RunInterval
from rankwise.core.snapshot_files import LICENCES
from rankwise.report.records import UNKNOWN, listed, table

# A licence as an entry names it, in small letters -> the hub's name of it. Source: the hub's list,
# https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENCES = {
    **{
        name: name
        for name in ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-3.0", "gemma")
    },
    "gemma terms of use": "gemma",
    "llama 2 community license": "llama2",
    "meta llama 3 community license": "llama3",
    "llama 3.1 community license": "llama3.1",
    "llama 3.2 community license": "llama3.2",
}
LIBRARIES = {"peft": "peft", "merged": "transformers", "parameters": "rankwise"}
BASE_FOLDER = "FOLDER_OF_THE_BASE"
DTYPES = {"bf16": "bfloat16"}  # of the base, by its storage; others compute in float32
# How to open the weights, by their format.
LOADING = {
    "peft": """\
from peft import PeftModel
from transformers import {auto_class}, AutoConfig, AutoTokenizer

config = AutoConfig.from_pretrained("FOLDER")  # the base's, with the labels and the padding token
base = {auto_class}.from_pretrained({base}, config=config, dtype="{dtype}")
model = PeftModel.from_pretrained(base, "FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
    "merged": """\
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
    "parameters": f"""\
import rankwise

model, tokenizer = rankwise.load_trained("FOLDER", "{BASE_FOLDER}")""",
}


class Facts(NamedTuple):
    """What the run's result does not say.

    Attributes:
        label: The method's label.
        source: Where the method was published.
        licence: Of the base model; None if its entry has none.
        data_licence: Of the dataset.
        auto_class: The class of transformers that opens the base for the task.
        format: Of the exported weights: peft, parameters or merged.
        command: The command that makes the run again.
        digest: Of the run's request.
    """

    label: str
    source: str
    licence: str | None
    data_licence: str | None
    auto_class: str
    format: str
    command: str
    digest: str


def card(run: dict, method: dict, facts: Facts) -> str:
    """The card of a run's weights, as Markdown.

    Args:
        run: The run's result.
        method: The resolved entry of the method, as it was used.
        facts: What the result does not say.
    """
    cell = run["request"]["cell"]
    intervals = run_intervals.of_run(run["metrics"], run["examples"])
    lines = [
        "---",
        yaml.safe_dump(_head(run, facts, intervals), sort_keys=False).rstrip(),
        "---",
        f"# {base(run)} fine-tuned on {cell['dataset']}: {facts.label}",
        "",
        f"Trained by Rankwise (run `{facts.digest}`). Method: {facts.label}, {facts.source}.",
        "",
        *_loading(run, method, facts),
        *_results(run, intervals),
        *_data(run, facts),
        *_settings(run, method),
        *_origin(run, facts),
    ]
    return "\n".join(lines).rstrip() + "\n"


def base(run: dict) -> str:
    """The base's hub id, or the name of its entry where it has none."""
    request = run["request"]
    return request["model"].get("weights", {}).get("hub", request["cell"]["model"])


def _head(run: dict, facts: Facts, intervals: list[RunInterval]) -> dict:
    head: dict[str, object] = {"library_name": LIBRARIES[facts.format]}
    head |= _licence_head(facts.licence, _licence_files(run))
    if "hub" in run["request"]["model"].get("weights", {}):
        head["base_model"] = base(run)
    head["tags"] = ["rankwise", run["request"]["cell"]["method"], run["request"]["dataset"]["task"]]
    head["metrics"] = [interval.metric.name for interval in intervals]
    return head


def _licence_head(licence: str | None, files: list[str]) -> dict[str, str]:
    """The keys of the head that name a licence; none if it is not known."""
    if licence is None:
        return {}
    if licence.lower() in HUB_LICENCES:
        return {"license": HUB_LICENCES[licence.lower()]}
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")  # as the hub writes names
    link = {"license_link": files[0]} if files else {}
    return {"license": "other", "license_name": name, **link}


def _licence_files(run: dict) -> list[str]:
    """The names of the base's licence files that were kept with the weights."""
    kept = {PurePosixPath(path).name for path in run["weights"]["files"]}
    return [name for name in LICENCES if name in kept]


def _loading(run: dict, method: dict, facts: Facts) -> Iterator[str]:
    weights, stored = run["request"]["model"].get("weights", {}), method["weights"]
    source = f'"{BASE_FOLDER}"'
    if "hub" in weights:
        source = f'"{weights["hub"]}", revision="{weights["revision"]}"'
    text = LOADING[facts.format].format(
        auto_class=facts.auto_class, base=source, dtype=DTYPES.get(stored, "float32")
    )
    yield from ("## How to load it", "", "```python", text, "```", "")
    yield "FOLDER is the folder of this file."
    if BASE_FOLDER in text:
        prepared = run["request"]["inputs"]["model"]
        yield (
            f"{BASE_FOLDER} is a folder with the base model {base(run)} and its tokenizer. Where "
            f"the run was made, this is the folder `{prepared}` of its prepared models."
        )
    if facts.format == "peft" and stored not in ("fp32", "bf16"):
        yield f"The run stored its base as {stored}, so its scores differ a little from these."
    yield ""
    classes = run["request"]["dataset"].get("classes", [])
    if classes:
        numbered = listed(f"{number} {name}" for number, name in enumerate(classes))
        yield from (f"Classes: {numbered}.", "")


def _results(run: dict, intervals: list[RunInterval]) -> Iterator[str]:
    request = run["request"]
    selected = {
        "best": "those with the lowest loss on the selection slice",
        "last": "those after the last update",
    }
    yield from ("## Results", "")
    yield (
        f"On the split `{run['split']}` of {request['cell']['dataset']}; random seed "
        f"{request['cell']['seed']}. The weights are {selected[request['schedule']['select']]}. "
        "The intervals (95 %) are over this run's examples, not over seeds."
    )
    yield ""
    rows = []
    for found in intervals:
        factor = found.metric.factor
        ends = "one example gives none"
        if not math.isnan(found.low):
            ends = f"{found.low * factor:.4g} to {found.high * factor:.4g}"
        rows.append((found.metric.title, f"{found.value * factor:.4g}", ends, found.examples))
    yield from table(("metric", "value", "95 % interval", "examples"), rows)
    metrics = run["metrics"]
    counts = ("eval_loss_nats", "trainable_parameters", "total_parameters", "updates", "samples")
    yield from table(("quantity", "value"), [(name, _number(metrics[name])) for name in counts])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.7g}"


def _data(run: dict, facts: Facts) -> Iterator[str]:
    dataset = run["request"]["dataset"]
    yield from ("## Data", "")
    yield (
        f"Task: {dataset['task']}. Texts of at most {dataset['max_length_tokens']} tokens. Licence "
        f"of the data: {facts.data_licence or UNKNOWN}. Prepared data: "
        f"`{run['request']['inputs']['dataset']}`."
    )
    yield ""
    rows = [(row["split"], row["rows"]) for row in run["data"].get("splits", [])]
    yield from table(("split", "rows"), rows)


def _settings(run: dict, method: dict) -> Iterator[str]:
    yield from ("## Settings", "")
    rows = [("learning_rate", method["learning_rate"]), ("base stored as", method["weights"])]
    optimizer = {key: value for key, value in method["optimizer"].items() if key != "module"}
    rows.append(("method", method["module"]))
    rows += [(f"method: {key}", _setting(value)) for key, value in method["options"].items()]
    rows.append(("optimizer", method["optimizer"]["module"]))
    rows += [(f"optimizer: {key}", _setting(value)) for key, value in optimizer.items()]
    schedule = run["request"]["schedule"]
    # A number of updates takes the place of the epochs.
    unused = ("epochs",) if schedule.get("updates") else ()
    rows += [
        (f"schedule: {key}", _setting(value))
        for key, value in schedule.items()
        if key not in unused
    ]
    yield from table(("setting", "value"), rows)


def _setting(value: object) -> str:
    if isinstance(value, list):
        return listed(value, "none")
    return "none" if value is None else str(value)


def _origin(run: dict, facts: Facts) -> Iterator[str]:
    request, environment = run["request"], run["environment"]
    yield from ("## Where it comes from", "")
    lock = request["environment"]
    packages = environment.get("packages", {})
    device = run["cost"].get("device_name") or environment.get("device_name")
    rows = [
        ("base model", f"{base(run)}, prepared as `{request['inputs']['model']}`"),
        ("revision of the base", request["model"].get("weights", {}).get("revision", UNKNOWN)),
        ("licence of the base", _licence_of_base(run, facts)),
        ("command", f"`{facts.command}`"),
        ("lock file", f"{lock['lock']}, digest `{lock['digest']}`"),
        ("packages", listed(f"{name} {version}" for name, version in sorted(packages.items()))),
        ("Python", environment.get("python", UNKNOWN)),
        ("platform", environment.get("platform", UNKNOWN)),
        ("device", f"{request['device']}, {device or environment.get('processor', UNKNOWN)}"),
    ]
    yield from table(("what", "value"), rows)


def _licence_of_base(run: dict, facts: Facts) -> str:
    files = _licence_files(run)
    text = facts.licence or f"{UNKNOWN} in config/models.yaml"
    return f"{text}; its text: {listed(files)}" if files else text
