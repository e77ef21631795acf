"""Those attacks of tests/hostile that the C++ and the JavaScript library refuse, too: operators
that no export has, and weights that lie elsewhere.
"""

from __future__ import annotations

from tests.hostile.attacks import ATTACKS, Attack

# an operator, function or graph inside a graph
FOREIGN = (
    "a chain of 3,000 nested functions",
    "a function bomb: each calls the next twice",
    "a Loop without end",
    "a Loop that doubles its value",
    "an If with two branches",
    "a Scan over the logits",
    "a graph in an attribute of an operator that has none",
    "DepthToSpace with blocks of 2 ** 32",
    "ConstantOfShape of 2 ** 40",
    "Pad by 2 ** 40",
    "Tile 2 ** 30 times",
    "an operator of another domain",
    "an operator of gpt-edge's own library in a file",
    "an operator of onnxruntime's in a portable graph",
    "training information",
    "a graph that is cut off",
    "a length of 2 ** 62 in the graph",
    "a graph that begins as an .ort file does",
)
# in the right file, over one another or with an entry that nothing reads
FINE = ("weights over others", "weights with a checksum's entry of 2 MB")
ELSEWHERE = (
    "a shape whose product overflows",
    "a negative dimension",
    "a sparse initializer",
    "a Constant with a sparse value",
    "a Constant whose value lies in a file",
)
# nothing is wrong with the graph
OF_FILES = (
    "weights behind a link",
    "weights that are a pipe",
    "weights that are a folder",
    "weights that the manifest does not list",
    "weights cut off",
)


def foreign_graphs() -> list[Attack]:
    """Attacks by FOREIGN, whichever bundle they spoil. Raises LookupError for a name of none."""
    found = [attack for attack in ATTACKS if attack.name in FOREIGN]
    if missing := set(FOREIGN) - {attack.name for attack in found}:
        raise LookupError(f"no attack is called {sorted(missing)[0]!r}")
    return found


def weights_elsewhere(*, with_files: bool) -> list[Attack]:
    """Attacks on the places of weights. with_files: those whose files are none, too."""
    return [
        attack
        for attack in ATTACKS
        if attack.name in ELSEWHERE
        or (
            attack.name.startswith("weights")
            and attack.name not in FINE
            and (with_files or attack.name not in OF_FILES)
        )
    ]
