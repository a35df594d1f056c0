"""The names of the files beside a result: of prepared datasets and models, and of kept weights.

Standard library only: the Snakefile imports this module.
"""

SPLIT_ENDING = ".arrow"


def recorded_files(content: dict) -> dict[str, str]:
    """The files beside a prepared dataset or model, or beside a training run.

    Args:
        content: Of the result: dataset.json, model.json or train.json.

    Returns:
        Path of the file, relative to the result's folder -> the SHA-256 that was recorded when it
        was written.
    """
    files = dict(content.get("files", {}))
    for split, facts in content.get("splits", {}).items():
        files[f"{split}{SPLIT_ENDING}"] = facts["sha256"]
    return files | content.get("weights", {}).get("files", {})
