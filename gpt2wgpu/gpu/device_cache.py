"""What is known of each adapter, kept in the user's cache folder: one JSON file a subject.

{"version": ..., "adapters": {"name | driver | backend | library": {entry: value}}}
tiles.json holds the tile shapes that were measured (tiles.py), selftest.json what agreed with numpy (devices/graph_check.py).
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..progress import notice
from .device import Adapter


def cache_file(subject: str) -> Path:
    """Where a subject is kept, in the user's cache folder. Raises FileNotFoundError if there is none."""
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home or "~/.cache").expanduser()
    except RuntimeError:  # neither HOME nor an entry in passwd
        raise FileNotFoundError("there is no home folder to keep what is measured: set HOME or XDG_CACHE_HOME") from None
    return folder / "gpt2wgpu" / f"{subject}.json"


def adapter_key(a: Adapter) -> str:
    """An adapter, its driver and the WebGPU library. A driver without a version comes with the system, as Metal does."""
    system = "" if any(letter.isdigit() for letter in a.driver) else f"{platform.system()} {platform.release()}"
    return " | ".join(filter(None, (a.name, a.chip, a.driver, system, a.backend, a.library.version)))


def read_cache(subject: str) -> dict[str, Any]:
    """The entries of a file by adapter; {} if it is missing, broken or of another version."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(cache_file(subject).read_text("utf-8"))
        if isinstance(found, dict) and found.get("version") == __version__ and isinstance(found.get("adapters"), dict):
            return found["adapters"]
    return {}


def read_entries(subject: str, key: str) -> dict[str, Any]:
    """The entries under one key, such as an adapter's."""
    found = read_cache(subject).get(key)
    return found if isinstance(found, dict) else {}


def short_digest(text: str) -> str:
    """What a verdict is filed under: it changes with the text, such as a kernel's source."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def save_tested(a: Adapter, entries: Mapping[str, Any]) -> None:
    """Keep what was found out about an adapter in selftest.json."""
    save_entries("selftest", adapter_key(a), entries, f"what was tested of {a.name} cannot be kept and is tested again next time")


def save_entries(subject: str, key: str, entries: Mapping[str, Any], lost: str) -> None:
    """Add entries to the file, atomically. Other entries and adapters stay.

    If the file cannot be written, a notice says so. lost: what that means.
    """
    adapters = read_cache(subject)
    old = adapters.get(key)
    adapters[key] = {**(old if isinstance(old, dict) else {}), **entries}
    temporary = None
    try:
        path = cache_file(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".json", delete=False) as file:
            temporary = Path(file.name)
            json.dump({"version": __version__, "adapters": adapters}, file, indent=1)
        temporary.replace(path)
    except OSError as e:
        why = f"{e.filename}: {e.strerror}" if e.filename else e
        notice(f"{lost} ({why})")
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
