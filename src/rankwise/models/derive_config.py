"""The part of a models entry that follows from a configuration: family, architecture, sizes."""

import dataclasses
import difflib
import json
from pathlib import Path

from torch import nn
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
)

from rankwise.core import family_configs
from rankwise.core.model_shapes import no_decoder_start
from rankwise.models.check import has_decoder_start

CONFIG = "config.json"
# Keys that neither shape nor compute a model: its origin, its labels, how it is loaded and saved.
IGNORED = {
    *("_name_or_path", "name_or_path", "_commit_hash", "architectures", "auto_map", "model_type"),
    *("transformers_version", "adapter_transformers", "finetuning_task", "task_specific_params"),
    *("id2label", "label2id", "num_labels", "problem_type", "tokenizer_class"),
    *("dtype", "torch_dtype", "use_cache", "return_dict", "output_attentions"),
    *("output_hidden_states", "gradient_checkpointing", "_attn_implementation_autoset"),
}
# Names of the number of positions, in the order in which families of transformers prefer them.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
READS = "input_ids"  # transformers' name of the input of a model of texts
UNSET_LENGTH = 1_000_000  # tokenizers without a limit save 1e30


def read_config(folder: Path) -> PretrainedConfig:
    """The configuration of a model's folder, if Rankwise can train such a model.

    Args:
        folder: With config.json.

    Raises:
        ValueError: One sentence on what is wrong with config.json.
    """
    file = folder / CONFIG
    family = _family(file)
    if family not in CONFIG_MAPPING:
        nearest = difflib.get_close_matches(family, list(CONFIG_MAPPING), n=1)
        hint = f" (nearest: {nearest[0]!r})" if nearest else ""
        allowed = "a family of the installed transformers; code that a folder brings is not run"
        raise ValueError(f"{file}: model_type: got {family!r}, allowed: {allowed}{hint}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each family has checks, and errors, of its own
        raise ValueError(f"{file}: transformers cannot read it: {_line(error)}") from error
    if getattr(config, "quantization_config", None):
        got = "weights that are quantized already"
        raise ValueError(f"{file}: quantization_config: got {got}, allowed: dense weights")
    model_class = MODEL_MAPPING.get(type(config), None)
    reads = getattr(model_class, "main_input_name", READS)
    if reads != READS:
        allowed = f"a family that reads {READS}: there are no batches of {reads} here"
        raise ValueError(f"{file}: model_type: got {family!r}, allowed: {allowed}")
    writes_text = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    if config.sub_configs or (config.is_encoder_decoder and not writes_text):
        parts = ", ".join(config.sub_configs) or "an encoder and a decoder"
        allowed = "one text model, or an encoder-decoder for texts such as T5 or BART; save the "
        allowed += "part that you want by its own class"
        raise ValueError(f"{file}: got a model of several parts ({parts}), allowed: {allowed}")
    if config.is_encoder_decoder and not has_decoder_start(config):
        raise ValueError(no_decoder_start(folder))
    return config


def says_own_head(folder: Path) -> bool:
    """Whether config.json says that the head is not the table of embeddings.

    Args:
        folder: With config.json, which `read_config` has read.
    """
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return written.get("tie_word_embeddings") is False


def _family(file: Path) -> str:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: got nothing, allowed: a model's configuration") from None
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}, allowed: a file that can be read") from None
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON in UTF-8 without a mark: {_line(error)}") from None
    family = value.get("model_type") if isinstance(value, dict) else None
    if not isinstance(family, str):
        raise ValueError(f"{file}: model_type: got {family!r}, allowed: a family of transformers")
    return family


def _line(error: Exception) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def architecture(config: PretrainedConfig, has_own_head: bool = False) -> dict:
    """The arguments from which `AutoConfig.for_model` makes an equal configuration.

    Numbers and texts are all written out, so that the entry means the same under other defaults.
    Lists, mappings and nulls stand there only where the configuration would differ without them.

    Args:
        config: Of the model.
        has_own_head: The weights have a head beside the table of embeddings. Of a T5 the
            configuration does not say it, so the entry must (`build.from_shapes`).

    Raises:
        ValueError: No arguments make an equal configuration.
    """
    base = {field.name: field.default for field in dataclasses.fields(PretrainedConfig)}
    facts = _facts(config)
    arguments = {k: v for k, v in facts.items() if k not in base or v != base[k]}
    if has_own_head:
        arguments["tie_word_embeddings"] = False
    for key, value in list(arguments.items()):
        if value is None or isinstance(value, dict | list):
            fewer = {k: v for k, v in arguments.items() if k != key}
            if _is_made_by(config, fewer):
                arguments = fewer
    if not _is_made_by(config, arguments):
        raise ValueError(
            f"{CONFIG}: got a {config.model_type} that its own values do not make again, allowed: "
            "a configuration that transformers saves and reads unchanged"
        )
    return arguments


def _is_made_by(config: PretrainedConfig, arguments: dict) -> bool:
    """Whether an entry with these arguments has this configuration."""
    try:
        made = AutoConfig.for_model(config.model_type, **arguments)
    except Exception:  # each family has checks, and errors, of its own
        return False
    return _facts(made) == _facts(config)


def _facts(config: PretrainedConfig) -> dict:
    """What shapes and computes the model, as JSON has it: keys that its family reads."""
    known = family_configs.keys(config.model_type)
    values = {
        key: value
        for key, value in config.to_dict().items()
        if key not in IGNORED and (known is None or known.knows(key))
    }
    return json.loads(json.dumps(values))


def positions(config: PretrainedConfig, model: nn.Module, folder: Path) -> int:
    """The longest input in tokens.

    A table of positions with a padding index starts behind it (RoBERTa), so it holds fewer tokens
    than rows.

    Args:
        config: Of the model.
        model: Without a head.
        folder: Of the model, for the limit of a tokenizer.

    Raises:
        ValueError: Neither the configuration nor the tokenizer has a limit.
    """
    for key in POSITIONS:
        rows = getattr(config, key, None)
        if isinstance(rows, int) and rows > 0:
            return rows - _unused_rows(model, rows)
    length = _tokenizer_length(folder)
    if length:
        return length
    raise ValueError(
        f"{folder / CONFIG}: got no {', '.join(POSITIONS[:-1])} or {POSITIONS[-1]}, and no "
        "model_max_length of the tokenizer; give the longest input in tokens: --positions N"
    )


def _unused_rows(model: nn.Module, rows: int) -> int:
    """How many rows at the start of the table of positions no token has."""
    words = model.get_input_embeddings()
    for module in model.modules():
        is_table = isinstance(module, nn.Embedding) and module is not words
        if is_table and module.num_embeddings == rows and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _tokenizer_length(folder: Path) -> int | None:
    try:
        text = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
        length = json.loads(text).get("model_max_length")
    except (OSError, ValueError, AttributeError):
        return None
    return length if isinstance(length, int) and 0 < length < UNSET_LENGTH else None
