"""The position of a parser in an answer's tokens, and its depth."""

from collections.abc import Callable, Sequence

from services.verifier.checks.math.reading.forms import Form, UnreadableAnswer
from services.verifier.checks.math.reading.tokens import Token, TokenKind

MAX_DEPTH = 40


class TokenCursor:
    """Hands out tokens in order."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = list(tokens)
        self._depth = 0
        self.at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The next token, or one further ahead; END beyond the last."""
        at = self.at + ahead
        return self._tokens[at] if at < len(self._tokens) else self._tokens[-1]

    def next(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def is_at(self, *texts: str) -> bool:
        """Whether one of these signs or commands comes next."""
        token = self._tokens[self.at] if self.at < len(self._tokens) else self._tokens[-1]
        return token.text in texts and (token.kind is TokenKind.SIGN or token.kind is TokenKind.COMMAND)

    def is_at_declaration(self) -> bool:
        r"""Whether a parameter is declared in parentheses: (k \in \mathbb{Z})."""
        return self.is_at("(") and self.peek(1).kind is TokenKind.WORD and self.peek(2).text == "\\in"

    def accept(self, *texts: str) -> bool:
        """Skips one of these signs or commands if it comes next; whether it did."""
        if self.is_at(*texts):
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        if not self.is_at(*texts):
            raise UnreadableAnswer(f"{self.peek().text!r} instead of one of {texts}")
        return self.next().text

    def rewind(self, at: int, depth: int | None = None) -> None:
        """Goes back to a position, and to the depth that it had."""
        self.at = at
        self._depth = self._depth if depth is None else depth

    @property
    def depth(self) -> int:
        return self._depth

    def tokens_from(self, position: int) -> Sequence[Token]:
        """The tokens from a position on, without END."""
        return self._tokens[position:-1]

    def take_first(self) -> str:
        """The first character of the next token; its rest becomes the next token."""
        token = self.peek()
        if len(token.text) > 1:
            first = Token(token.kind, token.text[0], token.after_space)
            self._tokens[self.at : self.at + 1] = [first, Token(token.kind, token.text[1:], False)]
        self.at += 1
        return token.text[0]

    def end(self) -> None:
        """Raises UnreadableAnswer if more than a full stop is left."""
        self.accept(".")
        if self.peek().kind is not TokenKind.END:
            raise UnreadableAnswer(f"{self.peek().text!r} is left over")

    def read_nested(self, read: Callable[[], Form]) -> Form:
        """Calls `read` one level deeper. Raises UnreadableAnswer."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableAnswer(f"nested deeper than {MAX_DEPTH}")
        form = read()
        self._depth -= 1
        return form
