# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose card DPDK has: this machine's testpmd, with net_virtio, over uio_pci_generic.

Debian's kernels for clouds have no VFIO without an IOMMU, so interrupts are by the pin and bus
addresses are physical ones. 20 MB more than the guest of image.py.
"""

import functools
from pathlib import Path

from .image import (MODULES, PROGRAMS, ImageError, cache_dir, image, initramfs, locked, store,
                    which, with_libraries)

PLUGINS = ("mempool_ring", "net_virtio")    # the others are linked to it
HUGEPAGES = 64


@functools.lru_cache(maxsize=None)
def dpdk_image():
    """(kernel, initramfs) as paths in the cache. Raises ImageError with the reason."""
    testpmd = which("dpdk-testpmd")
    plugins = [path for name in PLUGINS
               for path in Path("/usr/lib").glob(f"*/dpdk/pmds-*/librte_{name}.so.[0-9]*.[0-9]*")]
    if testpmd is None or len(plugins) != len(PLUGINS):
        raise ImageError("no DPDK here: it is in dpdk and librte-net-virtio*")
    files = with_libraries(testpmd, "bin/testpmd")
    for plugin in plugins:
        files.update(with_libraries(str(plugin), str(plugin).lstrip("/")))
    kernel, _ = image()
    cache = cache_dir()
    with locked(cache):
        archive = initramfs(kernel.parent.parent, (*MODULES, "uio_pci_generic"), PROGRAMS, files)
        return kernel, store(cache, archive)


def start_testpmd(guest, slot, arguments):
    """The Job of a testpmd that has the card in a slot instead of the kernel."""
    guest.run(f"""
        set -e
        chmod 755 /    # EAL loads nothing from below a directory that anybody may write to
        echo {HUGEPAGES} >/proc/sys/vm/nr_hugepages
        test $(cat /proc/sys/vm/nr_hugepages) = {HUGEPAGES}
        mkdir -p /dev/hugepages /var/run
        mount -t hugetlbfs huge /dev/hugepages
        cd /sys/bus/pci/devices/{slot}
        echo {slot} >driver/unbind
        echo uio_pci_generic >driver_override
        echo {slot} >/sys/bus/pci/drivers/uio_pci_generic/bind
    """)
    return guest.spawn(f"export LD_LIBRARY_PATH=$(echo /usr/lib/*/dpdk/pmds-*); "
                       f"exec testpmd --lcores 0@0,1@0 -a {slot} -- {arguments}")
