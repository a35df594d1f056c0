"""The size of an adapter: as large as the tensors of a file of what was trained."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from helpers.profiling import profile_request, smoke_override
from rankwise.measure.memory.persistent import predict
from rankwise.measure.step import adapted

METHODS = (
    "frozen", "full", "full_bf16", "head_only", "bitfit", "lora", "dora", "vera", "shira", "oft",
    "prompt_tuning", "adapter_houlsby", "weight_reduction", "rsvd", "lora_bf16",
)  # fmt: skip


def bytes_in_file(path: Path) -> int:
    """Bytes of the tensors of a safetensors file, by its own header."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    size = sum(end - start for start, end in spans)
    assert size == len(raw) - 8 - length
    return size


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_is_as_large_as_its_file(method: str, tmp_path: Path) -> None:
    request = profile_request("memory", method, override=smoke_override(method))
    _, model, _ = adapted(request, "cpu")
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    save_file(
        {name: param.detach().contiguous() for name, param in trained.items()}, tmp_path / "a"
    )
    assert predict(request)["adapter_bytes"] == bytes_in_file(tmp_path / "a")


def test_an_adapter_by_hand() -> None:
    """LoRA of rank 4 on q and v of two layers (64 x 64), and the new head, in fp32; full: the model."""
    head = (64 * 64 + 64) + (2 * 64 + 2)
    lora = predict(profile_request("memory", "lora", rank=4))
    assert lora["adapter_bytes"] == 4 * (2 * 2 * 4 * (64 + 64) + head)
    full = predict(profile_request("memory", "full"))
    assert full["adapter_bytes"] == full["weights_bytes"]


def test_a_tied_table_is_stored_once() -> None:
    """GPT-2's output embedding is its input embedding."""
    request = profile_request("memory", "full", model="gpt2", dataset="wikitext2")
    found = predict(request)
    assert found["adapter_bytes"] == found["weights_bytes"] == 4 * found["trainable_parameters"]
    _, model, _ = adapted(request, "meta")
    assert len(model.state_dict()) > len(list(model.parameters()))
