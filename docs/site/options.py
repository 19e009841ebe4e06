"""An extension of mkdocstrings that shows each option of ``**options: Unpack[Options]`` in the signature.

Must not know: the options. The ``TypedDict`` has their types, and ``Config`` has their defaults, except that an option
which is not passed to ``configure`` does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from griffe import Class, Extension, Function, Module, Parameter, ParameterKind

if TYPE_CHECKING:
    from collections.abc import Iterator


class Options(Extension):
    """Replaces ``**options`` by one parameter for each option."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Replace ``**options`` in every function of the package."""
        defaults = pkg["_batcher.config.Config"].all_members
        # The types of a decorated function are those of its batch function, which no single signature can express.
        decorator = pkg["_decorator.microbatch.microbatch"]
        decorator.parameters["fn"].annotation = decorator.returns = "Callable[..., Any]"
        decorator.parameters["fn"].default = "..."
        for parameters, taken in _taken(pkg):
            types = pkg.modules_collection[taken.annotation.slice.canonical_path].all_members
            del parameters[taken.name]
            for name in filter(types.__contains__, defaults):
                default = "..." if str(taken.annotation.slice) == "Changes" else defaults[name].value or "None"
                # Checkers choose an overload by the value of ``keyed``, which may be either.
                annotation = "bool" if name == "keyed" else types[name].annotation
                parameters.add(Parameter(name, annotation=annotation, kind=ParameterKind.keyword_only, default=default))


def _taken(parent: Module | Class) -> Iterator[tuple[Any, Any]]:
    """Yield the parameters of each function with ``**options``, and the parameter ``**options`` itself."""
    for member in parent.members.values():
        if isinstance(member, Function):
            parameters = member.parameters
            yield from ((parameters, each) for each in list(parameters) if str(each.annotation).startswith("Unpack["))
        elif isinstance(member, (Module, Class)):
            yield from _taken(member)
