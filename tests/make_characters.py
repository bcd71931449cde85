"""Write gpt2wgpu/web/static/characters.js: how the `tokenizers` library sees each character, for a browser that sees some
differently. The library's tables of Unicode are older than a browser's, and a few of its lists are its own.

    python tests/make_characters.py        needs Chromium, for the characters that a browser normalises and the library does not
"""

import json
import sys
from pathlib import Path

from browser import open_browser
from tokenizers import normalizers, pre_tokenizers

FILE = Path(__file__).parents[1] / "gpt2wgpu" / "web" / "static" / "characters.js"
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
FORMS = {"NFC": normalizers.NFC, "NFD": normalizers.NFD, "NFKC": normalizers.NFKC, "NFKD": normalizers.NFKD}
HEAD = """// How the `tokenizers` library sees characters, where a browser may see them differently: ranges of code points, in
// hexadecimal. Written by tests/make_characters.py.
"""


def bert(**on: bool) -> normalizers.BertNormalizer:
    off = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
    return normalizers.BertNormalizer(**(off | on))


def library_classes() -> dict[str, list[str]]:
    """The characters that BERT's normaliser removes as controls, strips as accents or sets apart, and its punctuation."""
    clean, strip, apart = bert(clean_text=True), bert(strip_accents=True), bert(handle_chinese_chars=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    return {
        "REMOVED": [c for c in CHARACTERS if clean.normalize_str(f"a{c}b") == "ab"],
        "MARKS": [c for c in CHARACTERS if strip.normalize_str(f"a{c}b") == "ab"],
        "CHINESE": [c for c in CHARACTERS if apart.normalize_str(c) == f" {c} "],
        "PUNCTUATION": [c for c in CHARACTERS if len(splitter.pre_tokenize_str(f"a{c}b")) == 3],
    }


def left_alone() -> list[str]:
    """The characters that a browser normalises, in some form, and the library leaves as they are."""
    script = """form => { let found = []; for (let c = 0; c < 0x110000; c++) { if (c >= 0xd800 && c < 0xe000) continue;
        const s = String.fromCodePoint(c); if (s.normalize(form) !== s) found.push(s); } return found; }"""
    found: set[str] = set()
    with open_browser() as page:
        for form, normalizer in FORMS.items():
            changed = page.run(f"({script})({json.dumps(form)})")
            found |= {c for c in changed if normalizer().normalize_str(c) == c}
    return sorted(found)


def write_ranges(characters: list[str]) -> str:
    ranges: list[list[int]] = []
    for c in map(ord, characters):
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return " ".join(f"{a:x}-{b:x}" if a != b else f"{a:x}" for a, b in ranges)


def main() -> None:
    classes = library_classes() | {"LEFT_ALONE": left_alone()}
    lines = (f"export const {name} = '{write_ranges(found)}';\n" for name, found in classes.items())
    FILE.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
