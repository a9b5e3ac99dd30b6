"""A position in an answer's tokens, and how deep the reading is."""

from collections.abc import Callable, Sequence

from services.verifier.checks.math.reading.forms import Form, TooDeep, UnreadableAnswer
from services.verifier.checks.math.reading.tokens import Kind, Token

MAX_DEPTH = 60


class TokenCursor:
    """Reads tokens one after another; a token may be given back in part."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = list(tokens)
        self._depth = 0
        self.at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token that comes next, or one further on; END beyond the last."""
        return self._tokens[min(self.at + ahead, len(self._tokens) - 1)]

    def next(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def is_at(self, *texts: str) -> bool:
        """Whether one of these signs or commands comes next."""
        token = self.peek()
        return token.kind in (Kind.SIGN, Kind.COMMAND) and token.text in texts

    def accept(self, *texts: str) -> bool:
        """Passes over one of these signs or commands, if it comes next."""
        if self.is_at(*texts):
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        if not self.is_at(*texts):
            raise UnreadableAnswer(f"{self.peek().text!r} where one of {texts} belongs")
        return self.next().text

    def take_first(self) -> str:
        """The first character of the next token; the rest of it comes next."""
        token = self.peek()
        if len(token.text) == 1:
            self.at += 1
        else:
            self._tokens[self.at] = Token(token.kind, token.text[1:], False)
        return token.text[0]

    def end(self) -> None:
        """Nothing is left but a full stop."""
        self.accept(".")
        if self.peek().kind is not Kind.END:
            raise UnreadableAnswer(f"{self.peek().text!r} is left over")

    def nested(self, read: Callable[[], Form]) -> Form:
        """Reads what is inside something. Raises TooDeep."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep(f"nested deeper than {MAX_DEPTH}")
        form = read()
        self._depth -= 1
        return form
