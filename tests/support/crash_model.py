"""A disk that loses power: which trees of files may be there after a cut.

Data of a file is on the disk once the file is flushed, names in a folder once the folder is; of
what is not flushed any part may be missing, whatever its order was. Model: Pillai et al. 2014
(ALICE). Needs no torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.disk_operations import Operation

STRAYS = (".lock", ".tmp-", ".old-")  # in names that a writer uses until it is done
FEW = 6  # all subsets of so many
N_RANDOM = 24
Tree = dict[str, bytes | None]  # None is a folder


@dataclass(eq=False)
class Inode:
    """A file, with its data on the disk, or a folder, with its names there."""

    is_folder: bool
    data: bytes = b""
    names: dict[str, Inode] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One operation as the disk sees it. owners: the inodes whose flush makes it last."""

    owner: Inode
    names: tuple[tuple[Inode, str, Inode | None], ...] = ()
    write: tuple[int, bytes] | None = None
    length: int | None = None


class Replay:
    """The recorded operations, one after the other."""

    def __init__(self, before: Tree) -> None:
        self.root = Inode(True)
        self.memory: dict[Inode, dict[str, Inode]] = {self.root: {}}  # as the process sees it
        self.pending: list[Change] = []
        for name, content in before.items():
            self._make(name, content is None, lasts=True)
            self._find(name).data = content or b""

    def step(self, operation: Operation) -> None:
        """Take over one operation."""
        path = operation.path
        match operation.name:
            case "open":
                self._make(path, is_folder=False)
            case "mkdir":
                self._make(path, is_folder=True)
            case "write":
                self.pending.append(Change(self._find(path), write=(operation.at, operation.data)))
            case "truncate":
                self.pending.append(Change(self._find(path), length=operation.at))
            case "fsync":
                self._flush(self._find(path))
            case "unlink" | "rmdir":
                self._set((path, None))
            case "rename":
                moved = self._find(path)
                self._set((path, None), (operation.other, moved))
            case "exchange":
                one, other = self._find(path), self._find(operation.other)
                self._set((path, other), (operation.other, one))
            case _:
                raise AssertionError(operation)

    def seen(self) -> Tree:
        """What a process sees while the power is on."""
        data: dict[Inode, bytes] = {}
        for change in self.pending:
            _write(data, change)
        return _tree(self.root, lambda inode: self.memory.get(inode, {}), data)

    def after_cut(self, kept: Sequence[Change]) -> Tree:
        """What is on the disk when of the pending changes only these got there."""
        data: dict[Inode, bytes] = {}
        names: dict[Inode, dict[str, Inode]] = {}
        for change in kept:
            _write(data, change)
            for folder, name, target in change.names:
                held = names.setdefault(folder, dict(folder.names))
                _put(held, name, target)
        return _tree(self.root, lambda inode: names.get(inode, inode.names), data)

    def cuts(self, draw: random.Random) -> Iterator[Tree]:
        """The trees after a cut at this moment."""
        everything = self.pending
        n = len(everything)
        kept: set[tuple[int, ...]] = {(), tuple(range(n))}
        if n <= FEW:
            for size in range(n):
                kept.update(itertools.combinations(range(n), size))
        else:
            for index in range(n):
                kept.add((index,))
                kept.add(tuple(range(index)))
                kept.add(tuple(other for other in range(n) if other != index))
            for _ in range(N_RANDOM):
                kept.add(tuple(index for index in range(n) if draw.randrange(2)))
        for indices in sorted(kept):
            yield self.after_cut([everything[index] for index in indices])
            torn = [index for index in indices if everything[index].write is not None]
            if torn:  # the last data half-way
                last = everything[torn[-1]]
                assert last.write is not None
                at, content = last.write
                half = Change(last.owner, write=(at, content[: len(content) // 2]))
                yield self.after_cut(
                    [half if index == torn[-1] else everything[index] for index in indices]
                )

    def _flush(self, inode: Inode) -> None:
        rest = []
        for change in self.pending:
            if change.owner is not inode:
                rest.append(change)
                continue
            data: dict[Inode, bytes] = {}
            _write(data, change)
            inode.data = data.get(inode, inode.data)
            for folder, name, target in change.names:
                _put(folder.names, name, target)
        self.pending = rest

    def _make(self, path: str, is_folder: bool, lasts: bool = False) -> None:
        inode = Inode(is_folder)
        if is_folder:
            self.memory[inode] = {}
        self._set((path, inode), lasts=lasts)

    def _set(self, *places: tuple[str, Inode | None], lasts: bool = False) -> None:
        """Give names in one folder, at once."""
        named = []
        for path, inode in places:
            folder, _, name = path.rpartition("/")
            named.append((self._find(folder), name, inode))
        for holder, name, inode in named:
            _put(self.memory[holder], name, inode)
            if lasts:
                _put(holder.names, name, inode)
        if not lasts:
            owners = {holder for holder, _, _ in named}
            assert len(owners) == 1, "from one folder into another"
            self.pending.append(Change(named[0][0], names=tuple(named)))

    def _find(self, path: str) -> Inode:
        inode = self.root
        for name in path.split("/") if path else []:
            inode = self.memory[inode][name]
        return inode


def _put(names: dict[str, Inode], name: str, target: Inode | None) -> None:
    if target is None:
        names.pop(name, None)
    else:
        names[name] = target


def _write(data: dict[Inode, bytes], change: Change) -> None:
    inode = change.owner
    held = data.get(inode, inode.data)
    if change.write is not None:
        at, content = change.write
        held = held[:at].ljust(at, b"\0") + content + held[at + len(content) :]
    elif change.length is not None:
        held = held[: change.length].ljust(change.length, b"\0")
    else:
        return
    data[inode] = held


def _tree(
    root: Inode, names: Callable[[Inode], dict[str, Inode]], data: dict[Inode, bytes]
) -> Tree:
    found: Tree = {}
    places = [("", root)]
    while places:
        prefix, folder = places.pop()
        for name, inode in names(folder).items():
            path = prefix + name
            found[path] = None if inode.is_folder else data.get(inode, inode.data)
            if inode.is_folder:
                places.append((f"{path}/", inode))
    return found


@dataclass
class Unit:
    """What changes in one step, or grows at its end; who reads one that grows stops at a zero byte
    and makes the rest again. versions: all that a process ever saw of it.
    """

    path: str
    grows: bool
    versions: list[Tree] = field(default_factory=list)

    def part(self, tree: Tree) -> Tree:
        """The unit in a tree."""
        below = f"{self.path}/"
        return {
            name: content
            for name, content in tree.items()
            if name == self.path or name.startswith(below)
        }

    def allows(self, tree: Tree, final: bool) -> bool:
        """Whether a cut may leave it so."""
        found = self.part(tree)
        if final:
            return found == self.versions[-1]
        return found in self.versions or (self.grows and self._is_beginning(found))

    def _is_beginning(self, found: Tree) -> bool:
        content = (found.get(self.path) or b"").partition(b"\0")[0]
        whole = [version.get(self.path) or b"" for version in self.versions]
        return any(version.startswith(content) for version in whole)


def units_of(operations: Sequence[Operation]) -> list[Unit]:
    """What is renamed to a name, and what is written in its place."""
    found: dict[str, bool] = {}
    for operation in operations:
        if operation.name in ("rename", "exchange") and not is_stray(operation.other):
            found.setdefault(operation.other, False)
        if operation.name == "open" and not is_stray(operation.path):
            found[operation.path] = True
    return [Unit(path, grows) for path, grows in found.items()]


def is_stray(path: str) -> bool:
    """Whether a name is one that a writer uses until it is done."""
    return any(part in path for part in STRAYS)


def check(before: Tree, operations: Sequence[Operation], after: Tree) -> tuple[int, list[str]]:
    """Replay; return the number of cuts, and what was wrong after some. after: what lies on the
    disk, which the replay must come to.
    """
    units = units_of(operations)
    replay = Replay(before)
    trees = [replay.seen()]
    for operation in operations:
        replay.step(operation)
        trees.append(replay.seen())
    assert trees[-1] == after, "not every operation was recorded"
    for unit in units:
        for tree in trees:
            if (part := unit.part(tree)) not in unit.versions[-1:]:
                unit.versions.append(part)
    draw = random.Random(0)
    n_cuts = 0
    wrong: dict[str, None] = {}
    replay = Replay(before)
    for number in range(len(operations) + 1):
        if number:
            replay.step(operations[number - 1])
        final = number == len(operations)
        for tree in replay.cuts(draw):
            n_cuts += 1
            for unit in units:
                if not unit.allows(tree, final):
                    when = "at the end" if final else f"after {number}, {operations[number - 1]}"
                    wrong.setdefault(f"{unit.path} {when}: {_shown(unit.part(tree))}")
    return n_cuts, list(wrong)


def _shown(tree: Tree) -> str:
    sizes = {name: "folder" if content is None else len(content) for name, content in tree.items()}
    return str(sizes)[:200] if tree else "missing"
