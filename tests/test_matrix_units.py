"""Matrix units are used where they are granted and right.

The decision is tested on every device, with another kernel in the place of the one on matrix units. The kernel itself is
tested where cooperative-matrix is granted: lavapipe has it since Mesa 25, but wgpu-py's own wgpu-native refuses it, see
benchmarks/experimental_wgpu.py.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gpt2wgpu import Encoder
from gpt2wgpu.devices import choose
from gpt2wgpu.devices import matrix_units as choose_units
from gpt2wgpu.devices.matrix_units import MATMUL_CASES, first_error, with_matrix_units
from gpt2wgpu.devices.selftest import Case, case_arrays, check_op, compare_results, forward_cases
from gpt2wgpu.gpu import Device, GPUProgram, MatrixUnits, Tile, kernels, measure_ceilings, open_device, tiles
from gpt2wgpu.gpu.tuning import Bench
from gpt2wgpu.graph import ops, reference

ONE = (MatrixUnits(16, 32),)


@pytest.fixture
def granted(device: Device) -> Device:
    """A device that says it has matrix units."""
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    return replace(device, granted=device.granted.union(device.library.matrix_features), kernels={})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the kernels without matrix units, the named one changed, in the place of those with, which few drivers compile."""
    original = kernels.read_shader

    def put(old: str = "", new: str = "", kernel: str = "matmul_cooperative") -> None:
        others = {
            "matmul_cooperative": "\n".join(map(original, ("matmul_workgroup", "matmul_order", "k_in_one"))),
            "attention_cooperative": "\n".join(
                map(original, ("attention", "softmax_attention", "attention_keys", "attention_load"))
            ),
        }
        assert old in others[kernel]
        others[kernel] = others[kernel].replace(old, new)
        monkeypatch.setattr(kernels, "read_shader", lambda name: others.get(name) or original(name))

    return put


def test_not_granted(device: Device):
    without = replace(device, granted=device.granted - {device.library.matrix_features[0]}, refused="as a test")
    assert with_matrix_units(without) == (without, f"{device.library.matrix_features[0]} is not granted: as a test")


def test_a_feature_that_is_listed_and_then_refused_is_done_without(device: Device):
    """Here by the driver, which does not have it."""
    needed = device.library.matrix_features
    if device.adapter.features.issuperset(needed):
        opened = open_device(device.adapter)
        assert opened.grants_matrices == (opened.refused == "")
    else:
        assert open_device(device.adapter).refused.startswith("it has no ")
        listed = replace(device.adapter, features=device.adapter.features.union(needed, {"shader-f16"}))
        opened = open_device(listed) if device.has_f16 else None
        if opened:
            assert not opened.grants_matrices
            assert opened.has_f16
            assert opened.refused
            assert "\n" not in opened.refused


def test_a_kernel_that_does_not_compile_is_refused_in_one_line(granted: Device, stand_in: Callable[..., None]):
    stand_in("let k4s", "let nonsense")
    found, why = with_matrix_units(granted)
    assert found is granted
    assert found.matrix_units is None
    assert why.startswith("no matrix units agree with numpy: 16 x 16, 32 lanes: linear_add (T=203 K=36 N=68 f16) does not run: ")
    assert "8 x 8, 64 lanes: linear_add (T=203 K=36 N=68 f16) does not run: " in why
    assert "\n" not in why


@pytest.mark.parametrize(("old", "new"), [("k4 < k4s", "k4 + 1u < k4s"), ("row0 + ", "row0 + 1u + ")])
def test_wrong_results_are_refused(old: str, new: str, granted: Device, stand_in: Callable[..., None]):
    stand_in(old, new)
    found, why = with_matrix_units(granted, ONE)
    assert found is granted
    assert "is wrong: error" in why


def test_sums_in_f16_are_refused(granted: Device, stand_in: Callable[..., None]):
    """A matmul that rounds its sum to f16 after every step."""
    stand_in("fma(vec4<f32>(v[r]), w_left, left[4u * g + r])", "quantizeToF16(fma(vec4<f32>(v[r]), w_left, left[4u * g + r]))")
    found, why = with_matrix_units(granted, ONE)
    assert found is granted
    assert "linear_add" in why
    assert "is wrong: error" in why


def test_right_results_are_used_by_every_f16_matmul_and_no_other(granted: Device, stand_in: Callable[..., None]):
    stand_in()
    found, why = with_matrix_units(granted)
    assert found.matrix_units == MatrixUnits(16, 32)
    assert why == ""
    assert found.matmul("f16") == "matmul_cooperative"
    assert found.matmul("f32") == granted.matmul("f32") == granted.matmul("f16") != "matmul_cooperative"
    for half in (False, True):
        assert check_op(found, Case(ops.linear, {"K": 20, "N": 36}, half=half)).ok
    odd, _ = case_arrays(Case(ops.linear, {"K": 5, "N": 12}, half=True))
    assert kernels.shader_files(odd, found.matmul("f16"))[0] == "linear_scalar"


def test_attention_that_is_wrong_is_done_without(granted: Device, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    """Matmuls that are right keep their matrix units; `info` says so, and attention runs as on a GPU without them."""
    stand_in("exp(", "2.0 * exp(", "attention_cooperative")
    found, why = with_matrix_units(granted)
    assert found.matrix_units == MatrixUnits(16, 32)
    assert why.startswith(
        "attention does without: attention (T=220 N=576 head_size=64 scale=1.0 causal=True f16) is wrong: error "
    )
    case = Case(ops.attention, {"N": 576}, attrs={"head_size": 64, "scale": 1.0, "causal": True}, half=True)
    assert check_op(found, case).ok
    assert (
        kernels.shader_files(Case(ops.linear, {"K": 20, "N": 36}, half=True).output(), found.matmul("f16"))[1]
        == "matmul_cooperative"
    )
    monkeypatch.setattr(choose_units, "find_matrix_units", with_matrix_units)
    gpu = replace(granted, adapter=replace(granted.adapter, kind="DiscreteGPU"), kernels={})
    found, said = choose.find_matmul(gpu, "float16")
    assert said == f"matmul_cooperative ({why})"
    assert kernels.shader_files(case.output(), found.attention("f16"))[0] == "attention_flash"


def test_tiles_of_the_other_kernel_are_not_taken_over(granted: Device, stand_in: Callable[..., None]):
    """They may have been read from the cache by then."""
    granted = replace(granted, tuned={"tiles": {(84, 148, "f16"): (Tile(16, 64, 2),) * 4}})
    stand_in()
    found, _ = with_matrix_units(granted, ONE)
    assert found.matrix_units
    assert (84, 148, "f16") not in tiles.chosen_tiles(found)


def test_what_info_says(device: Device, granted: Device, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose_units, "find_matrix_units", with_matrix_units)  # tests/test_child_process.py has the rest
    assert choose.find_matmul(None, "float32") == (None, "BLAS")
    assert Encoder(device="numpy", layer=0).info()["matmul"] == "BLAS"
    gpu = replace(granted, adapter=replace(granted.adapter, kind="DiscreteGPU"))
    assert choose.find_matmul(gpu, "float32") == (gpu, "matmul_workgroup")
    stand_in("let k4s", "let nonsense")
    found, why = choose.find_matmul(gpu, "float16")
    assert found is gpu
    assert why.startswith("matmul_workgroup (no matrix units agree with numpy: ")
    stand_in()
    found, why = choose.find_matmul(replace(gpu, kernels={}), "float16")
    assert found.matrix_units
    assert why == "matmul_cooperative"
    software = replace(gpu, adapter=replace(gpu.adapter, kind="CPU"))
    assert choose.find_matmul(software, "float16") == (software, software.matmul("f32"))


def test_tiles_fit_every_device(device: Device):
    """Workgroup memory as the arrays declare it, in multiples of 16 bytes; whole parts, fragments and rows of loads."""
    for units in (MatrixUnits(16, 32), MatrixUnits(16, 64), MatrixUnits(8, 32), MatrixUnits(8, 8)):
        found = replace(device, matrix_units=units)
        limits = {**device.adapter.limits, "max-compute-workgroup-storage-size": 32768}
        fitting = tiles.tile_candidates(replace(found, adapter=replace(found.adapter, limits=limits)), "f16")
        assert len(fitting) == len({str(t) for t in fitting}) == len(tiles.MATRIX_TILES)
        for tile in fitting:
            assert tile.thread_rows in (2 * units.size, 4 * units.size)
            assert tile.rows % tile.thread_rows == tile.columns % tile.thread_rows == 0
            memory, lanes = tiles.tile_needs(found, "matmul_cooperative", tile)
            assert memory % 16 == lanes % 8 == lanes % (tile.columns // 4) == 0
            assert (8 * tile.rows) % lanes == (8 * tile.columns) % lanes == 0  # whole loads of every lane
        limits |= {"max-compute-workgroup-storage-size": 16384, "max-compute-invocations-per-workgroup": 256}
        weak = replace(found, adapter=replace(found.adapter, limits=limits))
        assert all(tiles.tile_needs(weak, "matmul_cooperative", t)[1] <= 256 for t in tiles.tile_candidates(weak, "f16"))
        weaker = replace(weak, adapter=replace(weak.adapter, limits=limits | {"max-compute-workgroup-storage-size": 1000}))
        assert "allows 1000 bytes of workgroup memory and 256 threads" in first_error(weaker, MATMUL_CASES)


def test_fragments_are_aligned_in_any_layout(granted: Device):
    """A driver may lay workgroup memory out in any order: an array of 4 bytes before them gave NaN on an H100."""
    bytes_of = {"f16": 2, "f32": 4, "atomic<u32>": 4}
    for units in (MatrixUnits(16, 32), MatrixUnits(16, 64), MatrixUnits(8, 8)):
        device = replace(granted, matrix_units=units)
        matmul = Case(ops.linear, {"K": 84, "N": 148}, half=True).output()
        sources = [kernels.specialise_source(device, matmul, tile) for tile in tiles.tile_candidates(device, "f16")]
        for head in kernels.MATRIX_HEADS:
            case = Case(ops.attention, {"N": 3 * head}, attrs={"head_size": head, "scale": 1.0, "causal": True}, half=True)
            sources.append(kernels.specialise_source(device, case.output()))
        for source in sources:
            names: dict[str, int] = {"min": min, "max": max}  # type: ignore[dict-item]
            for name, value in re.findall(r"^const (\w+)(?:: u32)? = ([^;=<>]+);", source, flags=re.M):
                names[name] = eval(re.sub(r"(\d)u\b", r"\1", value).replace("/", "//"), names)
            arrays = re.findall(r"^var<workgroup> (\w+): array<([^;]+), ([^;]+)>;", source, flags=re.M)
            assert len(arrays) == source.count("var<workgroup>") >= 3
            for name, element, count in arrays:
                assert bytes_of[element] * eval(count.replace("u", "").replace("/", "//"), names) % 16 == 0, (name, units)


# --- the kernel itself


@pytest.fixture
def granting(device: Device) -> Device:
    if not device.grants_matrices:
        pytest.skip("the device grants no cooperative-matrix")
    return device


@pytest.fixture(params=[MatrixUnits(8, 8), MatrixUnits(8, 32)], ids=str)
def units(request: pytest.FixtureRequest, granting: Device) -> Device:
    """Matrix units in use. 8 x 8 is what software drivers list; with 32 lanes most of their subgroups repeat others' work."""
    return replace(granting, matrix_units=request.param, tuned={})


def test_they_are_admitted(granting: Device, units: Device):
    found, why = with_matrix_units(granting, [MatrixUnits(8, 4), units.matrix_units])
    assert found.matrix_units == units.matrix_units
    assert why == ""


def test_every_epilogue_and_awkward_shapes_equal_numpy(units: Device):
    tried = [c for c in forward_cases(half=True) if c.half and c.op.name.startswith("linear")]
    shapes = [(4, 4), (32, 64), (36, 68), (100, 4), (768, 132)]
    tried += [Case(ops.linear_add, {"K": k, "N": n}, (t,), half=True) for t in (1, 32, 33, 129) for k, n in shapes]
    tried += [Case(ops.linear_add_int8, {"K": k, "N": n}, (33,), half=True) for k, n in shapes]
    assert "coop_mat" in kernels.find_kernel(units, case_arrays(tried[-1])[0]).source
    checks = [check_op(units, case) for case in tried]
    assert [c for c in checks if not c.ok] == []


@pytest.mark.parametrize(("head", "causal"), [(32, False), (64, True)])
def test_attention_equals_numpy(units: Device, head: int, causal: bool):
    """Sequences of any length; scores that grow along the keys, so that results are rescaled."""
    lengths = (1, 70, 17, 32, 33, 130)
    for scale in (0.01, 0.3, 3.0):
        case = Case(ops.attention, {"N": 9 * head}, lengths, {"head_size": head, "scale": scale, "causal": causal}, half=True)
        check = check_op(units, case)
        assert check.ok, check
    output, values = case_arrays(case)
    assert "coop_mat" in kernels.find_kernel(units, output).source
    qkv = values["qkv"].astype(np.float32)
    qkv[:, 3 * head : 6 * head] *= np.linspace(0, 4, len(qkv))[:, None]
    values["qkv"] = qkv.astype(np.float16)
    expected = reference.NumpyProgram(output, lambda t: values[t.name]).run(values)
    capacity = {"T": sum(lengths), "B": len(lengths), "G": len(values["tiles"])}
    found = GPUProgram(units, output, lambda t: values[t.name], capacity).run(values)
    assert compare_results("attention", "growing", expected, found, 1e-3).ok


def test_attention_does_not_depend_on_the_batch(units: Device):
    """The growth of its maxima decides when results are rescaled: of its own sequence only."""
    lengths = (33, 70, 5, 130)
    case = Case(ops.attention, {"N": 576}, lengths, {"head_size": 64, "scale": 1.0, "causal": True}, half=True)
    output, values = case_arrays(case)
    program = GPUProgram(units, output, lambda t: values[t.name], {"T": 256, "B": 4, "G": 16})
    whole = program.run(values)
    for start, end in values["spans"].tolist():
        n = end - start
        alone = {"qkv": values["qkv"][start:end], "spans": np.array([[0, n]], np.uint32)}
        alone["tiles"] = np.array([(0, first) for first in range(0, n, 32)], np.uint32)
        np.testing.assert_array_equal(program.run(alone), whole[start:end])


def test_other_heads_and_f32_attention_do_without(units: Device):
    for head, half in ((64, False), (10, True), (128, True)):
        attrs = {"head_size": head, "scale": 1.0, "causal": True}
        output, _ = case_arrays(Case(ops.attention, {"N": 3 * head}, attrs=attrs, half=half))
        assert "coop_mat" not in kernels.find_kernel(units, output).source


def test_a_model_in_f16_equals_numpy_and_does_not_depend_on_the_batch(units: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (units, "the device of the tests"))
    model = Encoder(device="gpu", dtype="float16", layer=1)
    on_matrix_units = {step.tensor.op.name for step in model.engine.program.steps if "coop_mat" in step.kernels[0][1].source}
    assert on_matrix_units == {"linear", "linear_add", "attention"}
    texts = ["a cat", "the quick brown fox jumps over the lazy dog " * 5, "rain falls outside", "12 °C"]
    found = model.encode(texts)
    wanted = Encoder(device="numpy", layer=1).encode(texts)
    assert np.abs(found - wanted).max() < 2e-2 * np.abs(wanted).max()
    np.testing.assert_array_equal(np.stack([model.encode([t])[0] for t in texts]), found)


def test_their_ceiling(units: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.COPIED_BY_SOFTWARE", 1 << 20)
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.LONG_ENOUGH", 0.001)
    assert measure_ceilings(replace(units, matrix_units=None)).matrix_gflops == 0
    assert 0.01 < measure_ceilings(units).matrix_gflops < 1e7


def test_every_tile_gives_the_same_bits(units: Device):
    for dtype in ("f16", "i8f16"):
        bench = Bench(units, (84, 148, dtype), math.inf)
        assert [*bench.kernels] == tiles.tile_candidates(units, dtype)
        assert {t.thread_rows for t in bench.kernels} == {16, 32}


def test_no_batch_changes_bits(units: Device):
    output, values = case_arrays(Case(ops.linear, {"K": 68, "N": 132}, (130,), half=True))
    small, large = Tile(16, 32, 16), Tile(64, 64, 32)
    units.tuned["tiles"] = {tiles.matmul_key(output): (small, Tile(32, 32, 16), large, Tile(32, 64, 16), large, small)}
    program = GPUProgram(units, output, lambda t: values[t.name], {"T": 130})
    whole = program.run(values)
    for rows in (1, 31, 33, 128):
        np.testing.assert_array_equal(program.run({**values, "x": values["x"][:rows]}), whole[:rows])
    np.testing.assert_array_equal(program.run({**values, "x": values["x"][64:]}), whole[64:])


def test_a_nan_stays_in_its_row(units: Device):
    output, values = case_arrays(Case(ops.linear_add, {"K": 36, "N": 68}, (40,), half=True))
    values["x"][7, 35] = np.nan
    found = GPUProgram(units, output, lambda t: values[t.name], {"T": 40}).run(values)
    assert np.isnan(found[7]).all()
    assert np.isfinite(np.delete(found, 7, axis=0)).all()


def test_subgroups_wider_than_expected_give_nan_and_are_refused(granting: Device):
    """Then some parts of a tile are nobody's."""
    found, why = with_matrix_units(granting, [MatrixUnits(8, 1)])
    assert found is granting
    assert "is wrong: error inf" in why


def test_fragments_that_sum_in_f16_are_refused(granting: Device, monkeypatch: pytest.MonkeyPatch):
    original = kernels.read_shader

    def changed(name: str) -> str:
        source = original(name)
        if name == "matmul_cooperative":
            for old, new in (
                ("<f32, C>", "<f16, C>"),
                ("results: array<f32,", "results: array<f16,"),
                ("vec4(results", "vec4<f32>(vec4(results"),
                ("results[4u * i + 3u]);", "results[4u * i + 3u]));"),
            ):
                assert old in source
                source = source.replace(old, new)
        return source

    monkeypatch.setattr(kernels, "read_shader", changed)
    found, why = with_matrix_units(replace(granting, kernels={}), [MatrixUnits(8, 8)])
    assert found.matrix_units is None
    assert "linear_add" in why
    assert "is wrong: error" in why
    assert "inf" not in why
