"""Which files a .gitignore leaves out: those that git leaves out."""

import random
import subprocess
from pathlib import Path

import pytest
from searching import write_folder

from gpt2wgpu.search.ignore import find_verdict, parse_rules
from gpt2wgpu.search.walk import find_files

SEGMENTS = r"a b foo * ** *** ? [ab] [!a] [^b] [a-c]* []a] [a-] [[:alpha:]] [[:x:]] [ \ a\ *.py *a* f?o {a,b} a** **b \#x é .."
ENTRIES = "a b c foo a.py b.txt #x !b ab é [ ] - {a,b} a* A"


def found_below(folder: Path, *paths: Path) -> list[str]:
    return [Path(f.path).relative_to(folder).as_posix() for f in find_files([str(p) for p in paths or (folder,)])]


@pytest.mark.parametrize(
    ("rules", "files", "expected"),
    [
        (b"*\n!*/\n!*.md\n", ["x.md", "x.txt", "a/b/x.md", "a/b/x.txt"], ["a/b/x.md", "x.md"]),  # only these
        (b"*.pyc\n!src/\n", ["src/a.py", "src/a.pyc"], ["src/a.py"]),  # a folder that is not left out may hold what is
        (b"Icon\r\r\nbuild/\r\n", ["Icon/x", "build/x"], ["Icon/x"]),  # as in GitHub's template for macOS
        (b"\xef\xbb\xbfbuild\n", ["build/x", "a"], ["a"]),
        (b"a\\\nb\\ \nc  \n", ["a", "b", "b ", "c"], ["a", "b"]),
        (b"caf\xe9\n/x\xff*/\n", ["a"], ["a"]),
        (b"x\x0cy\na\xe2\x80\xa8b\n", ["y", "b", "x"], ["b", "x", "y"]),  # line ends only for Python
    ],
)
def test_rules_as_people_write_them(rules: bytes, files: list[str], expected: list[str], tmp_path: Path):
    write_folder(tmp_path, {**dict.fromkeys(files, "a"), ".gitignore": rules})
    assert found_below(tmp_path) == expected


def test_a_folder_that_is_named_is_searched(tmp_path: Path):
    write_folder(tmp_path, {".git/HEAD": "", ".gitignore": "build/\n*.log\n", "build/a.txt": "a", "build/b.log": "b"})
    assert found_below(tmp_path) == []
    assert found_below(tmp_path, tmp_path / "build") == ["build/a.txt"]


def random_line(r: random.Random) -> str:
    line = "/".join(r.choice(SEGMENTS.split()) for _ in range(r.choice([1, 1, 1, 2, 2, 3])))
    return f"{'!' * (r.random() < 0.3)}{'/' * (r.random() < 0.2)}{line}{'/' * (r.random() < 0.3)}{' ' * r.choice([0, 0, 0, 2])}"


def random_folder(r: random.Random, folder: Path, depth: int = 0) -> None:
    folder.mkdir()
    for name in r.sample(ENTRIES.split(), r.randint(2, 5)):
        if depth < 2 and r.random() < 0.5:
            random_folder(r, folder / name, depth + 1)
        else:
            (folder / name).write_bytes(b"")
    end = r.choice(["\n", "\r\n"])
    (folder / ".gitignore").write_text("".join(random_line(r) + end for _ in range(r.randint(1, 4))), "utf-8", newline="")


def test_git_agrees_on_random_rules(tmp_path: Path):
    r = random.Random(14)
    for i in range(100):
        random_folder(r, tmp_path / f"{i:03}")
    try:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    listed = ["git", "-C", str(tmp_path), "ls-files", "-z", "--others", "--exclude-standard"]
    found = subprocess.run(listed, check=True, capture_output=True).stdout.decode().rstrip("\0").split("\0")
    assert found_below(tmp_path) == sorted(name for name in found if "/." not in f"/{name}")


@pytest.mark.parametrize("glob", [b"*a" * 30 + b"b", b"**/a/" * 30 + b"b", b"a/" + b"**/*a" * 30 + b"/b"])
def test_many_stars_end(glob: bytes):
    for path in (b"a" * 255, b"a/" * 500 + b"a", b"/".join([b"a" * 200] * 10)):
        assert find_verdict(parse_rules(glob), path, is_folder=False) is None
