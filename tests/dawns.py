"""Dawn's null backend as a device: it compiles and checks on WebGPU's default limits, computes nothing and needs no driver."""

import pytest

from gpt2wgpu.gpu import Adapter, find_library


def null_adapter(kind: str = "DiscreteGPU") -> Adapter:
    """Each gives one device. kind: what it says it is."""
    pytest.importorskip("wgpudawn")
    library, _ = find_library("dawn:null")
    library.raw_adapters()  # makes Dawn's instance, with experimental features
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WGPU_BACKEND_TYPE", "Null")
        from wgpudawn import gpu

        raw = gpu.request_adapter_sync()
    assert raw.info["backend_type"] == "Null"
    return Adapter(0, "null", kind, "Dawn on Null", "", frozenset(raw.features), dict(raw.limits), raw, "", library)
