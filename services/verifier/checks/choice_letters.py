"""Reads which letters a text chooses: `C`, `(C)`, `C) Paris`, `A, C`, `AC`."""

import re

from services.verifier.checks.statements import is_denied

MAX_CHARACTERS = 1_000

# Tokens that end a turn, written out: "B <eoa>", "B<|im_end|>".
_END = re.compile(r"\s?(?:</?s>|<eo[a-z]>|<\|(?:im_end|eot_id|end_of_text|endoftext|end)\|>)")
_STYLE = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|textrm|mathsf|bf|rm|boldsymbol|left|right)(?![a-zA-Z])"
    r"|\\[ ,!()\[\]]|[{}$*`\"“”„«»‘]|(?<![^\W_])_{1,2}|_{1,2}(?![^\W_])"
)
_QUOTED = re.compile(r"(?<![A-Za-z0-9])['‘’]([A-Z])['’](?![A-Za-z0-9])")
_WIDE = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"、": ",", "【": "[", "】": "]"}
)
_NO_WORD = r"(?![A-Za-z0-9À-ɏ'’^_\u0300-\u036f]|\.[A-Z](?:\.|\Z))"
_JOINT = r"(?:and|und|et|y|e|и|和|与|及|および|と)"
_NAMED = (
    r"(?:(?:the|both|only|just|options?|choices?|letters?|answers?|alternatives?|lettre|letra|opción|opção|opzione|вариант"
    r"|r[ée]ponse|antwort|respuesta|risposta|resposta|alternativa)\s{1,4}|选项|選項)"
)

_START = re.compile(rf"\s*{_NAMED}{{0,3}}", re.IGNORECASE)
_RUN = re.compile(rf"[A-Z]{{2,12}}{_NO_WORD}")
_GROUP = re.compile(rf"[(\[]\s?((?:[A-Z]\s?(?:,|&|{_JOINT})\s{{0,2}}(?:{_JOINT}\s)?){{1,11}}[A-Z])\s?[)\]]")
_LETTER = re.compile(
    rf"[(\[<]\s?(?P<closed>[A-Za-z])\s?[)\]>]|(?P<open>[A-Z])[)\]]?{_NO_WORD}|(?P<small>[a-z])(?=[.:)]|\s*\Z)[)\]]?"
)
_NEXT = re.compile(
    rf"(?:\s{{0,3}}[,;&]\s{{0,3}}(?:{_JOINT}\s{{1,3}})?|\s{{0,3}}{_JOINT}\s{{0,3}}|\s{{0,3}})(?:{_NAMED}){{0,2}}(?=[(\[]?[A-Z]{_NO_WORD})",
    re.IGNORECASE,
)
_FOLLOWS = (
    r"(?:because|since|as|which|due|given|based|here|denn|weil|car|parce|porque|потому|так"
    r"|rather|(?:and\s)?not\s[(\[]?[A-Z]|is\s(?:the\s)?(?:correct|right|best|only|answer))\b"
)
_PROSE = re.compile(rf"\s+(?!{_FOLLOWS}|(?:or|and|und|oder|et|ou|y|e|o)\b)[a-zà-ɏ]")
_OTHER_SCRIPT = r"[\u0370-\u1fff\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef✅✔☑]"
_BEHIND = re.compile(
    rf"\s*(?:\Z|[.:;,!)\]/|?]|[-–—]\s|{_OTHER_SCRIPT})|\s+(?:\(|(?:{_FOLLOWS}|(?:is\s(?:not|wrong|incorrect|false)|or|maybe)\b))"
)
_REFUTED = re.compile(
    r"""\s*+(?:(?:[,(–—-]\s*+)?(?:(?:which|it|this|that)\s++)?(?:is|was|seems|would\ be)
            (?:n['’]t\b|\s++(?:not\b|never|wrong|incorrect|false|un\w))
        |\((?:wrong|incorrect|not|no)\b|\?|(?<=\s)or\s++not\b|吗|(?:では|じゃ)(?:な|あり)|(?:이|가)?\s*+(?:아니|아닙)
        |(?<=\s)değil|नहीं|是?(?:错|不对|不正确))""",
    re.IGNORECASE | re.VERBOSE,
)
# Another letter behind the first: "(A) or (B)", "A. or B", "A; maybe C"
_ANOTHER = re.compile(
    rf"""(?:\b(?:or|and|also|even|maybe|perhaps|possibly|otherwise|alternatively|then|but|oder|ou|o|или)\b|[,;/|&?]|或|또는|혹은|이?나|または|か|や)
        ,?\s{{0,3}}(?:(?:it|is|be|could|might|may|also|even|maybe|perhaps|possibly|so|the|answer|option|choice)\s{{1,3}}){{0,4}}
        [(\[]?(?-i:(?P<letter>[A-Z])){_NO_WORD}(?:[)\]]|\s*(?:[.:,;?!(]|[-–—]\s|\Z|{_OTHER_SCRIPT})|\s+(?:is|could|might|may|too|also|as|if|otherwise)\b)
    |(?<!\bnot\s)[(\[](?-i:(?P<bracketed>[A-Z]))[)\]]""",
    re.IGNORECASE | re.VERBOSE,
)
_REASON = re.compile(
    r"\b(?:because|since|as|due|given|while|whereas|denn|weil|car|porque|потому)\b|因为", re.IGNORECASE
)
_MENTION = re.compile(rf"[A-Z]{_NO_WORD}")
_WORD = re.compile(r"[A-Za-z0-9_À-ɏ'’\\]")
# "(B) is correct", "B isn't the answer", "B不正确"
_CALLED = re.compile(
    r"""[)\]]?[.:]?\s{1,3}(?:is|was|(?:must|would|should|has\ to)\ be|seems)(?P<not>n['’]t|\s+not)?
        \s+(?:(?:the|indeed|clearly|definitely|thus|therefore|also|only|most|our|my|best|right|correct)\s){0,4}
        (?P<word>correct|right|best|answer|(?P<wrong>wrong|incorrect|false))\b
    |\s?(?:选项|项)?是?(?P<no>不是?)?(?:正确|对(?![应于称比])|(?P<mistaken>错))""",
    re.VERBOSE,
)
# "it must be B.", "therefore, B."; "it could be B"; "not option B"
_NAMING = re.compile(
    r"""\b(?:(?P<named>(?:it|that|this)(?:['’]s|\s(?:is|(?:must|should|would|has\ to)\ be))
            \s(?:(?:the|option|choice|letter|answer)\s){0,2}
            |(?:hence|thus|therefore|so),?\s)
        |(?P<possible>(?:it|that|this)\s(?:could|might|may)\s(?:also\s)?be\s(?:(?:option|choice)\s)?)
        |(?P<denied>(?:not|\w{2,6}n['’]t)\s(?:be\s)?(?:(?:option|choice|the|answer)\s){0,3}))[(\[]?\Z
    |(?P<chinese>不是)\s?\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_ENDS = re.compile(r"[)\]]?\s{0,4}(?:[.,;!\n]|\Z)")
_BEFORE_CLAIM = re.compile(
    r"(?:(?<![A-Za-z'’])([A-Za-z'’]++)[\s,]{1,3}(?:(?:option|choice|answer)\s{1,2})?|([,/&])\s{0,3})[(\[]?\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\s*[?？]|\s(?:if|only|when|for|in case)\b")
_BEFORE_CHARACTERS = 100
_MAX_CLAIMS = 64
_LEADS_TO_CLAIM = frozenset(
    """so thus hence therefore that clearly only think believe conclude option choice answer since because then the
    actually say however indeed""".split()  # noqa: SIM905
)


def normalize(text: str) -> str:
    """The text without emphasis, quotation marks and marks of its end, in ASCII letters and brackets."""
    text = text if text.isascii() else text.translate(_WIDE)
    return _END.sub("", _STYLE.sub("", _QUOTED.sub(r"\1", text)))


def read_letters(text: str) -> frozenset[str] | None:
    """The letters that a text begins with; none of them if it takes them back or adds others, None if it has no letter.

    `text` is what `normalize` makes.
    """
    text = text[:MAX_CHARACTERS]
    start = _START.match(text)
    found = _match_letters(text, start.end() if start else 0)
    if found is None:
        return None
    letters, end = found
    rest = text[end:]
    if _BEHIND.match(rest) is None and text[end - 1] not in ")]>":
        return None
    reason = _REASON.search(rest)
    stated = rest[: reason.start()] if reason else rest
    others = {another["letter"] or another["bracketed"] for another in _ANOTHER.finditer(stated)}
    if is_refuted(rest) or not others <= letters:
        return frozenset()
    return letters


def is_refuted(rest: str) -> bool:
    """Whether what follows a letter says that it is wrong, or asks."""
    return _REFUTED.match(rest) is not None


def find_claims(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The letters that a text calls correct, and those that it calls wrong; what it calls possible is in both."""
    right: set[str] = set()
    wrong: set[str] = set()
    for mention in list(_MENTION.finditer(text))[-_MAX_CLAIMS:]:
        before = text[max(0, mention.start() - _BEFORE_CHARACTERS) : mention.start()]
        if _WORD.match(before[-1:]):
            continue
        is_right, is_wrong = _read_claim(text, before, mention.end())
        right |= {mention[0]} if is_right else set()
        wrong |= {mention[0]} if is_wrong else set()
    return frozenset(right), frozenset(wrong)


def _read_claim(text: str, before: str, end: int) -> tuple[bool, bool]:
    """Whether a letter between `before` and `end` is called right, and whether it is called wrong."""
    naming = _NAMING.search(before)
    if naming and (naming["denied"] or naming["chinese"]):
        return False, True
    if naming and naming["possible"]:
        return True, True
    if naming and _ENDS.match(text, end):
        return not is_denied(before[: naming.start()]), False
    called = _CALLED.match(text, end)
    if called is None or _CONDITION.match(text, called.end()) or is_denied(before.rstrip("([")):
        return False, False
    lead = _BEFORE_CLAIM.search(before)
    if lead and (lead[2] or lead[1].lower() not in _LEADS_TO_CLAIM):
        return False, False
    is_right = bool(called["not"] or called["no"]) == bool(called["wrong"] or called["mistaken"])
    return is_right, not is_right


def _match_letters(text: str, start: int) -> tuple[frozenset[str], int] | None:
    """The letters of the list that begins at `start`, and where it ends."""
    group = _GROUP.match(text, start)
    if group:
        return frozenset(_MENTION.findall(group[1])), group.end()
    run = _RUN.match(text, start)
    if run:
        letters = frozenset(run[0])
        return (letters, run.end()) if len(letters) == len(run[0]) else None
    chosen: set[str] = set()
    at = start
    while letter := _LETTER.match(text, at):
        is_bare = letter["closed"] is None
        if is_bare and letter[0] in "AI" and _PROSE.match(text, letter.end()):
            break  # "A cat", "I think"
        chosen.add((letter["closed"] or letter["open"] or letter["small"]).upper())
        at = end = letter.end()
        following = _NEXT.match(text, at)
        if following is None:
            return frozenset(chosen), end
        at = following.end()
    return (frozenset(chosen), end) if chosen else None
