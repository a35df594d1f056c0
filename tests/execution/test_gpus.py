"""Which GPUs this machine has and which of them may be used, as read from the driver or from a file."""

from pathlib import Path

import pytest

from helpers.nvidia_smi import install_nvidia_smi
from rankwise.execution import gpus
from rankwise.execution.gpus import GIB, Gpu, GpuError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "allowed: JSON"),
        ('{"uuid": "A"}', "allowed: a list of GPUs, each with uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H", "memory_gib": 8, "size": 1}]', "got uuid, name, memory_gib, size, allowed: uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H"}]', "got uuid, name, allowed: uuid, name, memory_gib"),
        ('[{"uuid": "A", "name": "H", "memory_gib": -8}]', "0.memory_gib: got -8, allowed: more than 0, in GiB"),
        ('[{"uuid": "A", "name": "H", "memory_gib": "8"}]', "0.memory_gib: got '8', allowed: a number"),
        ('[{"uuid": "A", "name": "H", "memory_gib": true}]', "0.memory_gib: got True, allowed: a number"),
        ('[{"uuid": "A", "name": 1, "memory_gib": 8}]', "0.name: got 1, allowed: a text"),
        ('[{"uuid": "../A", "name": "H", "memory_gib": 8}]', "0.uuid: got '../A', allowed: letters, digits"),
        ('[{"uuid": "A", "name": "H", "memory_gib": 8}, {"uuid": "A", "name": "H", "memory_gib": 8}]', "got uuid 'A' twice"),
    ],
)  # fmt: skip
def test_a_wrong_pool_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "gpus.json").write_text(text)
    with pytest.raises(GpuError) as refusal:
        gpus.available({"RANKWISE_CARDS": str(tmp_path / "gpus.json")})
    assert sentence in str(refusal.value)


def test_a_pool_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    message = "got No such file or directory, allowed: a JSON file that can be read"
    with pytest.raises(GpuError, match=message):
        gpus.available({"RANKWISE_CARDS": str(tmp_path / "none.json")})


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-aa-1", "MIG-cc-3", "MIG-dd-4"]),
        ("0", ["GPU-aa-1"]),
        ("1,0", ["MIG-cc-3", "GPU-aa-1"]),
        ("1, 1", ["MIG-cc-3"]),
        ("MIG-dd", ["MIG-dd-4"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["GPU-aa-1"]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_filters_the_gpus(
    visible: str | None, uuids: list[str], driver
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.uuid for gpu in gpus.available(environment)] == uuids


@pytest.mark.parametrize("name", ["7", "GPU-x", "MIG-"])
def test_cuda_visible_devices_must_name_one_gpu(name: str, driver) -> None:
    message = (
        f"CUDA_VISIBLE_DEVICES: got '{name}', allowed: 0 or GPU-aa-1, 1 or MIG-cc-3, 2 or MIG-dd-4"
    )
    with pytest.raises(GpuError, match=message):
        gpus.available({"CUDA_VISIBLE_DEVICES": name})


def test_sizes_of_gpus_and_slices(driver) -> None:
    sizes = [gpu.memory_bytes for gpu in gpus.available({})]
    assert sizes == [81559 * 2**20, 20 * GIB, 5 * GIB]


def test_memory_and_processes_of_each_gpu(driver) -> None:
    """The driver does not report the memory of slices."""
    present = gpus.available({})
    assert gpus.used_bytes(present) == {"GPU-aa-1": 4 * GIB}
    assert gpus.busy_fractions(present) == {"GPU-aa-1": 0.63}
    assert gpus.processes(present) == {
        "GPU-aa-1": ["python3 (pid 77)"],
        "MIG-cc-3": [],
        "MIG-dd-4": [],
    }


def test_without_nvidia_smi_the_drivers_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that a container was not given has question marks for a UUID."""
    monkeypatch.setattr(gpus, "SMI", "no-such-program")
    monkeypatch.setattr(gpus, "PROC", tmp_path)
    for number, uuid in enumerate(("GPU-ee-5", "GPU-????????")):
        (tmp_path / str(number)).mkdir()
        text = f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 7\nGPU UUID: \t {uuid}\nVideo BIOS: \t ??\n"
        (tmp_path / str(number) / "information").write_text(text)
    assert gpus.available({}) == [Gpu("GPU-ee-5", "NVIDIA H100", 0)]
