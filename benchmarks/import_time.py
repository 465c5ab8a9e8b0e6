"""What `import biolearn_lite` adds to `import torch`, in new processes. Goal: at most 0.3 s."""

import subprocess
import sys

ROUNDS = 10
CLOCK = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"
CONTESTANTS = {"import torch": "torch", "import torch, biolearn_lite": "torch, biolearn_lite"}


def seconds(modules: str) -> float:
    return float(subprocess.check_output([sys.executable, "-c", CLOCK.format(modules)]))


if __name__ == "__main__":
    best = dict.fromkeys(CONTESTANTS, float("inf"))
    for _ in range(ROUNDS):
        for name, modules in CONTESTANTS.items():
            best[name] = min(best[name], seconds(modules))
    print("Import, CPU seconds of a new process")
    for name, value in best.items():
        print(f"  {name:<42} {value:9.2f} s")
    added = best["import torch, biolearn_lite"] - best["import torch"]
    print(f"  {'biolearn_lite adds':<42} {added:9.2f} s   (goal: at most 0.30)")
