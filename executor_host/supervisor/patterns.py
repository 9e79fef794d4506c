"""Match paths against glob patterns, in time that grows only with the length of the path."""

from collections.abc import Iterator


class Patterns:
    """A set of glob patterns: `*`, `?` and `[...]` within a name, and `**` for any number of directories.

    As in Python's glob module, a wildcard matches no dot at the start of a name, and `**` is special only as a whole
    name. All patterns form one nondeterministic automaton without backtracking: its states are the bits of an integer,
    one for each place in each pattern. The states after a directory continue into each of its entries.
    """

    def __init__(self, patterns: list[str]) -> None:
        """Compile the patterns, each of which is relative and has neither `.` nor `..` as a name."""
        # Places before a part of each kind.
        self._literals: dict[str, int] = {}
        self._any_character = self._stars = self._globstars = self._leading_dots = 0
        self._sets: list[tuple[int, str]] = []
        self._rests = 0  # before the `**` that ends a pattern
        self._ends = 0
        self._first = 0
        place = 1
        for pattern in patterns:
            self._first |= place
            for part in parts(pattern):
                self._add(part, place)
                place <<= 1
            if pattern.endswith("/**") or pattern == "**":
                self._rests |= place >> 2
            self._ends |= place
            place <<= 1
        self._consuming: dict[str, int] = {}

    def _add(self, part: str, place: int) -> None:
        if part == "**/":
            self._globstars |= place
        elif part == "*":
            self._stars |= place
        elif part == "?":
            self._any_character |= place
        elif part == "leading .":
            self._leading_dots |= place
        elif len(part) > 1:
            self._sets.append((place, part))
        else:
            self._literals[part] = self._literals.get(part, 0) | place

    def start(self) -> int:
        """Return the states before the name of an entry of the working directory."""
        return self._skip(self._first)

    def enter(self, states: int) -> int:
        """Return the states before the name of an entry of a directory, from those after the directory's own name."""
        return self._skip((states & self._literals.get("/", 0)) << 1 | states & self._globstars)

    def _skip(self, states: int) -> int:
        """Add the states that are reached before a name without any character."""
        states |= (states & self._globstars) << 1
        return states | (states & self._stars) << 1

    def after(self, states: int, name: str) -> int:
        """Return the states after a name. No states, 0, means that neither it nor anything in it matches."""
        if name.startswith("."):
            states = (states & self._leading_dots) << 1
            states |= (states & self._stars) << 1
            name = name[1:]
        for character in name:
            if not states:
                break
            states = (states & self._consuming_places(character)) << 1 | states & (self._stars | self._globstars)
            states |= (states & self._stars) << 1
        return states

    def _consuming_places(self, character: str) -> int:
        places = self._consuming.get(character)
        if places is None:
            places = self._literals.get(character, 0) | self._any_character
            for place, characters in self._sets:
                if is_in_set(character, characters):
                    places |= place
            self._consuming[character] = places
        return places

    def match(self, states: int) -> bool:
        """Return whether a pattern ends in one of the states after a name."""
        return bool(states & self._ends)

    def match_everything_below(self, states: int) -> bool:
        """Return whether all that is in a directory matches, from the states after its name."""
        return bool(self.enter(states) & self._rests)


def parts(pattern: str) -> Iterator[str]:
    """Yield `**/`, `*`, `?`, sets with their brackets, `leading .`, and characters."""
    names = pattern.split("/")
    if names[-1] == "**":
        names.append("*")
    previous = ""
    for number, name in enumerate(names, start=1):
        if name != "**":
            yield from name_parts(name)
            if number < len(names):
                yield "/"
        elif previous != "**":
            yield "**/"
        previous = name


def name_parts(name: str) -> Iterator[str]:
    """Yield the parts of one name of a pattern."""
    if name.startswith("."):
        yield "leading ."
    position = int(name.startswith("."))
    while position < len(name):
        # A bracket directly after the first one, or after `[!`, is an element of the set.
        closing = name.find("]", position + 2 + name.startswith("!", position + 1)) if name[position] == "[" else -1
        end = position + 1 if closing < 0 else closing + 1
        part = name[position:end]
        if part != "*" or not name.startswith("*", end):  # the last of several
            yield part
        position = end


def is_in_set(character: str, characters: str) -> bool:
    """Return whether a set, such as `[a-z_]` or `[!0-9]`, has a character."""
    members = characters[1:-1]
    is_negated = members.startswith("!")
    position, contains = int(is_negated), False
    while position < len(members):
        end = position + 2 if members.startswith("-", position + 1) and position + 2 < len(members) else position
        contains = contains or members[position] <= character <= members[end]
        position = end + 1
    return contains is not is_negated
