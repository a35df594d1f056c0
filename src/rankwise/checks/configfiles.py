"""The files behind Snakemake's `--configfile`, checked before Snakemake reads them.

Snakemake reads them before it reads the Snakefile: it takes the last of two equal keys, prints a
traceback for a file that is missing, and does not say where a file is broken. So the profile that
Snakemake reads first (profiles/default) calls this module, and so does the Snakefile, for projects
that have no such profile.
"""

import sys
from pathlib import Path

from rankwise.core.errors import ConfigError
from rankwise.core.yaml_files import check_config_file

OPTION = (
    "--configf"  # argparse takes every beginning of --configfile and --configfiles; not --config
)


def check_command_line() -> None:
    """Check the configuration files of this process's command line; end it if one is wrong."""
    try:
        check(sys.argv[1:])
    except ConfigError as error:
        sys.exit(str(error))


def check(arguments: list[str]) -> None:
    """Check that the configuration files among Snakemake's arguments can be read, and are strict.

    Args:
        arguments: The words of Snakemake's command line, without the program.

    Raises:
        ConfigError: a file is missing, is not YAML, or has a key twice.
    """
    for number, name in enumerate(_named(arguments)):
        if number and not Path(name).exists():
            allowed = "a YAML file; write targets in front of --configfile"
            raise ConfigError("snakemake", "--configfile", name, allowed)
        check_config_file(Path(name), name)


def check_content(arguments: list[str]) -> None:
    """Check the files that Snakemake has read, as far as they can be found again.

    With `--directory` it has left the folder that their names are relative to.

    Args:
        arguments: The words of Snakemake's command line, without the program.

    Raises:
        ConfigError: a file has a key twice.
    """
    for name in _named(arguments):
        if Path(name).exists():
            check_config_file(Path(name), name)


def _named(arguments: list[str]) -> list[str]:
    """The files behind `--configfile`, which takes all words up to the next option."""
    files: list[str] = []
    takes = False
    for word in arguments:
        if word.startswith("-"):
            option, separator, value = word.partition("=")
            takes = option.startswith(OPTION)
            if takes:
                files = [value] if separator else []  # the last one counts
                takes = not separator
        elif takes:
            files.append(word)
    return files
