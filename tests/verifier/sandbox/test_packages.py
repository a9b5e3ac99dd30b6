"""Installed packages that the configuration offers to programs."""

from pathlib import Path

import pytest

from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program
from tests.verifier.sandbox.programs import hostile_program

_PACKAGE = {
    "offered/__init__.py": "import helper\nfrom . import later_part as _\nVALUE = helper.VALUE",
    "offered/later_part.py": "",
    "offered/lazy.py": "VALUE = 2",
    "helper.py": "VALUE = 40",
    "other.py": "",
}
_USE = b"import offered\nfrom offered import lazy\nimport helper\nprint(offered.VALUE + lazy.VALUE)"


def _write_packages(folder: Path) -> JailOptions:
    for path in (folder, *folder.parents):
        if path.stat().st_uid == folder.stat().st_uid and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)  # as other users must read what is installed
    for name, text in _PACKAGE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return JailOptions(concurrency=1, packages=("offered",), package_folders=(str(folder),))


async def test_a_package_is_imported_with_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    async with open_jail(_write_packages(tmp_path)) as jail:
        assert jail.refusal is None
        assert (await jail.run(Program(_USE), Limits())).stdout == b"42\n"
        other = await jail.run(Program(b"import offered, other"), Limits())
        assert other.stderr.endswith(
            b"ModuleNotFoundError: No module named 'other' (code.packages says which packages programs may import)\n"
        )
        for statements in (
            f"open('{tmp_path}/other.py')",
            f"os.listdir('{tmp_path}')",
            f"open('{tmp_path}/offered/lazy.py', 'a')",
            f"open('{tmp_path}/offered/new.py', 'w')",
        ):
            run = await jail.run(Program(hostile_program(statements).encode()), Limits())
            assert run.stdout == b"contained\n", statements


async def test_a_package_that_is_missing_is_a_refusal_with_its_remedy() -> None:
    async with open_jail(JailOptions(concurrency=1, packages=("no_such_package",))) as jail:
        assert jail.refusal is not None
        assert "code.packages: 'no_such_package' cannot be imported (ModuleNotFoundError" in jail.refusal
        assert "code.packages_path" in jail.refusal


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "code.packages: 'offered' starts threads when it is imported",
        ),
        ("import mmap\ncode = mmap.mmap(-1, 4096, prot=7)", "memory that is both written and run: "),
        ("1 / 0", "code.packages: 'offered' cannot be imported (ZeroDivisionError"),
    ],
)
async def test_a_package_that_a_jail_cannot_offer_is_a_refusal(tmp_path: Path, source: str, reason: str) -> None:
    options = _write_packages(tmp_path)
    (tmp_path / "helper.py").write_text(f"{source}\nVALUE = 1")
    async with open_jail(options) as jail:
        assert jail.refusal is not None
        assert reason in jail.refusal
