"""Services that run for one command: a verifier, and what happens when one cannot start."""

import asyncio
import shutil
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.commands.verify import verify
from services.launcher.processes.temporary_services import run_replicas, run_verifier
from shared.errors import InvalidInput
from shared.protocol.verdict import VerdictItem

pytestmark = pytest.mark.drill


async def test_one_verifier_judges_right_and_wrong_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = []
    async with run_verifier(tmp_path) as url:
        for answer in ("0.5", "0.6"):
            response, key = r"so it is \boxed{\frac{1}{2}}", {"gold": answer}
            item = VerdictItem(id="answer", kind="math", response=response, answer_key=key)
            codes.append(await asyncio.to_thread(verify, item, url + "/", None))
    assert codes == [0, 1]
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.startswith("right  by ")
    assert "reward 1" in right
    assert wrong.startswith("wrong")


async def test_a_replica_that_cannot_load_its_model_shows_why_and_nothing_is_left_running(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint_directory(), model)
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidInput, match=r"rollout-1 ended with exit code 3 .*/model.safetensors is not safetensors"):
        async with run_replicas(model, 1, tmp_path, "http://127.0.0.1:9"):
            pass
    assert not list(tmp_path.glob("*.url")), "a service deletes its URL file when it stops"
