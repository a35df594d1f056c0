"""Tasks of lm-evaluation-harness, with the score and the log-likelihoods of every example.

A task of an entry with `hub` is the harness's own, on the dataset's pinned revision. A task of an
entry with `files` is one of `harness_tasks`, whose documents are read here; nothing is loaded
through a hub.

References:
    lm-evaluation-harness, Gao et al., github.com/EleutherAI/lm-evaluation-harness, 0.4.13.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import datasets
import lm_eval.tasks
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rankwise.core.config import without
from rankwise.evaluation import files
from rankwise.evaluation.scored import Scored

# Metric of the harness -> its name here, without `_fraction`.
METRICS = {"acc": "accuracy", "acc_norm": "accuracy_norm", "exact_match": "exact_match"}
NO_FILTER = "none"
# Task -> its folder in the harness, where that has another name.
FOLDERS = {
    "arc_challenge": "arc",
    "arc_easy": "arc",
    "boolq": "super_glue/boolq",
    "mmlu": "mmlu/default",
    "social_iqa": "siqa",
}
GROUPS = ("mmlu",)  # groups that contain all tasks of their folder
SEED = 1234  # of the examples that are drawn for a prompt: the harness's own default


def score(request: dict, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scored:
    """The examples of a task, scored by the harness.

    Args:
        request: The cell's `evaluate` request.
        model: In evaluation mode.
        tokenizer: That of the model.

    Raises:
        ValueError: The harness's task reads another dataset than the entry says, or the prompt asks
            for more examples than there are.
    """
    entry = request["evaluation"]
    name = request["cell"]["evaluation"]
    tasks = _tasks_of_files(name, entry) if "files" in entry else _own_tasks(name, entry)
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=entry["batch_size"])
    result = evaluator.simple_evaluate(
        model=language_model,
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),
        limit=entry.get("limit"),
        bootstrap_iters=0,
        log_samples=True,
        random_seed=SEED,
        numpy_random_seed=SEED,
        torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )
    return _scored(result["samples"], language_model)


# Tasks --------------------------------------------------------------------------------------------


def _tasks_of_files(name: str, entry: dict) -> list[ConfigurableTask]:
    """A task of the harness for each part of the documents: a subject of MMLU, or all of them."""
    test = _by_part(files.documents(entry, "test"))
    shots = _by_part(files.documents(entry, "few_shot")) if entry["few_shot"] else {}
    tasks = []
    for part, documents in test.items():
        examples = shots.get(part, [])
        if len(examples) < entry["few_shot"]:
            where = f"config/evaluations.yaml: {name}.few_shot"
            of = f" of {part}" if part else ""
            raise ValueError(
                f"{where}: got {entry['few_shot']}, allowed: at most {len(examples)}, the examples"
                f"{of} in {entry['files']['few_shot']['path']}"
            )
        config = copy.deepcopy(entry["task_config"])
        config |= {
            "task": f"{name}_{part}" if part else name,
            "num_fewshot": entry["few_shot"],
            "custom_dataset": _dataset({"test": documents, "few_shot": examples}),
        }
        if examples:
            config["fewshot_split"] = "few_shot"
        tasks.append(ConfigurableTask(config=config))
    return tasks


def _by_part(documents: list[dict]) -> dict[str, list[dict]]:
    parts: dict[str, list[dict]] = {}
    for document in documents:
        parts.setdefault(document.get("part", ""), []).append(document)
    return parts


def _dataset(splits: dict[str, list[dict]]) -> Callable[..., dict[str, datasets.Dataset]]:
    """A function that the harness calls, with the task's metadata, to get a task's documents."""
    return lambda **_: {
        split: datasets.Dataset.from_list(documents)
        for split, documents in splits.items()
        if documents
    }


def _own_tasks(name: str, entry: dict) -> list[ConfigurableTask]:
    """The harness's own task, or the tasks of its group, on the pinned revision of their data."""
    task = entry["task"]
    manager = _manager(task)
    members = manager.all_subtasks if task in GROUPS else [task]
    if not set(members) <= set(manager.all_subtasks):
        raise ValueError(
            f"config/evaluations.yaml: {name}.task: got {task}, allowed: a task of "
            f"lm-evaluation-harness, or one of its groups {', '.join(GROUPS)}"
        )
    changes = {
        "dataset_kwargs": without(entry["hub"], ("repo",)),
        "num_fewshot": entry["few_shot"],
    }
    changed = [{"task": member, **changes} for member in members]
    # A group of our own, because the harness changes the settings of a group's members only.
    loaded = list(manager.load([{"group": name, "task": changed}])["tasks"].values())
    for one in loaded:
        if entry["hub"]["repo"] != one.DATASET_PATH:
            raise ValueError(
                f"config/evaluations.yaml: {name}.hub.repo: got {entry['hub']['repo']}, allowed: "
                f"{one.DATASET_PATH}, which the harness's task {entry['task']} reads"
            )
    return loaded


def _manager(task: str) -> TaskManager:
    """The harness's tasks: those of the task's own folder, or all of them, which takes long."""
    folder = Path(lm_eval.tasks.__file__).parent / FOLDERS.get(task, task)
    if not folder.is_dir():
        return TaskManager()
    return TaskManager(include_path=str(folder), include_defaults=False)


# Results ------------------------------------------------------------------------------------------


def _scored(samples_by_task: dict[str, list[dict]], language_model: HFLM) -> Scored:
    """The harness's samples as scores by example, tasks in their order."""
    scores: dict[str, list[float]] = {}
    details: dict[str, list] = {}
    documents, truncated = [], 0
    for samples in samples_by_task.values():
        by_filter: dict[str, list[dict]] = {}
        for sample in samples:
            by_filter.setdefault(sample["filter"], []).append(sample)
        for filter_name, filtered in by_filter.items():
            ordered = sorted(filtered, key=lambda sample: sample["doc_id"])
            _add_scores(scores, filter_name, ordered)
        first = sorted(next(iter(by_filter.values())), key=lambda sample: sample["doc_id"])
        for sample in first:
            documents.append(files.digest(f"{sample['doc_hash']} {sample['prompt_hash']}"))
            truncated += _is_truncated(sample, language_model)
            for key, value in _details(sample).items():
                details.setdefault(key, []).append(value)
    return Scored(documents, scores, details, truncated)


def _add_scores(scores: dict[str, list[float]], filter_name: str, samples: list[dict]) -> None:
    for metric, stem in METRICS.items():
        if metric not in samples[0]:
            continue
        if filter_name != NO_FILTER:
            stem = f"{stem}_{filter_name.replace('-', '_')}"  # noqa: PLW2901 - of this filter
        values = [float(sample[metric]) for sample in samples]
        scores.setdefault(f"{stem}_fraction", []).extend(values)


def _details(sample: dict) -> dict:
    """The log-likelihood of each choice in nats, or the text that was generated."""
    details = {"part": sample["doc"]["part"]} if "part" in sample["doc"] else {}
    first = sample["resps"][0][0]
    if isinstance(first, str):
        return {**details, "generated": first}
    likelihoods = [response[0][0] for response in sample["resps"]]
    return {**details, "log_likelihoods_nats": [float(value) for value in likelihoods]}


def _is_truncated(sample: dict, language_model: HFLM) -> bool:
    """Whether the harness cuts the beginning of a prompt of the sample."""
    for context, answer in sample["arguments"]:
        room = language_model.max_length
        if isinstance(answer, dict):  # settings of a generation
            room -= answer.get("max_gen_toks", language_model.max_gen_toks)
            tokens = len(language_model.tok_encode(context))
        else:
            tokens = len(language_model.tok_encode(context + answer)) - 1
        if tokens > room:
            return True
    return False
