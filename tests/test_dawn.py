"""Dawn beside wgpu-native: how it is asked for, what it is told, and its words for matrix units. No driver is needed."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest
import wgpu
from dawns import null_adapter

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.matrix_units import with_matrix_units
from gpt2wgpu.gpu import GPUError, MatrixUnits, adapter_key, choose_adapter, find_library, kernels, open_device
from gpt2wgpu.gpu import device as device_module
from gpt2wgpu.gpu.matrix_words import tint_source
from gpt2wgpu.gpu.native import NATIVE

# --- asked for by name, never silently


def test_dawn_is_taken_only_when_asked_for():
    assert all(find_library(name) == (NATIVE, name) for name in ("auto", "gpu", "0", "llvmpipe", "dawn", "numpy"))
    pytest.importorskip("wgpudawn")
    from gpt2wgpu.gpu.dawn import DAWN

    assert find_library("dawn:gpu") == (DAWN, "gpu") and find_library("dawn:0") == (DAWN, "0")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(device_module, "version", missing)
    expected = r"^device 'dawn:gpu' needs wgpudawn: pip install 'wgpudawn~=0\.32\.0' \(the extra `dawn`\)$"
    with pytest.raises(UserError, match=expected):
        Encoder(device="dawn:gpu")
    monkeypatch.setenv("GPT2WGPU_DEVICE", "dawn:gpu")
    monkeypatch.setattr("gpt2wgpu.devices.choose.has_gpu_node", lambda: True)
    with pytest.raises(UserError, match="^GPT2WGPU_DEVICE: " + expected[1:]):
        Encoder()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Its private names are used."""
    monkeypatch.setattr(device_module, "version", lambda name: "0.33.1")
    with pytest.raises(
        UserError, match=r"^device 'dawn:gpu' needs wgpudawn 0\.32, and 0\.33\.1 is installed: pip install 'wgpudawn~=0\.32\.0'"
    ):
        choose_adapter("dawn:gpu")


def test_adapters_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wgpudawn")
    monkeypatch.setattr(device_module, "list_adapters", lambda library: ())
    assert choose_adapter("dawn:auto") is None
    with pytest.raises(UserError, match=r"^device 'dawn:gpu': Dawn found no WebGPU adapter that it accepts .*device='numpy'$"):
        choose_adapter("dawn:gpu")
    found = null_adapter()
    monkeypatch.setattr(device_module, "list_adapters", lambda library: (found,))
    assert choose_adapter("dawn:auto") is choose_adapter("dawn:gpu") is choose_adapter("dawn:0") is found
    with pytest.raises(UserError, match=r"none of the adapters found \(0: null\); choose one of them, 'dawn:auto', 'dawn:gpu'"):
        choose_adapter("dawn:geforce")


# --- devices


@pytest.mark.parametrize("checked", [True, False])
def test_checks_are_off_only_where_users_run(checked: bool):
    from wgpudawn.backends.dawn.extras import get_toggles

    toggles = get_toggles(open_device(null_adapter(), checked).raw)
    assert [t for t in ("disable_robustness", "disable_workgroup_init") if t in toggles] == (
        [] if checked else ["disable_robustness", "disable_workgroup_init"]
    )
    assert "timestamp_quantization" not in toggles and "skip_validation" not in toggles


def test_its_errors_are_wgpus():
    """So one `except` serves both libraries."""
    device = open_device(null_adapter(), checked=False)
    with pytest.raises(wgpu.GPUValidationError, match="nonsense"):
        kernels.compile_pipeline(device, "x", "fn f() -> u32 { return nonsense; }", 2)
    with pytest.raises(GPUError, match="exceeds the max buffer size limit"):
        device.raw.create_buffer(size=1 << 40, usage=wgpu.BufferUsage.STORAGE)


# --- matrix units


def listed(component: str, result: str, m: int, n: int, k: int, least: int, most: int) -> dict[str, object]:
    types = {"component_type": component, "result_component_type": result}
    return {**types, "m": m, "n": n, "k": k, "min_subgroup_size": least, "max_subgroup_size": most}


NVIDIA = [
    listed("f16", "f32", 16, 16, 16, 32, 32),
    listed("f16", "f32", 16, 8, 16, 32, 32),
    listed("f16", "f16", 16, 16, 16, 32, 32),
    listed("i8", "i32", 16, 16, 32, 32, 32),
]
AMD = [listed("u8", "u32", 16, 16, 16, 32, 64), listed("f16", "f32", 16, 16, 16, 32, 64)]
APPLE = [listed("f32", "f32", 8, 8, 8, 32, 32), listed("f16", "f16", 8, 8, 8, 32, 32)]
LAVAPIPE = [listed("f16", "f32", 8, 8, 8, 8, 8)]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (NVIDIA, [(16, 32)]),
        (AMD, [(16, 32), (16, 64)]),
        (APPLE, []),
        (LAVAPIPE, [(8, 8)]),
        ([listed("f16", "f32", 8, 16, 16, 16, 32)], []),  # Intel's
        ([*LAVAPIPE, *AMD], [(16, 32), (16, 64), (8, 8)]),
    ],
)
def test_shapes_are_read_from_the_adapter(shapes: list, expected: list, monkeypatch: pytest.MonkeyPatch):
    adapter = null_adapter()
    monkeypatch.setattr("wgpudawn.backends.dawn.extras.get_adapter_properties", lambda raw: {"subgroup_matrix_configs": shapes})
    assert list(adapter.library.matrix_shapes(adapter.raw)) == [MatrixUnits(*units) for units in expected]


def test_an_adapter_without_a_fitting_shape_is_named():
    device = open_device(null_adapter())
    assert with_matrix_units(device) == (device, "the adapter lists no square matrices of f16 with sums in f32")


NAGA = """
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
@compute @workgroup_size(64)
fn main() {
  let a = coopLoadT<Left>(&x[row * PITCH + 2u * (j + 1u)], PITCH);
  c = coopMultiplyAdd(a, coopLoad<Right>(&keys[0], PITCH), c);
  coopStoreT(c, &results[at], STRIP); coopStoreT(d, &results[beside], STRIP);
}
"""
TINT = """
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 8, 8>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;
@compute @subgroup_size(32) @workgroup_size(64)
fn main() {
  let a = subgroupMatrixLoad<Left, row_major>(&x, row * PITCH + 2u * (j + 1u), PITCH);
  c = subgroupMatrixMultiplyAccumulate(a, subgroupMatrixLoad<Right, col_major>(&keys, 0, PITCH), c);
  subgroupMatrixStore<row_major>(&results, at, c, STRIP); subgroupMatrixStore<row_major>(&results, beside, d, STRIP);
}
"""


def test_nagas_words_become_tints():
    assert tint_source(NAGA, 32).endswith(TINT)
    assert tint_source(NAGA, 32).startswith("enable subgroup_size_control;\nenable f16;\n")
    assert tint_source(NAGA, None).endswith(TINT.replace("@subgroup_size(32) ", ""))
    assert "subgroup_size" not in tint_source(NAGA, None)


@pytest.mark.parametrize(
    "left", ["coopStore(c, &x[0], 8u);", "let y = coopLoadT<Left>(&x[i[0]], 8u);", "alias D = coop_mat8x8<f16, D>;"]
)
def test_what_no_rule_covers_is_refused(left: str):
    with pytest.raises(ValueError, match=r"no rule of gpu/matrix_words\.py covers coop"):
        tint_source(NAGA + left, 32)


def test_what_was_measured_is_kept_for_one_library():
    """Their compilers differ."""
    adapter = null_adapter()
    assert "Dawn 20" in adapter_key(adapter)
    assert adapter_key(replace(adapter, library=NATIVE)) != adapter_key(adapter)
