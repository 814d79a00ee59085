"""The child of `plan_in_child`: the model on stdin, the plan or a sentence as JSON on stdout."""

import json
import sys

from yolastic_worker.memory.planner.plan import plan
from yolastic_worker.memory.planner.result import NotPlannable


def main() -> int:
    """Plan one model; the exit code."""
    asked = json.loads(sys.argv[1])
    size = asked.pop("input_size")
    try:
        answer = plan(sys.stdin.buffer.read(), input_size=None if size is None else (size[0], size[1]), **asked).to_json()
    except NotPlannable as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
