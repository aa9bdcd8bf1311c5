"""Fail if a test was skipped for a reason that this machine does not excuse: `python .ci/check_skips.py JUNIT.xml`."""

import platform
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
FLAGS = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()

# A pattern of the reason -> whether this machine excuses it.
EXCUSES = {
    "CUDA": not torch.cuda.is_available(),
    "threads have names on Linux": platform.system() != "Linux",
    "bf16|bfloat16": "avx512_bf16" not in FLAGS or "amx_bf16" in FLAGS,  # with AMX, oneDNN is faster
    "SCIPY_ARRAY_API is not set": True,  # a check of scikit-learn for estimators of other array libraries
    "timm cannot be imported": True,  # torchvision needs a CUDA build of torch here; `make test-timm` has its own
    "kernels|convolutions": "avx512f" not in FLAGS,
}


def main(path: str) -> int:
    """Print unexpected skips and return the exit status."""
    unexpected = []
    for case in ElementTree.parse(path).iter("testcase"):
        for skip in case.iter("skipped"):
            reason = f"{skip.get('message', '')} {skip.text or ''}"  # the text has that of a whole module
            excuse = next((excused for pattern, excused in EXCUSES.items() if re.search(pattern, reason)), False)
            if not excuse:
                unexpected.append(f"{case.get('classname')}.{case.get('name')}: {reason}")
    print("\n".join(["unexpected skips:", *unexpected]) if unexpected else "no unexpected skips")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
