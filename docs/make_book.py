"""Write the book of kernels, from graph/ops, the shaders, the self-test's cases and docs/book: python docs/make_book.py FOLDER

Each page is one file that loads nothing. Open FOLDER/index.html.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the pages are written; it is made if it is missing")
    folder = parser.parse_args().folder
    if folder.exists() and not folder.is_dir():
        sys.exit(f"error: the book needs a folder, but {folder} is a file")
    try:
        from book.pages import write_book
    except ModuleNotFoundError as error:
        sys.exit(f'error: pages need {error.name}: pip install ".[docs]" in the checkout')
    try:
        pages = write_book(folder)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    print(f"{len(pages)} pages: open {pages[-1]}")


if __name__ == "__main__":
    main()
