"""A copy of the repository in which mutants live, and the stages that try to catch them.

The package is taken from a commit, so that nobody's edits get in between; `tests/` may come from a
later one. Stages, cheapest first: generated programs on the mutant's chip, its module's own unit
tests, all of tests/hw, the RTL's tests in tests/sim, cocotb on the exported Verilog.
"""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("isa", "hw", "sim", "compiler", "waveforms")
CHILD = Path(__file__).with_name("mutation_child.py")
#: Builds for tests on the RTL engine: quick to compile.
CONFTEST = """from tilewright.sim import rtl_build
rtl_build.MAKE_FLAGS[:] = ["OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0"]
"""
SIM_TESTS = ("tests/sim/test_rtl_*.py", "tests/sim/test_engines.py")
LIMITS = {"programs": 900, "unit": 900, "hw": 1800, "rtl": 1800, "cocotb": 2400}  # seconds


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "same netlist", "does not elaborate", "caught" or "alive"."""

    name: str
    stage: str = ""
    why: str = ""


def git(repository: Path, *arguments: str) -> bytes:
    """What git prints."""
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def snapshot(repository: Path, commit: str, tests: str, folder: Path) -> None:
    """Lay out package and tests of two commits as a tree that Python imports as `tilewright`."""
    for where, what in ((commit, ("sdk", *PACKAGES, "pyproject.toml")), (tests, ("tests",))):
        packed = git(repository, "archive", "--format=tar", where, *what)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
    (folder / "sdk").rename(folder / "tilewright")
    for name in PACKAGES:
        (folder / name).rename(folder / "tilewright" / name)
    (folder / "tests" / "conftest.py").write_text(CONFTEST)


def rtl_digest(folder: Path) -> str:
    """Hash of what the chip is made of."""
    files = [p for n in ("hw", "isa") for p in sorted((folder / "tilewright" / n).glob("*.py"))]
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:16]


class Workspace:
    """One copy of the tree, for one mutant at a time.

    Parameters
    ----------
    folder : the copy.
    shared : what all copies share: the original's results, compiled units.
    """

    def __init__(self, folder: Path, shared: Path, config: str):
        self.folder, self.shared, self.config = folder, shared, config
        (shared / "tmp").mkdir(exist_ok=True)

    @classmethod
    def copy(cls, tree: Path, folder: Path, shared: Path, config: str) -> "Workspace":
        """A fresh copy of a snapshot."""
        shutil.copytree(tree, folder)
        return cls(folder, shared, config)

    def call(self, stage: str, arguments: list[str]) -> tuple[int | None, str]:
        """Exit status (None after the stage's time limit) and output of a Python process."""
        env = dict(os.environ, PYTHONPATH=str(self.folder), TMPDIR=str(self.shared / "tmp"),
                   TILEWRIGHT_CACHE=str(self.folder / "cache"), PYTHONDONTWRITEBYTECODE="1",
                   PYTHONHASHSEED="0")  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=self.folder, env=env, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=LIMITS[stage])
            return process.returncode, out
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, f"no end after {LIMITS[stage]} s"

    def child(self, command: str) -> tuple[int | None, str]:
        """Run one command of `mutation_child.py`."""
        return self.call("programs", [str(CHILD), command, self.config, str(self.shared)])

    def own_tests(self, module: str) -> list[str]:
        """Test files that import the module, or whose name begins as the module's does."""
        out = []
        for path in sorted((self.folder / "tests" / "hw").glob("test_*.py")):
            stem = path.stem.removeprefix("test_")
            named = module == stem or module.startswith(f"{stem}_")
            if named or re.search(rf"tilewright\.hw\.{module}\b", path.read_text()):
                out.append(str(path.relative_to(self.folder)))
        return out

    def test_stages(self, module: str) -> list[tuple[str, list[str]]]:
        """The stages that are pytest runs, with their files."""
        hw = [str(p.relative_to(self.folder)) for p in (self.folder / "tests/hw").glob("test_*.py")]
        own = self.own_tests(module)
        rtl = [str(p.relative_to(self.folder)) for g in SIM_TESTS for p in self.folder.glob(g)]
        rest = sorted(set(hw) - set(own))
        return [("unit", own), ("hw", rest), ("rtl", sorted(rtl)), ("cocotb", ["tests/cocotb"])]

    def pytest(self, stage: str, files: list[str]) -> str:
        """Empty if the tests pass, else what failed first."""
        status, out = self.call(stage, ["-m", "pytest", "-x", "-q", "--no-header", *files])
        if status == 0:
            return ""
        failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", out, re.MULTILINE)
        return failed[0] if failed else out[-300:]

    def prepare(self, say, tests: bool = True) -> None:
        """Results of the original, which must pass every stage (without `tests`, the programs).

        **Raises** RuntimeError if it does not.
        """
        (self.shared / "verilog.sha256").unlink(missing_ok=True)
        for command in ("expect", "try"):
            say(f"original: {command}")
            status, out = self.child(command)
            if status != 0 or (command == "try" and json.loads(out.splitlines()[-1])[0] != "alive"):
                raise RuntimeError(f"the original must pass {command!r}:\n{out}")
        for stage, files in self.test_stages("") if tests else ():
            say(f"original: {stage}")
            if files and (failed := self.pytest(stage, files)):
                raise RuntimeError(f"the original must pass stage {stage}: {failed}")

    def judge(self, module: str, text: str) -> Verdict:
        """Put a mutant's text in the module's place, try every stage, and put the original back."""
        path = self.folder / "tilewright" / "hw" / f"{module}.py"
        original = path.read_text()
        path.write_text(text)
        try:
            return self._judge(module)
        finally:
            path.write_text(original)
            shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def _judge(self, module: str) -> Verdict:
        status, out = self.child("try")
        if status is None:
            return Verdict("caught", "programs", out)
        if status < 0:
            return Verdict("caught", "programs", f"the model died of signal {-status}")
        if status > 0:
            raise RuntimeError(f"{CHILD.name} failed:\n{out}")
        name, why = json.loads(out.strip().splitlines()[-1])
        if name != "alive":
            return Verdict(name, "programs" if name == "caught" else "", why)
        for stage, files in self.test_stages(module):
            if files and (failed := self.pytest(stage, files)):
                return Verdict("caught", stage, failed)
        return Verdict("alive")


def timed(workspace: Workspace, module: str, text: str) -> tuple[Verdict, float]:
    """`judge`, and the seconds that it took."""
    begin = time.monotonic()
    return workspace.judge(module, text), time.monotonic() - begin
