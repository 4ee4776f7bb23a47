"""Tokens, errors and integer expressions of assembly text.

Expressions: integers (decimal, 0x, 0b, underscores), names, ``+ - * / << >> & |``, parentheses, and
``f32(1.5)``, the bits of a float. ``/`` rounds down. Precedence is Python's.
"""

from __future__ import annotations

import difflib
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\s*(?:(?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)"
    r"|(?P<int>0[xX][0-9a-fA-F_]+|0[bB][01_]+|\d[\d_]*)"
    r"|(?P<name>\.?[A-Za-z_][A-Za-z_0-9.]*)"
    r'|(?P<text>"(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")'
    r"|(?P<op>->|>=|<<|>>|[-+*/&|()\[\],;:=@]))"
)
_LEVELS = (("|",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/"))


class AssemblyError(ValueError):
    """Text that the assembler refuses: file, line, column, what is wrong, and a hint."""

    def __init__(self, file: str, line: int, column: int, message: str, hint: str, source: str):
        self.file, self.line, self.column = file, line, column
        self.message, self.hint = message, hint
        text = f"{file}:{line}:{column}: {message}\n    {source}\n    {' ' * (column - 1)}^"
        super().__init__(text + (f"\n  hint: {hint}" if hint else ""))
        self._given = (file, line, column, message, hint, source)

    def __reduce__(self):
        return AssemblyError, self._given


@dataclass(frozen=True)
class Token:
    """Kind ("int", "float", "name", "text", "op", "end"), its text, and its column from 1."""

    kind: str
    text: str
    column: int


def near(word: str, known: Iterable[str]) -> str:
    """A did-you-mean hint, or an empty text."""
    close = difflib.get_close_matches(word, list(known), 1, 0.5 if len(word) < 4 else 0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def float_bits(value: float) -> int:
    """Bits of the nearest fp32 (infinite above its range)."""
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0xFF800000 if value < 0 else 0x7F800000


class Line:
    """One source line as a cursor over its tokens.

    A lenient line takes 0 for an unknown name and for a value that is refused: its names are still
    being collected. Its syntax is checked all the same.
    """

    def __init__(
        self,
        file: str,
        line: int,
        text: str,
        lookup: Callable[[str], int | None],
        lenient: bool = False,
    ):
        self.lenient, self.guessed = lenient, False
        self.file, self.line, self.source, self.lookup = file, line, text, lookup
        self.known: Iterable[str] = ()
        self.tokens = self._tokens(text.rstrip())
        self.at = 0

    def _tokens(self, text: str) -> list[Token]:
        out, at = [], 0
        while at < len(text):
            m = _TOKEN.match(text, at)
            if m is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                if text[at] == "#":
                    break
                bad = Token("op", text[at], at + 1)
                raise self.error(f"character {text[at]!r} has no meaning here", bad)
            kind = str(m.lastgroup)  # every alternative is a named group
            out.append(Token(kind, m[kind], m.start(kind) + 1))
            at = m.end()
        return [*out, Token("end", "end of line", min(at, len(text)) + 1)]

    def error(self, message: str, token: Token | None = None, hint: str = "") -> AssemblyError:
        """An error at `token` (default: the next one)."""
        column = (token or self.peek).column
        return AssemblyError(
            self.file, self.line, column, message, hint, self.source.replace("\t", " ")
        )

    def refuse(self, message: str, token: Token | None = None, hint: str = "") -> int:
        """Raise an error about a value; a lenient line takes 0 instead."""
        if not self.lenient:
            raise self.error(message, token, hint)
        self.guessed = True
        return 0

    @property
    def peek(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    def ahead(self, text: str, by: int = 1) -> bool:
        """Whether the token `by` after the next is `text`."""
        return self.at + by < len(self.tokens) and self.tokens[self.at + by].text == text

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self.peek.kind == "end"

    def take(self) -> Token:
        """The next token, consumed."""
        token = self.peek
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Consume `text` if it is next."""
        found = self.peek.text == text and self.peek.kind in ("op", "name")
        self.at += found
        return found

    def expect(self, text: str) -> Token:
        """Consume `text`, which must be next."""
        token = self.peek
        if not self.accept(text):
            raise self.error(f"here must be '{text}', not '{token.text}'")
        return token

    def name(self, what: str) -> Token:
        """Consume a name."""
        if self.peek.kind != "name":
            raise self.error(f"here must be {what}, not '{self.peek.text}'")
        return self.take()

    def finish(self) -> None:
        """Nothing may be left."""
        if not self.ended:
            raise self.error(f"'{self.peek.text}' is left over at the end of the line")

    def expression(self, level: int = 0) -> int:
        """Parse and evaluate an integer expression."""
        if level == len(_LEVELS):
            return self._atom()
        value = self.expression(level + 1)
        while self.peek.kind == "op" and self.peek.text in _LEVELS[level]:
            token = self.take()
            right = self.expression(level + 1)
            value = self._apply(token, value, right)
        return value

    def _apply(self, token: Token, a: int, b: int) -> int:
        op = token.text
        if op == "/" and b == 0:
            return self.refuse("division by zero", token)
        if op in ("<<", ">>") and not 0 <= b < 64:
            return self.refuse(f"a shift must be by 0 to 63, not {b}", token)
        match op:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "/":
                return a // b
            case "<<":
                return a << b
            case ">>":
                return a >> b
            case "&":
                return a & b
        return a | b

    def _atom(self) -> int:
        token = self.take()
        if token.text == "-" and token.kind == "op":
            return -self._atom()
        if token.text == "(" and token.kind == "op":
            value = self.expression()
            self.expect(")")
            return value
        if token.kind == "int":
            try:
                return int(token.text, 0)
            except ValueError:
                raise self.error(f"'{token.text}' is not an integer", token) from None
        if token.kind == "name" and token.text == "f32" and self.peek.text == "(":
            self.take()
            bits = float_bits(self.number())
            self.expect(")")
            return bits
        if token.kind == "name":
            known = self.lookup(token.text)
            if known is not None:
                return known
            hint = near(token.text, self.known)
            return self.refuse(f"'{token.text}' is not defined", token, hint)
        hint = "floats are written f32(1.5)" if token.kind == "float" else ""
        raise self.error(f"here must be an expression, not '{token.text}'", token, hint)

    def number(self) -> float:
        """A float literal: a number, inf or nan, perhaps negative."""
        if self.accept("-"):
            return -self.number()
        token = self.take()
        if token.kind in ("float", "int") or token.text in ("inf", "nan"):
            try:
                return float(int(token.text, 0)) if token.kind == "int" else float(token.text)
            except (ValueError, OverflowError):
                pass
        raise self.error(f"here must be a number, not '{token.text}'", token)
