r"""Text as LaTeX prints it, where its lines may break, and how wide it is in 8 pt type.

The text compiles with pdflatex in its first font encoding (OT1) and needs no package. A character
that this encoding cannot print appears as its code, such as `U+4E2D`.
"""

import re
import unicodedata

FONT_SIZE = 8  # points
MAX_PIECE = 14  # letters without a place to break; longer pieces get one
UNKNOWN_WIDTH = 3300  # thousandths of the font size: a character that is shown as its code
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    # In LaTeX's first font encoding these three characters print as other ones.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{DAGGER}": r"$^{\dagger}$",
    "\N{DOUBLE DAGGER}": r"$^{\ddagger}$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": "$-$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{NOT EQUAL TO}": r"$\neq$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{INFINITY}": r"$\infty$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{DEGREE SIGN}": r"$^{\circ}$",
    "\N{SUPERSCRIPT ONE}": "$^{1}$",
    "\N{SUPERSCRIPT TWO}": "$^{2}$",
    "\N{SUPERSCRIPT THREE}": "$^{3}$",
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LATIN SMALL LETTER SHARP S}": r"\ss{}",
    "\N{LATIN SMALL LETTER AE}": r"\ae{}",
    "\N{LATIN CAPITAL LETTER AE}": r"\AE{}",
    "\N{LATIN SMALL LETTER O WITH STROKE}": r"\o{}",
    "\N{LATIN CAPITAL LETTER O WITH STROKE}": r"\O{}",
    "\N{LATIN SMALL LETTER L WITH STROKE}": r"\l{}",
    "\N{LATIN SMALL LIGATURE OE}": r"\oe{}",
}
ACCENTS = {  # combining character -> LaTeX's accent
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r ",
    "\N{COMBINING CEDILLA}": "c ",
    "\N{COMBINING CARON}": "v ",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u ",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H ",
}
# Greek letters for which LaTeX has a command; the other capitals look like Latin ones.
GREEK = re.compile(
    r"GREEK (?:SMALL LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|MU|NU|XI|PI"
    r"|RHO|SIGMA|TAU|UPSILON|PHI|CHI|PSI|OMEGA)"
    r"|CAPITAL LETTER (GAMMA|DELTA|THETA|XI|PI|SIGMA|UPSILON|PHI|PSI|OMEGA))"
)
# Widths of the characters of cmr8 and cmbx8 in thousandths of the font size, from their .tfm files.
# A character that is not listed is taken as wide as the widest one.
PLAIN_WIDTHS = {
    354: " -", 295: "!',.:;[]`il", 325: "fj", 383: "I", 413: "()t", 414: "r", 419: "s", 472: "cez",
    502: "?", 531: '"$*/0123456789ago', 545: "J", 561: "kqvxy", 590: "Sbdhnpu", 649: "Z", 664: "L",
    693: "F", 723: "EP", 752: "B", 767: "CTw", 782: "R", 796: "AHNUVXY", 811: "D", 825: "K",
    826: "&+=@OQ", 834: "G", 885: "#%m", 973: "M", 1091: "W",
}  # fmt: skip
BOLD_WIDTHS = {
    409: " -", 340: "',.:;[]`il", 374: "!fj", 459: "I", 476: "()t", 483: "s", 506: "r", 544: "cz",
    561: "e", 578: "?", 595: "a", 613: "$*/0123456789go", 636: '"J', 647: "kqvxy", 681: "Sbdhnpu",
    735: "L", 749: "Z", 769: "F", 803: "E", 835: "P", 869: "BT", 885: "Cw", 939: "ADOQRUVXY",
    962: "&+=@GHKN", 1021: "#%m", 1159: "M", 1263: "W",
}  # fmt: skip
PLAIN = {letter: width for width, letters in PLAIN_WIDTHS.items() for letter in letters}
BOLD = {letter: width for width, letters in BOLD_WIDTHS.items() for letter in letters}
AFTER = "_/.,:;=+)"  # a line may break after these inside a word


# Escaped text -------------------------------------------------------------------------------------


def escape(text: str) -> str:
    r"""The text as LaTeX shows it unchanged.

    Two hyphens would print as a dash. A `[` or `*` at the start of a row would be read as an option
    of the `\\` before it.
    """
    escaped = "".join(map(_glyph, " ".join(text.split())))
    escaped = escaped.replace("--", "-{}-")
    if escaped.startswith(("[", "*")):
        return f"{{{escaped[0]}}}{escaped[1:]}"
    return escaped


def breakable(text: str) -> str:
    """The escaped text, with places to break in long words, so that it fits into narrow columns."""
    words = [r"\allowbreak{}".join(map(escape, pieces(word))) for word in text.split()]
    return " ".join(words)


def pieces(word: str) -> list[str]:
    """The parts of a word between which a line may break; none is longer than MAX_PIECE."""
    if len(word) <= MAX_PIECE:
        return [word]
    parts = re.findall(rf"[^{re.escape(AFTER)}]+[{re.escape(AFTER)}]*|[{re.escape(AFTER)}]+", word)
    parts = _joined_numbers(parts)
    chunks = []
    for part in parts:
        chunks += [part[i : i + MAX_PIECE] for i in range(0, len(part), MAX_PIECE)]
    return chunks


def _joined_numbers(parts: list[str]) -> list[str]:
    """The parts, where `1,` and `234` (or `0.` and `5`) are one part again."""
    joined: list[str] = []
    for part in parts:
        if joined and part[0].isdigit() and re.search(r"\d[.,]$", joined[-1]):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def number(text: str) -> str:
    """The escaped text of a number with its interval and mark: minus signs and powers of ten."""
    power = re.sub(r"(\d)e([+-]\d+)", _power, text)
    parts = re.split(r"(\$\\times10\^\{-?\d+\}\$)", power)
    return "".join(
        part if part.startswith(r"$\times") else escape(part).replace("-", "$-$") for part in parts
    )


def _power(match: re.Match) -> str:
    return rf"{match[1]}$\times10^{{{int(match[2])}}}$"


def _glyph(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if " " <= character <= "\N{TILDE}":
        return character
    base, *marks = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isprintable() and marks and all(mark in ACCENTS for mark in marks):
        text = rf"\{base} " if base in "ij" else base
        for mark in marks:
            text = rf"\{ACCENTS[mark]}{{{text}}}"
        return text
    greek = GREEK.fullmatch(unicodedata.name(character, ""))
    if greek:
        name = greek[1].lower() if greek[1] else greek[2].capitalize()
        return rf"$\{name}$"
    return rf"\texttt{{U+{ord(character):04X}}}"


# Widths -------------------------------------------------------------------------------------------


def width(text: str, is_bold: bool = False) -> float:
    """The width of a text in 8 pt type, in points; never less than it is (kerning aside)."""
    widths = BOLD if is_bold else PLAIN
    widest = max(widths.values())
    total = sum(widths.get(c, _other_width(c, widest)) for c in " ".join(text.split()))
    return total * FONT_SIZE / 1000


def number_width(text: str, is_bold: bool = False) -> float:
    """The width of what `number` makes of a text."""
    # A minus sign is as wide as a plus sign, and `e` becomes a multiplication sign and 10.
    powers = len(re.findall(r"\de[+-]\d", text))
    return width(text.replace("-", "+"), is_bold) + 1.6 * FONT_SIZE * powers


def _other_width(character: str, widest: int) -> int:
    """A character without a width of its own: its code is much wider than a letter."""
    return UNKNOWN_WIDTH if _glyph(character).startswith(r"\texttt") else widest
