"""Write ARCHITECTURE.md's code map from the modules' docstrings: ``python .ci/code_map.py``.

With ``--check`` it writes nothing, and fails if the map is not current.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("isa", "hw", "sim", "compiler", "sdk", "waveforms")
BEGIN = "<!-- code map: python .ci/code_map.py -->\n"


def first_sentence(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def code_map() -> str:
    """One line for each module."""
    lines = []
    for folder in FOLDERS:
        lines.append(f"\n**`{folder}/`** {first_sentence(ROOT / folder / '__init__.py')}\n")
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"* `{path.stem}`: {first_sentence(path)}")
    return "\n".join(lines) + "\n"


def main(check: bool) -> int:
    """Return the exit code."""
    path = ROOT / "ARCHITECTURE.md"
    text = path.read_text()
    current = text[: text.index(BEGIN) + len(BEGIN)] + code_map()
    if check and text != current:
        print("ARCHITECTURE.md's code map is old: run python .ci/code_map.py", file=sys.stderr)
        return 1
    if not check:
        path.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
