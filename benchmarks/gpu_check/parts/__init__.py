"""The parts of a check; each module has `run(check)`."""
