"""Write tests/golden/configs.json: config.json as `transformers` writes it for every architecture, all fields included.

    pip install transformers==4.57.1; python tests/golden_configs.py
    pip install transformers==5.24.0; python tests/golden_configs.py

A version replaces its own part of the file. It takes no PyTorch.
"""

import json
from pathlib import Path

import transformers

from gpt2wgpu.models import ARCHITECTURES

FILE = Path(__file__).parent / "golden" / "configs.json"


def main() -> None:
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    version = found[transformers.__version__] = {}
    for name in ARCHITECTURES:
        if name in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
            config = transformers.AutoConfig.for_model(name)
            version[name] = json.loads(config.to_json_string(use_diff=False))
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
