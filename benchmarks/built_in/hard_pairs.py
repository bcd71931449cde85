"""Pairs of sentences that share most of their words and yet may differ in meaning: a sentence, and a changed form of it. Rules
make them, so nobody knows how far a change goes; a teacher model judges that.

Some rules keep the meaning (a synonym, the last phrase moved to the front), most change it: two words or the two sides of "of",
"to" or "than" swapped (as in PAWS, Zhang et al. 2019), a negation, another number, name or word, a part left out.
"""

# ruff: noqa: SIM905

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

STOP = frozenset(
    """about above after again against also although among another because been before being below between both cannot could does
    doing down during each either else even ever every from further have having hers herself himself into itself just less like
    many more most much must myself never none only other others ours over same shall should since some such than that their
    theirs them themselves then there these they this those though through thus under until upon very were what when where
    whether which while whom whose will with within without would your yours""".split()
)
AUXILIARIES = "is are was were has have had can could will would should may might must does do did".split()
OTHER_NUMBERS = "two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred".split()
BETWEEN = frozenset("of to than from before after by for with over under into and or".split())
PREPOSITIONS = frozenset("in on at with for from under over near behind after before during by without".split())
DROPPED = frozenset("a an the is are was were been has have had".split())  # what headlines leave out
WHO = """man woman boy girl child dog cat horse bear lion wolf teacher student doctor nurse policeman thief soldier king queen
farmer singer lawyer witness judge driver player goalkeeper waiter guest mother father brother sister neighbour teenager monkey
duck elephant tiger fox rabbit mouse snake bird team company bank city army minister president reporter tourist""".split()
ACTS = """chasing,chased biting,bitten hugging,hugged kissing,kissed following,followed pushing,pushed pulling,pulled feeding,fed
watching,watched carrying,carried lifting,lifted washing,washed hitting,hit helping,helped teaching,taught calling,called
seeing,seen attacking,attacked leading,led paying,paid blaming,blamed thanking,thanked beating,beaten killing,killed
saving,saved catching,caught photographing,photographed painting,painted visiting,visited scaring,scared""".split()

Words = list[str]
Change = Callable[[Words, random.Random], Words | None]


class Lexicon:
    """What words are replaced by. synonyms: of a word, from WordNet's sets; pools: words of a text by their kind."""

    def __init__(self, synonym_sets: Iterable[str], texts: Sequence[str]) -> None:
        self.synonyms: dict[str, list[str]] = {}
        for line in synonym_sets:
            words = line.split(", ")
            for word in words if 1 < len(words) < 7 else ():
                self.synonyms.setdefault(word, []).extend(w for w in words if w != word)
        self.pools: dict[str, list[str]] = {}
        for text in texts:
            for i, word in enumerate(text.split()):
                if kind := word_kind(word, i):
                    self.pools.setdefault(kind, []).append(core(word))

    def replace_synonym(self, words: Words, rng: random.Random) -> Words | None:
        known = [i for i, w in enumerate(words) if len(w) > 3 and core(w).lower() in self.synonyms]
        if not known:
            return None
        i = rng.choice(known)
        return replaced(words, i, rng.choice(self.synonyms[core(words[i]).lower()]))

    def replace_word(self, words: Words, rng: random.Random) -> Words | None:
        kinds = {i: kind for i, w in enumerate(words) if (kind := word_kind(w, i)) in self.pools}
        if not kinds:
            return None
        i = rng.choice(list(kinds))
        return replaced(words, i, rng.choice(self.pools[kinds[i]]))


def core(word: str) -> str:
    return word.strip(".,;:!?\"'()[]")


def word_kind(word: str, at: int) -> str:
    """A rough part of speech, by which words may stand for each other; "" for what should stay."""
    bare = core(word)
    if not bare.isalpha() or bare.lower() in STOP or len(bare) < 4:
        return ""
    if bare[0].isupper():
        return "name" if at else ""
    return next((end for end in ("ing", "ed", "ly", "s") if bare.endswith(end)), "other")


def replaced(words: Words, i: int, new: str) -> Words:
    """The word at i replaced, with its capital and its punctuation."""
    old = core(words[i])
    new = new[0].upper() + new[1:] if old[:1].isupper() else new
    return [*words[:i], words[i].replace(old, new, 1), *words[i + 1 :]]


def swapped(words: Words, a: int, b: int) -> Words:
    """The words at a and b in each other's places, each place with its own capital and punctuation."""
    return replaced(replaced(words, a, core(words[b])), b, core(words[a]))


def swap_words(words: Words, rng: random.Random) -> Words | None:
    """Two words of one kind change places."""
    kinds: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        if kind := word_kind(word, i):
            kinds.setdefault(kind, []).append(i)
    pairs = [(a, b) for at in kinds.values() for j, a in enumerate(at) for b in at[j + 1 :] if core(words[a]) != core(words[b])]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    return swapped(words, a, b)


def swap_sides(words: Words, rng: random.Random) -> Words | None:
    """What stands before and after a word such as "to" or "than" changes places; an article stays."""
    found = []
    for i in range(1, len(words) - 1):
        after = i + 2 if words[i + 1] in ("the", "a", "an") else i + 1
        if words[i] in BETWEEN and after < len(words):
            left, right = core(words[i - 1]), core(words[after])
            alike = left.isalpha() and right.isalpha() and left[0].isupper() == right[0].isupper() and left != right
            if alike and not {left.lower(), right.lower()} & STOP:
                found.append((i - 1, after))
    if not found:
        return None
    a, b = rng.choice(found)
    return swapped(words, a, b)


def negate(words: Words, rng: random.Random) -> Words | None:
    """A "not" added after an auxiliary, or taken away."""
    if "not" in words:
        return [w for w in words if w != "not"]
    found = [i for i, w in enumerate(words) if w in AUXILIARIES and i + 1 < len(words)]
    if not found:
        return None
    i = rng.choice(found)
    return [*words[: i + 1], "not", *words[i + 1 :]]


def change_number(words: Words, rng: random.Random) -> Words | None:
    found = [i for i, w in enumerate(words) if re.search(r"\d", w) or core(w).lower() in OTHER_NUMBERS]
    if not found:
        return None
    i = rng.choice(found)
    if core(words[i]).lower() in OTHER_NUMBERS:
        return replaced(words, i, rng.choice(OTHER_NUMBERS))
    return [*words[:i], re.sub(r"\d", lambda _: str(rng.randint(1, 9)), words[i]), *words[i + 1 :]]


def leave_out(words: Words, rng: random.Random) -> Words | None:
    """One to four words in a row are gone."""
    if len(words) < 5:
        return None
    count = rng.randint(1, min(4, len(words) // 3))
    i = rng.randrange(len(words) - count + 1)
    return words[:i] + words[i + count :]


def as_headline(words: Words, rng: random.Random) -> Words | None:
    kept = [w for w in words if w.lower() not in DROPPED]
    return kept if 2 < len(kept) < len(words) else None


def move_to_front(words: Words, rng: random.Random) -> Words | None:
    """ "A man sleeps in the park." becomes "In the park, a man sleeps." """
    found = [i for i, w in enumerate(words) if w in PREPOSITIONS and 2 < i < len(words) - 1]
    if not found:
        return None
    phrase, rest = words[found[-1] :], words[: found[-1]]
    end = phrase[-1][-1] if phrase[-1][-1] in ".!?" else ""
    phrase = [phrase[0].capitalize(), *phrase[1:-1], phrase[-1].rstrip(".!?") + ","]
    return [*phrase, rest[0][0].lower() + rest[0][1:], *rest[1:-1], rest[-1].rstrip(",;") + end]


def misspell(words: Words, rng: random.Random) -> Words | None:
    """Two neighbouring letters of a word change places."""
    found = [i for i, w in enumerate(words) if w.isalpha() and len(w) > 4]
    if not found:
        return None
    i = rng.choice(found)
    at = rng.randrange(1, len(words[i]) - 2)
    w = words[i]
    return [*words[:i], w[:at] + w[at + 1] + w[at] + w[at + 2 :], *words[i + 1 :]]


def role_pair(rng: random.Random) -> tuple[str, str]:
    """Who does something to whom, beside the reverse, the passive, or the denial of it."""
    who, whom = rng.sample(WHO, 2)
    doing, done = rng.choice(ACTS).split(",")
    the = rng.choice(["The", "A"])
    a = the.lower()
    vowels = {"an" if the == "A" and w[0] in "aeiou" else a for w in (who, whom)}
    if "an" in vowels:
        the, a = "The", "the"
    active = f"{the} {who} is {doing} {a} {whom}"
    others = (f"{the} {whom} is {doing} {a} {who}", f"{the} {whom} is being {done} by {a} {who}")
    others += (f"{the} {who} is being {done} by {a} {whom}", f"{the} {who} is not {doing} {a} {whom}")
    end = rng.choice(["", ".", f" {rng.choice(['in the street', 'at night', 'in the park', 'again', 'at home'])}."])
    pair = [active + end, rng.choice(others) + end]
    rng.shuffle(pair)
    return pair[0], pair[1]


def hard_pairs(texts: Sequence[str], synonym_sets: Iterable[str], seed: int) -> Iterator[tuple[str, str]]:
    """A pair for each text of 5 to 40 words to which the rule that is drawn applies; the same for the same seed."""
    rng = random.Random(seed)
    lexicon = Lexicon(synonym_sets, texts[:50_000])
    rules: list[tuple[Change, int]] = [
        (swap_words, 30),
        (swap_sides, 15),
        (negate, 10),
        (change_number, 6),
        (lexicon.replace_synonym, 10),
        (lexicon.replace_word, 15),
        (leave_out, 8),
        (as_headline, 5),
        (move_to_front, 5),
        (misspell, 2),
    ]
    changes, weights = zip(*rules, strict=True)
    for text in texts:
        words = text.split()
        if 5 <= len(words) <= 40:
            for change in rng.choices(changes, weights, k=3):  # until one applies
                changed = change(words, rng)
                if changed and changed != words:
                    yield text, " ".join(changed)
                    break
