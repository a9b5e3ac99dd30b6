"""Tasks and trees to send around."""

from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IndependentSampler


def a_task(index: int, attempt: int = 0) -> Task:
    return Task(
        run="r",
        id=f"0-{index}",
        attempt=attempt,
        problem_id=str(index),
        prompt_ids=(1, 2, 3),
        kind="exact",
        answer_key={"answer": "é"},
        growth=Growth(sampler=IndependentSampler()),
        seed=index,
    )


def tasks(count: int) -> list[Task]:
    return [a_task(index) for index in range(count)]


def a_tree(task: Task, num_tokens: int = 2) -> ScoredTree:
    draw = Draw(
        parent=None,
        cut=0,
        token_ids=tuple(range(num_tokens)),
        logprobs=(-0.5,) * num_tokens,
        step_ends=(num_tokens,),
        spans=(VersionSpan(WeightVersion(1, 2), 0, num_tokens),),
        finish=Finish.STOP,
        reward=1.0,
    )
    return ScoredTree(task=task, replica="a", draws=(draw,), usage=TreeUsage())
