"""Forget what was read of method and optimizer files, for tests that write their own."""

from rankwise.core import provenance
from rankwise.study import class_source, options

# Files do not change while a study is planned, so what is read of them is kept for the process.
CACHED = (
    class_source._parse,
    class_source.imports,
    class_source.lineage,
    options.constant,
    options.defines,
    options.options,
    provenance._parse,
    provenance.code_digest,
    provenance.code_digests,
    provenance.source_closure,
)


def forget() -> None:
    for function in CACHED:
        function.cache_clear()
