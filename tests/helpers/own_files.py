"""Forget what was read of method and optimizer files, for tests that write their own."""

from rankwise.core import plugins, provenance
from rankwise.study import class_source, module_source, options

# Files do not change while a study is planned, so what is read of them is kept for the process.
CACHED = (
    class_source.lineage,
    module_source._parse,
    module_source.imports,
    options.constant,
    options.defines,
    options.options,
    plugins._by_import,
    plugins.find,
    provenance._imports,
    provenance._parse,
    provenance.code_digest,
    provenance.code_digests,
    provenance.source_closure,
)


def forget() -> None:
    for function in CACHED:
        function.cache_clear()
