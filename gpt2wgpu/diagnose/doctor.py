"""Is this device right? Every kernel and the chosen model against numpy."""

import warnings
from collections.abc import Iterator

import numpy as np

from ..devices.choose import find_operand_dtype
from ..devices.selftest import Check, check_op, compare, forward_cases
from ..encoder import Encoder

TEXTS = (
    "The cat is sleeping.",
    "A feline is resting on the warm windowsill while rain falls outside.",
    "Über den Wolken: 12 °C, 東京, 🙂",
    "",
    "one two three four five six seven eight nine ten " * 5,
)


def check_device(encoder: Encoder) -> Iterator[Check]:
    """The kernels, op by op; then the model's vectors, and that a text's bits do not depend on its batch.

    Yields nothing for an encoder on numpy, which is what the others are compared with.
    """
    device = encoder.engine.place.device
    if device is None:
        return
    for case in forward_cases(device.has_f16):
        yield check_op(device, case)

    twin = Encoder(
        encoder.checkpoint.path,
        device="numpy",
        dtype="int8" if encoder.dtype == "int8" else "auto",
        layer=encoder.layer,
        pooling=encoder.pooling,
        max_seq_length=encoder.max_seq_length,
        prompts=encoder.prompts,
        default_prompt_name=encoder.default_prompt_name,
        truncate_dim=encoder.truncate_dim,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a text is too long for the model does not matter here
        expected, found = twin.encode(TEXTS), encoder.encode(TEXTS)
        alone = np.stack([encoder.encode(t) for t in TEXTS])
    shape = f"{len(TEXTS)} texts, layer {encoder.layer}, {encoder.dtype}"
    name = f"{encoder.model} model"
    if find_operand_dtype(encoder.dtype, device) == "f32":
        yield compare(name, shape, expected, found, 1e-4)
    else:
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = np.einsum("bc,bc->b", found, expected, dtype=np.float64) / lengths
        yield Check(f"{name} (1 - cosine)", shape, float(1 - cosines.min()), 1e-4)
    yield Check("alone = in a batch", shape, float(np.abs(alone - found).max()), 0.0)
