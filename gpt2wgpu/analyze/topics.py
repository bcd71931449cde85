"""What a cluster is about: the words that set it apart, and its most central texts."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..graph.tensor import Array

TOPIC_WORD = re.compile(r"(?<!\w)[^\W\d_][\w'’-]*")
SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]+")  # Thai, Lao, Burmese, kana, Han
SET_APART = 1.5  # a cluster's word is at least so many times as frequent there as in all texts
EVERYWHERE = 0.1  # of the texts: a word that more of them have, most of these elsewhere, says nothing about a cluster
FUNCTION_WORDS = frozenset(  # English ones; those of other languages are found by how many texts have them
    """
    a about after all also am an and any are as at be been before but by can could did do does for from had has have he her his
    how i if in into is it its just me more my no not of off on one or our out over she so some than that the their them then
    there these they this those to too under until up us very was we were what when where which who why will with would you
    your don't it's i'm
    """.split()  # noqa: SIM905
)


def topic_words(text: str) -> Iterator[str]:
    """Its words in lower case; pairs of letters where a script has no spaces."""
    for found in TOPIC_WORD.findall(text.lower()):
        for i, part in enumerate(SPACELESS.split(found)):
            if (i == 0 and part == found) or len(part) > 1:
                yield part
        for run in SPACELESS.findall(found):
            yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))


def cluster_words(texts: Sequence[str], clusters: Array, most: int = 5) -> list[list[str]]:
    """For each cluster, 0 to the highest number, the words that set it apart, best first.

    Class-based TF-IDF (Grootendorst, 2022): how often a word occurs in the cluster, times log(1 + A / f), with f how often it
    occurs in all of them and A the words of an average cluster. Only words that are clearly more frequent in the cluster than
    elsewhere count, which leaves out those that every text needs, in any language. clusters: int (n,), -1 for none.
    """
    count = int(clusters.max(initial=-1)) + 1
    inside: list[Counter[str]] = [Counter() for _ in range(count)]
    everywhere: Counter[str] = Counter()
    for text, cluster in zip(texts, clusters.tolist(), strict=True):
        words = Counter(dict.fromkeys(topic_words(text), 1))  # once per text: a text that repeats a word is one witness
        everywhere.update(words)
        if cluster >= 0:
            inside[cluster].update(words)
    sizes = np.bincount(clusters[clusters >= 0], minlength=count)
    most_texts = max(3, EVERYWHERE * len(texts))
    average = sum(c.total() for c in inside) / max(1, count)
    found = []
    for cluster, words in enumerate(inside):
        scores = {
            word: times * float(np.log1p(average / everywhere[word]))
            for word, times in words.items()
            if (everywhere[word] <= most_texts or 2 * times >= everywhere[word])
            and word not in FUNCTION_WORDS
            and times / sizes[cluster] >= min(SET_APART, 0.5 + 0.5 * len(texts) / sizes[cluster]) * everywhere[word] / len(texts)
        }
        common = [word for word in scores if words[word] > 1] or list(scores)
        found.append(sorted(common, key=lambda word: (-scores[word], word))[:most])
    return found


def central_texts(unit: Array, clusters: Array, most: int = 3) -> list[list[int]]:
    """For each cluster, 0 to the highest number, the rows that are closest to its mean, best first.

    unit: rows of length 1, float32 (n, C). clusters: int (n,), -1 for none.
    """
    found = []
    for cluster in range(int(clusters.max(initial=-1)) + 1):
        rows = np.flatnonzero(clusters == cluster)
        closeness = unit[rows] @ unit[rows].mean(axis=0)
        found.append(rows[np.argsort(-closeness, kind="stable")[:most]].tolist())
    return found


def cluster_names(words: Sequence[Sequence[str]], most: int = 3) -> list[str]:
    """A name for each cluster: its best words, or its number where it has none."""
    return [", ".join(found[:most]) or f"cluster {i}" for i, found in enumerate(words)]
