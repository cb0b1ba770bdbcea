#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What dpdk-pmdinfo.py tells about the built driver, against the driver's tables of arguments.

usage: test_pmdinfo.py DPDK-PMDINFO LIBRTE_VDPA_VFN.SO VFN_ARGS.C ARGS.C
"""

import json
import re
import subprocess
import sys


def shown(pmdinfo, library):
    """The driver's entry in the output of dpdk-pmdinfo.py."""
    run = subprocess.run([sys.executable, pmdinfo, library], check=True, capture_output=True,
                         text=True)
    entries = json.loads(run.stdout)
    assert len(entries) == 1, f"one driver, not {entries}"
    return entries[0]


def accepted(source):
    """The keys of the table of arguments in a file, in their order."""
    with open(source, encoding="utf-8") as file:
        table = re.search(r"args_known\[\] = \{\n(.*?)\n\};", file.read(), re.DOTALL)
    assert table, f"no args_known[] in {source}"
    return re.findall(r'^\t\{"([^"]+)"', table[1], re.MULTILINE)


def main():
    pmdinfo, library, *sources = sys.argv[1:]
    driver = shown(pmdinfo, library)
    params = driver.get("params", "")
    keys = [word.split("=")[0] for word in params.split()]
    known = [key for source in sources for key in accepted(source)]
    checks = [
        ("driver is named vdpa_vfn", driver["name"] == "vdpa_vfn", driver),
        ("driver matches no PCI device", not driver.get("pci_ids"), driver),
        ("table of arguments is found", len(known) >= 7, known),
        ("every argument accepted is shown", set(known) <= set(keys), set(known) - set(keys)),
        ("every argument shown is accepted", set(keys) <= set(known), set(keys) - set(known)),
        ("no argument is shown twice", len(keys) == len(set(keys)), keys),
        ("every argument has a placeholder for its value",
         all(re.fullmatch(r"[a-z-]+=<.+>", word) for word in params.split()), params),
    ]
    print(f"1..{len(checks)}")
    for number, (name, good, detail) in enumerate(checks, 1):
        print(f"{'ok' if good else 'not ok'} {number} - pmdinfo: {name}")
        if not good:
            print(f"# {detail}")
    return not all(good for _, good, _ in checks)


if __name__ == "__main__":
    sys.exit(main())
