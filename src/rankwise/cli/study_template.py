"""The text of a new study, each key with a comment that says why it is as it is."""

from dataclasses import dataclass, field

from rankwise.core.entry_files import scalar

BATCH_SIZE = 16
RANK = 8
DEFAULT_EPOCHS = 3
MIN_UPDATES, MAX_EPOCHS = 150, 10
# Methods -> why they are in a new study.
WHY = {
    "full": "the reference: every weight trains",
    "head_only": "the floor: what the features give without training them",
    "lora": "a low-rank addition to the weights",
    "lora_all": "a low-rank addition to every matrix",
    "rsvd": "every weight trains, by gradients projected to a low rank",
}

METHODS = ("full", "head_only", "lora", "rsvd")  # of a new study, unless others are named
# Where a model lacks the matrices that a method names, this one takes those that are there.
STAND_INS = {"lora": "lora_all"}


def epochs(train_rows: int | None) -> int:
    """Passes over train: enough for some updates on few rows; three where the rows are not known.

    Args:
        train_rows: Rows of train, if the dataset's entry says so.
    """
    if not train_rows:
        return DEFAULT_EPOCHS
    updates_an_epoch = max(1, train_rows // BATCH_SIZE)
    return min(MAX_EPOCHS, max(1, -(-MIN_UPDATES // updates_an_epoch)))


@dataclass(frozen=True)
class NewStudy:
    """The choices that decide the text of a new study.

    Attributes:
        name: The study's name.
        model: An entry, a folder or a hub id.
        dataset: An entry, or a file or folder of data.
        device: `cpu` or `cuda`.
        methods: Entries of config/methods.yaml.
        seeds: Random seeds.
        train_rows: Rows of train, if they are known.
        refused: Methods that are left out, because planning refuses them for this model -> why.
    """

    name: str
    model: str
    dataset: str
    device: str
    methods: list[str]
    seeds: list[int]
    train_rows: int | None = None
    refused: dict[str, str] = field(default_factory=dict)


def study_text(study: NewStudy) -> str:
    """A study of several methods on one model and one dataset."""
    left_out = "".join(
        f"      # left out: {method}, because {why}\n" for method, why in study.refused.items()
    )
    methods = ""
    for method in study.methods:
        why = f"  # {WHY[method]}" if method in WHY else ""
        methods += f"      - {scalar(method)}{why}\n"
    profiled = ", ".join(map(scalar, study.methods))
    seeds = ", ".join(map(str, study.seeds))
    name, device, model = scalar(study.name), study.device, scalar(study.model)
    dataset = scalar(study.dataset)
    environment = "gpu" if device == "cuda" else "cpu"
    return f"""# What the methods keep of full fine-tuning on {dataset}, and what they cost.
name: {name} # results go into results/{study.name}
question: What do these methods keep of full fine-tuning on my data, and what memory do they save?
device: {device} # where training runs: cpu or cuda
environment: {environment} # the lock file of the packages: cpu, or gpu with device cuda
model: {model} # an entry of config/models.yaml, a folder, or a hub id with its revision
data: {dataset} # an entry of config/datasets.yaml, or a file
schedule:
  epochs: {epochs(study.train_rows)} # passes over train; with too few, slow methods look bad
  batch_size: {BATCH_SIZE} # the same for all methods, so that all take the same updates
train:
  - methods:
{methods}{left_out}    ranks: [{RANK}] # more ranks show what capacity buys, at as many runs more
    seeds: [{seeds}] # without several seeds there is no interval
    # a rate may suit neither model nor schedule; remove the `#` to let each method try six:
    # search: auto
profile:
  - methods: [{profiled}]
    ranks: [{RANK}]
    measurements: [memory, ledger] # bytes that are kept, and the peak of a step, from shapes
"""
