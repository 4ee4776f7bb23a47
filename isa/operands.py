"""The operands of one instruction, from text to `Instr`; `syntax` says how a field is written."""

from __future__ import annotations

from tilewright.isa.config import REGISTERS, SEMAPHORES
from tilewright.isa.encoding import Instr, Reg
from tilewright.isa.syntax import (
    REGISTER_FIELDS,
    SEMAPHORE_FIELDS,
    Place,
    form,
    is_flag,
    members,
    spaces,
)
from tilewright.isa.table import INSTRUCTIONS, Field, Spec, Unit
from tilewright.isa.text import Line, Token, near

Fields = dict[str, int | Reg]


def parse_instruction(line: Line) -> Instr:
    """Read a mnemonic and its operands; the cursor is left behind them."""
    token = line.take()
    spec = INSTRUCTIONS[token.text]
    fields = _scalar(line, spec) if spec.unit == Unit.SEQ else _Operands(line, spec, token).read()
    return Instr.make(spec.name, **fields)


def _register(line: Line) -> int | None:
    """The number, if a register is next."""
    text = line.peek.text
    if line.peek.kind != "name" or text[0] != "r" or not text[1:].isdecimal():
        return None
    if int(text[1:]) >= REGISTERS:
        raise line.error(f"a register must be r0 to r{REGISTERS - 1}, not {text}")
    line.take()
    return int(text[1:])


def _semaphore(line: Line) -> int:
    """``s3``, or an expression."""
    token = line.peek
    text = token.text
    if token.kind == "name" and text[0] == "s" and text[1:].isdecimal():
        line.take()
        value = int(text[1:])
    else:
        value = line.expression()
    if not 0 <= value < SEMAPHORES:
        return line.refuse(f"a semaphore must be s0 to s{SEMAPHORES - 1}, not {value}", token)
    return value


def _value(line: Line, field: Field) -> int | Reg:
    """A register, a member of the field's enumeration, or an expression that fits."""
    token = line.peek
    register = _register(line)
    if register is not None:
        if not field.reg:
            raise line.error(f"{field.name} must be an integer, not a register", token)
        return Reg(register)
    if field.enum is not None and token.text in members(field.enum):
        line.take()
        return members(field.enum)[token.text]
    value = line.expression()
    if not field.low <= value <= field.high:
        return line.refuse(
            f"{field.name} must be in {field.low} to {field.high}, not {value}",
            token,
            f"{field.name}: {field.meaning}",
        )
    return value


def _scalar(line: Line, spec: Spec) -> Fields:
    """All fields in order; a count at the end may be left out."""
    fields: Fields = {}
    for i, field in enumerate(spec.fields):
        if i and line.ended and field.default:
            break
        if i:
            line.expect(",")
        if field.name in REGISTER_FIELDS:
            register = _register(line)
            if register is None:
                raise line.error(f"{field.name} must be a register, not '{line.peek.text}'")
            fields[field.name] = register
        elif field.name in SEMAPHORE_FIELDS:
            fields[field.name] = _semaphore(line)
        else:
            fields[field.name] = _value(line, field)
    return fields


class _Operands:
    """Reader of one unit instruction's operands."""

    def __init__(self, line: Line, spec: Spec, mnemonic: Token):
        self.line, self.spec, self.mnemonic = line, spec, mnemonic
        self.form = form(spec)
        self.fields: Fields = {}
        self.places = list(self.form.places)
        self.words = list(self.form.words)

    def read(self) -> Fields:
        """Operands, then clauses."""
        line = self.line
        while not line.ended and line.peek.text != ";":
            self._operand()
            if line.accept(",") and (line.ended or line.peek.text == ";"):
                raise line.error("an operand must follow ','")
        self._complete()
        while line.accept(";"):
            self._clause()
        return self.fields

    def _set(self, name: str, value: int | Reg, token: Token) -> None:
        if name in self.fields:
            raise self.line.error(f"{name} is given twice", token)
        self.fields[name] = value

    def _operand(self) -> None:
        line = self.line
        token = line.name("an operand")
        field = self.spec.layout.get(token.text, (0, None))[1]
        if line.peek.text == "[":
            self._memory(token)
        elif line.accept("="):
            if field is None:
                raise self._unknown(token)
            self._set(field.name, _value(line, field), token)
        elif self.words and token.text in members(self.spec.layout[self.words[0]][1].enum):
            self._words(token)
        elif field is not None and is_flag(field):
            self._set(field.name, 1, token)
        elif field is not None:
            raise line.error(f"{token.text} must have a value: {token.text}=...", token)
        else:
            raise self._unknown(token)

    def _unknown(self, token: Token):
        known = list(self.spec.layout)
        for name in self.words:
            known += members(self.spec.layout[name][1].enum)
        hint = near(token.text, known) or f"it has {', '.join(f.name for f in self.spec.fields)}"
        return self.line.error(f"{self.spec.name} has no operand '{token.text}'", token, hint)

    def _memory(self, token: Token) -> None:
        if not self.places:
            count = len(self.form.places)
            raise self.line.error(f"{self.spec.name} has {count} memory operands", token)
        place = self.places.pop(0)
        known = spaces(self.spec, place)
        if token.text not in known:
            wanted = " or ".join(f"{k}[...]" for k in known)
            raise self.line.error(
                f"{self.spec.name}.{place.field} must be {wanted}, not {token.text}[...]",
                token,
                self._shape(),
            )
        space = known[token.text]
        if space is not None:
            self._set(place.space, space, token)
        self.line.expect("[")
        self._set(place.field, _value(self.line, self.spec.layout[place.field][1]), token)
        self.line.expect("]")

    def _words(self, token: Token) -> None:
        for i, name in enumerate(self.form.words):
            if i:
                self.line.expect(self.form.separator)
                token = self.line.name("a type")
            known = members(self.spec.layout[name][1].enum)
            if token.text not in known:
                raise self.line.error(
                    f"{name} must be one of {', '.join(known)}, not '{token.text}'",
                    token,
                    near(token.text, known),
                )
            self._set(name, known[token.text], token)
        self.words = []

    def _shape(self) -> str:
        parts = ["|".join(spaces(self.spec, p)) + "[...]" for p in self.form.places]
        return f"{self.spec.name} {', '.join(parts)}, " + self.form.separator.join(self.form.words)

    def _complete(self) -> None:
        """Every place and word must have been given; none is guessed."""

        def excused(place: Place) -> bool:
            return place.field in self.fields or bool(self.fields.get(place.optional_with))

        for place in self.places:
            if not excused(place):
                raise self.line.error(
                    f"{self.spec.name} lacks {'/'.join(spaces(self.spec, place))}[{place.field}]",
                    hint=self._shape(),
                )
        for name in self.words:
            if name not in self.fields:
                raise self.line.error(f"{self.spec.name} lacks its {name}", hint=self._shape())

    def _clause(self) -> None:
        line = self.line
        token = line.name("wait, read or done")
        if token.text == "wait":
            slot = "wait1" if "wait0" in self.fields else "wait0"
            if slot in self.fields:
                raise line.error("an instruction has at most two waits", token)
            self._set(slot, _semaphore(line), token)
            line.expect(">=")
            self._set(f"{slot}_n", _value(line, self.spec.layout[f"{slot}_n"][1]), token)
        elif token.text in ("read", "done"):
            kind = {"read": "rd", "done": "done"}[token.text]
            self._set(f"{kind}_en", 1, token)
            self._set(f"{kind}_sem", _semaphore(line), token)
        else:
            hint = near(token.text, ("wait", "read", "done"))
            raise line.error(
                f"a clause must be wait, read or done, not '{token.text}'", token, hint
            )
