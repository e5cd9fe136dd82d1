"""Signs that a text speaks of a scale: sentences that say which, and all that is refused since it leaves doubt. Pure."""

from __future__ import annotations

import re

from tract.data.readers.fields import shown
from tract.text.score_words import NUMBER_WORDS

_N = r"[+-]?[0-9]{1,4}"
_RANGE = rf"(?<![\w.]){_N}[ \t]?(?:-|to|\.\.\.?|\u2026)[ \t]?[0-9]{{1,4}}(?![\w]|[.,][0-9])"
RATE = r"(?:rate|score|grade|give|assign|award|evaluate|assess|judge|mark|use|answer|respond|return|output|reply)"
# Two numbers, each perhaps with what it means in parentheses.
_ENDS = rf"(?:from |of |between )?({_N})(?: ?\([^()\n]{{1,60}}\))?[ \t]?(?:-|to|through|and|\.\.\.?|\u2026)[ \t]?({_N})(?![.,]?[0-9])"
_BEGIN = r"(?:^|[.!?:;,]\s|\()[ \t]{0,8}(?:(?:please|then|and|finally)[ \t])?"
_NOT_ASKED = r"(?![^.!?:\n]{0,200}\?)"


def asking_sentences(ends: str) -> tuple[re.Pattern[str], ...]:
    """Sentences that ask for a score on a scale and say which; a question may mean another scale than the judge's."""
    sentences = (
        rf"{_BEGIN}{RATE}\b[^.?!\n]{{0,120}}?\b(?:from|between|scale of|using|of) {ends}{_NOT_ASKED}",
        rf"{_BEGIN}on a scale (?:of|from) {ends}",
        rf"{_BEGIN}(?:the )?(?:scale|scores?|ratings?|range) ?(?:goes|go|ranges?|runs?|is|are|:)? ?{ends}{_NOT_ASKED}",
    )
    return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in sentences)


_ASKED = asking_sentences(_ENDS)

_RATED = r"\b(?:scal(?:e|ed)|scores?|scored|scoring|rat(?:e|ed|ing|ings)|grad(?:e|ed|ing)|marks?|stars?)\b"
_WORD = (
    r"(?:pass|fail|yes|no|true|false|good|bad|poor|fair|excellent|average|great|terrible|low|medium|high|weak|strong|partial|partially|"
    r"correct|incorrect|acceptable|unacceptable|very good|very bad|satisfactory|unsatisfactory|strongly agree|agree|neutral|disagree|"
    r"strongly disagree|accept|reject|maybe|mediocre|adequate|inadequate|mixed|always|often|sometimes|rarely|"
    r"never|(?-i:[A-F][+-]?))(?![\w+])"
)
_QUALITY = r"(?:best|worst|highest|lowest|perfect|poor|bad|good|excellent)"
_COUNTED = r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|[ivx]{1,4}|[\u2605\u2606\u2b50]{1,10})(?![\w+])"
_LEADER = rf"(?:{_WORD}|{_COUNTED})"
_OR = r"[ \t]?(?:/|,|\||\bor\b|, or\b)[ \t]?"
_QUOTE = r"[\"'*]{0,2}"
_EDGE = r"^[^\w\n\u2605\u2606\u2b50]{0,8}_{0,2}"
_NAMED = rf"(?:(?:{_RATED}|\b(?:level|grade|tier|band))[ \t:]{{1,3}})?{_LEADER}[^\w\n:=|-]{{0,4}}(?:[:=|]|-+(?=[\s>]))"
_UNIT = r"(?:points?|pts|stars?|marks?)\b"
_OTHER = (
    r"(?:step|section|chapter|rule|requirement|criterion|criteria|part|question|point|item|reason|example|paragraph|condition|constraint|"
    r"article|task|turn|figure|table|day|week|month|year|phase|line|option|stage|player|person|speaker|user|agent|team|case|test|law|act|"
    r"scene|verse|page|volume|q)"
)
_NUMBERED = rf"{_EDGE}(?!{_OTHER}[ \t]?[0-9])[^\W\d_]{{2,20}}[ \t_]{{0,3}}[0-9]{{1,4}}[ \t]?[:=)-]"
_LEVEL = r"\b(?:level|grade|tier|band)[\W_]{0,3}[0-9]+[\W_]{0,3}[:=)>]"
_SCORE = r"\b(?:score|rating)[\W_]{0,3}[0-9]"
_FAR = r"(?s:.){0,2000}?"
_LINES = r"[^\n]*(?:\n[^\n]*){1,9}?"
_WHEN = rf"{_QUOTE}[0-9]+{_QUOTE}[ \t](?:if|when|means?|being|is|for|indicates)\b"
_GIVEN = rf"\b(?:give|assign|award|score|rate|an?|is)[ \t](?:it[ \t])?(?:an?[ \t])?{_QUOTE}[0-9]+{_QUOTE}[ \t]"
_ENDING = r"[^\n]{1,200}(?:(?:[:=|,-]|\.{2,9}|\u2026)[ \t]?[0-9]{1,3}|[^\W\d_][\"'*_]{0,3}[ \t]?[(\[{<][0-9]{1,3}[)\]}>])[ \t.;,*_]{0,3}"
# Numbers, in digits or words; a decimal point belongs to its number.
COUNTS = {**NUMBER_WORDS, "hundred": 100}
POINTS = rf"(?<![\w.])(?:[+-]?[0-9]{{1,4}}(?:\.[0-9]{{1,2}})?|{'|'.join(COUNTS)})(?![\w]|[.,]?[0-9])"
UNTIL = r"[ \t-]?(?:-|to|through|thru|until|up to|~|\.\.\.?|\u2026)[ \t-]?"
# A word for how good something is, and a number beside it.
_GRADED = (
    r"\b(?:best|worst|highest|lowest|perfect|poor|bad|good|excellent|fair|average|great|terrible|awful|ok|okay|mediocre|low|medium|high|weak|"
    r"strong|pass|fail|partial|none|fully|partly|correct|incorrect|wrong|right|acceptable|unacceptable|(?:dis)?agree|neutral|"
    r"always|sometimes|rarely|never|yes|unhelpful|helpful|not at all|very)"
)
_SPACED = r"(?:[ \t]*\([^()\n]{1,60}\))?[ \t|/<>_\[\]()\u2026\u2610\u25a1\u25cb\u25ef\u20e3.=-]{1,12}"
_ROW = rf"(?:0{_SPACED})?1{_SPACED}2(?:{_SPACED}3(?:{_SPACED}[0-9]{{1,3}}){{0,10}}|(?=[^\w\n]{{0,6}}$))"
_PHRASE_NUMBER = rf"(?!{_OTHER})[^\W\d_]{{2,20}}(?:[ \t][^\W\d_]{{1,20}}){{0,3}}[ \t][0-9]{{1,3}}[ \t.;,]{{0,3}}"
_BRACKETED = r"[^\W\d_] ?[(\[][0-9]{1,3}[)\]]"
_TOWARDS = r"(?:it|this|them|each|on|from|a|an|of|between|is)"
_LISTING = r"[^.?!:\n]{0,40}\b(?:prints?|lists?|outputs?|returns?|shows?|counts?|contains?|holds?|includes?|steps?)\b"
_FEW = r"[^\W\d_]{1,20}(?:[ \t][^\W\d_]{1,20}){0,2}"
_COUNT_IS = rf"\b{_COUNTED} (?:(?:is|being|=|means|the) ){{0,2}}{_QUALITY}"
_NO_COUNT = rf"(?:^|(?<![0-9]){''.join(f'(?<!{word})' for word in COUNTS)}[ \t])"
_LETTERS = r"(?-i:\b[A-F][*+-]?(?: ?\([^()\n]{1,40}\))?[ \t]?(?:-|to|through|/|,)[ \t]?[A-G]\b(?!-))"
_ASKING = r"\b(?:answer|reply|respond|output|say|grade|rate|score|verdict|choose|mark)\b[^.?!\n]{0,80}?[ \t]"
_PAYING = r"\b(?:add|award|assign|deduct|subtract|earns?|worth)\b[^.?!\n]{0,40}?"
_FIRST = r"^[^\w\n]{0,6}_{0,2}[+-]?[0-9]+(?:[.,][0-9]+)?(?![.)\w]|[:][0-9])[^\n]*\n"

_BARE = "speaks of a scale without describing its scores"
_WORDS = "names scores by words"
_ASKED_FOR = "asks for one of several numbers"
_HIGHEST = "names the highest score, not the lowest"
_MENTIONED = "may name scores"
# Pattern of a text that speaks of a scale which was not understood -> the reason that a message gives.
_SIGNS: tuple[tuple[str, str], ...] = (
    (rf"{_RATED}[^.?!\n]{{0,100}}{_RANGE}", _BARE),
    (rf"[(\[](?:{_RATED}[^)\n]{{0,30}})?{_RANGE}[^()\n]{{0,20}}[)\]][ \t]?(?::|[.?]?[ \t]?$)", _BARE),
    (rf"\b(?:number|integer|digit|percentage)\b[^.?!\n]{{0,30}}{_RANGE}|\b0 ?(?:-|to) ?100 ?(?:%|percent)", _BARE),
    (rf"{_RATED}[^.?!\n]{{0,100}}\b(?:between|from) [+-]?[0-9.]{{1,6}} ?(?:and|to|-) ?[0-9]", "may name a scale"),
    (rf"{_RATED}[^.?!\n]{{0,100}}\b{_COUNTED} (?:to|and) {_COUNTED}", _WORDS),
    (rf"\b(?:[0-9]+|{_COUNTED})[ -](?:points?|levels?) (?:likert )?(?:scale|rating|grid)\b", "says how many scores there are, not which"),
    (r"\b(?:max(?:imum|imal)?|highest|top|full)\b[ \t](?:score|points?|marks?|rating)\b[^.?!\n]{0,15}[0-9]", _HIGHEST),
    (r"(?:^|\s)/ ?(?:5|10|20|100)\b", _HIGHEST),
    (r":[ \t][0-9]{1,3}(?:/[0-9]{1,3}){1,20}\W{0,3}$", "may name a scale"),
    (r"[0-9] ?(?:,|/|&|\bor\b|\band\b) ?[0-9]{1,3}[ \t]?[:=](?![0-9])", "may name a scale"),
    (r"[^\W\d_] ?\([0-9]{1,3}\)[ \t]?[,;][^\n()]{1,80}[^\W\d_] ?\([0-9]{1,3}\)", "may name a scale"),
    (r"\b(?:answer|respond|reply|output|return|say|give|assign|write)\b[^.?!\n]{0,60}?\b[0-9]{1,3} ?(?:or|/|,) ?[0-9]{1,3}\b", _ASKED_FOR),
    (r"\b[0-9]{1,3} (?:if|when)\b[^.?!\n]{0,80}\b(?:otherwise|else)\b[^.?!\n]{0,20}[0-9]", _ASKED_FOR),
    (rf"{_RANGE}[^.?!\n]{{0,60}}{_RATED}", _BARE),
    (rf"{_RANGE} ?-?{_UNIT}", _BARE),
    (rf"[.?!:][ \t]{_RANGE}\W{{0,3}}$", _BARE),
    (rf"{_RATED}[^.?!\n]{{0,60}}?\b[0-9]+(?:{_OR}[0-9]+){{1,20}}", "may name a scale"),
    (r"\b[0-9]+ ?\([^()\n]{1,80}\)[;,\s]{1,3}(?:and |or )?[0-9]+ ?\(", "may name a scale"),
    (r"^[^\n]{1,40}\([0-9]+\)[ \t]?[:=-][^\n]*\n[^\n]{1,40}\([0-9]+\)[ \t]?[:=-]", "may name a scale"),
    (r"^[^\w\n]{0,6}[<>\u2264\u2265]=? ?[0-9]", "may name a scale"),
    (r"[(\[][ \t]?[+-]?[0-9]{1,3}(?:[ \t]?(?:/|,|\||\bor\b)[ \t]?[0-9]{1,3}){1,20}[ \t]?[)\]][ \t]?[.:?]?[ \t]?$", "may name a scale"),
    (rf"{_RATED}[^.?!\n]{{0,100}}\bout of (?:[0-9]+|{_COUNTED})", _HIGHEST),
    (rf"{_NO_COUNT}out of (?:[3-9]|1[0-9]|20|50|100|five|ten|twenty|(?:a |one )?hundred)\b(?=\W{{0,4}}$)", _HIGHEST),
    (r"\b(?:score|rating|grade)[ \t:=]{1,3}[0-9_x]{0,4}/[0-9]+", _HIGHEST),
    (r"^[\u2605\u2606\u2b50]{1,10}[ \t:][^\n]*\n(?:[^\n]*\n){0,9}?[\u2605\u2606\u2b50]", _WORDS),
    (rf"[.?!,]\s{{1,3}}{_WORD}(?:{_OR}{_WORD}){{1,20}}\W{{0,4}}$", _WORDS),
    (rf"{_EDGE}{_NAMED}{_LINES}^[^\w\n]{{0,8}}{_NAMED}", _WORDS),
    (
        rf"(?:^|[(\[:,;.?!])[ \t]?{_LEADER}[ \t]?[=:][ \t]?\w[^;,\n.]{{0,200}}[;,.\s][ \t]?(?:and |or )?"
        rf"{_LEADER}[ \t]?[=:][ \t]?\w",
        _WORDS,
    ),
    (rf"[(\[:][ \t]?{_WORD}(?:{_OR}{_WORD}){{1,20}}[ \t]?(?:[)\]]|[.?]?[ \t]?$)", _WORDS),
    (rf"{_EDGE}{_WORD}(?:{_OR}{_WORD}){{1,20}}\W{{0,4}}$", _WORDS),
    (rf"{_ASKING}{_QUOTE}{_WORD}{_QUOTE}{_OR}{_QUOTE}{_WORD}(?!{_QUOTE}[ \t]?-?(?:questions?|answers?)\b)", _WORDS),
    (rf"{_SCORE}{_FAR}{_SCORE}|{_LEVEL}{_FAR}{_LEVEL}", "names several scores"),
    (rf"\b[0-9]+[ \t]?-?{_UNIT} (?:if|for|when)\b", "speaks of points"),
    (rf"{_PAYING}[0-9.]+[ \t]?-?{_UNIT}", "speaks of points"),
    (rf"\([^()\n]{{0,20}}[0-9] ?{_UNIT} ?\)|^[^\n]{{0,200}}[:=-] ?[0-9]{{1,3}} ?{_UNIT}\W{{0,3}}$", "speaks of points"),
    (rf"{_GIVEN}(?:if|when|means?|being|indicates)\b", "speaks of scores"),
    (rf"(?:^|[.;,(:]) ?{_WHEN}(?s:.){{0,500}}?[.;,\n] ?(?:and |or )?{_WHEN}", "speaks of scores"),
    (rf"\b[0-9]+[ \t](?:being|is|=|means|indicates|represents|for)[ \t](?:the[ \t])?{_QUALITY}\b", "speaks of scores"),
    (rf"\b{_QUALITY}[ \t]?(?:=|is|:)[ \t]?[0-9]+\b", "speaks of scores"),
    (rf"^{_ENDING}\n{{1,3}}{_ENDING}$", "has several lines that end with a number"),
    (rf"{_FIRST}\s{{0,9}}[^\w\n]{{0,6}}_{{0,2}}[+-]?[0-9]+(?![\w:])", "has several lines that begin with a number"),
    (
        r"^[^\w\n]{0,6}[0-9]+\w{0,3}[ \t]?[:=-][^\n]*\n\s{0,9}[^\w\n]{0,6}[0-9]+\w{0,3}[ \t]?[:=-]",
        "has several lines that begin with a number",
    ),
    (rf">\s{{0,9}}[0-9]+\s{{0,9}}<{_FAR}>\s{{0,9}}[0-9]+\s{{0,9}}<", "has markup around numbers"),
    (rf"{_NUMBERED}{_LINES}{_NUMBERED}", "has several numbered lines"),
    (
        rf"\b(?!{_OTHER}s?[ \t]?[0-9])([^\W\d_]{{1,20}})[ \t]?[0-9]{{1,3}}[:=](?![0-9]){_FAR}\b\1[ \t]?[0-9]{{1,3}}[:=]",
        "has several numbered parts",
    ),
    (rf"{_GRADED}[ \t]?[(\[{{<]?[0-9]{{1,3}}\b[)\]}}>]?[^.?!]{{0,60}}?{_GRADED}[ \t]?[(\[{{<]?[0-9]{{1,3}}\b(?![.,]?[0-9])", _MENTIONED),
    (rf"\b[0-9]{{1,3}}[ \t]{_GRADED}\b[^.?!\n]{{0,60}}?[ \t][0-9]{{1,3}}[ \t]{_GRADED}(?:$|[.;,)])", _MENTIONED),
    (rf"{_BRACKETED}[ \t]?(?:-|/|\||to|through|or|\.\.\.|\u2026)[^\n()\[\]]{{1,60}}{_BRACKETED}", _MENTIONED),
    (r"(?:^|[?.!:;])[ \t]*[(\[{<][01][)\]}>][ \t]*[^\W\d_][^\n]{0,200}?[(\[{<][0-9]{1,3}[)\]}>][ \t]*[^\W\d_]", _MENTIONED),
    (rf"(?:^|[?.!:(\[])[ \t()\[\]<\u2610\u25a1\u25cb\u25ef]{{0,6}}(?:[^()\n]{{1,40}}\)[ \t]{{1,3}})?{_ROW}", _MENTIONED),
    (rf"(?:{_RATED}|{RATE})[^.?!\n]{{0,100}}?[ \t(\[]{_ROW}", _MENTIONED),
    (rf"(?:{_RATED}|{RATE})[^.?!\n]{{0,60}}?:[ \t]*[0-9]{{1,3}}(?:[ \t|/]{{1,5}}[0-9]{{1,3}}){{1,20}}\W{{0,4}}$", _MENTIONED),
    (r"(?:^|\?)[ \t]*[01](?:[ \t]?(?:,|/|\||or|and|, or|, and)[ \t]?[0-9]{1,3}){1,20}[ \t.)]{0,4}$", _MENTIONED),
    (rf"{_EDGE}{_WORD}(?:{_OR}{_WORD}){{1,20}}[ \t]*(?:[:?.]|-+[ \t>])", _MENTIONED),
    (rf"[ \t]-[ \t]?{_WORD}(?:{_OR}{_WORD}){{1,20}}\W{{0,4}}$", _MENTIONED),
    (r"\b(?:pass|true|correct|right|good|agree)[ \t]?[/|-][ \t]?(?:fail|false|incorrect|wrong|bad|disagree)\b", _MENTIONED),
    (rf"\b(?:grade[sd]?|grading|rat(?:e|ed|ing)|scored?|scoring|scale|give|assign|mark)\b[^.?!\n]{{0,60}}?{_LETTERS}", _MENTIONED),
    (rf"(?:^|[(\[:?.!])[ \t]?{_LETTERS}(?:{_OR}[A-F])*[ \t]?(?:[)\]]|(?:grad|scal|rat)(?:e|es|ing)\b|\W{{0,4}}$)", _MENTIONED),
    (r"\b(?:letter[ -]grades?|likert|grading scale|rating scale|star rating|rating in stars)\b", _MENTIONED),
    (rf"{_RATED}[^.?!\n]{{0,60}}\b(?:[0-9]+|{_COUNTED})[ -](?:or more )?(?:stars?|points?|levels?|marks?)\b", _MENTIONED),
    (rf"\bscale of (?:[0-9]+|{_COUNTED})\b", _MENTIONED),
    (rf"\b(?:rate|score|grade|rating|scale)\b(?:[ ]{_TOWARDS}){{0,3}}[ :(]{{1,2}}{POINTS}{UNTIL}{POINTS}", _MENTIONED),
    (rf"{_EDGE}{_PHRASE_NUMBER}\n{{1,3}}[^\w\n]{{0,8}}{_PHRASE_NUMBER}$", _MENTIONED),
    (
        rf"^(?![^\n]*\b(?:cit|sourc|refer))[^\n\[\]()]{{1,80}}{_BRACKETED}[ \t](?!and\b)[^\n\[\]()]{{1,80}}{_BRACKETED}\W{{0,3}}$",
        _MENTIONED,
    ),
    (r"[,:-][ \t]*[01][ \t]?(?:or|/)[ \t]?[0-9]{1,3}[ \t.)]{0,4}$", _MENTIONED),
    (rf"{_GRADED}[ \t:(]{{1,3}}{_ROW}", _MENTIONED),
    (rf"(?:^|[?.!:])[ \t]*(?!{_LISTING}){_FEW}[ \t]{_ROW}(?:[ \t]{_FEW})?\W{{0,3}}$", _MENTIONED),
    (
        rf"^(?!{_OTHER}s?\b)[^\W\d_]{{2,20}}(?:[ ](?!{_OTHER}s?\b)[^\W\d_]{{2,20}})?[ ,]{{1,2}}[01]{UNTIL}(?:[3-9]|10|100)\W{{0,3}}$",
        _MENTIONED,
    ),
    (rf"\b(?:rate|score|grade)\b[^.?!\n]{{0,60}}\bbetween {POINTS} (?:and|&) {POINTS}", _MENTIONED),
    (rf"\bbetween {POINTS} (?:and|&) {POINTS} (?:stars|points|marks)\b", _MENTIONED),
    (r"(?<![\w/])[nx_]/(?:5|10|20|100)\b", _HIGHEST),
    (r"\b(?:rate|score|grade|rating)\b[^.?!\n]{0,60}\b(?:in|as an?|as|using|with) percent(?:ages?)?\b|^use percentages?\b", _MENTIONED),
    (r"(?-i:\bY ?/ ?N\b|\bT ?/ ?F\b)|(?:^|[?.!:(\[])[ \t]*(?:y|t)[ ]?(?:/|or)[ ]?(?:n|f)\b", _WORDS),
    (r"(?:^|[?.!:(\[])[ \t]*([^\W\d_]{2,20})[ ]?(?:/|\bor\b)[ ]?(?:not |un|in|non-?)\1\b", _WORDS),
    (
        rf"{_COUNT_IS}\b[^.?!\n]{{0,30}}{_COUNT_IS}\b",
        _WORDS,
    ),
    (rf"^out of (?:[0-9]+|{_COUNTED}),|^between {POINTS} (?:and|&) {POINTS},", _MENTIONED),
    (rf"\b(?:[0-9]+|{_COUNTED})[ -]stars? scale\b|{POINTS}{UNTIL}{POINTS}[ -](?:points? )?scale\b", _MENTIONED),
    (r"\buse (?:only )?(?:the )?(?:numbers?|scores?|values?|labels?) [0-9]+(?:,| or| and)", _MENTIONED),
    (rf"\b(?:award|assign|give)\b[^.?!\n]{{0,20}}\bup to (?:[0-9]+|{_COUNTED}) (?:marks|points|stars)\b", _MENTIONED),
    (r"\bthumbs[ -]?up[ ]?(?:/|or|,|versus|vs\.?)[ ]?(?:thumbs[ -]?)?down\b", _WORDS),
    (r"[\u2605\u2606\u2b50][ \t]{0,3}(?:-|to|through|,|/|or)[ \t]{0,3}[\u2605\u2606\u2b50]", _MENTIONED),
    (rf"\b(?:[0-9]+|{_COUNTED})[ ](?:stars?|points?|marks?)[ ]?(?:is|are|=|being|means?)[ ](?:the[ ])?{_QUALITY}\b", _MENTIONED),
    (r"\bhow many\b[^.?!\n]{0,40}\b(?:points|stars|marks)\b[^.?!\n]{0,40}\b(?:deserves?|earns?|merits?)\b", _MENTIONED),
)
_REFUSED = tuple((re.compile(pattern, re.IGNORECASE | re.MULTILINE), reason) for pattern, reason in _SIGNS)

_NUMBERS = re.compile(rf"({_N})[ \t]?(?:-|to|\.\.\.?|\u2026)[ \t]?([0-9]{{1,4}})", re.IGNORECASE)
_ASKING_START = re.compile(_ASKING, re.IGNORECASE)
_QUESTION = re.compile(r"\W{0,9}(?:does|do|did|is|are|was|were|has|have|can|could|should|would|will)\b", re.IGNORECASE)


def asked_ranges(text: str) -> list[tuple[str, str]]:
    """(lowest, highest) of the scales that the text asks to rate on, e.g. ("1", "10") of "Rate it from 1 to 10."; whole numbers."""
    found = {}
    for pattern in _ASKED:
        for match in pattern.finditer(text):
            found[match.start(1)] = (str(int(match[1])), str(int(match[2])))
    return sorted(set(found.values()))


def sign_of_scale(text: str) -> str | None:
    """The reason to refuse the text since it speaks of a scale, for a message; None where nothing in it does."""
    for pattern, reason in _REFUSED:
        for match in pattern.finditer(text):
            if not _is_harmless(text, match, reason):
                return f"{reason}: {shown(' '.join(match[0].split()), 80)}"
    return None


def _is_harmless(text: str, match: re.Match[str], reason: str) -> bool:
    """Whether a find is the result of a match ("3-1"), or words that a question asks for in the response ("Does it say yes or no?")."""
    if reason == _BARE:
        return not any(int(low) < int(high) for low, high in _NUMBERS.findall(match[0]))
    if reason not in (_ASKED_FOR, _MENTIONED) and (reason != _WORDS or _ASKING_START.match(match[0]) is None):
        return False
    return in_question(text, match)


def in_question(text: str, match: re.Match[str]) -> bool:
    """Whether a find is part of a question of yes or no, which speaks of the response."""
    start = max(text.rfind(sign, 0, match.start() + 1) for sign in ".?!\n") + 1
    end = re.compile(r"[.?!\n]|$").search(text, match.end())
    return end is not None and end[0] == "?" and _QUESTION.match(text, start) is not None
