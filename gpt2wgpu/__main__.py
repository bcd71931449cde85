"""`python -m gpt2wgpu` is `gpt2wgpu`."""

from .cli import main

if __name__ == "__main__":
    main()
