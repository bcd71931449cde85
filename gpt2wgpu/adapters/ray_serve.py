"""Ray Serve: the server of `gpt2wgpu serve` as replicas on any number of machines, behind Ray's own proxy and autoscaler.

from ray import serve
from gpt2wgpu.adapters.ray_serve import build_app

serve.run(build_app({"model": "BAAI/bge-small-en-v1.5"}, num_replicas=2))

or, from a file of settings, `serve run gpt2wgpu.adapters.ray_serve:build_app model=BAAI/bge-small-en-v1.5`. Ray counts only the
GPUs of some makers: as in ray.py, start Ray with a custom resource and ask for one per replica:
build_app(..., ray_actor_options={"resources": {"wgpu": 1}}).
"""

from typing import Any

try:
    from ray import serve
except ImportError as error:
    raise ImportError('Ray Serve is not installed: pip install "ray[serve]"') from error

from ..serve import create_app


def build_app(encoder: dict[str, Any] | None = None, **options: Any) -> Any:
    """An application for `serve.run`. encoder: keywords of `Encoder`. options: those of a deployment, such as num_replicas.

    Each replica opens the model when it starts. All routes are those of `gpt2wgpu serve`, without its keys and Host check:
    the proxy stands before it.
    """
    arguments = dict(encoder or {})

    def make_app() -> Any:
        return create_app(arguments, hosts=None)

    class Replica:
        """The ASGI application of one replica."""

    deployment: Any = serve.deployment(name="gpt2wgpu", **options)(serve.ingress(make_app)(Replica))
    return deployment.bind()
