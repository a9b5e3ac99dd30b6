r"""Finds what states an answer in words: "The answer is 4.", "Answer: B", "答案是B", `<answer>4</answer>`.

Every repetition in these patterns is bounded, so that all of this is linear in the text.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

READ_CHARACTERS = 1 << 13  # of the end of a text: sentences that state an answer are looked for in them
_TAG_CHARACTERS = 1 << 16
_MAX_STATEMENTS = 32
_MAX_GAP_CHARACTERS = 120
_SENTENCE_END = re.compile(r"[.!?]\s*\$?\s+\S|\n\s*\n|[.!?]\**\s*\n")
_WORD = re.compile(r"[^\W\d_]")

# Cues are looked for in lower case, and begin with letters: both make the search fast.
_ANSWER = r"""(?:answers?|ans\.?|antwort(?:en)?|lösung|r[ée]ponses?|respuestas?|rispost[ae]|respostas?|antwoord
    |odpowied[źz]|odpověď|svar(?:et)?|ответы?|відповідь|cevap|yanıt|đáp\ án|câu\ trả\ lời|jawaban(?:nya)?|jibu|απάντηση
    |إجابة|الإجابة|الجواب|उत्तर|উত্তর|คำตอบ|תשובה|答案|答え?|正解|解答|정답|답[안변]?)"""
_CHOICE = r"""(?:options?|choice|alternative|opción|opzione|opção|alternativa|вариант|选项|選項)"""
_QUALITY = r"""(?:\s(?:correcte?|correcta|correta|corretta|exacte?|esatta|juste|finale?|definitiva|đúng|benar|akhir
    |doğru|الصحيحة?|choice|option|letter|key))"""
_COPULA = r"""(?:is|are|(?:will|would|should|must|has\ to)\ be|ist|lautet|wäre|est|serait|es|sería|è|é|to
    |это|är|er|je|là|adalah|είναι|هي|هو|คือ)"""
_COPULA_CJK = r"""(?:(?:应该|應該|应|應|就)?(?:是|为|為|选|選)|は|은|는|이)"""
_ADVERB = r"""(?:therefore|thus|hence|then|clearly|obviously|definitely|certainly|indeed|simply|almost\ certainly
    |most\ likely|likely|probably|also|again|still|a\ letra|closest\ to|given\ by|as\ follows
    |donc|daher|somit|folglich|entonces|portanto|quindi|dunque|la|le|die|der|das|den|l['’]|lettre|letra|lettera|буква
    |option|choice)"""
_MARKS = r"[\s*_`\"“”‘✅✔☑\ufe0f👉➡]"
_STATED = rf"""{_QUALITY}{{0,2}}
    (?:,\ (?:therefore|then|thus|hence|of\ course),|\s(?:to|for|of|among|from|in)\s[^.:;!?\n]{{1,80}}?)?[*_`]{{0,3}}
    (?:\s{{0,4}}[:：=]|[】\]]|\s{{1,4}}{_COPULA}(?![^\W\d_])|\s{{0,4}}{_COPULA_CJK}|\s{{0,4}}[-–—]\s|(?P<header>[^\S\n]{{0,4}}\n))
    {_MARKS}{{0,12}}[:：]?{_MARKS}{{0,12}}(?:{_ADVERB}(?![^\W\d_])(?<!\d)[\s,:]{{1,4}}){{0,4}}{_MARKS}{{0,4}}"""
_CHOOSES = r"""(?P<verb>choose|chose|chosen|pick|select|say|go\ with|opt\ for)
    \s{1,4}(?:(?:the\ )?(?:option|choice|answer|letter)\s{1,4})?
    |(?P<chinese>选择|選擇|选|選)\s{0,4}[:：]?\s{0,4}"""
_OF_ANSWERS = re.compile(rf"(?P<noun>{_ANSWER}){_STATED}", re.VERBOSE)
_OF_CHOICES = re.compile(rf"(?P<noun>{_ANSWER}|{_CHOICE}){_STATED}|{_CHOOSES}", re.VERBOSE)
_LEAD = re.compile(
    r"""(?<![a-zà-ɏͰ-ԯ])
    (?:(?:so|thus|hence|therefore|the|my|our|final|correct|right|best|only|most|likely)[\s,*_]{1,4}){1,6}\Z""",
    re.VERBOSE,
)
_LEAD_CHARACTERS = 64
_LETTER = re.compile(r"[a-zÀ-ɏͰ-ԯ\\]")
_NOT_CHINESE = re.compile(r"[不别勿没沒].?\Z")
_SPEAKER = re.compile(r"\bi(?:['’]ll|['’]d|\ will|\ would|\ have)?\ \Z")
_HEADER_LINE = re.compile(r"(?:\A|\n)[#>*_\s]{0,12}\Z")
# What comes before an answer, or before "the answer is", and denies it.
_NEGATION = re.compile(
    r"""(?:\b(?:not|never|cannot|hardly|nor|neither|nicht|nie|pas|no\ es|не)|n['’]t|不|没|沒|并非)[是为]?
        (?:\s+(?:the|be|true|correct|right|case|think|believe|say|mean|claim|agree|sure|certain|that|an?|possible|it|is
        |this|what|equals?|to|simply|just|answer)){0,6}\s*\Z""",
    re.IGNORECASE | re.VERBOSE,
)
# What only supposes it, or leaves it to others.
_SUPPOSITION = re.compile(
    r"""\b(?:people|some|others|one|students?|he|she|they|you)\s(?:\w{1,12}\s){0,2}
        (?:think|say|claim|believe|argue|guess|assume|answer)s?\s(?:that\s)?(?:the\s)?\Z
    |\b(?:doubt|false|wrong|incorrect|whether|if|unless|suppose|assum\w{1,4}|deny|untrue|unlikely|impossible|worst|wenn|ob
        |falsch\w?|faux|fausse|mauvaise|incorrecta|sbagliata|errada|неправильный|неверный|如果|若|假设|错误|錯誤)的?
        (?:\s+(?:that|the|it|is|what|an?|correct|right|final|die|la)){0,5}\s*\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_DENIAL_CHARACTERS = 100
_OPENERS = {"$$": "$$", "$": "$", "\\[": "\\]", "\\(": "\\)"}
_STATEMENT_END = re.compile(r"(?:[.?]|(?<![\w)}\]])!)(?=[\s*_\"”')]|\Z)|[。！？]|\n")  # 5! is no exclamation
_RETRACTION = re.compile(
    r"""(?:[.!?;。！？\n]|[,—–-]\s)[\s*_"(]{0,8}(?:(?:but|and|so|oh|or),?\s)?(?:
        wait|actually|oops|hm+\b|scratch\ that|on\ (?:second\ thought|reflection)|correction|sorry|no[,.;:!—–]|no\ -
        |nope|I\ (?:was|am)\ (?:wrong|mistaken)|that\ (?:is|was)\ (?:wrong|incorrect|not\ right)
        |that['’]s\ (?:wrong|incorrect|not)|which\ is\ (?:wrong|incorrect)|I\ made\ an?\ (?:mistake|error)
        |let\ me\ (?:reconsider|correct|recalculate|rethink|redo)|maybe|perhaps|possibly
        |(?:I(?:['’]m|\ am)\ )?not\ (?:sure|certain)|等等|不对|不對|错了
        |moment|falsch|en\ fait|espera)
    |[.!?;。！？\n][\s*_"(]{0,8}(?:or\b|alternatively|otherwise|或|oder\b|ou\b)""",
    re.IGNORECASE | re.VERBOSE,
)
_RETRACTION_CHARACTERS = 80
_TAG = re.compile(r"<(?P<close>/?)(?:final_?)?answer>", re.IGNORECASE)


class Statement(NamedTuple):
    """`start` is that of its first word, `end` that of the text behind it; `text` is what it states, or denies."""

    start: int
    end: int
    text: str
    is_denied: bool = False


def _is_same_sentence(between: str) -> bool:
    """Whether two statements with this text between them stand in one sentence, or no word stands between them."""
    if len(between) > _MAX_GAP_CHARACTERS:
        return False
    return _SENTENCE_END.search(between) is None or _WORD.search(between.replace("\\quad", "")) is None


def find_statements(text: str, *, of_choices: bool = False) -> list[Statement]:
    """The last sentences that state an answer (or choose an option), from the cue to the end of sentence or line."""
    cues = _find_cues(text, _OF_CHOICES if of_choices else _OF_ANSWERS)
    limits = [*(start for start, _ in cues[1:]), len(text)]
    found = []
    for (start, value), limit in zip(cues, limits, strict=False):
        before = text[max(0, start - _DENIAL_CHARACTERS) : start]
        end = _find_end(text, value, limit)
        if not text.startswith(("?", "？"), end):
            found.append(Statement(start, end, text[value:end], is_denied(before)))
    return found


def _find_cues(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where the last cues begin, such as "the answer is", and where what they state begins."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose small form is two characters
        lowered = "".join(letter if len(letter.lower()) > 1 else letter.lower() for letter in text)
    found = []
    for cue in list(pattern.finditer(lowered, max(0, len(text) - READ_CHARACTERS)))[-_MAX_STATEMENTS:]:
        before = lowered[max(0, cue.start() - _LEAD_CHARACTERS) : cue.start()]
        lead = _LEAD.search(before)
        if _is_cue(cue, before, lead[0] if lead else ""):
            found.append((cue.start() - len(lead[0] if lead else ""), cue.end()))
    return found


def _is_cue(cue: re.Match[str], before: str, lead: str) -> bool:
    if cue.re is _OF_CHOICES and cue["noun"] is None:
        return _SPEAKER.search(before) is not None if cue["verb"] else _NOT_CHINESE.search(before) is None
    if cue["header"] and _HEADER_LINE.search(before.removesuffix(lead)) is None:
        return False
    if cue["noun"] == "answers" and "\n" in cue[0]:
        return False  # a summary of several questions
    if cue["noun"] == "options" and not lead.rstrip().endswith(("correct", "right")):
        return False
    return _LETTER.match(before[-1:]) is None


def is_denied(before: str) -> bool:
    """Whether a sentence that begins like this denies what follows, or only supposes it."""
    return is_negated(before) or _SUPPOSITION.search(before) is not None


def is_negated(before: str) -> bool:
    """Whether words that end like this deny what follows: "the answer is not"."""
    return _NEGATION.search(before) is not None


def is_taken_back(text: str, start: int) -> bool:
    """Whether a sentence behind `start` takes back what was stated before: "Wait, ...", "Or C"."""
    at_once = _RETRACTION.match("\n" + text[start : start + _RETRACTION_CHARACTERS])
    return at_once is not None or _RETRACTION.search(text, start) is not None


def find_tags(text: str) -> list[Statement]:
    """The closed `<answer>` tags, with what they hold."""
    found: list[Statement] = []
    opening: re.Match[str] | None = None
    for tag in list(_TAG.finditer(text, max(0, len(text) - _TAG_CHARACTERS)))[-2 * _MAX_STATEMENTS :]:
        if not tag["close"]:
            opening = tag
        elif opening is not None:
            found.append(Statement(opening.start(), tag.end(), text[opening.end() : tag.start()].strip()))
            opening = None
    return found


def last_statements(text: str, statements: Sequence[Statement]) -> list[Statement]:
    """The last statement, with those that stand in one sentence with it; none if it is taken back behind it."""
    stated = [statement for statement in statements if not statement.is_denied]
    if not stated or is_taken_back(text, stated[-1].end):
        return []
    last = stated[-1]
    if any(other.is_denied and other.start > last.start and other.text == last.text for other in statements):
        return []
    return last_sentence(text, stated)


def last_sentence(text: str, statements: Sequence[Statement]) -> list[Statement]:
    """The last statement, with those that stand in one sentence with it."""
    first = len(statements) - 1
    while first > 0 and _is_same_sentence(text[statements[first - 1].end : statements[first].start]):
        first -= 1
    return list(statements[first:])


def _find_end(text: str, start: int, limit: int) -> int:
    """Where the statement ends whose value begins at `start`: a formula between dollars may hold line breaks."""
    closer = next((closer for opener, closer in _OPENERS.items() if text.startswith(opener, start)), "")
    closed = text.find(closer, start + len(closer), limit) if closer else -1
    end = _STATEMENT_END.search(text, max(start, closed), limit)
    return limit if end is None else end.start()
