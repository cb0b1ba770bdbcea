# SPDX-License-Identifier: BSD-3-Clause
"""A guest that bounces the buffers of its cards: they see its swiotlb and where its rings are."""

import re

from . import KERNEL_ARGUMENTS, Guest
from .image import image


class SwiotlbGuest(Guest):
    def __init__(self, nics, **more):
        # could it have memory above 4 GiB, its kernel says where the pool is
        super().__init__(nics, slots=1, **more)

    def _system(self):
        kernel, archive = image()
        return ["-kernel", str(kernel), "-initrd", str(archive),
                "-append", f"{KERNEL_ARGUMENTS} swiotlb=force"]

    def _card(self, number, nic):
        argv = super()._card(number, nic)
        argv[-1] += ",iommu_platform=on"
        return argv

    def bounces(self):
        """Where its swiotlb is: the first address, and how many bytes."""
        found = re.search(r"software IO TLB: mapped \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\]",
                          self.run("dmesg").out)
        first, end = int(found[1], 16), int(found[2], 16)
        return first, end - first


__all__ = ["SwiotlbGuest"]
