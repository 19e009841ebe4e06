"""An extension of mkdocstrings that finds the documentation of methods in the ``__slots__`` of a class.

Python's ``help()`` shows this documentation, too.

Must not know: the class.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from griffe import Class, Docstring, Extension, Function, Parameter, ParameterKind, Parameters


class Slots(Extension):
    """Adds a function for each documented slot."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Add the documented slots of one class."""
        slots = cls.members.get("__slots__")
        documented = ast.literal_eval(str(slots.value)) if slots and str(slots.value).startswith("{") else {}
        for name, text in documented.items():
            docstring = Docstring(inspect.cleandoc(text), parser="google")
            cls.set_member(name, Function(name, parameters=Parameters(*ANY), docstring=docstring))


# The callable in a slot takes the parameters of the batch function, with one element of each list.
ANY = [
    Parameter("args", kind=ParameterKind.var_positional),
    Parameter("kwargs", kind=ParameterKind.var_keyword),
]
