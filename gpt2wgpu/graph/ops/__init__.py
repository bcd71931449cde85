"""Every op once: its signature, its maths in numpy, its dispatch grid. The kernel of an op is shaders/<op>.wgsl.

Letters in signatures: T tokens, B sequences, C width, K/N a linear layer's in/out, V vocabulary, S context, H heads, D head size,
G query tiles, R distances, J groups of int8 weights (in `concat`, a width), M/N rows or points that are compared, E edges.
X, W and O are dtypes that the graph chooses, f32 or f16: of activations, weights and the output.

An attribute that a shader declares as `const` is compiled into it; the others travel in the uniform block with the sizes.
"""

from .activations import ACTIVATIONS, glu
from .blocks import cdiv
from .embedding import embed, embed_int8, norm_rotary, rotary
from .layout_forces import attraction, repulsion
from .linear_layers import linear, linear_add, linear_add_int8, linear_int8
from .nearest_rows import nearest_rows
from .norms import layer_norm, rms_norm
from .pooling import POOLINGS, concat, l2_normalize, pool, similarity
from .self_attention import attention, attention_bias

__all__ = [
    "ACTIVATIONS",
    "POOLINGS",
    "attention",
    "attention_bias",
    "attraction",
    "cdiv",
    "concat",
    "embed",
    "embed_int8",
    "glu",
    "l2_normalize",
    "layer_norm",
    "linear",
    "linear_add",
    "linear_add_int8",
    "linear_int8",
    "nearest_rows",
    "norm_rotary",
    "pool",
    "repulsion",
    "rms_norm",
    "rotary",
    "similarity",
]
