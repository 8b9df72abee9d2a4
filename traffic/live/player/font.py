"""Characters of five by seven dots, as on dot-matrix displays; capitals, digits, some signs."""

from __future__ import annotations

WIDTH, HEIGHT = 5, 7
_SIGNS = " 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.:/-+%"
# five columns each, the lowest bit on top
_COLUMNS = bytes.fromhex(
    "0000000000 3e5149453e 00427f4000 4261514946 2241494936 1814127f10 2745454539 3e49494932"
    "0171090503 3649494936 264949493e 7e1111117e 7f49494936 3e41414122 7f4141413e 7f49494941"
    "7f09090901 3e4149497a 7f0808087f 00417f4100 2040413f01 7f08142241 7f40404040 7f020c027f"
    "7f0408107f 3e4141413e 7f09090906 3e4151215e 7f09192946 2649494932 01017f0101 3f4040403f"
    "1f2040201f 3f4038403f 6314081463 0708700807 6151494543 0060600000 0036360000 2010080402"
    "0808080808 08083e0808 2313086462"
)


def rows(text: str) -> list[list[bool]]:
    """The dots of a line of text, row by row, a column between characters.

    Small letters become capitals, and what there is no picture of a space.
    """
    columns: list[int] = []
    for sign in text.upper():
        at = max(0, _SIGNS.find(sign)) * WIDTH
        columns += [*_COLUMNS[at : at + WIDTH], 0]
    return [[bool(column >> row & 1) for column in columns] for row in range(HEIGHT)]
