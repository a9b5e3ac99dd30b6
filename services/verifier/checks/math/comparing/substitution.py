"""Replaces the symbols of a form."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from services.verifier.checks.math.reading.forms import Form, Symbol


def substitute(form: Form, forms: Mapping[str, Form]) -> Form:
    """The form with symbols replaced by forms."""
    if isinstance(form, Symbol):
        return forms.get(form.name, form)
    changed = {field.name: _substitute_in(getattr(form, field.name), forms) for field in fields(form)}
    return replace(form, **changed)


def _substitute_in(value: Any, forms: Mapping[str, Form]) -> Any:
    if isinstance(value, tuple):
        return tuple(_substitute_in(part, forms) for part in value)
    return substitute(value, forms) if isinstance(value, Form) else value
