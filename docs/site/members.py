"""An extension of mkdocstrings that describes the members of a decorated function with their types.

Must not know: the members. The proxy has their documentation, for calls in its ``__slots__``, and the protocols for
type checkers have their signatures. If there are two, the first is that of ``def`` functions, and the second that of
``async def`` functions.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from griffe import Docstring, Extension, Function, Parameter, ParameterKind, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from griffe import Module

PROXY = "_decorator.proxy.Batched"
SHARED = "_decorator.types.Decorated"
FORMS = ("_decorator.types.Sync{}", "_decorator.types.Async{}")


class Members(Extension):
    """Adds the documented slots of the proxy, and replaces its signatures by those of the protocols."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Change the members of the proxy."""
        proxy = pkg[PROXY]
        for name, text in ast.literal_eval(str(proxy.members["__slots__"].value)).items():
            docstring = Docstring(inspect.cleandoc(text), parser="google")
            proxy.set_member(name, Function(name, docstring=docstring))
        forms = [pkg[form.format("Maps")].members | pkg[form.format("Function")].members for form in FORMS]
        for name, member in proxy.members.items():
            typed = [form[name] for form in (*forms, pkg[SHARED].members) if name in form]
            if typed and isinstance(member, Function):
                member.parameters, member.returns = typed[0].parameters, typed[0].returns
                member.overloads = typed if len(typed) > 1 else None
        for member in (form[name] for form in forms for name in form if isinstance(form[name], Function)):
            member.parameters = Parameters(*_of_one_item(member.parameters))


def _of_one_item(parameters: Parameters) -> Iterator[Parameter]:
    """Yield parameters with names for types that the page explains: ``T`` for an item, and ``P`` for the options."""
    for parameter in parameters:
        annotation = str(parameter.annotation)
        if annotation == "P.args":
            yield Parameter("item", annotation="T", kind=ParameterKind.positional_only)
        # An item of map() is a tuple if there are several columns, which the text says.
        parameter.annotation = annotation.replace("M_contra", "T").replace("Q.", "P.") if parameter.annotation else None
        yield parameter
