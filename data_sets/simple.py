"""The simple pairs of these data sets, made from a small grammar: who does what to what, where and when.

    python data_sets/simple.py            (writes them into train.tsv, dev.tsv and test.tsv, in place of those there)

Pairs of label 1 say one thing in two ways: other words of the same meaning, active or passive, the place first or last.
Pairs of label 0 differ in the deed, in who does it, or in both, and share the rest; they are reworded in the same ways.
"""

import csv
import random
from pathlib import Path

SEED = 0
SIZES = {"train": 1440, "dev": 180, "test": 180}
# words separated by / mean the same
WHO = """child/kid|doctor/physician|soldier/trooper|teacher/instructor|lawyer/attorney|farmer/grower|thief/robber|writer/author|
cook/chef|dog/hound|cat/feline|rabbit/bunny|sailor/seaman|boss/manager|pupil/student|stranger/unknown person|king/monarch|
woman/lady""".replace("\n", "").split("|")
DID = """bought/purchased|repaired/fixed|threw away/discarded|carried/bore|built/constructed|drew/sketched|lifted/raised|
found/discovered|hid/concealed|showed/displayed|hit/struck|wanted/desired|washed/cleaned|sold/traded|broke/smashed|
moved/shifted|guarded/protected|burnt/set fire to""".replace("\n", "").split("|")
PASSIVE = {"threw away": "thrown away", "bore": "borne", "drew": "drawn", "hid": "hidden", "showed": "shown", "struck": "struck",
           "broke": "broken"}  # fmt: skip
WHAT = """car/automobile|sofa/couch|bicycle/bike|phone/telephone|picture/image|stone/rock|gift/present|cup/mug|rug/carpet|
bag/sack|ship/vessel|plane/aircraft|television/TV set|parcel/package|lamp/light|coat/jacket|bucket/pail|map/chart""".replace(
    "\n", ""
).split("|")
WHERE = """in the garden/in the yard|at the shop/at the store|on the road/on the street|in the forest/in the woods|
by the sea/by the ocean|on the hill/on the slope|at the harbour/at the port|in the cellar/in the basement|at school/in class|
near the inn/near the tavern""".replace("\n", "").split("|")
WHEN = """today/this day|at noon/at midday|at night/after dark|every day/daily|long ago/in the distant past|in autumn/in the fall|
at dawn/at sunrise|last year/a year ago""".replace("\n", "").split("|")
SLOTS = (WHO, DID, WHAT, WHERE, WHEN)
Event = tuple[int, int, int, int, int]


def say(rng: random.Random, event: Event) -> str:
    """An event in words, one wording of many."""
    who, did, what, where, when = (rng.choice(slot[i].split("/")) for slot, i in zip(SLOTS, event, strict=True))
    text = f"the {who} {did} the {what}" if rng.random() < 0.5 else f"the {what} was {PASSIVE.get(did, did)} by the {who}"
    rest = [where, when]
    rng.shuffle(rest)
    text = f"{rest[0]}, {text} {rest[1]}" if rng.random() < 0.4 else f"{text} {rest[0]} {rest[1]}"
    return text[0].upper() + text[1:] + "."


def other(rng: random.Random, event: Event) -> Event:
    """Another event: of who, deed and thing two or three differ, the rest stays."""
    changed = list(event)
    for i in rng.sample(range(3), rng.choice((2, 3))):
        changed[i] = rng.choice([j for j in range(len(SLOTS[i])) if j != event[i]])
    return tuple(changed)  # type: ignore[return-value]


def pairs(rng: random.Random, count: int, seen: set[str]) -> list[tuple[str, str, str]]:
    """`count` pairs, every second one of label 1. No sentence occurs twice."""
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        event: Event = tuple(rng.randrange(len(slot)) for slot in SLOTS)  # type: ignore[assignment]
        label = len(found) % 2
        first, second = say(rng, event), say(rng, event if label else other(rng, event))
        if first != second and not {first, second} & seen:
            seen |= {first, second}
            found.append((first, second, str(label)))
    return found


def main() -> None:
    rng, seen = random.Random(SEED), set[str]()
    for name, size in SIZES.items():
        file = Path(__file__).parent / f"{name}.tsv"
        with file.open(encoding="utf-8", newline="") as rows:
            header, *written = csv.reader(rows, delimiter="\t", quoting=csv.QUOTE_NONE)
        simple = pairs(rng, size, seen)
        made = sorted([row[1:] for row in written if row[1] not in seen] + [list(pair) for pair in simple])
        random.Random(SEED).shuffle(made)
        lines = ["\t".join(header), *(f"{i}\t" + "\t".join(row) for i, row in enumerate(made, 1))]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
