"""The rules between the keys of a dataset's entry that a schema cannot say in one sentence."""

from rankwise.core import metrics, own_files, tasks, templates
from rankwise.core.config import ConfigError
from rankwise.core.metrics import METRICS
from rankwise.study import module_source

FILE = "config/datasets.yaml"
SELECTION = "selection"  # the slice that is held out of train
RESERVED_SPLITS = ("train", SELECTION)  # they cannot be reported
RUNNING_TEXT = "language_modelling"
TEMPLATES = ("prompt", "prompt_without_input", "answer")
OF_ANSWERS = (*TEMPLATES, "messages", "chat", "packing")  # keys of tasks with prompts and answers


def metric(entry: dict) -> str:
    """The metric by which the runs on a dataset are compared: the entry's, or the task's first."""
    return entry.get("metric") or tasks.facts(entry["task"]).metrics[0]


def check(name: str, entry: dict) -> None:
    """Check the task, the splits and the labels of a dataset.

    Args:
        name: The dataset's name.
        entry: A dataset entry with one source, with defaults of the schema.

    Raises:
        ConfigError: there is no such task or metric; the reported split is not there, or is
            trained on or selected on; a split has the name of the slice that is held out; there
            is no train, no label or no classes; or the text has the label in it.
    """
    if "generated" in entry:
        splits, key = entry["generated"]["rows"], f"{name}.generated.rows"
    else:
        splits, key = entry.get("splits", {}), f"{name}.splits"
    _check_reported_split(name, entry["report_split"], splits)
    _check_split_names(key, splits)
    task = _task(name, entry)
    _check_other_tasks_keys(name, entry, task)
    if task.labels == tasks.ANSWER:
        _check_answers(name, entry)
        return
    if "text" not in entry:
        raise ConfigError(FILE, f"{name}.text", "nothing", "the column of the text, or columns")
    if task.labels != tasks.NO_LABEL:
        _check_labels(name, entry, task)


def _check_reported_split(name: str, reported: str, splits: dict) -> None:
    allowed = ", ".join(split for split in splits if split not in RESERVED_SPLITS)
    if reported in RESERVED_SPLITS:
        allowed = f"{allowed or 'another split'}: runs train on train and select on selection"
    if reported in RESERVED_SPLITS or reported not in splits:
        allowed = allowed or "splits with a file each"
        raise ConfigError(FILE, f"{name}.report_split", reported, allowed)


def _check_split_names(key: str, splits: dict) -> None:
    if "train" not in splits:
        raise ConfigError(FILE, key, "no train", "train and a reported split")
    if SELECTION in splits:
        allowed = f"other names: {SELECTION} is the slice that is held out of train"
        raise ConfigError(FILE, key, SELECTION, allowed)


def _task(name: str, entry: dict) -> tasks.Task:
    """The entry's task, which must have the entry's metric."""
    if entry["task"] not in tasks.names():
        raise ConfigError(FILE, f"{name}.task", entry["task"], tasks.names())
    task = tasks.facts(entry["task"])
    for metric_name in dict.fromkeys([*task.metrics, entry.get("metric", task.metrics[0])]):
        _check_metric(name, metric_name, task)
    return task


def _check_metric(name: str, metric_name: str, task: tasks.Task) -> None:
    """A metric is one of the task's, or the user's own of scores that the task gives."""
    key, own_file = f"{name}.metric", metrics.own_file(metric_name)
    if metric_name in metrics.SHIPPED and own_file.is_file():
        allowed = "a name that no metric of Rankwise has"
        raise ConfigError(own_files.shown(own_file), "file name", metric_name, allowed)
    if metric_name in METRICS and METRICS[metric_name].is_own:
        module_source.parse(metrics.module(metric_name))
    if metric_name in task.metrics:
        return
    if metric_name not in METRICS or not METRICS[metric_name].is_own:
        allowed = f"a metric of {task.name}: {', '.join(task.metrics)}; or your own metrics/NAME.py"
        raise ConfigError(FILE, key, metric_name, allowed)
    given = {metrics.LOSS, metrics.WEIGHT}
    for other in task.metrics:
        given.update(METRICS[other].scores)
    for score in METRICS[metric_name].scores:
        if score not in given:
            where, allowed = own_files.shown(own_file), f"scores of {task.name}: "
            raise ConfigError(where, "SCORES", score, allowed + ", ".join(sorted(given)))


def _check_other_tasks_keys(name: str, entry: dict, task: tasks.Task) -> None:
    """Keys that only some tasks read; elsewhere they would be without effect."""
    wrong = OF_ANSWERS if task.labels != tasks.ANSWER else ("text", "label", "classes")
    for key in wrong:
        if key in entry:
            others = "prompt and answer, or messages" if task.labels == tasks.ANSWER else "text"
            allowed = f"nothing for {task.name}, whose rows have {others}"
            raise ConfigError(FILE, f"{name}.{key}", entry[key], allowed)
    if "stride_tokens" not in entry:
        return
    if task.name != RUNNING_TEXT:
        allowed = f"nothing for {task.name}, only for {RUNNING_TEXT}"
        raise ConfigError(FILE, f"{name}.stride_tokens", entry["stride_tokens"], allowed)
    if entry["stride_tokens"] > entry["max_length_tokens"]:
        allowed = f"at most {entry['max_length_tokens']}, max_length_tokens: no token is left out"
        raise ConfigError(FILE, f"{name}.stride_tokens", entry["stride_tokens"], allowed)


def _check_answers(name: str, entry: dict) -> None:
    """Prompts and answers are made of templates, or of a column of messages."""
    given = [key for key in TEMPLATES if key in entry]
    if "messages" in entry:
        if given:
            allowed = "nothing beside messages, which hold prompt and answer"
            raise ConfigError(FILE, f"{name}.{given[0]}", entry[given[0]], allowed)
        return
    columns_by_key = {}
    for key in given:
        problem = templates.problem(entry[key])
        if problem:
            raise ConfigError(FILE, f"{name}.{key}", entry[key], problem)
        columns_by_key[key] = templates.columns(entry[key])
    for column in columns_by_key["answer"]:
        if column in columns_by_key["prompt"]:
            allowed = f"columns without {column}, the answer's: a model would read its answer"
            raise ConfigError(FILE, f"{name}.prompt", entry["prompt"], allowed)
    shorter = columns_by_key.get("prompt_without_input")
    if shorter is not None and not set(shorter) < set(columns_by_key["prompt"]):
        allowed = f"some of the columns of prompt, {', '.join(columns_by_key['prompt'])}"
        got = entry["prompt_without_input"]
        raise ConfigError(FILE, f"{name}.prompt_without_input", got, allowed)


def _check_labels(name: str, entry: dict, task: tasks.Task) -> None:
    for key in ("label", "classes") if task.has_classes else ("label",):
        if key not in entry:
            allowed = f"the {key} of a {task.name.replace('_', ' ')}"
            raise ConfigError(FILE, f"{name}.{key}", "nothing", allowed)
    if not task.has_classes and "classes" in entry:
        kind = "texts" if task.labels == tasks.TEXT else "numbers"
        allowed = f"nothing: the labels of a {task.name} are {kind}"
        raise ConfigError(FILE, f"{name}.classes", entry["classes"], allowed)
    if isinstance(entry["label"], list):
        _check_label_columns(name, entry, task)
    texts = entry["text"] if isinstance(entry["text"], list) else [entry["text"]]
    labels = entry["label"] if isinstance(entry["label"], list) else [entry["label"]]
    for label in labels:
        if label in texts:
            allowed = "columns without the label: a model would read its answer"
            raise ConfigError(FILE, f"{name}.text", label, allowed)
    if task.labels == tasks.TAGS:
        _check_tags(name, entry)


def _check_label_columns(name: str, entry: dict, task: tasks.Task) -> None:
    """Several columns of labels are those of a task with several classes a text, one for each."""
    if task.labels != tasks.CLASSES:
        allowed = f"one column: only a task with several labels a text has more, not {task.name}"
        raise ConfigError(FILE, f"{name}.label", entry["label"], allowed)
    if len(entry["label"]) != len(entry["classes"]):
        allowed = f"{len(entry['classes'])} columns, one for each of classes, in their order"
        raise ConfigError(FILE, f"{name}.label", entry["label"], allowed)


def _check_tags(name: str, entry: dict) -> None:
    """The classes are O, then B-TYPE and I-TYPE of each type; the words are one column."""
    if isinstance(entry["text"], list):
        raise ConfigError(FILE, f"{name}.text", entry["text"], "one column: the list of words")
    outside, *others = entry["classes"]
    types = [tag.removeprefix("B-") for tag in others[::2]]
    expected = ["O", *(f"{part}-{kind}" for kind in types for part in "BI")]
    if [outside, *others] != expected:
        allowed = "O first, then B-TYPE and I-TYPE of each type: [O, B-PER, I-PER, B-LOC, I-LOC]"
        raise ConfigError(FILE, f"{name}.classes", entry["classes"], allowed)
