# %% [markdown]
# # 8. From numpy to WGSL
#
# A kernel is a small program that a GPU runs many times at once. Every kernel of this package begins as a numpy function, which
# says what is right. This chapter takes one of them, mean pooling, the step that makes one vector of a text's many. It writes the
# kernel in WGSL, WebGPU's language, runs it on whatever adapter there is, and compares. Without an adapter the chapter still
# runs, and says so.

# %%
import numpy as np
import wgpu
from shared import COLOURS, Picture, rectangle, text_at

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.selftest import Case, check_op
from gpt2wgpu.gpu import choose_adapter, open_device, read_shader
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Array

model = Encoder(device="numpy")
texts = ["A kitten is napping on the couch", "Loans have become more expensive", "How do I bake bread?"]
states = model.encode(texts, output_value="token_embeddings")  # for each text an array (tokens, 384)
x = np.concatenate(states)
ends = np.cumsum([len(s) for s in states])
spans = np.stack([ends - [len(s) for s in states], ends], axis=1).astype(np.uint32)
print("x is", x.shape, "and the texts are its rows", spans.tolist())

assert x.shape == (26, 384)
assert spans.tolist() == [[0, 10], [10, 17], [17, 26]]

# %% [markdown]
# All texts of a batch lie end to end in one array, here of 26 tokens with 384 numbers each. `spans` says where each text begins
# and ends: the second one is rows 10 to 17, the last one not included. No row is wasted on padding.
#
# ## The definition


# %%
def mean_pool(x: Array, spans: Array) -> Array:
    """x (T, C), spans (B, 2) -> the mean of the rows of each span, float32 (B, C)."""
    return np.stack([x[start:end].mean(0) for start, end in spans])


expected = mean_pool(x, spans)
assert expected.shape == (3, 384)

# %% [markdown]
# ## Which thread computes what
#
# numpy goes over the texts one by one. A GPU wants thousands of threads that need nothing of each other. The result has 3 rows of
# 384 numbers, and each of them can be computed alone: a thread for each number, which adds up one column of one text.
#
# Threads come in *workgroups*, here of 64. The *grid* says how many workgroups there are in each direction: x goes over the
# columns and y over the texts.

# %%
threads = 64
grid = (384 // threads, len(spans), 1)
boxes = [
    (i, j, rectangle(60 + 110 * i, 24 + 34 * j, 106, 30, COLOURS[1], 0.25))
    for j in range(3)
    for i in range(6)
]
names = [
    text_at(113 + 110 * i, 39 + 34 * j, f"({i}, {j}) {64 * i}-{64 * i + 63}", "middle") for i, j, _ in boxes
]
rows = [text_at(0, 39 + 34 * j, f"text {j}") for j in range(3)]
head = text_at(60, 10, "workgroup (x, y), and its columns")

assert (grid, threads, threads * grid[0] * grid[1]) == ((6, 3, 1), 64, 1152)
as_text = "\n".join(f"text {j}: columns {64 * i}-{64 * i + 63} by workgroup ({i}, {j})" for i, j, _ in boxes)
Picture(720, 130, [head, *rows, *(box for _, _, box in boxes), *names], as_text)

# %% [markdown]
# 6 x 3 workgroups of 64 threads: 1,152 threads for 1,152 numbers.
#
# ## The kernel
#
# `main` is what each thread runs. It learns from `id` which one it is. Arrays are flat, so row `t`, column `c` of `x` is
# `x[t * C + c]`. The numbers of the bindings say which array is which.

# %%
KERNEL = """
struct Params { C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let text = id.y;
  if (c >= p.C) { return; }
  let start = spans[text].x;
  let end = spans[text].y;
  var sum = 0.0;
  for (var t = start; t < end; t++) { sum += x[t * p.C + c]; }
  out[text * p.C + c] = sum / f32(end - start);
}
"""
body = KERNEL.split("{\n")[-1].strip("\n}").splitlines()
assert len(body) == 8

# %% [markdown]
# These 8 lines say what `mean_pool` says, for one number. The line with `return` is for widths that do not fill the last
# workgroup: it then has threads without a column. A thread that writes past the end of a row writes into the next one.
#
# ## Run it
#
# An *adapter* is one way to reach one GPU. Software adapters, such as lavapipe, run WGSL on the CPU; for learning they do as
# well.

# %%
try:
    adapter = choose_adapter("gpu")  # the best GPU, else a software adapter
    assert adapter is not None
    # checked: WebGPU watches the bounds of arrays, as in a browser
    device = open_device(adapter, checked=True)
    print(f"running on {adapter}")
except UserError as error:
    device = None
    print(f"no kernel runs here, the rest is only read: {error}")

# %% [markdown]
# Five things have to be made: a *buffer* on the device for each array, a *pipeline* from the source, a *bind group* that puts the
# buffers into the bindings, a *command buffer* that says what to do, and at the end a copy back. That is all that a program needs
# to compute with WebGPU.


# %%
def run_kernel(
    source: str, arrays: list[Array], shape: tuple[int, ...], grid: tuple[int, int, int]
) -> Array | None:
    """What a kernel writes into its last binding, float32 of this shape; arrays: the bindings before it. None: no device."""
    if device is None:
        return None
    raw = device.raw
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
    buffers = [raw.create_buffer_with_data(data=arrays[0], usage=wgpu.BufferUsage.UNIFORM)]
    buffers += [raw.create_buffer_with_data(data=a, usage=usage) for a in arrays[1:]]
    buffers.append(raw.create_buffer(size=4 * int(np.prod(shape)), usage=usage))
    module = raw.create_shader_module(code=source)
    pipeline = raw.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
    entries = [{"binding": i, "resource": {"buffer": b}} for i, b in enumerate(buffers)]
    group = raw.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = raw.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(*grid)
    compute.end()
    raw.queue.submit([encoder.finish()])
    return np.frombuffer(raw.queue.read_buffer(buffers[-1]), np.float32).reshape(shape)


def furthest(found: Array | None, expected: Array) -> float:
    """The largest difference, relative to the largest number expected; 0 if nothing ran."""
    return 0.0 if found is None else float(np.abs(found - expected).max() / np.abs(expected).max())


width = np.array([384, 0, 0, 0], np.uint32)  # a uniform block is a multiple of 16 bytes
found = run_kernel(KERNEL, [width, x, spans], (3, 384), grid)
print("nothing ran" if found is None else f"largest difference from numpy: {furthest(found, expected):.1e}")
assert furthest(found, expected) < 0.000001

# %% [markdown]
# The kernel and numpy agree within 0.000001 of the largest number. They need not agree to the last bit: a GPU may round a
# division differently.
#
# ## When a kernel is wrong
#
# A comparison is worth as much as the faults that it finds. A typical one: a loop that ends one token too late.

# %%
WRONG = KERNEL.replace("t < end", "t <= end")
assert WRONG != KERNEL
found = run_kernel(WRONG, [width, x, spans], (3, 384), grid)
assert found is None or furthest(found, expected) > 0.1

# %% [markdown]
# That one is off by more than 0.1, and not a crash: the row after a text is the first token of the next one. For the last text
# there is no next row, and what a GPU reads there is up to the driver. So every kernel is compared on shapes that do not fit:
# one token, one column, one more than a tile.
#
# ## One long text
#
# How good is the kernel? Take one text of four thousand tokens. Six workgroups have work, and each of their threads adds up all
# tokens one after the other, while a large GPU has room for a hundred thousand threads.
#
# Threads of one workgroup can share work, because they share a small, fast memory. Sixteen *lanes* take every sixteenth token of
# a column. Then the lanes' sums are added in pairs, half as many each time. A *barrier* makes every thread wait until all have
# written: without it one reads what its neighbour has not written yet.

# %%
SHARED = """
struct Params { C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const COLUMNS: u32 = 16u;
const LANES: u32 = 16u;
var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let column = group.x * COLUMNS + thread % COLUMNS;
  let c = min(column, p.C - 1u); // threads past the last column go along to the barriers
  let start = spans[group.y].x;
  let end = spans[group.y].y;
  var sum = 0.0;
  for (var t = start + thread / COLUMNS; t < end; t += LANES) { sum += x[t * p.C + c]; }
  sums[thread] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (thread < half * COLUMNS) { sums[thread] += sums[thread + half * COLUMNS]; }
    workgroupBarrier();
  }
  if (thread < COLUMNS && column < p.C) { out[group.y * p.C + column] = sums[thread] / f32(end - start); }
}
"""
long = np.random.default_rng(0).standard_normal((4096, 384), dtype=np.float32)
whole = np.array([[0, 4096]], np.uint32)
exact = mean_pool(long.astype(np.float64), whole)
for source, columns in ((KERNEL, 64), (SHARED, 16)):
    found = run_kernel(source, [width, long, whole], (1, 384), (384 // columns, 1, 1))
    assert furthest(found, exact) < 0.0001
    short = run_kernel(source, [width, x, spans], (3, 384), (384 // columns, 3, 1))
    assert furthest(short, expected) < 0.000001
in_a_row = 4096 // 16 + int(np.log2(16))
assert (len(long), 384 // 16, 16 * 16, in_a_row) == (4096, 24, 256, 260)

# %% [markdown]
# Now 24 workgroups of 256 threads share the text, and the longest chain of additions has 260 steps instead of 4,096. The order of
# the additions is another one, so the last bits differ from the first kernel's. It depends only on a token's place in its own
# text: a text gets the same bits in any batch.
#
# Neither kernel needs much arithmetic. Both read every number once and add it once:

# %%
read_bytes, additions = long.nbytes, long.size
print(
    f"{read_bytes:,} bytes are read for {additions:,} additions: {additions / read_bytes} operations a byte"
)
assert (read_bytes, additions / read_bytes) == (6291456, 0.25)

# %% [markdown]
# 0.25 operations a byte: in the time in which a GPU reads a byte from its memory it can do ten to a hundred. Pooling waits for
# memory, and the best kernel is the one that keeps enough reads under way. Multiplying matrices is the other kind.
#
# ## The package's own kernel
#
# `shaders/pool.wgsl` is the second kernel with three changes: it reads four columns at a time (`vec4<f32>`), it has six ways of
# pooling, and its sizes are constants that are filled in when it is compiled. Nobody writes the buffers and bindings by hand. One
# line above the numpy function declares them:

# %%
print([f"{name}: {dtype}{list(dims)}" for name, dtype, dims in ops.pool.args])
print(read_shader("pool"))
assert len(ops.pool.args) == 4

# %% [markdown]
# Its 4 arrays are the four bindings after the uniform block, in that order. From the declaration come the checks of shapes, the
# uniform block, the buffers and the grid, and also its test: random inputs of awkward sizes, once in numpy and once on the
# device.

# %%
for mode in ops.POOLINGS:
    if device is None:
        print(f"{mode}: not run")
        continue
    check = check_op(device, Case(ops.pool, {"C": 17}, lengths=(1, 64, 65, 130), attrs={"mode": mode}))
    print(f"{mode}: error {check.error:.1e}, allowed {check.tolerance:.0e}")
    assert check.ok and check.tolerance <= 0.00002

# %% [markdown]
# Every kernel of the package has to stay within 0.00002 of numpy there, on every adapter, before its vectors are trusted:
# `gpt2wgpu doctor` does this for all of them on yours.
#
# ## Try
#
# - Delete the first `workgroupBarrier();` of `SHARED`. Some drivers give the right result all the same. Why is it wrong?
# - Write max pooling: `sum` becomes a maximum. What should it begin with?
# - Give the kernel a width of two hundred and fifty, in numpy and in `width`. What happens without the line with `return`?
# - `docs/adding-a-kernel.md` says how a kernel joins the package; [chapter 12](12_exercises_with_kernels.py) has one to write,
#   and `docs/learn/puzzles` has twelve.
