"""The GPU that torch computes on, as NVIDIA's management library (NVML) sees it.

NVML is called in the driver's own library, which every machine with a driver has, so no package is
needed. Names, numbers and units are those of nvml.h.
"""

import ctypes

import torch

LIBRARY = "libnvidia-ml.so.1"
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean slower than asked for. The other bits
# are choices: an idle GPU, clocks set by a user, boost groups.
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature",
    0x80: "power brake",
}


class Gpu:
    """One GPU. A quantity that it does not offer is None.

    Args:
        nvml: The loaded library, after nvmlInit_v2.
        handle: The device's nvmlDevice_t.
    """

    def __init__(self, nvml: ctypes.CDLL, handle: ctypes.c_void_p):
        self._nvml, self._handle = nvml, handle

    @classmethod
    def find(cls) -> "Gpu | None":
        """Find the GPU that torch computes on; None without a driver."""
        try:
            nvml = ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        # By UUID: NVML ignores CUDA_VISIBLE_DEVICES, so its indices are not torch's.
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        uuid = f"GPU-{properties.uuid}".encode()
        handle = ctypes.c_void_p()
        if nvml.nvmlInit_v2():  # 0 is success, here and below
            return None
        if nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
        return cls(nvml, handle)

    def _read(self, function: str, kind: type) -> int | None:
        """Call an NVML function that writes one number of a C type."""
        value = kind()
        code = getattr(self._nvml, function)(self._handle, ctypes.byref(value))
        return None if code else value.value

    def energy_j(self) -> float | None:
        """Joules used since the driver was loaded."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1e3

    def power_w(self) -> float | None:
        """Watts drawn now."""
        milliwatts = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if milliwatts is None else milliwatts / 1e3

    def throttles(self) -> set[str]:
        """Why the clocks are held down now; empty if they are not."""
        bits = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return {reason for bit, reason in THROTTLES.items() if bits & bit}

    def other_processes(self) -> int:
        """How many other processes compute on the GPU.

        NVML in a container may see none of them, and not this process either.
        """
        # Given room for no entry, NVML answers with the number of processes.
        number = ctypes.c_uint(0)
        self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._handle, ctypes.byref(number), None)
        this_process = 1 if torch.cuda.is_initialized() else 0
        return max(0, number.value - this_process)
