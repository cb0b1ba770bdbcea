# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose cards are behind an IOMMU, which it programs anew for every buffer."""

from . import KERNEL_ARGUMENTS, Guest
from .image import image
from .vfio_user import FunctionGuest

# what makes a virtio card use the IOMMU, and the front-end tell the back-end of it
BEHIND = {"iommu_platform": "on", "ats": "on"}
STRICT = "intel_iommu=on,sm_off iommu.strict=1 iommu.passthrough=0"


class _Behind:
    """`mode`: of its kernel."""
    iommu = "intel-iommu,intremap=on,device-iotlb=on"
    machine = "q35,kernel-irqchip=split"

    def __init__(self, nics, mode=STRICT, **more):
        super().__init__(nics, **more)
        self.mode = mode

    def _argv(self):
        argv = super()._argv()
        # before what is behind it
        at = argv.index("-device")
        return [*argv[:at], "-device", self.iommu, *argv[at:]]

    def _system(self):
        kernel, archive = image()
        return ["-kernel", str(kernel), "-initrd", str(archive),
                "-append", f"{KERNEL_ARGUMENTS} {self.mode}"]


class IommuGuest(_Behind, Guest):
    """As any guest; cards have the properties BEHIND beside their own."""

    def _card(self, number, nic):
        argv = super()._card(number, nic)
        argv[-1] += "".join(f",{key}={value}" for key, value in BEHIND.items())
        return argv


class IommuFunctionGuest(_Behind, FunctionGuest):
    """Its cards are functions on vfio-user sockets, told of each map and unmap of the guest's."""
    iommu = "intel-iommu,intremap=on,caching-mode=on"


__all__ = ["IommuGuest", "IommuFunctionGuest", "BEHIND", "STRICT"]
