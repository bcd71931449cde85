"""Explanations of every architecture: what they say is what the model computes, and every sum is the cosine."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from encoders import GOLDEN, add_tokenizer
from process import Run, environment
from tiny import gpt2_config, save, save_dense, save_layer_norm, sentence_model

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.explain.dispatches import list_dispatches
from gpt2wgpu.explain.result import Explanation
from gpt2wgpu.explain.trace import ATTENTIONS, Trace, find_anatomy
from gpt2wgpu.gpu import Device, GPUProgram, paper_device
from gpt2wgpu.graph import packing
from gpt2wgpu.graph.packing import position_ids
from gpt2wgpu.models import ARCHITECTURES

MODELS = sorted(p.name for p in (GOLDEN / "models").iterdir())
SENTENCE_MODELS = sorted(p.name for p in (GOLDEN / "sentence_models").iterdir() if (p / "tokenizer.json").exists())
A, B = "t5 t6 t7 t3 t4 t5", "t1 t2 t6 t6"
TOLERANCE = 1e-5


def with_tokenizer(folder: Path, target: Path) -> Path:
    """A copy of a model whose tokens are t0, t1, ..."""
    shutil.copytree(folder, target)
    add_tokenizer(target, json.loads((target / "config.json").read_text())["vocab_size"])
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return target


def check_sums(e: Explanation, model: Encoder, *texts: str) -> None:
    """Every sum is the cosine of the vectors that `encode` gives."""
    a, b = (model.encode(t).astype(np.float64) for t in (texts[0], texts[-1]))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    s = e.shares
    assert abs(e.cosine - cosine) <= TOLERANCE and abs(e.encoded_cosine - cosine) <= TOLERANCE
    constant = s.constant_a + s.constant_b - s.constant_both
    sums = [
        s.tokens_a.sum() + s.constant_a,
        s.tokens_b.sum() + s.constant_b,
        s.pairs.sum() + constant,
        s.pairs_total,
        s.dimensions.sum(),
    ]
    sums += [p.total for p in (s.parts, s.parts_a, s.parts_b)]
    p = s.parts
    sums.append(
        p.tokens + p.positions + p.heads.sum() + p.attention_bias.sum() + p.mlps.sum() + p.norms.sum() + p.final_norm + p.constant
    )
    assert max(abs(total - cosine) for total in sums) <= TOLERANCE, (cosine, sums)


@pytest.mark.parametrize("name", MODELS)
def test_every_sum_is_the_cosine_at_every_depth(name: str, tmp_path: Path):
    folder = with_tokenizer(GOLDEN / "models" / name, tmp_path / name)
    for layer in sorted({0, 1, load_checkpoint(folder).config.layers}):
        model = Encoder(folder, device="numpy", layer=layer)
        e = model.explain(A, B)
        check_sums(e, model, A, B)
        assert len(e.texts[0].attention) == layer == len(e.shares.parts.heads)


def test_the_golden_models_have_every_architecture():
    found = {json.loads((GOLDEN / "models" / name / "config.json").read_text())["model_type"] for name in MODELS}
    assert found == set(ARCHITECTURES)


@pytest.mark.parametrize("name", SENTENCE_MODELS)
def test_whole_folders_with_their_modules(name: str):
    """Every pooling, Dense with its activation, LayerNorm, Normalize, special tokens, and every kind of tokenizer."""
    model = Encoder(GOLDEN / "sentence_models" / name, device="numpy")
    texts = "a small word", "the words are smaller"
    e = model.explain(*texts)
    check_sums(e, model, *texts)
    for t in e.texts:
        assert [k.id for k in t.tokens] == model.tokenizer.encode([t.read], 1000)[0][0].tolist()
        assert np.allclose(t.vector, t.encoded, atol=1e-5)
        for w in t.words:
            assert tuple(k.name for k in t.tokens[w.first : w.first + w.count]) == w.steps[-1] or w.kind == "scores"
    assert ("Dense" in str(e.shares.held_tokens)) == any(
        type(m).__name__ == "Dense" and m.activation != "none" for m in model.modules
    )


@pytest.mark.parametrize("name", MODELS)
def test_states_and_attention_are_those_of_the_model(name: str, tmp_path: Path):
    folder = with_tokenizer(GOLDEN / "models" / name, tmp_path / name)
    model = Encoder(folder, device="numpy", layer=1)
    t = model.explain(A).texts[0]
    ids = np.array([k.id for k in t.tokens], np.uint32)
    batch = packing.pack_batch([ids], [position_ids(ids, model.checkpoint.config.pad)], [0])
    for layer in (0, 1):
        expected = Encoder(folder, device="numpy", layer=layer).encode(A, output_value="token_embeddings")
        assert np.allclose(t.states[layer], expected, atol=1e-4 * np.abs(expected).max())
    program = model.engine.program
    trace = Trace(program.output, program.weights.__getitem__, batch)
    attention = next(x for x in trace.tensors if x.op in ATTENTIONS)
    qkv, size = trace[attention.inputs[0]], attention.attrs["head_size"]
    H = t.attention.shape[1]
    kv = attention.attrs.get("kv_heads") or H
    values = qkv[:, -kv * size :].reshape(len(ids), kv, size).repeat(H // kv, axis=1)
    assert np.allclose(np.einsum("hij,jhd->ihd", t.attention[0], values).reshape(len(ids), -1), trace[attention])
    assert np.allclose(t.attention.sum(-1), 1)


def test_a_share_is_what_would_be_missing(tmp_path: Path):
    """Where nothing is held: without the last MLP, and without one token of the mean, the product is smaller by the share."""
    folder = with_tokenizer(GOLDEN / "models" / "gpt2_five_layers_bf16", tmp_path / "m")
    model = Encoder(folder, device="numpy", layer=2, pooling="mean")
    e = model.explain(A, B)
    assert e.shares.held_parts == e.shares.held_tokens == ()
    lengths = np.linalg.norm(e.texts[0].pooled) * np.linalg.norm(e.texts[1].pooled)
    states = model.encode(A, output_value="token_embeddings").astype(np.float64)
    states[3] = 0
    assert abs(states.mean(0) @ e.texts[1].pooled / lengths - (e.cosine - e.shares.tokens_a[3])) <= TOLERANCE
    last = {"h.1.mlp.c_proj.weight", "h.1.mlp.c_proj.bias"}
    for t, array in model.engine.program.weights.items():
        if t.name in last:
            model.engine.program.weights[t] = np.zeros_like(array)
    without = model.encode(A).astype(np.float64) @ e.texts[1].pooled / lengths
    assert abs(without - (e.cosine - e.shares.parts_a.mlps[1])) <= TOLERANCE
    assert abs(e.shares.parts_a.mlps[1]) > 1e-3


@pytest.mark.parametrize(
    "name", ["bert", "gpt2_five_layers_bf16", "modernbert_biases_f16", "nomic_bert", "qwen3_one_kv_head_bias_f16"]
)
def test_each_part_has_its_own_share(name: str, tmp_path: Path):
    """The other way round: each part alone goes forward through the norms, whose scales are held, and is pooled."""
    model = Encoder(with_tokenizer(GOLDEN / "models" / name, tmp_path / name), device="numpy", pooling="mean")
    e = model.explain(A, B)
    ids = np.array([k.id for k in e.texts[0].tokens], np.uint32)
    batch = packing.pack_batch([ids], [position_ids(ids, model.checkpoint.config.pad)], [0])
    trace = Trace(model.engine.program.output, model.engine.program.weights.__getitem__, batch)
    anatomy = find_anatomy(model.engine.program.output)
    parts: dict[tuple[object, ...], np.ndarray] = {("tokens",): trace.token_vectors, ("positions",): trace.position_vectors}
    block = 0
    for stage in anatomy.stages[1:]:
        name_of = stage.op.name
        if name_of == "linear_add":
            source, matrix, bias = trace[stage.inputs[0]], trace[stage.inputs[1]], trace[stage.inputs[2]]
            written = next(w for w in anatomy.writes if w.added is stage)
            block = written.block
            if written.attention is None:
                parts["mlp", block] = source @ matrix + bias
                continue
            size = written.attention.attrs["head_size"]
            for h in range(source.shape[1] // size):
                at = slice(h * size, (h + 1) * size)
                parts["head", block, h] = source[:, at] @ matrix[at]
            parts["bias", block] = np.broadcast_to(bias, parts["tokens",].shape)
            continue
        x, weight = trace[stage.inputs[0]], trace[stage.inputs[1]]
        centre = name_of == "layer_norm"
        scale = np.sqrt((x.var(1) if centre else np.square(x).mean(1)) + stage.attrs["eps"])[:, None]
        parts = {key: (v - v.mean(1, keepdims=True) * centre) / scale * weight for key, v in parts.items()}
        if centre:
            where = ("final",) if stage is anatomy.final_norm else ("norm", block)
            parts[where] = parts.get(where, 0) + np.broadcast_to(trace[stage.inputs[2]], x.shape)
    direction = e.texts[1].vector / np.linalg.norm(e.texts[0].vector) / np.linalg.norm(e.texts[1].vector)
    expected = {key: float(v.mean(0) @ direction) for key, v in parts.items()}
    s = e.shares.parts_a
    found = {("tokens",): s.tokens, ("positions",): s.positions, ("final",): s.final_norm}
    found |= {("mlp", i): x for i, x in enumerate(s.mlps, 1)} | {("bias", i): x for i, x in enumerate(s.attention_bias, 1)}
    found |= {("head", i, h): x for i, row in enumerate(s.heads, 1) for h, x in enumerate(row)}
    found |= {("norm", i): x for i, x in enumerate(s.norms)}
    assert expected.keys() <= found.keys()
    assert {key: round(x - expected.get(key, 0.0), 8) for key, x in found.items() if abs(x - expected.get(key, 0.0)) > 1e-8} == {}


def test_one_text_is_compared_with_itself(built_in: Encoder):
    e = built_in.explain("The cat sleeps on the sofa")
    assert e.layer_cosines is None and len(e.texts) == 1
    check_sums(e, built_in, "The cat sleeps on the sofa")
    assert abs(e.cosine - 1) < 1e-12


def test_what_is_held_is_said(tmp_path: Path, built_in: Encoder):
    assert built_in.explain("a", "b").shares.held_tokens == ()
    assert built_in.explain("a", "b").shares.held_parts == ("the scale of the final norm at each token",)
    for name, expected in {"bert": "the scales of 3 norms", "modernbert": "the scale of the norm after the embedding"}.items():
        folder = with_tokenizer(GOLDEN / "models" / name, tmp_path / name)
        (held,) = Encoder(folder, device="numpy", layer=1).explain(A, B).shares.held_parts
        assert held.startswith(expected)
    model = Encoder(with_tokenizer(GOLDEN / "models" / "gpt2_tanh", tmp_path / "max"), device="numpy", pooling="max", layer=1)
    assert model.explain(A, B).shares.held_tokens == ("which token wins each dimension of the max pooling",)


def test_modules_in_any_order(tmp_path: Path):
    """Normalize between two Dense, then LayerNorm: what they add is no token's share, and what they hold is named."""
    folder = sentence_model(tmp_path / "m", None, "Pooling", "Dense", "Normalize", "Dense", "LayerNorm")
    save_dense(folder / "2_Dense", 8, 6)
    save_dense(folder / "4_Dense", 6, 5, activation_function="torch.nn.modules.activation.Sigmoid")
    save_layer_norm(folder / "5_LayerNorm", 5)
    add_tokenizer(folder, 13)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    model = Encoder(folder, device="numpy", truncate_dim=4)
    e = model.explain("t1 t2 t3", "t4 t5")
    check_sums(e, model, "t1 t2 t3", "t4 t5")
    assert e.shares.constant_a and len(e.shares.dimensions) == 4
    assert [word in " ".join(e.shares.held_tokens) for word in ("tanh", "sigmoid", "Normalize", "LayerNorm")] == [True] * 4


def test_a_prompt_that_is_not_pooled():
    model = Encoder(GOLDEN / "sentence_models" / "new_gpt2_weighted", device="numpy")
    model.prompts = {"query": "search: "}
    e = model.explain("a word", "some words", prompt_name="query")
    assert e.texts[0].read == "search: a word" and e.texts[0].text == "a word"
    included = all(m.include_prompt for m in model.modules if hasattr(m, "include_prompt"))
    assert (e.shares.tokens_a[0] == 0) == (not included)


def test_merges_of_a_word(built_in: Encoder, tmp_path: Path):
    source = save(tmp_path / "gpt2", gpt2_config(vocab_size=50257, n_embd=4, n_layer=1, n_positions=16))
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(Path(__file__).parent / "fixtures/gpt2_tokenizer" / name, source / name)
    words = Encoder(source, device="numpy", layer=1).explain(" unhappiness").texts[0].words
    steps = [s for w in words for s in w.steps]
    assert steps[0] == tuple("␣unhappiness") and all(len(a) == len(b) + 1 for a, b in pairwise(steps))
    (word,) = built_in.explain("napping").texts[0].words
    assert (word.kind, word.steps) == ("pieces", (("napping",), ("nap", "##ping")))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_on_a_device(dtype: str, use_gpu: None):
    """The dispatches are those of the program, with times, and the shares add up to the cosine of its vectors."""
    model = Encoder(device="gpu", dtype=dtype)
    e = model.explain("The cat sleeps", "A kitten naps")
    check_sums(e, model, "The cat sleeps", "A kitten naps")
    assert [d.op for d in e.dispatches] == [s.tensor.op.name for s in model.engine.program.steps]
    assert e.timed == (e.dispatches[0].seconds is not None)
    assert all(d.seconds is None or d.seconds >= 0 for d in e.dispatches)


def test_numpy_shows_what_a_gpu_would_get(as_on_a_gpu: Device, built_in: Encoder):
    output = built_in.engine.program.output
    ids = [np.arange(1, 9, dtype=np.uint32), np.arange(1, 4, dtype=np.uint32)]
    batch = packing.pack_batch(ids, [np.arange(len(i)) for i in ids], [0, 0])
    program = GPUProgram(as_on_a_gpu, output, built_in.checkpoint.weights, {"T": 64, "B": 4, "G": 8})
    anatomy = find_anatomy(output)
    on_paper = list_dispatches(built_in.engine.program, batch, anatomy, clocked=False)
    on_device = list_dispatches(program, batch, anatomy, clocked=False)
    key = [(d.op, d.part, d.weight, d.shape) for d in on_paper[0]]
    assert key == [(d.op, d.part, d.weight, d.shape) for d in on_device[0]]
    untiled = [i for i, d in enumerate(on_paper[0]) if not d.op.startswith("linear")]
    assert [on_paper[0][i].grid for i in untiled] == [on_device[0][i].grid for i in untiled]
    assert all(source.strip() for source in on_paper[1]) and not paper_device().adapter.software
    assert key[0][1] == "embedding" and key[4] == (
        "linear_add",
        "block 1: attention",
        "h.0.attn.c_proj.weight",
        "11x384 @ 384x384 -> 11x384",
    )


def test_refusals(built_in: Encoder):
    with pytest.raises(UserError, match="has at least 302 tokens, a page shows 256: shorten it"):
        built_in.explain("word " * 300)
    short = Encoder(GOLDEN / "sentence_models" / "plain_bert", device="numpy", max_seq_length=8)
    with pytest.raises(UserError, match=r"has at least \d+ tokens, the model reads 8"):
        short.explain("word " * 30)
    with pytest.raises(UserError, match="takes one or two strings"):
        built_in.explain(["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="open one without with_layers"):
        built_in.with_layers([1, 2]).explain("a")


@pytest.mark.parametrize("text", ["", "🙂 東京 12 °C", "<|endoftext|>", "\x00\u2028</script>"])
def test_awkward_texts(built_in: Encoder, text: str):
    e = built_in.explain(text, "a")
    check_sums(e, built_in, text, "a")
    assert e.to_text() and json.loads(json.dumps(e.to_json()))["texts"][0]["text"] == text


def test_command_line(run: Run, tmp_path: Path):
    code, out, err = run("explain", "A kitten naps", "The cat sleeps")
    assert code == 0 and "cosine 0." in out and "tokens of B" in out, err
    (curve,) = (line for line in out.splitlines() if line.startswith("cosine after"))
    assert curve.endswith("(the last after the final norm)")
    between = Encoder(device="numpy", layer=4).explain("A kitten naps", "The cat sleeps")
    assert "final norm)" not in between.to_text()
    code, out, _ = run("explain", "A kitten naps", "The cat sleeps", "--json")
    found = json.loads(out)
    shares = found["shares"]
    assert abs(sum(shares["tokens_a"]) - found["cosine"]) <= TOLERANCE >= abs(shares["parts"]["total"] - found["cosine"])
    assert np.array(found["texts"][0]["attention"]).shape[:2] == (6, 12) and found["dispatches"][0]["op"] == "embed"
    page = tmp_path / "page.html"
    assert run("explain", "A kitten naps", "-o", page)[:2] == (0, "") and page.read_text().startswith("<!doctype html>")
    assert run("explain", "a", "--text", "--json")[0] == 2
    code, _, err = run("explain", "a", "-o", tmp_path / "page.pdf")
    assert code == 1 and "must end in one of .html .json .txt" in err


def test_encode_does_not_import_explain():
    code = (
        "from gpt2wgpu import Encoder; Encoder(device='numpy').encode('a'); import sys; print('gpt2wgpu.explain' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
