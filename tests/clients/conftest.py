"""The server's real clients, which the extra `clients-test` installs; where they are missing their tests are left out, but not
in CI."""

import os
from importlib.util import find_spec

collect_ignore = [] if os.environ.get("CI") or find_spec("litellm") else ["test_serve_clients.py", "test_ray_serve.py"]
