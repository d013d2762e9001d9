"""What the pod uses of `dataclasses`, at less cost: they take 40 of the 110 ms that `decide` computes.

The standard library compiles six methods for each class, and `decide` has 36 classes; here all share theirs.
Interface: docs.python.org/3/library/dataclasses.html; inherited fields, slots, order and others are left out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace

    Any = object
    __all__ = ("asdict", "dataclass", "field", "replace")
else:

    def dataclass(cls: Any = None, /, *, frozen: bool = False, eq: bool = True) -> Any:
        """Give a class __init__, __repr__, __eq__ and, where it is frozen, __hash__ by its fields."""
        return _process(cls, frozen, eq) if cls else lambda cls: _process(cls, frozen, eq)

    def field(**more: Any) -> Any:
        """Describe a field that is more than an annotation and a default."""
        return _Field(**more)

    def replace(record: Any, /, **changes: Any) -> Any:
        """Return a copy with other values of some fields. Raises TypeError for an unknown field."""
        return type(record)(**{**_values(record), **changes})

    def asdict(record: Any, /) -> dict[str, Any]:
        """Return the fields' values by name, and those of the dataclasses in them likewise."""
        return {name: _plain(value) for name, value in _values(record).items()}

    _ABSENT = object()

    class _Field:
        def __init__(self, **more: Any) -> None:
            self.default = more.pop("default", _ABSENT)
            self.factory = more.pop("default_factory", None)
            self.repr = more.pop("repr", True)
            self.compare = more.pop("compare", True)
            if more:
                raise TypeError(f"there is no rule for {', '.join(more)}")

    class _Fields:
        """The fields of a class, in their order; the class keeps the defaults as its attributes."""

        def __init__(self, cls: Any) -> None:
            found = {name: vars(cls).get(name, _ABSENT) for name in cls.__annotations__}
            fields = {
                name: one if isinstance(one, _Field) else _Field(default=one) for name, one in found.items()
            }
            for name, one in fields.items():
                if isinstance(one.default, (list, dict, set)):
                    raise TypeError(f"all {cls.__name__} would share one {name}: use default_factory")
                if one.default is not _ABSENT:
                    setattr(cls, name, one.default)
                elif name in vars(cls):
                    delattr(cls, name)
            self.names = tuple(fields)
            self.shown = tuple(name for name, one in fields.items() if one.repr)
            self.compared = tuple(name for name, one in fields.items() if one.compare)
            self.factories = {name: one.factory for name, one in fields.items() if one.factory}
            self.defaults = {name: one.default for name, one in fields.items() if one.default is not _ABSENT}

    def _process(cls: Any, frozen: bool, eq: bool) -> Any:
        if hasattr(cls, "__fields__"):
            raise TypeError(f"{cls.__name__} inherits fields, for which there is no rule")
        cls.__fields__ = _Fields(cls)
        cls.__match_args__ = cls.__fields__.names
        methods = {"__init__": _init, "__repr__": _repr}
        if eq:
            methods |= {"__eq__": _equal, "__hash__": _hash if frozen else None}
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
        for name, method in methods.items():
            if name not in vars(cls):
                setattr(cls, name, method)
        return cls

    def _init(self: Any, /, *args: Any, **values: Any) -> None:
        fields = self.__fields__
        for name, value in zip(fields.names, args, strict=False):
            if name in values:
                raise TypeError(f"{type(self).__name__} got {name} twice")
            values[name] = value
        for name, factory in fields.factories.items():
            if name not in values:
                values[name] = factory()
        mine = vars(self)
        mine |= fields.defaults
        mine |= values
        # As many as there are, and none missing: then they are the same.
        if len(args) > len(fields.names) or len(mine) > len(fields.names):
            raise TypeError(f"{type(self).__name__} has {fields.names}, not {args} and {values}")
        if len(mine) < len(fields.names) or any(name not in mine for name in fields.names):
            raise TypeError(f"{type(self).__name__} lacks some of {fields.names}: {values}")
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def _repr(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__fields__.shown)
        return f"{type(self).__qualname__}({shown})"

    def _equal(self: Any, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__fields__.compared)

    def _hash(self: Any) -> int:
        return hash(tuple(getattr(self, name) for name in self.__fields__.compared))

    def _refuse(self: Any, name: str, *_: Any) -> None:
        raise AttributeError(f"{type(self).__qualname__} is frozen, {name} too")

    def _values(record: Any) -> dict[str, Any]:
        return {name: getattr(record, name) for name in record.__fields__.names}

    def _plain(value: Any) -> Any:
        if hasattr(type(value), "__fields__"):
            return asdict(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(_plain, value))
        if isinstance(value, dict):
            return {key: _plain(each) for key, each in value.items()}
        return value
