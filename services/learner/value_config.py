"""The configuration of the value head: table `[learner.value_head]`."""

from pydantic import BaseModel, ConfigDict, Field


class ValueHeadConfig(BaseModel):
    """A head on the policy's hidden states at nodes' ends, which learns their counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(0, ge=0, description="Units of a layer before the last; 0: the head is linear")
    head_lr: float = Field(1e-2, gt=0, description="Learning rate of its own AdamW")
    head_weight_decay: float = Field(0.01, ge=0, description="Of its AdamW")
    updates: int = Field(8, gt=0, description="Its optimizer steps on the nodes of each step's trees")
