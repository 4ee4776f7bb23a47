"""A copy of the repository in which mutants live, and the stages that try to catch them.

The package is taken from a commit, so that nobody's edits get in between; `tests/` may come from a
later one. First the Verilog is exported: is the mutant one? Stages, cheapest first: its module's
own unit tests, generated programs on its chip, [is the optimised netlist the original's?], the RTL
engine's tests in tests/sim, what else of tests/hw imports the module, cocotb on the Verilog.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("isa", "hw", "sim", "compiler", "waveforms")
CHILD = Path(__file__).with_name("mutation_child.py")
#: Builds for tests on the RTL engine: quick to compile.
CONFTEST = """from tilewright.sim import rtl_build
rtl_build.MAKE_FLAGS[:] = ["OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0"]
"""
SIM_TESTS = ("tests/sim/test_rtl_*.py", "tests/sim/test_engines.py")
LIMITS = {
    "unit": 900, "programs": 900, "netlist": 900, "rtl": 1800, "hw": 1800, "cocotb": 2400,
}  # fmt: skip  # seconds
STAGES = tuple(LIMITS)
COMMANDS = {"programs": "run", "netlist": "netlist"}  # stages that `mutation_child.py` runs


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
        self.tool = shared / CHILD.name
        if not self.tool.exists():  # it must stay what it is while mutants are judged
            shutil.copy(CHILD, self.tool)

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
            return None, f"no end after {LIMITS[stage]} s"
        finally:  # also what it started itself, and if this process is told to end
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def child(self, command: str) -> tuple[int | None, str]:
        """Run one command of `mutation_child.py`."""
        return self.call("programs", [str(self.tool), command, self.config, str(self.shared)])

    def imported(self, text: str) -> set[str]:
        """Modules of `hw/` that a text imports, directly or not."""
        found, new = set(), set(re.findall(r"tilewright\.hw\.(\w+)", text))
        new |= set(re.findall(r"from tilewright\.hw import (\w+)", text))
        while new:
            found |= new
            paths = (self.folder / "tilewright" / "hw" / f"{name}.py" for name in new)
            texts = "".join(path.read_text() for path in paths)
            new = set(re.findall(r"tilewright\.hw\.(\w+)", texts)) - found
        return found

    def with_helpers(self, test: Path) -> str:
        """The text of a test, and of the files beside it that it names: it loads those."""
        text = test.read_text()
        helpers = [p for p in test.parent.glob("*.py") if not p.name.startswith("test_")]
        return "".join([text, *(p.read_text() for p in helpers if f'"{p.stem}' in text)])

    def test_stages(self, module: str = "") -> dict[str, list[str]]:
        """The stages that are pytest runs, with the files that may notice a mutant of `module`."""
        hw = sorted((self.folder / "tests" / "hw").glob("test_*.py"))
        if module:
            hw = [path for path in hw if module in self.imported(self.with_helpers(path))]
        stems = {path: path.stem.removeprefix("test_") for path in hw}
        own = [p for p, stem in stems.items() if f"{module}_".startswith(f"{stem}_")]
        family = module.split("_")[0]  # a part of VECTOR has no tests of its own, but VECTOR has
        own = own or [p for p, stem in stems.items() if stem.split("_")[0] == family]
        rtl = [path for pattern in SIM_TESTS for path in sorted(self.folder.glob(pattern))]
        stages = {"unit": own, "rtl": rtl, "hw": [path for path in hw if path not in own]}
        named = {n: [str(p.relative_to(self.folder)) for p in ps] for n, ps in stages.items()}
        return named | {"cocotb": ["tests/cocotb"]}

    def pytest(self, stage: str, files: list[str]) -> str:
        """Empty if the tests pass, else what failed first."""
        status, out = self.call(stage, ["-m", "pytest", "-x", "-q", "--no-header", *files])
        if status == 0:
            return ""
        failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", out, re.MULTILINE)
        return failed[0] if failed else out[-300:]

    def prepare(self, say, stages: tuple[str, ...] = STAGES) -> None:
        """Results of the original, which must pass the stages.

        **Raises** RuntimeError if it does not.
        """
        for known in self.shared.glob("*.sha256"):
            known.unlink()
        status, out = self.child("expect")
        if status:
            raise RuntimeError(f"no expectations:\n{out}")
        for command in ("export", *(COMMANDS[s] for s in STAGES if s in COMMANDS and s in stages)):
            say(f"original: {command}")
            if (verdict := self.verdict(command)).name != "alive":
                raise RuntimeError(f"the original must pass {command!r}, but: {verdict}")
        wanted = {*stages, "hw"} if "unit" in stages else set(stages)
        for stage, files in self.test_stages().items():
            if stage not in wanted or not files:
                continue
            say(f"original: {stage}")
            if failed := self.pytest(stage, files):
                raise RuntimeError(f"the original must pass stage {stage}: {failed}")

    def judge(self, module: str, text: str, stages: tuple[str, ...] = STAGES) -> Verdict:
        """Put a mutant's text in the module's place, try stages, and put the original back."""
        path = self.folder / "tilewright" / "hw" / f"{module}.py"
        original = path.read_text()
        path.write_text(text)
        try:
            verdict = self.verdict("export")
            for stage in (stage for stage in STAGES if stage in stages):
                if verdict.name != "alive":
                    break
                command = COMMANDS.get(stage)
                verdict = self.verdict(command) if command else self.tests(stage, module)
            return verdict
        finally:
            path.write_text(original)
            shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def verdict(self, command: str) -> Verdict:
        """What a command of the child says about this copy."""
        status, out = self.child(command)
        if status is None:
            return Verdict("caught", "programs", out)
        if status < 0:
            return Verdict("caught", "programs", f"the model died of signal {-status}")
        if status > 0:
            raise RuntimeError(f"{CHILD.name} failed:\n{out}")
        lines = [line for line in out.splitlines() if line.startswith('["')]  # warnings may follow
        name, why = json.loads(lines[-1])
        return Verdict(name, "programs" if name == "caught" else "", why)

    def tests(self, stage: str, module: str) -> Verdict:
        """One of the stages that are pytest runs."""
        files = self.test_stages(module)[stage]
        failed = self.pytest(stage, files) if files else ""
        return Verdict("caught", stage, failed) if failed else Verdict("alive")


def timed(workspace: Workspace, module: str, text: str, stages: tuple[str, ...]):
    """The verdict, and the seconds that it took."""
    begin = time.monotonic()
    return workspace.judge(module, text, stages), time.monotonic() - begin
