"""Write the book of kernels, from graph/ops, the shaders, the self-test's cases and docs/book: python docs/make_book.py FOLDER

Each page is one file that loads nothing. Open FOLDER/index.html.
"""

import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_book.py FOLDER")
    try:
        from book.pages import write_book
    except ModuleNotFoundError as error:
        sys.exit(f'error: pages need {error.name}: pip install ".[docs]" in the checkout')
    pages = write_book(Path(sys.argv[1]))
    print(f"{len(pages)} pages: open {pages[-1]}")


if __name__ == "__main__":
    main()
