"""Models on the hub with tested architectures. Sizes, dimensions and poolings are the published ones."""

from typing import NamedTuple

from ..checkpoint import prompts


class Known(NamedTuple):
    """A model on the hub."""

    name: str
    parameters: int  # millions
    download: int  # MB, of weights and tokenizer
    dimensions: int
    pooling: str  # the folder's, or this package's default if the folder does not say
    own: tuple[str, ...] = ()  # names of the prompts that its folder has

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts that it was trained with."""
        return self.own or tuple(name for name, text in prompts.family_prompts([self.name]).items() if text)


MIDDLE = "mean, middle layer"
MODELS = (
    Known("distilgpt2", 82, 354, 768, MIDDLE),
    Known("gpt2", 124, 549, 768, MIDDLE),
    Known("gpt2-medium", 355, 1521, 1024, MIDDLE),
    Known("gpt2-large", 774, 3249, 1280, MIDDLE),
    Known("gpt2-xl", 1558, 6433, 1600, MIDDLE),
    Known("sentence-transformers/all-MiniLM-L6-v2", 23, 91, 384, "mean"),
    Known("sentence-transformers/all-MiniLM-L12-v2", 33, 134, 384, "mean"),
    Known("sentence-transformers/all-mpnet-base-v2", 109, 438, 768, "mean"),
    Known("sentence-transformers/multi-qa-mpnet-base-dot-v1", 109, 438, 768, "cls"),
    Known("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 118, 480, 384, "mean"),
    Known("sentence-transformers/all-distilroberta-v1", 82, 330, 768, "mean"),
    Known("BAAI/bge-small-en-v1.5", 33, 134, 384, "cls"),
    Known("BAAI/bge-base-en-v1.5", 109, 439, 768, "cls"),
    Known("BAAI/bge-large-en-v1.5", 335, 1341, 1024, "cls"),
    Known("intfloat/e5-small-v2", 33, 134, 384, "mean"),
    Known("intfloat/e5-base-v2", 109, 439, 768, "mean"),
    Known("intfloat/e5-large-v2", 335, 1341, 1024, "mean"),
    Known("intfloat/multilingual-e5-small", 118, 488, 384, "mean"),
    Known("WhereIsAI/UAE-Large-V1", 335, 1341, 1024, "cls"),
    Known("nomic-ai/nomic-embed-text-v1.5", 137, 548, 768, "mean"),
    Known("Alibaba-NLP/gte-modernbert-base", 149, 302, 768, "cls"),
    Known("Qwen/Qwen3-Embedding-0.6B", 596, 1203, 1024, "last", ("query",)),
)
