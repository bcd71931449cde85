# %% [markdown]
# # 12. Exercises with kernels
#
# More than [chapter 11](11_exercises.py) asks. Each is a question, and below it a solution whose asserts check it. To check a
# solution of your own, put it in place of the one here and run the file. Without an adapter the checks of kernels are left out,
# and the chapter says so.

# %%
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np

from gpt2wgpu import UserError
from gpt2wgpu.devices.selftest import Case, Check, check_op
from gpt2wgpu.gpu import choose_adapter, kernels, open_device
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.ops.grids import ELEMENT_THREADS
from gpt2wgpu.graph.tensor import Array, op

try:
    adapter = choose_adapter("gpu")
    assert adapter is not None
    device = open_device(adapter, checked=True)
    print(f"kernels run on {adapter}")
except UserError as error:
    device = None
    print(f"no kernel runs here: {error}")


def check_kernel(case: Case, shader: str, source: str) -> Check | None:
    """Compare an op on the device with numpy, with this source in place of shaders/SHADER.wgsl; None without a device."""
    if device is None:
        return None
    original = kernels.read_shader
    with mock.patch.object(kernels, "read_shader", lambda name: source if name == shader else original(name)):
        found = check_op(device, case)
    print(f"{case.op.name} {case}: {'right' if found.ok else found.what}")
    return found


# %% [markdown]
# ### Change the size of a workgroup
#
# `shaders/concat.wgsl` puts two rows side by side, with a thread for each number and 64 threads in a workgroup. Make it 32. Is
# the result still right? What else has to change?

# %%
concat = kernels.read_shader("concat")
smaller = concat.replace("@workgroup_size(64)", "@workgroup_size(32)")
case = Case(ops.concat, {"J": 70, "K": 3})
as_it_is = check_kernel(case, "concat", concat)
shader_alone = check_kernel(case, "concat", smaller)
with_grid = replace(ops.concat, grid=lambda p: (-(-(p.J + p.K) // 32), p.B, 1))
both = check_kernel(Case(with_grid, {"J": 70, "K": 3}), "concat", smaller)

assert (ELEMENT_THREADS, ELEMENT_THREADS // 2, case.sizes["J"] + case.sizes["K"]) == (64, 32, 73)
assert smaller != concat and ops.concat.grid(SimpleNamespace(J=70, K=3, B=1)) == (2, 1, 1)
assert with_grid.grid(SimpleNamespace(J=70, K=3, B=1)) == (3, 1, 1)
assert as_it_is is None or (as_it_is.ok and shader_alone is not None and not shader_alone.ok)
assert both is None or both.ok

# %% [markdown]
# For 73 numbers in a row the grid has 2 workgroups, enough with 64 threads, but not with 32: the last numbers of each row are
# never written, and the check finds it. With a grid of 3 it is right again.
#
# ### Add an activation
#
# "Squared ReLU", the square of max(x, 0), trains faster than ReLU in
# [So et al. 2021](https://arxiv.org/abs/2109.08668). Add it to the activations: in numpy, and in WGSL.


# %%
def squared_relu(x: Array) -> None:
    """max(x, 0)^2, in place as all of ACTIVATIONS."""
    np.maximum(x, 0, out=x)
    np.square(x, out=x)


activation = kernels.read_shader("activation")
constant, last = "const ELU: u32 = 9u;\n", "  if (ACTIVATION == ELU)"
assert activation.count(constant) == activation.count(last) == 1
rule = "  if (ACTIVATION == SQUARED_RELU) { return max(x, 0.0) * max(x, 0.0); }\n"
longer_file = activation.replace(constant, constant + "const SQUARED_RELU: u32 = 10u;\n").replace(
    last, rule + last
)

x = np.array([-1, 0, 2, 3], np.float32)
squared_relu(x)
assert x.tolist() == [0, 0, 4, 9]
with mock.patch.dict(ops.ACTIVATIONS, squared_relu=squared_relu):
    case = Case(ops.glu, {"N": 67}, attrs={"activation": "squared_relu"})
    right = check_kernel(case, "activation", longer_file)
    wrong = check_kernel(case, "activation", longer_file.replace("return max(x, 0.0) * max", "return max"))
assert right is None or (right.ok and right.error < 0.00001)
assert wrong is None or wrong.error > 0.1

# %% [markdown]
# The kernel is within 0.00001 of numpy; plain ReLU in its place is off by more than 0.1. The numbers of the constants follow the
# order of `ACTIVATIONS`; a test of the package compares the two lists.
#
# ### Write an op with its kernel
#
# [Chapter 6](06_anisotropy.py) looked at the lengths of tokens' states. Write an op that computes them: a numpy function with its
# declaration, and a kernel with a thread for each token. What keeps a thread past the last token from writing?


# %%
@op("x[T,C] -> out[T]", grid=lambda p: (-(-p.T // 64), 1, 1))
def token_lengths(x: Array) -> Array:
    """The length of each row."""
    return np.sqrt(np.einsum("tc,tc->t", x, x))


TOKEN_LENGTHS = """
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.T) { return; }
  var sum = 0.0;
  for (var c = 0u; c < p.C; c++) { let v = x[id.x * p.C + c]; sum = fma(v, v, sum); }
  out[id.x] = sqrt(sum);
}
"""
case = Case(token_lengths, {"C": 68}, lengths=(1, 64, 65))
right = check_kernel(case, "token_lengths", TOKEN_LENGTHS)
wrong = check_kernel(case, "token_lengths", TOKEN_LENGTHS.replace("c < p.C", "c < p.C - 1u"))
assert token_lengths.reference(np.array([[3, 4]], np.float32)).tolist() == [5]
assert right is None or (right.ok and right.error < 0.00002)
assert wrong is None or not wrong.ok

# %% [markdown]
# The line with `return`. The lengths agree within 0.00002, and a kernel that forgets the last column is found. Three things made
# that an op of the package's kind: the declaration gave the bindings, the uniform block and the output's shape; the numpy
# function the right answer; and the check both. What is left to make it one of the package's own is in
# `docs/adding-a-kernel.md`.
#
# ### A faster one
#
# In that kernel neighbouring threads read rows that lie far apart, so each read of memory serves one thread. Share a row among
# the threads of a workgroup instead, as in [chapter 8](08_from_numpy_to_wgsl.py).

# %%
SHARED_ROW = """
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var c = lane; c < p.C; c += 64u) { let v = x[group.x * p.C + c]; sum = fma(v, v, sum); }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] += sums[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) { out[group.x] = sqrt(sums[0]); }
}
"""
row_each = replace(token_lengths, grid=lambda p: (p.T, 1, 1))
for width in (1, 63, 64, 65, 300):
    right = check_kernel(Case(row_each, {"C": width}, lengths=(1, 64, 65)), "token_lengths", SHARED_ROW)
    assert right is None or right.error < 0.00002

# %% [markdown]
# Within 0.00002 at every width, also where the number of threads does not divide it. In what order are the numbers of a row
# added now, and does it depend on the batch? It must not: then a text would get other bits in another batch.
#
# ## Try
#
# - `gpt2wgpu doctor --shader FILE` checks a kernel of yours in place of one of the package's, and times both: change
#   `shaders/l2_normalize.wgsl` and see. `docs/learn/puzzles` has twelve kernels to make right.
# - Let the shared kernel read four columns at a time, `array<vec4<f32>>`. What about a width that four does not divide?
# - Give `glu` another activation of your own, and train a model with it: it also needs a derivative (`gpt2wgpu/train/ops.py`).
