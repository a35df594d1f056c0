"""Damage files of a finished study, let its jobs read them, and let Snakemake heal them.

Damage is a file that ends too early, or one byte that has changed. The file's modification time
stays as it was, as with a bad disk or a copy that sets times back.
"""

import contextlib
import io
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults import clone, readers
from faults.strikes import Undisturbed, all_files, compare
from rankwise.core.paths import CHECKPOINTS

TRUNCATIONS, FLIPS, SEED = 20, 30, 19  # of each target
TRUNCATION, FLIP = "truncation", "flip"
TARGETS = ("checkpoint", "result", "split", "weights", "tokenizer", "table")
SET_ASIDE = ".damaged"  # in the names of files that were found to be damaged, and renamed
ROUNDS = 3  # of Snakemake, within which a study is healed


@dataclass
class Damage:
    """One damaged file.

    Attributes:
        kind: TRUNCATION or FLIP.
        target: One of TARGETS.
        file: Relative to the clone.
        offset: Of the first byte that is gone, or of the changed one.
        answer: What the job that reads it did: `refused` with a sentence that names the file,
            `began anew` after such a sentence, `equal` where it gave the undisturbed answer, or
            `other`: another answer, in silence.
        said: The sentence.
    """

    kind: str
    target: str
    file: str
    offset: int = 0
    answer: str = ""
    said: str = ""


def finished_clone(folder: Path) -> tuple[Path, Undisturbed]:
    """A clone with all results of the study."""
    root = clone.make_clone(folder)
    done = clone.run(root)
    assert done.returncode == 0, done.stderr[-5000:]
    return root, Undisturbed(clone.fingerprints(root), all_files(root), 0.0)


# Files --------------------------------------------------------------------------------------------


def files_of(root: Path) -> dict[str, list[Path]]:
    """The files that may be damaged, by target. A checkpoint is there after `readers.interrupt`."""
    store = root / clone.STORE
    data, model = (_sound(store, f"inputs/{kind}/mine/*") for kind in ("datasets", "models"))
    return {
        "checkpoint": sorted((root / CHECKPOINTS).glob("*.pt")),
        "result": [folder / "train.json" for folder in _sound(store, "runs/mine/mine/*/*/*/*")],
        "split": sorted(data[0].iterdir()),
        "weights": [model[0] / "model.safetensors", model[0] / "model.json"],
        "tokenizer": sorted(model[0].glob("tokenizer*")),
        "table": [root / table for table in clone.TABLES],
    }


def _sound(store: Path, pattern: str) -> list[Path]:
    """Folders of results, except those that were set aside."""
    return [folder for folder in sorted(store.glob(pattern)) if SET_ASIDE not in folder.name]


@contextlib.contextmanager
def damaged(file: Path, damage: Damage, generator: random.Random) -> Iterator[None]:
    """Damage a file, and put it back at the end, whatever has become of it.

    Args:
        file: The file.
        damage: Its kind; gets the offset.
        generator: Draws the place.
    """
    with restored(file):
        hurt(file, damage, generator)
        yield


def hurt(file: Path, damage: Damage, generator: random.Random) -> None:
    """Damage a file at a random place; its modification time stays."""
    content, times = bytearray(file.read_bytes()), file.stat()
    damage.offset = generator.randrange(len(content))
    if damage.kind == TRUNCATION:
        del content[damage.offset :]
    else:
        content[damage.offset] ^= generator.randrange(1, 256)
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def planned(truncations: int, flips: int) -> list[Damage]:
    """Damage of each kind to each target."""
    kinds = [TRUNCATION] * truncations + [FLIP] * flips
    return [Damage(kind, target, "") for target in TARGETS for kind in kinds]


# Damage after damage ------------------------------------------------------------------------------


def damage_all(root: Path, damages: list[Damage], generator: random.Random) -> list[Damage]:
    """Damage one file after the other, and let the job that reads it answer.

    Args:
        root: A clone with all results of the study.
        damages: Kind and target of each; get the rest.
        generator: Draws files and places.
    """
    with contextlib.chdir(root):
        readers.interrupt(root, readers.short_request(root))
        files = files_of(root)
        for target in TARGETS:
            with restored(files[target][0]):
                right = readers.READERS[target](root)
            for damage in (one for one in damages if one.target == target):
                file = generator.choice(files[target])
                damage.file = str(file.relative_to(root))
                with damaged(file, damage, generator):
                    damage.answer, damage.said = answer(root, file, target, right)
    return damages


def answer(root: Path, file: Path, target: str, right: object) -> tuple[str, str]:
    """What a job says and gives that reads a damaged file; see `Damage`."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            given = readers.READERS[target](root)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return ("refused" if file.name in said else "crashed"), said
    lines = [line for line in printed.getvalue().splitlines() if file.name in line]
    warning = next((line for line in lines if "damaged" in line), "")
    if given != right:
        return "other", warning
    return ("began anew" if warning else "equal"), warning


@contextlib.contextmanager
def restored(file: Path) -> Iterator[None]:
    """Put a file and all files beside it back at the end, also where their folder was set aside."""
    folder = file.parent
    before = {one: (one.read_bytes(), one.stat()) for one in folder.rglob("*") if one.is_file()}
    try:
        yield
    finally:
        for other in folder.parent.glob(f"{folder.name}*"):
            shutil.rmtree(other)
        for one, (whole, times) in before.items():
            one.parent.mkdir(parents=True, exist_ok=True)
            one.write_bytes(whole)
            os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))


@dataclass
class Healed:
    """A study of which one file of each target was damaged, and that was run again.

    Attributes:
        kind: TRUNCATION or FLIP.
        runs: How many runs of Snakemake it took; 0 if ROUNDS were not enough.
        unequal: Files that differ from the undisturbed ones.
        said: What each run printed.
    """

    kind: str
    runs: int
    unequal: list[str]
    said: list[str]


def heal(root: Path, undisturbed: Undisturbed, kind: str, generator: random.Random) -> Healed:
    """Damage one file of each target at once, and run the study again until it ends well."""
    with contextlib.chdir(root):
        readers.interrupt(root, readers.training_request(root))
        (file,) = (root / clone.STORE).glob("runs/mine/mine/lora/**/train.json")
        shutil.rmtree(file.parent)  # its training resumes from the checkpoint
        for target, files in files_of(root).items():
            hurt(generator.choice(files), Damage(kind, target, ""), generator)
    said = []
    for number in range(1, ROUNDS + 1):
        done = clone.run(root)
        said.append(done.stderr[-5000:])
        unequal = [name for name in compare(root, undisturbed, 0).unequal if SET_ASIDE not in name]
        if done.returncode == 0:
            return Healed(kind, number, unequal, said)
    return Healed(kind, 0, unequal, said)
