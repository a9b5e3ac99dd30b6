"""Names that an answer may choose: of a function's variable, of an integer parameter, of a constant of integration."""

from services.verifier.checks.math.comparing.scalars import free_symbols
from services.verifier.checks.math.comparing.substitution import substitute
from services.verifier.checks.math.reading.forms import Apply, Form, Relation, Relator, SetBuilder, Sum, Symbol

_CONSTANTS_OF_INTEGRATION = frozenset({"C", "c", "K", "k", "C_1", "c_1"})

_FUNCTIONS = frozenset("fghF")  # of which a constant one may be asked for: f(x) = 0; but E(X) = 2 is a number of X


def share_names(gold: Form, answer: Form) -> tuple[Form, Form]:
    """Both with the same name where each has one of its own: f(x) = x and f(z) = z, x^2 + C and x^2 + c."""
    bound_in_gold, bound = _bound_names(gold), _bound_names(answer)
    if len(bound_in_gold) == len(bound) > 0 and bound_in_gold != bound:
        shared = [Symbol(f"bound {at}") for at in range(len(bound))]
        return (
            substitute(gold, dict(zip(bound_in_gold, shared, strict=True))),
            substitute(answer, dict(zip(bound, shared, strict=True))),
        )
    constant = _added_constant(gold), _added_constant(answer)
    if None not in constant and constant[0] != constant[1]:
        return substitute(gold, {str(constant[0]): Symbol("C")}), substitute(answer, {str(constant[1]): Symbol("C")})
    return gold, answer


def _bound_names(form: Form) -> tuple[str, ...]:
    """The variables of a function that an equation defines, or the one of a described set; () if there are none."""
    match form:
        case Relation((Apply(function, arguments), *values), (Relator.EQUAL, *_)):
            names = tuple(argument.name for argument in arguments if isinstance(argument, Symbol))
            is_bound = function in _FUNCTIONS or any(free_symbols(value) & set(names) for value in values)
            return names if is_bound and len(names) == len(arguments) == len(set(names)) else ()
        case SetBuilder(Symbol(name) | Relation((Symbol(name), *_), _), _):
            return (name,)
        case _:
            return ()


def _added_constant(form: Form) -> str | None:
    """The constant of integration: a term of its own, in no other; None if there is none, or if several may be it."""
    match form:
        case Relation((*_, value), _):
            return _added_constant(value)
        case Sum(terms):
            names = [term.name for term in terms if isinstance(term, Symbol) and term.name in _CONSTANTS_OF_INTEGRATION]
            others = [term for term in terms if not (isinstance(term, Symbol) and term.name in names)]
            is_only = len(names) == 1 and not any(names[0] in free_symbols(term) for term in others)
            return names[0] if is_only and any(free_symbols(term) for term in others) else None
        case _:
            return None
