"""Project guards of `isa/`: the generated page is current, and the package stays light."""

import subprocess
import sys
from pathlib import Path

from tilewright.isa import docs

ROOT = Path(__file__).parents[2]


def test_docs_isa_is_current():
    page = (ROOT / "docs" / "isa.md").read_text(encoding="utf-8")
    assert page == docs.render(), "run: python -m tilewright.isa.docs > docs/isa.md"


def test_isa_imports_neither_amaranth_nor_other_layers():
    names = [p.stem for p in (ROOT / "isa").glob("*.py") if p.stem != "__init__"]
    code = (
        f"import sys; [__import__('tilewright.isa.' + n) for n in {names!r}]; "
        "print([m for m in sys.modules if m.split('.')[0] in ('amaranth', 'matplotlib') or "
        "m.startswith(('tilewright.hw', 'tilewright.sim', 'tilewright.compiler'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
