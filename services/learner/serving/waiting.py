"""What the run waits for, with the reason where nothing comes, and what helps then."""

from collections.abc import Sequence

from services.learner.waits import Wait
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.waiting import Waiting


def describe_wait(wait: Wait | None, replicas: Sequence[ReplicaInfo], complaint: str, run: str) -> Waiting | None:
    """The wait as the status has it. `complaint`: why the run stands still, where that is known."""
    if wait is None:
        return None
    waiting = wait.message()
    if not wait.needs_replicas:
        return waiting
    reason, remedy = why_replicas_bring_nothing(replicas, run)
    said = (reason, complaint, waiting.detail) if reason not in complaint else (complaint, waiting.detail)
    detail = "; ".join(filter(None, said))
    return waiting.model_copy(update={"detail": detail, "remedy": remedy})


def why_replicas_bring_nothing(replicas: Sequence[ReplicaInfo], run: str) -> tuple[str, str]:
    """(reason, remedy), both empty where a replica serves and nothing is wrong with it."""
    if not replicas:
        return (
            "no replica announces itself",
            f"start one (`ibtpo rollout run={run} redis_url=…`); of one that runs, see the log: is its run {run}, and "
            "its Redis this one?",
        )
    if any(one.state is ReplicaState.SERVING and not one.problem for one in replicas):
        return "", ""
    if problems := [f"{one.name}: {one.problem}" for one in replicas if one.problem]:
        if any(not one.reads_tasks for one in replicas):
            return (
                f"no replica can grow this run's tasks; {'; '.join(problems)}",
                "install the package where replicas run, and name it in rollout.plugins",
            )
        is_served = any(one.state is ReplicaState.SERVING for one in replicas)
        said = "no replica gets verdicts" if is_served else "no replica serves this run's weights"
        remedy = "is the verifier up, and its token the replicas'?" if is_served else "`ibtpo doctor` says what helps"
        return f"{said}; {'; '.join(problems)}", remedy
    if loading := [one for one in replicas if one.loading]:
        names = ", ".join(f"{one.name} loads {one.loading.label}" for one in loading if one.loading)
        return (
            f"no replica serves yet: {names}",
            "the first load brings the engine's code, too; the replicas' logs say more",
        )
    draining = sum(one.state is ReplicaState.DRAINING for one in replicas)
    what = "they end" if draining == len(replicas) else "they wait for this run's weights"
    return (
        f"no replica serves yet: {what} ({', '.join(one.name for one in replicas)})",
        "can they reach the learner? `ibtpo doctor` asks each of them",
    )
