"""The names of the files of prepared datasets and models.

Standard library only: the Snakefile imports this module.
"""

SPLIT_ENDING = ".arrow"


def recorded_files(prepared: dict) -> dict[str, str]:
    """The files beside a prepared dataset or model.

    Args:
        prepared: The content of its dataset.json or model.json.

    Returns:
        Name of the file -> the SHA-256 that was recorded when it was written.
    """
    files = dict(prepared.get("files", {}))
    for split, facts in prepared.get("splits", {}).items():
        files[f"{split}{SPLIT_ENDING}"] = facts["sha256"]
    return files
