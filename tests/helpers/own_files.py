"""Forget what was read of method and optimizer files, for tests that write their own."""

from rankwise.core import plugins, provenance
from rankwise.study import class_kinds, class_source, module_source, options

# Files do not change while a study is planned, so what is read of them is kept for the process.
CACHED = (
    class_kinds.check_kind,
    class_source.lineage,
    module_source._parse,
    module_source.imports,
    options.constant,
    options.defines,
    options.options,
    plugins._by_import,
    plugins.find,
    provenance._facts,
    provenance._file_of,
    provenance.code_digest,
    provenance.code_digests,
    provenance.source_closure,
)
# By a file's path: to be forgotten by a test that edits a file which was read.
CACHED_TEXTS = (provenance._imports, provenance._facts, provenance.code_digest)


def forget_texts() -> None:
    for function in CACHED_TEXTS:
        function.cache_clear()
    forget()


def forget() -> None:
    for function in CACHED:
        function.cache_clear()
