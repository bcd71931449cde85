"""Models of the hub whose architectures are verified here. Sizes, dimensions and poolings are as their authors publish them."""

from typing import NamedTuple

from . import prompts


class Known(NamedTuple):
    """A model of the hub."""

    name: str
    parameters: int  # millions
    download: int  # MB
    dimensions: int
    pooling: str  # by default; for models without a sentence-transformers head what this package does
    own: tuple[str, ...] = ()  # prompts that its folder brings

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts it is trained with."""
        return self.own or tuple(name for name, text in prompts.of_family([self.name]).items() if text)


MIDDLE = "mean, middle layer"
MODELS = (
    Known("distilgpt2", 82, 353, 768, MIDDLE),
    Known("gpt2", 124, 548, 768, MIDDLE),
    Known("gpt2-medium", 355, 1520, 1024, MIDDLE),
    Known("gpt2-large", 774, 3247, 1280, MIDDLE),
    Known("gpt2-xl", 1558, 6431, 1600, MIDDLE),
    Known("sentence-transformers/all-MiniLM-L6-v2", 23, 91, 384, "mean"),
    Known("sentence-transformers/all-MiniLM-L12-v2", 33, 133, 384, "mean"),
    Known("sentence-transformers/all-mpnet-base-v2", 109, 438, 768, "mean"),
    Known("sentence-transformers/multi-qa-mpnet-base-dot-v1", 109, 438, 768, "cls"),
    Known("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 118, 471, 384, "mean"),
    Known("sentence-transformers/all-distilroberta-v1", 82, 328, 768, "mean"),
    Known("BAAI/bge-small-en-v1.5", 33, 133, 384, "cls"),
    Known("BAAI/bge-base-en-v1.5", 109, 438, 768, "cls"),
    Known("BAAI/bge-large-en-v1.5", 335, 1340, 1024, "cls"),
    Known("intfloat/e5-small-v2", 33, 134, 384, "mean"),
    Known("intfloat/e5-base-v2", 109, 438, 768, "mean"),
    Known("intfloat/e5-large-v2", 335, 1340, 1024, "mean"),
    Known("intfloat/multilingual-e5-small", 118, 471, 384, "mean"),
    Known("Muennighoff/SGPT-125M-weightedmean-nli-bitfit", 125, 551, 768, "weighted_mean"),
    Known("nomic-ai/nomic-embed-text-v1.5", 137, 547, 768, "mean"),
    Known("Alibaba-NLP/gte-modernbert-base", 149, 298, 768, "cls"),
    Known("Qwen/Qwen3-Embedding-0.6B", 596, 1192, 1024, "last", ("query",)),
)
