"""The words and marks that tell a statement of a score from a sentence that only mentions one; ``score_statement`` uses them."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NUMBER_WORDS = dict(zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), range(11), strict=True))
# How a minus sign is written, the hyphen first: hyphens, the figure dash, the en dash, the sign itself, and small and full-width ones.
MINUSES = "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
# All that continues like a number is taken ("4,5", "1,000"), so that no score is cut out of it.
DIGITS = r"(?:(?<!\w)[-\u2212])?\d(?:[.,]?\d|_?[^\W_])*"
ANY_NUMBER = rf"{DIGITS}|\b(?:{'|'.join(NUMBER_WORDS)})\b"
NUMBER = re.compile(
    rf"(?<!\d[-\u2013:/])(?<!\d to )(?P<number>{ANY_NUMBER}|[\u2605\u2b50]+(?=\u2606)|[\u2605\u2b50]{{2,}})\u2606*"
    rf"(?P<scale>\s*(?:-?\s*(?:points?|stars?)\s+)?(?:/|\bout\s+of\b|\bof\s+a\s+possible\b|\bon\s+a\s+scale\s+(?:of|from)\b)"
    rf"\s*(?:an?\s+|the\s+)?(?:possible\s+|maximum\s+)?(?:{ANY_NUMBER})(?:\s*(?:to|-|\u2013)\s*\d+)?)?",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
# Sentences and lines end here.
BREAK = re.compile(r"(?:[.!?\u2026][\"'\u201d\u2019)\]*_`]*\s+|[\u3002\uff01\uff1f]\s*|\n\s*)")
CLAUSE_BREAK = re.compile(
    r"[,;\u2014]\s*|\((?=[^\W\d])|\s[-\u2013]\s|\b(?:so|therefore|thus|hence|thereby|but|however|although|though|because|since|which|(?<!\d\s)and)\b",
    re.IGNORECASE,
)
LABEL_MARK = re.compile(r"(?:[:=\uff1a\u2192]|[^\W\d]\s*[-\u2013])\W*$")
# Markup, quotes and tags that may follow a statement: "(4)**", "4</score>".
CLOSED = re.compile(r"(?:[\W_]|</?\w+>|<\|\w+\|>)*$")
FENCE = re.compile(r"\s*```\w*$")
# Connectives that a statement begins with, and what is left of a sentence that was cut behind one.
DANGLING = re.compile(r"(?:[\s,;\u2013\u2014(-]|\b(?:and|so|therefore|thus|hence|thereby|with|for|but|which)\b(?=\W*$))+$", re.IGNORECASE)


SCORE_NOUNS = _set("score scores rating ratings grade grades mark marks verdict evaluation assessment judgment judgement")
MENTIONS = _set("score scores scored rating ratings rated grade grades graded")
RATING_VERBS = _set(
    "rate rates rated rating score scores scored scoring grade graded grading assign assigns assigned assigning award awards awarded "
    "awarding deserve deserves deserved deserving merit merits merited meriting warrant warrants warranted warranting"
)
# These assign a score where an article or a pronoun leads to the number ("gives it a 4"); else they count things ("gives 4 reasons").
GIVING_VERBS = _set(
    "give gives gave given giving earn earns earned earning receive receives received receiving get gets got getting grant granted go "
    "going mark marked settle settled settling land lands landed choose chose pick picked rank ranks ranked ranking nets correspond "
    "corresponds corresponding translate translates result results resulting lead leads leading led equate equates justify justifies "
    "justified justifying qualify qualifies worth come comes coming evaluate evaluated assess assessed judge judged call consider "
    "make makes making bring brings bringing put puts place places placed arrive arrives arrived arriving fall falls fell achieve "
    "achieves achieved attain attains attained obtain obtains obtained reach reaches reached yield yields yielded"
)
# The judge speaks: "I am going with 4".
FIRST_PERSON = _set("let's i i'd i'll i'm i've")
# What the judge does in the first person without rating: "I counted 5", "I get 39".
OBSERVING = _set(
    "count counted counting find found see saw seen read checked identify identified spot spotted notice noticed expect expected get "
    "compute calculate obtain have"
)
# "It is evaluated as 4", "the response falls at 4".
PLACING_VERBS = _set(
    "evaluate evaluated assess assessed judge judged mark marked rank ranks ranked place places placed put puts fall falls land lands "
    "arrive"
)
UNITS = _set("point points star stars")
BANDS = _set("category bracket")
KINDS = _set("overall final total resulting combined aggregate holistic")
CONNECTIVES = _set(
    "so therefore thus hence consequently accordingly overall finally in summary conclusion total short sum all the end my view "
    "opinion to conclude as a result such altogether and final answer result given with mind ultimately lastly to sum up this these "
    "points for reasons boxed"
)
OUTCOMES = _set("answer result decision conclusion")  # of the response, or of the judge
LABELS = SCORE_NOUNS | UNITS | KINDS | OUTCOMES | _set("my the judge judge's your response response's quality of value")
# Walked over on the way from a number back to the word that says what it is.
FILLERS = (SCORE_NOUNS | KINDS) - _set("mark marks") | _set(
    "a an the of for at in to as with by be being point full perfect top high low maximum solid strong clear good fair scored scoring "
    "given set"
)
ARTICLES = _set("a an it this response")
# With an article and these alone a number is the score: "Overall, this is a solid 4."
FRAMING = _set("the this that it is was would be i i'd it's that's response answer seems feels for say should think believe feel")
# Alone before a statement's clause they belong to it: "Given this, the score is 4", "The response therefore earns a 4".
LEADING = CONNECTIVES | LABELS | FRAMING
LEAD_INS = _set("after based considering given according on for all taking taken therefore hence so thus overall in")
ADJECTIVES = KINDS | _set("full perfect top high low maximum solid strong clear good fair firm generous weak mere")
# The word that says what a number is, where it is not the score of this response.
NAMERS = _set(
    "criterion criteria description descriptions descriptor descriptors requirement requirements standard standards definition "
    "expectation expectations level levels reference rubric rubric's rubrics threshold condition conditions example characteristics "
    "qualities band bar indicative worthy typical than below above under beyond nearly almost quite close closer short least most "
    "between from towards toward all these those both following step option part section question item line paragraph number figure "
    "table page chapter task day year range scale or until described needed required stated outlined expected demanded align aligns "
    "aligned aligning match matches matching matched meet meets meeting met fit fits fitting consistent line satisfy satisfies fulfil "
    "fulfils fulfill fulfills mirrors trait traits associated hallmark hallmarks feature features sign signs attribute attributes "
    "element elements aspect aspects"
)
# With one of these in its clause a number is not assigned to this response, or not for certain.
NOT_ASSIGNING = _set(
    "not cannot never nor unless if whether prevent prevents prevented preventing hinder hinders hindered keeps kept stops holds held "
    "could might shy almost nearly between hardly scarcely no fails failed hesitate hesitated tempted reluctant"
)
# With one of these earlier in the sentence, "it would be a 5" speaks of another response.
IMPROVED = _set("more another had better without fewer less further")
# Whom or what a judge's score may be for; "rates the hotel 5 out of 5" is somebody else's.
JUDGED = _set(
    "response answer essay output text submission reply assistant model student candidate result work solution summary translation code "
    "completion generation explanation judge conversation dialogue message article story poem letter report assignment paper whole thing"
)
ATTAINING = _set("get earn reach achieve receive obtain deserve merit warrant score attain secure gain getting earning achieving reaching")
SCORE_PHRASE = re.compile(r"(?:\b(?:the|my|its|this|an?|overall|final|total)\s+)*\b(?:scores?|ratings?|grades?|marks?)\b", re.IGNORECASE)
# What may follow a score; before another word a number is a count ("4 examples") or a name ("the score 5 reference answer").
AFTER = re.compile(
    r"\s*-?\s*(?:(?:overall|final)\s+)?(?:scores?|ratings?|grades?|marks?|points?|stars?|response|answer|category|bracket)?"
    r"(?:\s*\b(?:overall|in\s+total|rating)\b)?"
    r"(?=\s*(?:$|(?!\s*[-\u2013:/]\s*\d|:\s*\S)[^\w\s]|(?:because|since|as|for|due|given|based|in|on|overall|here|which|but|with|though"
    r"|although|while|reflecting|indicating|is|was|seems|feels|appears|according|under|per|and|from\s+me|it\s+is"
    r"|to\s+(?:the|this|it))\b(?!\s+\d)))",
    re.IGNORECASE,
)
# "gives the hotel a", before a number.
OBJECT = re.compile(
    r"\b(?:rat|scor|grad|giv|award|assign|plac|put)\w*\s+(?:the|its|his|her|their)\s+(?:\w+\s+)?((?!(?:at|as|with|an?)\b)\w+?)(?:'s\s+\w+)?"
    r"\s+(?:an?\s+|as\s+|at\s+|with\s+)*$",
    re.IGNORECASE,
)
# "the movie has a rating of", "the final score of the match was".
OF_ANOTHER = re.compile(
    r"\b(?:the|that)\s+(\w+)\s+ha[sd]\s+an?\s+(?:\w+\s+)?(?:score|rating|grade|mark)\b"
    r"|\b(?:score|rating|grade|mark)s?\s+(?:of|for|in)\s+the\s+(?:\w+\s+)?(\w+)\s+(?:was|were)\b",
    re.IGNORECASE,
)
# "the reference answer, which scores", "the response says that".
QUOTED = re.compile(
    r"\breference\s+\w+,?\s+(?:which|that|would|has|gets|got|scores|deserves)\b"
    r"|\b(?:response|answer|user|text|author)\s+(?:says|states|mentions|claims|writes|notes|reports|quotes)\b",
    re.IGNORECASE,
)
# "according to the rubric", which says nothing of the response.
BY_RUBRIC = re.compile(
    r"\b(?:according\s+to|based\s+on|by|per|given|under|following)\s+(?:the|this|these|its)\s+(?:\w+\s+){0,2}"
    r"(?:rubrics?|criteria|scale|guidelines)\b(?!\s+(?:for|of)\b)",
    re.IGNORECASE,
)
# "a score of 4 best reflects its quality", "a 4 would be fair".
FITTING = re.compile(
    r"\s*(?:(?!not\b|never\b|\w+n't\b|only\b)\w+\s+){0,2}(?:(?:be|been|is|seems|feels|was)\s+(?:\w+\s+)?"
    r"(?:appropriate|assigned|given|awarded|granted|chosen|applied|fair|fitting|justified|warranted|right|suitable|reasonable|deserved|apt|adequate)|(?:reflects?|describes?|represents?|captures?|suits?|fits|matches))\b"
    r"(?![^.\n]*\b(?:if|had|were|when|only)\b)",
    re.IGNORECASE,
)
# "4 is the score that I would assign".
IS_SCORE = re.compile(r"\W*(?:is|was|seems)\s+(?:the|my|a)\s+(?:\w+\s+){0,2}(?:score|rating|grade|mark)\b", re.IGNORECASE)
HYPOTHETICAL = re.compile(
    r"\W*(?:is|was)\s+(?:for|reserved|meant|defined|described|given\s+(?:to|for|when|if|only)|when|only|out)\b", re.IGNORECASE
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without numbers and marks."""
    return [word.lower().replace("\u2019", "'") for word in WORD.findall(text)]


def has_only(text: str, words: frozenset[str]) -> bool:
    """Whether a text holds no word but these, and no number."""
    return not set(words_of(text)) - words and not NUMBER.search(text)
