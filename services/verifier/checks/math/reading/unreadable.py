"""Why an answer could not be read."""


class Unreadable(ValueError):
    """The text is no answer of a form known here."""


class TooDeep(Unreadable):
    """Nested deeper, or longer, than any answer needs to be."""
