"""Rules between the format of a dataset's files and the keys that say how to read them."""

import re

from rankwise.core.config import ConfigError

FILE = "config/datasets.yaml"
TABLES = ("csv", "tsv")


def check_format(name: str, entry: dict) -> None:
    """Check that each key on reading fits the format, so that none is without effect.

    Args:
        name: The dataset's name.
        entry: A dataset entry, with defaults of the schema.

    Raises:
        ConfigError: `columns` or `quotes` are given for files that are no tables, or `member` for
            files that are no archives; or an archive has no usable `member`.
    """
    source = entry.get("files") or entry.get("hub")
    if source is None:
        return
    file_format = source["format"]
    for key in ("columns", "quotes"):
        if entry.get(key) is not None and file_format not in (*TABLES, "zip"):
            allowed = f"nothing for {file_format}, only for {' and '.join(TABLES)}"
            raise ConfigError(FILE, f"{name}.{key}", entry[key], allowed)
    for split, file in entry.get("splits", {}).items():
        key = f"{name}.splits.{split}.member"
        if file_format in ("tar", "zip"):
            is_label = file_format == "tar" and "label" in entry
            _check_member(key, file.get("member"), is_label)
        elif "member" in file:
            raise ConfigError(
                FILE, key, file["member"], f"nothing for {file_format}, only for tar and zip"
            )
        if "further_paths" in file and "hub" not in entry:
            key, allowed = f"{name}.splits.{split}.further_paths", "nothing, only for the hub"
            raise ConfigError(FILE, key, file["further_paths"], allowed)
        _check_share(name, entry, split)


def _check_share(name: str, entry: dict, split: str) -> None:
    """Check that a share is the reported split's, of train's file."""
    file, train = entry["splits"][split], entry["splits"]["train"]
    if split == "train" and "share" in file:
        allowed = "no share of train: it has the rows that the reported split leaves"
        raise ConfigError(FILE, f"{name}.splits.train.share", file["share"], allowed)
    if "share" not in file:
        return
    if split != entry["report_split"]:
        allowed = f"a share of the reported split, {entry['report_split']}, alone"
        raise ConfigError(FILE, f"{name}.splits.{split}.share", file["share"], allowed)
    for key in ("path", "member"):
        if file.get(key) != train.get(key):
            got, allowed = file.get(key, "nothing"), f"that of train, {train.get(key, 'nothing')}"
            raise ConfigError(FILE, f"{name}.splits.{split}.{key}", got, f"{allowed}: see share")


def _check_member(key: str, pattern: str | None, has_label: bool) -> None:
    """Check the pattern of the names of a split's files in an archive."""
    if pattern is None:
        allowed = "a pattern of the names of the split's files, such as train/(pos|neg)/.*[.]txt"
        raise ConfigError(FILE, key, "nothing", allowed)
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(FILE, key, pattern, f"a regular expression ({error})") from None
    if has_label and not groups:
        allowed = "a pattern with a group that is the label, such as train/(pos|neg)/.*[.]txt"
        raise ConfigError(FILE, key, pattern, allowed)
