"""The names that an answer's notation knows: letters, functions, and words for them."""

GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega pi infty varnothing ell
    hbar angle triangle""".split()  # noqa: SIM905
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()  # noqa: SIM905
)
NAMED_WORDS = {"sqrt": "\\sqrt", "pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "oo": "\\infty"}
# Words that mean something within an expression; other long ones are text.
FUNCTION_WORDS = FUNCTIONS | NAMED_WORDS.keys()
JOINTS = frozenset({"and", "or"})
