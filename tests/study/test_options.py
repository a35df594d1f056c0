"""Options are read from source: through base classes, in many annotations; each mistake is one sentence."""

import textwrap
from pathlib import Path

import pytest

from helpers.own_files import forget
from rankwise.core.config import ConfigError
from rankwise.core.provenance import source_closure, source_file
from rankwise.study.options import REQUIRED, constant, defines, options

METHOD = """
from dataclasses import dataclass
from typing import Literal, Optional, Union
import typing

from rankwise.methods.parts.base import Method


@dataclass(frozen=True)
class Sample(Method):
    {}
"""
OPTIMIZER = """
import torch


class Sample(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, *, {}):
        super().__init__(params, {{}})
"""
ALLOWED = "int, float, bool, str, dict, Literal[...], X | None, Optional[X], Union[X, Y], tuple[X, ...], list[X]"
DEFAULTS = "numbers, texts, true, false, None, arithmetic on numbers, or a tuple of these"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write files of a user's own project, where the test then runs; nothing read before is remembered."""
    monkeypatch.chdir(tmp_path)
    forget()

    def write(**files: str) -> None:
        for name, text in files.items():
            folder, _, module = name.partition("_")
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{module}.py").write_text(textwrap.dedent(text))

    yield write
    forget()


def read(own, fields: str) -> dict:
    own(methods_sample=METHOD.format(fields))
    return options("rankwise.methods.sample")


def sentence(module: str) -> str:
    with pytest.raises(ConfigError) as caught:
        options(f"rankwise.{module}")
    return str(caught.value)


# Annotations and defaults -------------------------------------------------------------------------


@pytest.mark.parametrize(("annotation", "accepted", "refused", "words"), [
    ("int", [0, -3], [1.5, True, "1", None, [1]], "an integer"),
    ("float", [0, 0.5], [True, "0.5", None], "a number"),
    ("bool", [True, False], [0, 1, "true", None], "true or false"),
    ("str", ["", "a"], [1, None, True], "a text"),
    ("Literal['a', 'b']", ["a", "b"], ["c", None, 1], "a, b"),
    ("Literal[8, 32]", [8, 32], [16, "8"], "8, 32"),
    ("int | None", [1, None], [1.5, "1"], "an integer or null"),
    ("Optional[int]", [1, None], [1.5, "1"], "an integer or null"),
    ("typing.Optional[float]", [1, 0.5, None], ["1"], "a number or null"),
    ("Union[int, str]", [1, "a"], [None, 1.5], "an integer or a text"),
    ("'int | None'", [1, None], ["1"], "an integer or null"),
    ("tuple[int, ...]", [[], [1, 2], (3,)], [1, [1.5], ["a"], None], "a list of integers"),
    ("tuple[float, float]", [[0.9, 1]], [[0.9], [0.9, 1, 1], 0.9], "a list of 2 numbers"),
    ("tuple[str, int]", [["a", 1]], [["a", "b"], ["a"]], "a list: tuple[str, int]"),
    ("list[int]", [[], [1, 2]], [1, [1.5], ["a"]], "a list of integers"),
    ("list[tuple[int, int]]", [[], [[1, 2]]], [[1, 2], [[1]]], "a list: list[tuple[int, int]]"),
    ("list[int] | None", [None, [1]], [1, ["a"]], "a list of integers or null"),
])  # fmt: skip
def test_an_annotation_accepts_its_values(
    annotation: str, accepted: list, refused: list, words: str, own
) -> None:
    option = read(own, f"given: {annotation}")["given"]
    assert option.default is REQUIRED
    assert option.allowed == words
    assert [option.accepts(value) for value in accepted] == [True] * len(accepted)
    assert [option.accepts(value) for value in refused] == [False] * len(refused)


@pytest.mark.parametrize(("annotation", "default", "value"), [
    ("float", "1 / 3", 1 / 3), ("float", "-1", -1), ("float", "2 ** -4", 0.0625), ("float", "1e-3", 0.001), ("int", "7 // 2 + 1", 4),
    ("int", "-(3 - 5) * 2", 4), ("tuple[float, ...]", "(1 / 4, 0.5)", [0.25, 0.5]), ("int | None", "None", None), ("str", "'a'", "a"),
    ("bool", "True", True),
])  # fmt: skip
def test_a_constant_default_is_evaluated(annotation: str, default: str, value, own) -> None:
    assert read(own, f"given: {annotation} = {default}")["given"].default == value


@pytest.mark.parametrize(("field", "message"), [
    ("given: Path", f"annotation of Sample.given: got 'Path', allowed: {ALLOWED}"),
    ("given: dict[str, int]", f"annotation of Sample.given: got 'dict[str, int]', allowed: {ALLOWED}"),
    ("given: set = None", f"annotation of Sample.given: got 'set', allowed: {ALLOWED}"),
    ("given: list", f"annotation of Sample.given: got 'list', allowed: {ALLOWED}"),
    ("given: list[Path]", f"annotation of Sample.given: got 'list[Path]', allowed: {ALLOWED}"),
    ("given: int = len('ab')", f'default of Sample.given: got "len(\'ab\')", allowed: {DEFAULTS}'),
    ("given: float = 1 / 0", f"default of Sample.given: got '1 / 0', allowed: {DEFAULTS}"),
    ("given: str = 'a' + 'b'", f"default of Sample.given: got \"'a' + 'b'\", allowed: {DEFAULTS}"),
    ("given: int = True", "default of Sample.given: got True, allowed: an integer, for the annotation is int"),
    ("given: int = 1 / 3", "default of Sample.given: got 0.3333333333333333, allowed: an integer, for the annotation is int"),
    ("given: list[int] = [1]", "default of Sample.given: got '[1]', allowed: a tuple: a dataclass has no lists as defaults"),
])  # fmt: skip
def test_a_field_that_cannot_be_read_is_one_sentence(field: str, message: str, own) -> None:
    own(methods_sample="from pathlib import Path\n" + METHOD.format(field))
    assert sentence("methods.sample") == f"methods/sample.py: {message}"


def test_class_variables_are_no_options(own) -> None:
    assert read(own, "KIND: typing.ClassVar[int] = 3\n    given: int = 1").keys() == {"given"}


# Plain torch optimizers ---------------------------------------------------------------------------


@pytest.mark.parametrize(("argument", "default", "accepted", "refused"), [
    ("momentum=0.9", 0.9, [0, 1.5], ["a", True, None]),
    ("weight_decay=0", 0, [0, 0.1], ["a", True]),
    ("nesterov=False", False, [True], [0, "true"]),
    ("rule='sign'", "sign", ["other"], [1, None]),
    ("betas=(0.9, 0.99)", [0.9, 0.99], [[0.5, 1]], [0.9, [0.9]]),
    ("limit=None", None, [None, 1, 0.5, "a", True, [1, 2]], [{"a": 1}]),
    ("momentum: float | torch.Tensor = 0.9", 0.9, [1, 0.5], ["a", None]),
    ("momentum: 'float | torch.Tensor' = 0.9", 0.9, [1, 0.5], ["a", None]),
    ("betas: tuple[float | torch.Tensor, float] = (0.9, 0.99)", [0.9, 0.99], [[0, 1]], [[1], 1]),
    ("steps=STEPS", 5, [1, 2.5], ["a"]),
])  # fmt: skip
def test_an_argument_takes_its_type_from_its_default(
    argument: str, default: object, accepted: list, refused: list, own
) -> None:
    own(optim_sample="STEPS = 5\n" + OPTIMIZER.format(argument))
    (option,) = options("rankwise.optim.sample").values()
    assert option.default == default
    assert all(option.accepts(value) for value in accepted)
    assert not any(option.accepts(value) for value in refused)


def test_an_argument_without_a_default_must_be_given_and_may_be_anything(own) -> None:
    own(optim_sample=OPTIMIZER.format("momentum"))
    option = options("rankwise.optim.sample")["momentum"]
    assert option.default is REQUIRED
    assert option.accepts(0.5)
    assert option.accepts("a")


@pytest.mark.parametrize(
    "argument",
    ["dtype=torch.float32", "maximize=False", "differentiable=False", "capturable: bool = False"],
)
def test_what_no_entry_may_set_is_no_option(argument: str, own) -> None:
    own(optim_sample=OPTIMIZER.format(argument))
    assert options("rankwise.optim.sample") == {}


def test_the_arguments_of_torchs_optimizers_are_read_from_torch(own) -> None:
    """By the signatures that torch 2.13 documents."""
    own(optim_sample="import torch\n\nclass Sample(torch.optim.SGD):\n    pass\n")
    expected = {
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "foreach": None,
        "fused": None,
    }
    for name in ("rankwise.optim.sample", "torch.optim:SGD"):
        assert {key: option.default for key, option in options(name).items()} == expected
    muon = options("torch.optim:Muon")
    assert muon["ns_steps"].default == 5
    assert muon["ns_coefficients"].default == [3.4445, -4.775, 2.0315]


# Base classes -------------------------------------------------------------------------------------


def test_a_variant_of_lora_has_loras_options(own) -> None:
    own(
        methods_variant="""
        from dataclasses import dataclass

        from rankwise.methods.lora import Lora


        @dataclass(frozen=True)
        class Variant(Lora):
            alpha: float = 16.0
            extra: int = 3
    """
    )
    found = options("rankwise.methods.variant")
    # In the order of Python's dataclasses: the base's fields first, in their own places.
    assert list(found) == [
        "rank",
        "targets",
        "alpha",
        "dropout",
        "rslora",
        "dora",
        "init",
        "plus_ratio",
        "freeze_a",
        "extra",
    ]
    assert (found["alpha"].default, found["extra"].default) == (16.0, 3)
    assert constant("rankwise.methods.variant", "QUANTIZED", False) is True
    assert constant("rankwise.methods.variant", "PROMPT", True) is False
    assert defines("rankwise.methods.variant", "observe")
    sources = source_closure("rankwise.methods.variant")
    assert {
        "rankwise.methods.variant",
        "rankwise.methods.lora",
        "rankwise.methods.parts.lora_base",
    } <= sources
    assert source_file("rankwise.methods.variant") == "methods/variant.py"


def test_a_base_may_be_another_file_of_the_users(own) -> None:
    own(
        methods_helper="""
            from dataclasses import dataclass
            from rankwise.methods import lora

            @dataclass(frozen=True)
            class Between(lora.Lora):
                between: int = 1
        """,
        methods_variant="""
            from dataclasses import dataclass
            from rankwise.methods.helper import Between as Base

            @dataclass(frozen=True)
            class Variant(Base):
                rank: int = 2
        """,
    )
    found = options("rankwise.methods.variant")
    assert next(iter(found)) == "rank"
    assert list(found)[-1] == "between"
    assert found["rank"].default == 2
    assert "rankwise.methods.helper" in source_closure("rankwise.methods.variant")


def test_an_undecorated_variant_has_its_bases_options(own) -> None:
    own(
        methods_variant="from rankwise.methods.lora import Lora\n\nclass Variant(Lora):\n    QUANTIZED = False\n"
    )
    assert options("rankwise.methods.variant") == options("rankwise.methods.lora")
    assert constant("rankwise.methods.variant", "QUANTIZED", True) is False


@pytest.mark.parametrize("line", [
    "from rankwise.optim.projected_adam import ProjectedAdam", "from rankwise.optim import ProjectedAdam",
])  # fmt: skip
def test_an_optimizer_inherits_its_arguments(line: str, own) -> None:
    own(optim_mine=f"{line}\n\nclass Mine(ProjectedAdam):\n    pass\n")
    assert options("rankwise.optim.mine") == options("rankwise.optim.projected_adam")
    assert constant("rankwise.optim.mine", "RELEASE", "fused") == "gathered"
    assert "rankwise.optim.projected_adam" in source_closure("rankwise.optim.mine")


def test_an_optimizer_may_pass_options_on(own) -> None:
    own(
        optim_mine="""
        from rankwise.optim.sgd import Sgd

        class Mine(Sgd):
            def __init__(self, params, lr: float = 1e-3, *, momentum: float = 0.5, mine: int = 1, **options):
                super().__init__(params, lr, momentum=momentum, **options)
    """
    )
    found = options("rankwise.optim.mine")
    assert {name: option.default for name, option in found.items()} == {
        "momentum": 0.5, "weight_decay": 0.0, "foreach": None, "fused": None, "release": False,
        "mine": 1
    }  # fmt: skip


# Mistakes in a file -------------------------------------------------------------------------------

BROKEN = {
    "the class of the README without its imports": (
        "@dataclass(frozen=True)\nclass Sample(Method):\n    given: int = 1\n",
        "line 1: got 'dataclass', allowed: a name that the file defines or imports",
    ),
    "a name in a method": (
        METHOD.format("given: int = 1\n\n    def prepare(self, model, names):\n        return train_onyl(model)\n"),
        "line 14: got 'train_onyl', allowed: a name that the file defines or imports",
    ),
    "no Python": ("class Sample(:\n", "line 1: got 'invalid syntax', allowed: valid Python"),
    "no class of that name": (
        "class Other:\n    pass\n",
        "classes: got 'Other', allowed: one class named like the file: Sample, in upper or lower case",
    ),
    "no class": ("x = 1\n", "classes: got 'none', allowed: one class named like the file: Sample, in upper or lower case"),
    "a module that Rankwise has not": (
        "from rankwise.methods.loar import Lora\n\nclass Sample(Lora):\n    pass\n",
        "line 1: got 'import of rankwise.methods.loar', allowed: modules of rankwise, and files in your own folder",
    ),
    "a name that a module has not": (
        "from rankwise.methods.lora import Loar\n\nclass Sample(Loar):\n    pass\n",
        "line 1: got 'import of Loar', allowed: names that rankwise.methods.lora defines",
    ),
    "a package that is not installed": (
        "import nonsuch_package\n\nclass Sample:\n    pass\n",
        "line 1: got 'import of nonsuch_package', allowed: packages that are installed here",
    ),
    "a base that a module has not": (
        "from rankwise.methods import lora\n\nclass Sample(lora.Loar):\n    pass\n",
        "base class: got 'lora.Loar', allowed: classes that rankwise.methods.lora defines or imports",
    ),
    "fields without a decorator": (
        "from rankwise.methods.parts.base import Method\n\nclass Sample(Method):\n    given: int = 1\n",
        "class Sample: got 'the field given and no @dataclass', allowed: @dataclass(frozen=True) above a class with fields",
    ),
    "an optimizer without arguments": (
        "import torch\n\nclass Sample(torch.optim.Optimizer):\n    pass\n",
        "class Sample: got 'no __init__ of its own', allowed: an __init__ whose arguments are the options, "
        "with their defaults",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_sentence(what: str, own) -> None:
    text, message = BROKEN[what]
    own(methods_sample=text)
    assert sentence("methods.sample") == f"methods/sample.py: {message}"


def test_a_constant_must_be_constant(own) -> None:
    own(methods_sample=METHOD.format("QUANTIZED = bool(1)"))
    with pytest.raises(ConfigError) as caught:
        constant("rankwise.methods.sample", "QUANTIZED", False)
    got = "Sample.QUANTIZED: got 'bool(1)', allowed: a constant"
    assert str(caught.value) == f"methods/sample.py: {got}"


def test_a_name_that_rankwise_has_too_is_one_sentence(own) -> None:
    own(methods_lora=METHOD.format("given: int = 1"))
    message = "methods/lora.py: file name: got 'lora', allowed: a name that no file of Rankwise has"
    assert sentence("methods.lora") == message


def test_names_that_only_look_unknown_are_known(own) -> None:
    """A global that a function assigns, a local in a function called `top`, names of Python itself."""
    own(
        methods_sample=METHOD.format("given: int = 1")
        + textwrap.dedent("""

        def top(values):
            local = [value for value in values]
            return local, __file__, __name__, __doc__

        def count():
            global COUNTED
            COUNTED = 1
            return COUNTED, [x for y in [[1]] for x in y], lambda z: z
    """)
    )
    assert list(options("rankwise.methods.sample")) == ["given"]
