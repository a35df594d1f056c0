"""Results in a store, as jobs would have written them."""

from collections.abc import Callable
from pathlib import Path

from rankwise.core import provenance, result, sealed, store
from rankwise.study.jobs import PlannedJob


def store_result(
    root: Path, request: dict, make: Callable[[Path], dict], environment: dict | None = None
) -> Path:
    """Put a result into the store of a project, whose file this returns.

    Args:
        root: The project's folder.
        request: The request that the result answers.
        make: Takes the folder to write data files to, and returns the result's content.
        environment: Where the job ran.
    """
    place, kept = store.place(request), store.Store(root)
    with kept.locked(provenance.digest(request)), kept.part(place) as folder:
        content = make(folder)
        result.write(folder / Path(place).name, request, content, environment or {})
    return kept.folder / place


def change(file: Path, **parts: object) -> None:
    """Change parts of a result, and seal it anew, as one who knows how would."""
    result.write_text(file, sealed.text({**result.read(file), **parts}))


def made(root: Path, short_path: str) -> Path:
    """The one result of a cell in a study's folder, by its path without the digest."""
    path = root / short_path
    (result_file,) = path.parent.glob(f"*/{path.name}")
    return result_file


def finish(root: Path, job: PlannedJob, environment: dict | None = None, **content: object) -> Path:
    """Let a planned job have ended with this content: a result in the store, and a link to it."""
    file = store_result(root, job.request, lambda _: content, environment)
    store.link(file, root / job.path, root)
    return root / job.path
