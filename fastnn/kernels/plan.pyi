from fastnn.plan import Plan

MOST_SLICES: int
MOST_SHARDS: int

class CompiledPlan:
    source: Plan
    def __init__(self, plan: Plan) -> None: ...
