"""Ray Serve on a local cluster with two replicas."""

import json
import signal
import urllib.request
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from gpt2wgpu import Encoder

with warnings.catch_warnings():  # Ray's own
    warnings.simplefilter("ignore")
    import ray
    from ray import serve

    from gpt2wgpu.adapters.ray_serve import build_app

TEXTS = ["The cat is sleeping", "A feline is resting"]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RAY_DISABLE_DOCKER_CPU_WARNING", "1")
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": 8199})
    yield "http://127.0.0.1:8199"
    serve.shutdown()
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)  # Ray leaves its own


@pytest.mark.filterwarnings("ignore")
def test_two_replicas_answer_as_the_encoder(address: str):
    app = build_app({"device": "numpy", "layer": 1}, num_replicas=2, ray_actor_options={"num_cpus": 1})
    serve.run(app)
    expected = Encoder(device="numpy", layer=1).encode(TEXTS, normalize_embeddings=True)
    for _ in range(20):
        request = urllib.request.Request(f"{address}/embed", json.dumps({"inputs": TEXTS}).encode())
        with urllib.request.urlopen(request, timeout=120) as answer:
            np.testing.assert_allclose(json.load(answer), expected, atol=1e-6)
    with urllib.request.urlopen(f"{address}/health/ready", timeout=120) as answer:
        assert answer.status == 200
    assert serve.status().applications["default"].deployments["gpt2wgpu"].replica_states == {"RUNNING": 2}
