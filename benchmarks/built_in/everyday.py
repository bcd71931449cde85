"""Everyday sentences from a small grammar: who does what to whom, where and how. Collections of text hold few such sentences,
but people compare them first ("A man is playing a guitar"). A teacher model gives their meaning."""

# ruff: noqa: E501, SIM905

import random
from collections.abc import Iterator

PEOPLE = """man woman boy girl child baby person teenager student teacher doctor nurse chef waiter farmer soldier worker
policeman firefighter driver cyclist runner swimmer dancer singer musician guitarist drummer artist painter photographer lady
gentleman father mother grandmother grandfather brother sister friend neighbour tourist player goalkeeper boxer surfer skier
skater climber fisherman hunter carpenter plumber mechanic pilot sailor clown magician bride groom shopper customer""".split()
MANY = """men women boys girls children people friends students teenagers workers soldiers players dancers musicians tourists
kids toddlers adults couples families runners cyclists""".split()
ANIMALS = """dog cat puppy kitten horse cow sheep goat pig donkey rabbit hamster squirrel mouse monkey panda bear lion tiger
elephant giraffe zebra deer fox wolf duck goose chicken bird parrot eagle owl turtle frog snake lizard fish shark whale dolphin
seal otter camel bull lamb""".split()
LOOKS = """young old tall short little big small thin fat happy sad tired angry smiling blond bald bearded elderly lonely
pregnant barefoot wet dirty hungry""".split()
COLOURS = "black white brown grey red blue green yellow orange purple pink golden".split()
CLOTHES = "shirt jacket coat hat dress sweater uniform helmet suit scarf T-shirt hoodie swimsuit".split()
PLACES = """in the park|in a field|on the beach|in the street|on the sidewalk|in the kitchen|in the garden|on the grass|in the snow|
in the rain|in the water|in a pool|on a lake|in the sea|near a river|by the window|on the sofa|on a bench|at a table|on the floor|
in a room|in a restaurant|at the market|in a shop|on a stage|in front of a house|behind a fence|under a tree|on a mountain|
in the forest|in the desert|on the roof|at the station|on a bus|in a car|in a classroom|in an office|at the zoo|in a barn|
at a party|in a city|on a bridge|in a stadium|at night|in the morning|outside|indoors|in the dark|on the road""".replace(
    "\n", ""
).split("|")
HOW = """slowly|quickly|quietly|loudly|carefully|happily|alone|together|with a friend|with both hands|for the first time|again""".split(
    "|"
)
# a verb: how it ends in -ing, in the past, in the third person; and what it may be done to
DONE = """playing,played,plays:a guitar,a piano,a flute,the violin,the drums,a trumpet,football,tennis,chess,cards,basketball,golf,a video game
riding,rode,rides:a horse,a bicycle,a motorcycle,a skateboard,an elephant,a wave,a scooter,a camel
eating,ate,eats:an apple,a banana,a sandwich,pizza,rice,bread,soup,a carrot,grass,ice cream,a hamburger,pasta,cake
cutting,cut,cuts:an onion,a tomato,bread,paper,meat,a potato,hair,a tree,a cake,vegetables,grass,garlic,a cucumber
slicing,sliced,slices:an onion,a tomato,a lemon,bread,a potato,tofu,a carrot,ginger
cooking,cooked,cooks:dinner,pasta,meat,eggs,rice,soup,fish,breakfast
frying,fried,fries:an egg,fish,meat,potatoes,onions
peeling,peeled,peels:a potato,an apple,an orange,a shrimp,a banana
mixing,mixed,mixes:flour and eggs,vegetables in a bowl,paint,a drink,dough
pouring,poured,pours:water into a glass,milk into a bowl,oil into a pan,coffee,tea,sauce over the rice
drinking,drank,drinks:water,milk,coffee,tea,beer,juice from a bottle,wine
reading,read,reads:a book,a newspaper,a letter,a magazine,the menu,a map
writing,wrote,writes:a letter,on the blackboard,a poem,in a notebook,an e-mail,a song
washing,washed,washes:the dishes,a car,clothes,the dog,his hands,the windows,vegetables
cleaning,cleaned,cleans:the floor,the kitchen,a fish,a window,the table,shoes
opening,opened,opens:a door,a box,a bottle,a present,a window,an umbrella,a can
closing,closed,closes:a door,a book,the window,a drawer,the gate
carrying,carried,carries:a bag,a box,a child,a ladder,firewood,a suitcase,water,a surfboard
throwing,threw,throws:a ball,a stone,a stick,a snowball,a frisbee,a knife
catching,caught,catches:a ball,a fish,a mouse,a frisbee,a train,the bus
kicking,kicked,kicks:a ball,a stone,a door,a bag of sand
holding,held,holds:a baby,a sign,a flag,a cup,a gun,hands,an umbrella,a microphone,a fish
pushing,pushed,pushes:a cart,a car,a stroller,a wheelchair,a button,a swing
pulling,pulled,pulls:a rope,a sled,a cart,a tooth,a suitcase
painting,painted,paints:a wall,a picture,a fence,a portrait,her nails,a house
drawing,drew,draws:a picture,a circle,a horse,a line on paper
building,built,builds:a house,a sandcastle,a snowman,a wall,a fire,a tower,a boat
fixing,fixed,fixes:a car,a bicycle,the roof,a computer,a clock,a tap
driving,drove,drives:a car,a truck,a bus,a tractor,a taxi
watching,watched,watches:television,a film,a football match,the birds,the sunset,a parade,children
buying,bought,buys:a ticket,shoes,fruit,a newspaper,a present,flowers,a house
selling,sold,sells:fruit,fish,flowers,ice cream,a car,vegetables
feeding,fed,feeds:a baby,the ducks,a cat,the chickens,a horse,a giraffe
chasing,chased,chases:a ball,a cat,a dog,a rabbit,a thief,a car,its tail
hugging,hugged,hugs:a friend,a child,a dog,a teddy bear,his mother
kissing,kissed,kisses:a baby,his wife,a dog,the trophy
lifting,lifted,lifts:weights,a box,a child,a car,a stone
climbing,climbed,climbs:a tree,a ladder,a wall,a mountain,a rope,the stairs
folding,folded,folds:a shirt,paper,a letter,towels,a blanket
packing,packed,packs:a suitcase,a box,her lunch,a bag
planting,planted,plants:a tree,flowers,potatoes,seeds
taking,took,takes:a photo,a shower,a bath,a nap,a walk,notes,medicine
wearing,wore,wears:a hat,sunglasses,a costume,a helmet,gloves,a mask""".split("\n")
ALONE = """sleeping,slept,sleeps
running,ran,runs
walking,walked,walks
jumping,jumped,jumps
dancing,danced,dances
singing,sang,sings
swimming,swam,swims
crying,cried,cries
laughing,laughed,laughs
smiling,smiled,smiles
talking,talked,talks
sitting,sat,sits
standing,stood,stands
lying down,lay down,lies down
falling,fell,falls
waiting,waited,waits
fishing,fished,fishes
fighting,fought,fights
working,worked,works
resting,rested,rests
hiding,hid,hides
swinging,swung,swings
skating,skated,skates
surfing,surfed,surfs
praying,prayed,prays
exercising,exercised,exercises
shouting,shouted,shouts
knitting,knitted,knits
shopping,shopped,shops
eating,ate,eats
drinking,drank,drinks
playing,played,plays
cooking,cooked,cooks
reading,read,reads
driving,drove,drives""".split("\n")
BEASTLY = """sleeping,slept,sleeps
running,ran,runs
walking,walked,walks
jumping,jumped,jumps
eating,ate,eats
drinking,drank,drinks
swimming,swam,swims
barking,barked,barks
playing,played,plays
lying down,lay down,lies down
hiding,hid,hides
fighting,fought,fights
chasing a ball,chased a ball,chases a ball
chewing a bone,chewed a bone,chews a bone
licking its paw,licked its paw,licks its paw
digging a hole,dug a hole,digs a hole
looking at the camera,looked at the camera,looks at the camera
climbing a tree,climbed a tree,climbs a tree""".split("\n")
THINGS = """train plane car bus truck boat ship bicycle motorcycle helicopter tractor kite ball door bridge tower house
church castle lamp clock phone computer cup bottle chair table bed bag""".split()
STATES = """parked,standing,broken,very old,new,on fire,painted red,empty,full,for sale,made of wood,lost,being repaired,leaving,arriving,
moving,covered with snow,too small,too expensive,closed,open""".replace("\n", "").split(",")


IRREGULAR = {
    "rode": "ridden", "ate": "eaten", "drank": "drunk", "wrote": "written", "threw": "thrown", "drew": "drawn", "drove": "driven",
    "took": "taken", "wore": "worn",
}  # fmt: skip


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def someone(rng: random.Random) -> tuple[str, bool, bool]:
    """Who, whether they are many, and whether it is an animal."""
    kind = rng.random()
    if kind < 0.22:
        word, animal = rng.choice(ANIMALS), True
        who = (
            f"{rng.choice(COLOURS)} {word}"
            if rng.random() < 0.3
            else f"{rng.choice(LOOKS[:8])} {word}"
            if rng.random() < 0.3
            else word
        )
        return (f"the {who}" if rng.random() < 0.3 else article(who)), False, animal
    if kind < 0.42:
        count = rng.choice(["two", "three", "some", "several", "a group of", "many", "four", "the"])
        return f"{count} {rng.choice(LOOKS) + ' ' if rng.random() < 0.2 else ''}{rng.choice(MANY)}", True, False
    word = rng.choice(PEOPLE[:6]) if rng.random() < 0.5 else rng.choice(PEOPLE)
    who = f"{rng.choice(LOOKS)} {word}" if rng.random() < 0.3 else word
    if rng.random() < 0.15:
        who += f" in {article(rng.choice(COLOURS) + ' ' + rng.choice(CLOTHES))}"
    return (f"the {who}" if rng.random() < 0.3 else article(who)), False, False


def deed(rng: random.Random, animal: bool) -> tuple[str, str, str]:
    """What is done: as a participle, in the past, and in the third person of the present."""
    if animal:
        return tuple(rng.choice(BEASTLY).split(","))  # type: ignore[return-value]
    if rng.random() < 0.35:
        return tuple(rng.choice(ALONE).split(","))  # type: ignore[return-value]
    verbs, objects = rng.choice(DONE).split(":")
    what = rng.choice(objects.split(","))
    return tuple(f"{verb} {what}" for verb in verbs.split(","))  # type: ignore[return-value]


def action(rng: random.Random) -> str:
    """A clause: someone or nobody does something, or something is being done."""
    who, many, animal = someone(rng)
    form = rng.random()
    if form < 0.1:
        verbs, objects = rng.choice(DONE).split(":")
        _, did, _ = verbs.split(",")
        what = rng.choice([o for o in objects.split(",") if not o.startswith(("on ", "in "))])
        are = "are" if what.endswith("s") and not what.startswith(("a ", "an ", "the bus")) else "is"
        by = f" by {who}" if rng.random() < 0.6 else ""
        return f"{what} {are} {'not ' if rng.random() < 0.06 else ''}being {IRREGULAR.get(did, did)}{by}"
    doing, did, does = deed(rng, animal)
    are = "are" if many else "is"
    if form < 0.14:
        return f"{rng.choice(['nobody', 'someone', 'someone', 'a person', 'no one'])} is {doing}"
    if form < 0.18:
        return f"there {are} no {who.split(' ', 1)[1] if not many else rng.choice(MANY)} {doing}"
    if form < 0.22 and not animal:
        other = someone(rng)[0]
        return f"{who} and {other} are {doing}"
    if form < 0.25 and not animal:
        return f"{who} {'who' if rng.random() < 0.5 else 'that'} {are} {deed(rng, False)[0]} {are} {doing}"
    if form < 0.65:
        return f"{who} {are} {'not ' if rng.random() < 0.08 else ''}{doing}"
    if form < 0.8:
        return f"{who} {did}"
    if form < 0.88 and not many:
        return f"{who} {does}"
    if form < 0.95:
        return f"{who} {doing}"
    return f"there {are} {who} {doing}"


def sentence(rng: random.Random) -> str:
    """A clause, often with a place, a manner or a second clause; or the state of a thing."""
    if rng.random() < 0.08:
        thing, state = rng.choice(THINGS), rng.choice(STATES)
        text = f"{rng.choice(['the', 'a'])} {rng.choice(COLOURS) + ' ' if rng.random() < 0.4 else ''}{thing} is {state}"
    else:
        text = action(rng)
        if rng.random() < 0.45:
            text += f" {rng.choice(PLACES).strip()}"
        if rng.random() < 0.08:
            text += f" {rng.choice(HOW)}"
        if rng.random() < 0.12:
            text += f" {rng.choice(['while', 'and', 'as'])} {action(rng)}"
    return text[0].upper() + text[1:] + ("." if rng.random() < 0.6 else "")


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """`count` different sentences, the same for the same seed."""
    rng, seen = random.Random(seed), set[str]()
    while len(seen) < count:
        text = sentence(rng)
        if text not in seen:
            seen.add(text)
            yield text
