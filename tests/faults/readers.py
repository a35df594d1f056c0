"""Read the files of a finished study as its jobs do, in this process."""

import contextlib
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from faults import clone
from helpers.prepared import reset_accelerate
from helpers.stopping import stop_at_check
from rankwise.analysis import gather, tables
from rankwise.core import documents, provenance, result
from rankwise.core.paths import CHECKPOINTS, REQUESTS
from rankwise.data import prepared
from rankwise.report import draw, style
from rankwise.training import checkpoint, run

SHORT = {"updates": 12, "evaluate_every_updates": 6}
INTERRUPTED_AT = 8  # the check before which a training is stopped


def training_request(root: Path, method: str = "lora") -> dict:
    """The request of one training of the study."""
    (file,) = (root / clone.STORE).glob(f"runs/mine/mine/{method}/**/train.json")
    return result.read(file)["request"]


def short_request(root: Path) -> dict:
    """The request of a shorter training, of which many can be run."""
    request = training_request(root)
    return {**request, "schedule": {**request["schedule"], **SHORT}}


def interrupt(root: Path, request: dict) -> None:
    """Let a training be stopped half-way, so that it leaves a checkpoint."""
    for file in (root / CHECKPOINTS).glob("*"):
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SAVE_EVERY_S", 1e9)
        stop_at_check(INTERRUPTED_AT, patch)
        reset_accelerate()
        with contextlib.suppress(checkpoint.Stopped):
            run.train(request)
    assert list((root / CHECKPOINTS).glob("*.pt")), "the training was not stopped"


def train(root: Path) -> object:
    """Train from the checkpoint, if it can be read; what two correct runs share of the result."""
    reset_accelerate()
    return clone.without_times(run.train(short_request(root)))


def load(root: Path) -> object:
    """Load model and data as every training does."""
    request = training_request(root)
    folder = prepared.model_folder(request)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    data = prepared.load_data(request, tokenizer, seed=0)
    counts = prepared.data_facts(request)
    weights = provenance.file_sha256(folder / "model.safetensors")
    rows = [list(split) for split in (data.train, data.selection, data.report)]
    return weights, rows, counts


def collect(root: Path) -> object:
    """Gather all training runs in a table; its content without times."""
    request = document_requests(root)[str(clone.TABLES[0])]
    scratch = root / "scratch/runs.csv"
    scratch.parent.mkdir(exist_ok=True)
    gather.gather(request, scratch)
    table = tables.read(scratch)
    return table[[name for name in table if not name.endswith(clone.TIMES)]].to_csv()


@functools.cache
def document_requests(root: Path) -> dict[str, dict]:
    """The requests of the study's tables and figures, by their first file, as planning wrote them."""
    written = (json.loads(file.read_text()) for file in (root / REQUESTS).glob("*.json"))
    return {"/".join(one["document"]): one for one in written if "document" in one}


def draw_figure(root: Path) -> object:
    """Draw the figure from its tables, small and to memory, after the check that its job makes."""
    figure = document_requests(root)[str(clone.FIGURE)]
    drawn = io.BytesIO()

    def save(picture: object, *_: object) -> None:
        picture.savefig(drawn, format="raw", dpi=40)

    documents.check_reads(figure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", save)
        draw.draw(figure, root / clone.FIGURE)
    return drawn.getvalue()


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": train,
    "result": collect,
    "split": load,
    "weights": load,
    "tokenizer": load,
    "table": draw_figure,
}
