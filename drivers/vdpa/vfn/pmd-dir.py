#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause

"""Print the directory from which the DPDK in LIBDIR loads drivers at start.

It is compiled into EAL, and no pkg-config variable tells it.
"""

import os
import re
import sys

libdir = sys.argv[1]
with open(os.path.join(libdir, "librte_eal.so"), "rb") as eal:
    found = re.findall(rb"/[\x21-\x7e]*dpdk/pmds-[0-9.]+(?=\0)", eal.read())
if not found:
    sys.exit(f"librte_eal.so in {libdir} names no driver directory")
print(found[0].decode())
