"""Vocabulary and wordings: every word that the generator can write stands in this file.

The vocabulary of responses is kept apart from what the constraints look for: no filler holds a colour, a digit, a comma,
a quotation mark or one of ``NOUNS``. The tests check it, and that lengths are as the comments say.
"""

from __future__ import annotations

from dataclasses import dataclass

# (what the instruction names, what people do there: two or three words that fit both "They ..." and "Do they ...?").
TOPICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("baking bread", ("bake bread", "knead the dough", "bake small rolls")),
    ("gardening", ("plant tulips", "water the roses", "pull out weeds")),
    ("cycling", ("ride bikes", "cycle to work", "pump up tyres")),
    ("cooking", ("cook soup", "fry fresh fish", "peel some potatoes")),
    ("pets", ("walk dogs", "brush the cat", "feed the rabbits")),
    ("reading", ("read novels", "read old letters", "borrow library books")),
    ("housework", ("sweep floors", "wash the dishes", "fold clean towels")),
    ("hot drinks", ("brew coffee", "make strong tea", "pour hot cocoa")),
    ("games", ("play chess", "play card games", "solve hard puzzles")),
    ("music", ("sing songs", "practise the violin", "learn new tunes")),
    ("fishing", ("catch trout", "go ice fishing", "mend the nets")),
    ("camping", ("build campfires", "gather dry wood", "watch the stars")),
    ("swimming", ("swim laps", "practise deep dives", "race each other")),
    ("travel", ("board trains", "take the bus", "study city maps")),
    ("shopping", ("buy vegetables", "compare the prices", "carry heavy bags")),
    ("football", ("kick balls", "play long matches", "train the juniors")),
    ("painting", ("paint portraits", "sketch the harbour", "draw wild birds")),
    ("letters", ("write postcards", "send long letters", "collect rare stamps")),
    ("sewing", ("knit scarves", "sew new curtains", "mend torn shirts")),
    ("the weather", ("shovel snow", "enjoy the sunshine", "dodge the rain")),
)
SUBJECTS = ("my parents", "our neighbours", "some students", "most people", "many families", "both sisters", "my cousins", "the children")
TAILS = ("they enjoy it", "they take turns", "they laugh together", "they work slowly", "they feel happy", "they keep going")  # three words

OPENERS = ("so", "now", "well", "honestly", "still", "actually", "anyway", "frankly")
STATEMENT_ASIDES = ("as usual", "of course", "no doubt")  # two words
QUESTION_ASIDES = ("by chance", "in general", "as usual")

# Phrases that a sentence is lengthened with: three words each.
NEAR = ("near a", "beside a", "behind a")
NOUNS = (
    "lamp", "ladder", "basket", "candle", "bridge", "pillow", "bucket", "kettle", "mirror", "whistle",
    "blanket", "guitar", "suitcase", "clock", "bench", "window", "carpet", "fountain", "statue", "hammer",
    "teapot", "piano", "tent", "bottle", "drum", "fence", "chair", "table", "camera", "radio",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "purple", "pink", "brown", "black", "white", "grey")
LOOKS = ("warm", "old", "new", "funny", "thick", "light", "shiny", "loose")
GARMENTS = ("hats", "coats", "boots", "gloves", "shirts", "scarves")
UNITS = ("minutes", "hours", "days", "weeks")
VAGUE_AMOUNTS = ("several", "many", "some")
PLACES = ("in the village", "on the terrace", "behind the school", "at the market", "in the park", "by the river")
COMPANY = ("with good friends", "with loud music", "with great care", "without any help", "without much noise")
TIMES = ("on quiet mornings", "on rainy evenings", "during the holidays", "before the weekend", "on sunny afternoons", "in early spring")
REASONS = ("just for fun", "to save money", "to stay healthy", "to pass time", "for their grandparents")
SPEECH_VERBS = ("saying", "whispering", "shouting")
SPEECH_PHRASES = ("thank you", "good morning", "well done", "welcome home", "never mind", "good luck")


@dataclass(frozen=True, slots=True)
class Wording:
    """How one kind of constraint is spoken of; "{v}" stands for its value.

    Attributes:
        requirements: what follows "the text must".
        headings: the constraint as a short noun phrase.
        met, unmet: what a reader finds, fit to follow any requirement or heading.
    """

    requirements: tuple[str, ...]
    headings: tuple[str, ...]
    met: tuple[str, ...]
    unmet: tuple[str, ...]


WORDINGS: dict[str, Wording] = {
    "contains_word": Wording(
        ("contain the word '{v}'", "include the word '{v}'", "use the word '{v}'", "make use of the word '{v}'"),
        ("the word '{v}'", "use of '{v}'"),
        ("it is there", "it is used"),
        ("it is missing", "it is not used"),
    ),
    "max_words": Wording(
        ("have at most {v} words", "be no longer than {v} words", "stay within {v} words", "use {v} words or fewer"),
        ("at most {v} words", "no more than {v} words"),
        ("it is short enough", "the text is within the limit"),
        ("it is too long", "the text is over the limit"),
    ),
    "min_words": Wording(
        ("have at least {v} words", "be at least {v} words long", "use {v} words or more", "use no fewer than {v} words"),
        ("at least {v} words", "a minimum of {v} words"),
        ("it is long enough", "the text reaches the minimum"),
        ("it is too short", "the text is below the minimum"),
    ),
    "ends_question": Wording(
        ("end with a question mark", "finish with a question mark", "have a question mark at the end", "close with a question mark"),
        ("a question mark at the end", "ending with a question mark"),
        ("it ends that way", "the last mark is right"),
        ("it ends differently", "the last mark is wrong"),
    ),
    "ends_exclamation": Wording(
        ("end with an exclamation mark", "finish with an exclamation mark", "have an exclamation mark at the end"),
        ("an exclamation mark at the end", "ending with an exclamation mark"),
        ("it ends that way", "the last mark is right"),
        ("it ends differently", "the last mark is wrong"),
    ),
    "has_number": Wording(
        ("contain a number in digits", "include a number written in digits", "give a number in digits", "include at least one digit"),
        ("a number in digits", "at least one digit"),
        ("a number is given", "digits are there"),
        ("no number is given", "digits are missing"),
    ),
    "lower_case": Wording(
        ("be written in lower case only", "use only lower case letters", "contain no capital letters", "avoid capital letters"),
        ("lower case only", "no capital letters"),
        ("every letter is lower case", "there is no capital"),
        ("not every letter is lower case", "there is a capital"),
    ),
    "begins_with": Wording(
        ("begin with the word '{v}'", "start with the word '{v}'", "open with the word '{v}'", "have '{v}' as its first word"),
        ("first word '{v}'", "starting with '{v}'"),
        ("it starts that way", "the first word is right"),
        ("it starts differently", "the first word is wrong"),
    ),
    "no_comma": Wording(
        ("contain no commas", "avoid commas", "be free of commas", "use no commas"),
        ("no commas", "free of commas"),
        ("there is no comma", "commas are avoided"),
        ("there is a comma", "a comma is used"),
    ),
    "mentions_colour": Wording(
        ("mention a colour", "name a colour", "include the name of a colour", "refer to a colour"),
        ("a colour", "mention of a colour"),
        ("a colour is named", "one is mentioned"),
        ("no colour is named", "none is mentioned"),
    ),
    "quoted_phrase": Wording(
        ("contain a quoted phrase", "include a phrase in quotation marks", "put some words in quotation marks", "quote some words"),
        ("a quoted phrase", "words in quotation marks"),
        ("there is a quotation", "something is quoted"),
        ("there is no quotation", "nothing is quoted"),
    ),
    "sentence_count": Wording(
        ("have exactly {v}", "consist of exactly {v}", "be exactly {v} long", "be made of exactly {v}"),
        ("exactly {v}", "a length of {v}"),
        ("the count is right", "it has that many"),
        ("the count is wrong", "it does not have that many"),
    ),
    "avoids_word": Wording(
        ("not contain the word '{v}'", "avoid the word '{v}'", "leave out the word '{v}'", "do without the word '{v}'"),
        ("no use of '{v}'", "avoiding '{v}'"),
        ("the word is left out", "it is not used"),
        ("the word is there", "it is used"),
    ),
}

# What must be done follows, as a list or inline.
INSTRUCTIONS = (
    "Write a short text about {topic}. The text must",
    "Please write one or two sentences about {topic}. The result must",
    "Say something brief about {topic}. Your text must",
    "Your topic is {topic}. Write a sentence or two that must",
)

CRITERIA = (
    "How many of the constraints in the task does the response meet?",
    "To what extent does the response follow the constraints of the task?",
    "Does the response meet the constraints that the task names?",
    "How well does the response keep to the constraints?",
)
# (no constraint, some constraints, all constraints); "{are}" follows the count.
DESCRIPTIONS = (
    ("None of the {n} constraints is met.", "{c} of the {n} constraints {are} met.", "All {n} constraints are met."),
    (
        "The response meets none of the constraints.",
        "The response meets {c} of the {n} constraints.",
        "The response meets every constraint.",
    ),
    ("No constraint is met.", "Exactly {c} {constraints} {are} met.", "All constraints are met."),
)
COUNT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven")

# How one constraint is judged in a CoT: "{h}" is its heading, "{r}" its requirement as the task words it.
VERDICT_LINES = (
    "{h}: {finding}, {verdict}.",
    "{i}. {h}: {finding}, {verdict}.",
    "It must {r}: {finding}, {verdict}.",
)
# In plain wording; "{e}" is what the text shows, "{c}" how many constraints are met so far.
PLAIN_VERDICT_LINE = "{e}, {verdict}. Met so far: {c}."
COT_ENDS = (
    "{c} of {n} constraints {are} met.",
    "In total, {c} of {n} constraints {are} met.",
    "Altogether {c} of {n} constraints {are} met.",
    "This makes {c} of {n} constraints met.",
)
