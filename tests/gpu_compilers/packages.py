"""Debian's packages, unpacked into a folder of their own: nothing on the machine changes, and no root is needed."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("mesa-vulkan-drivers", "mesa-drm-shim", "libvulkan1")
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")


def refusal(suite: str) -> str:
    """Why this machine cannot unpack a suite's packages; "" if it can."""
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if missing:
        return f"it needs Debian's apt-get and dpkg-deb, and there is no {missing[0]}"
    if platform.machine() != "x86_64":
        return f"it needs an x86-64 machine, and this is {platform.machine()}"
    system = platform.freedesktop_os_release()
    release = system.get("VERSION_CODENAME", "")
    if system["ID"] != "debian" or (suite.endswith("-backports") and suite != f"{release}-backports"):
        return f"it needs Debian, and packages of {suite} must fit its release; this is {system['ID']} {release}".strip()
    return ""


def unpack_packages(folder: Path, suite: str) -> Path:
    """Mesa's Vulkan drivers of a suite in `folder`, with what they need; the same again if they are there already.

    A suite of its own (sid) comes with everything down to libc; backports with what this machine's Debian lacks.
    Raises SystemExit with one line if apt fails.
    """
    root = folder / suite
    if root.exists():
        return root
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # so that a folder with the suite's name is whole
        apt, found = write_settings(Path(unfinished) / "apt", suite), Path(unfinished) / suite
        run_apt(apt, "update", "-qq")
        target = ["--reinstall", f"--target-release={suite}"] if suite.endswith("-backports") else []
        run_apt(apt, "install", "-qq", "--yes", "--download-only", *target, *PACKAGES)
        extract_packages(apt.parent / "archives", found)
        try:
            found.rename(root)
        except OSError:
            if not root.exists():  # else another run was faster
                raise
    return root


def extract_packages(folder: Path, target: Path) -> None:
    """The files of all packages in `folder`, without running their scripts."""
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", package, target], check=True)


def write_settings(folder: Path, suite: str, sources: bool = False) -> Path:
    """apt's configuration with sources, lists and downloads in `folder`. The mirror is the one that this machine uses.

    sources: of source packages too.
    """
    for name in ("parts", "lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    found = run_apt(None, "indextargets", "--no-release-info", "--format", "$(CREATED_BY)|$(RELEASE)|$(REPO_URI)").splitlines()
    here = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    mirrors = [line.split("|")[2] for line in found if line.startswith(f"Packages|{here}|")]
    if not mirrors:
        raise SystemExit(f"apt has no source for Debian {here}, from which the mirror is taken: look at /etc/apt/sources.list.d")
    suites = [here, suite] if suite.endswith("-backports") else [suite]
    kinds = ["deb", "deb-src"] if sources else ["deb"]
    listed = "".join(f"{kind} [signed-by={KEYRING}] {mirrors[0]} {name} main\n" for kind in kinds for name in suites)
    (folder / "sources.list").write_text(listed, encoding="utf-8")
    lines = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::Etc::preferencesparts": folder / "parts",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false",  # a mirror may be behind; the signature is checked all the same
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    if not suite.endswith("-backports"):
        (folder / "status").touch()
        lines["Dir::State::status"] = folder / "status"
    settings = folder / "apt.conf"
    settings.write_text("".join(f'{key} "{value}";\n' for key, value in lines.items()), encoding="utf-8")
    return settings


def run_apt(settings: Path | None, *arguments: str, folder: Path | None = None) -> str:
    """What apt-get prints, run in `folder`. Raises SystemExit with one line if it fails."""
    environment = {**os.environ, "LC_ALL": "C", **({"APT_CONFIG": str(settings)} if settings else {})}
    done = subprocess.run(["apt-get", *arguments], env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SystemExit(f"apt-get {arguments[0]} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
