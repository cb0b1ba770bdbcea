/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A device that the kernel's driver has instead of a front-end (vduse=NAME): what its life cycle,
 * in-flight regions and parts have to do with the adaptor to VDUSE (drivers/vduse). To them that
 * driver is a guest like any other. On the adaptor's thread, with the device's lock held, and on
 * those of the application.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>
#include <rte_eal.h>
#include <rte_telemetry.h>

#include <vfn_vduse.h>

#include "rte_vdpa_vfn.h"
#include "vfn_drv.h"
#include "vfn_telemetry.h"
#include "vfn_trace.h"

struct vfn_kernel {
	char name[256];
	uint32_t timeout;
	bool packed;
	struct vfn_vduse *vduse; /* NULL: not made yet, or made away with */
	struct vfn_guest guest;	 /* in the list while its driver has the device */
	bool listed;
	uint64_t features;
};

static void
lock(void *data)
{
	vfn_dev_lock(data);
}

static void
unlock(void *data)
{
	vfn_dev_unlock(data);
}

static int
begin(void *data, uint64_t features)
{
	struct vfn_dev *dev = data;
	struct vfn_kernel *kernel = dev->kernel;
	int ret;

	if (dev->guest != NULL && dev->guest != &kernel->guest) {
		DEV_LOG(ERR, dev, "a front-end has the device");
		return -EBUSY;
	}
	ret = dev->class->begin != NULL ? dev->class->begin(dev) : 0;
	if (ret == -EBUSY)
		DEV_LOG(ERR, dev, "what it works on is in use");
	if (ret == 0)
		ret = vfn_life_move(dev, VFN_CONFIGURED);
	if (ret < 0)
		return ret;
	kernel->features = features;
	if (!kernel->listed) {
		kernel->guest = (struct vfn_guest){.vid = -1};
		TAILQ_INSERT_TAIL(&dev->guests, &kernel->guest, next);
		kernel->listed = true;
	}
	dev->guest = &kernel->guest;
	return 0;
}

static void
mapped(void *data)
{
	struct vfn_dev *dev = data;

	vfn_saved_apply(dev, dev->kernel->features);
}

/* Do restored parts tell of this ring? */
static bool
take_restored(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring,
	const struct vfn_vduse_area *area)
{
	struct vfn_vpci_queue saved;

	if (!dev->restored[queue])
		return false;
	dev->restored[queue] = false;
	vfn_vpci_queue_info(&dev->pci, queue, &saved);
	if (area->how == VFN_VDUSE_NEW || saved.ring.desc != ring->desc ||
		saved.ring.driver != ring->driver || saved.ring.device != ring->device ||
		saved.ring.size != ring->size) {
		DEV_LOG(WARNING, dev,
			"queue %u is not the one of the restored parts, which stood at 0x%x", queue,
			saved.ring.used);
		return false;
	}
	/* A split ring has told that itself. */
	if (area->packed) {
		ring->avail = saved.ring.avail;
		ring->used = saved.ring.used;
	}
	return true;
}

static int
get_ring(void *data, uint16_t queue, struct vfn_vpci_ring *ring, const struct vfn_vduse_area *area)
{
	struct vfn_dev *dev = data;
	struct vfn_mem_region region = {.gpa = area->iova,
		.size = area->map->len,
		.map = area->map,
		.dev = area->dev,
		.ino = area->ino};
	uint16_t avail, used;
	uint64_t *word;
	bool known;
	int ret;

	known = take_restored(dev, queue, ring, area) || area->how == VFN_VDUSE_NEW ||
		!area->packed;
	avail = ring->avail;
	used = ring->used;
	dev->memory = (struct vfn_memory){.nb_regions = 1, .region = &region};
	ret = vfn_inflight_attach(dev, queue, ring, area->packed);
	dev->memory = (struct vfn_memory){0};
	if (ret < 0)
		return ret;
	word = vfn_inflight_host(dev, queue);
	if (area->how == VFN_VDUSE_NEW) {
		/* Whatever the region tells is of a ring that was in the same place. */
		if (word != NULL)
			__atomic_store_n(word, 0, __ATOMIC_RELEASE);
		ring->avail = avail;
		ring->used = used;
	} else if (!known && (word == NULL || __atomic_load_n(word, __ATOMIC_RELAXED) == 0)) {
		DEV_LOG(ERR, dev,
			"queue %u: where a packed ring stands would be in the file of inflight=DIR",
			queue);
		return -ENOENT;
	}
	return 0;
}

static bool
refused(void *data, uint16_t queue, struct vfn_vpci_ring *ring, const struct vfn_vduse_area *area)
{
	return !area->packed && vfn_inflight_renew(data, queue, ring, ring->avail);
}

static void
running(void *data)
{
	struct vfn_dev *dev = data;
	struct vfn_vpci_queue info;
	uint16_t q;

	for (q = 0; q < VFN_VDUSE_QUEUES; q++) {
		vfn_vpci_queue_info(&dev->pci, q, &info);
		dev->started[q] = info.enabled;
		if (info.enabled)
			vfn_trace_queue(dev->name, q, true, info.ring.avail, info.ring.used);
	}
	vfn_life_move(dev, VFN_RUNNING);
}

static void
stopped(void *data, uint16_t queue, const struct vfn_vpci_ring *ring)
{
	struct vfn_dev *dev = data;

	dev->started[queue] = false;
	dev->kernel->guest.stopped[queue] = true;
	dev->kernel->guest.stopped_at[queue] = ring->avail;
	vfn_trace_queue(dev->name, queue, false, ring->avail, ring->used);
}

static void
end(void *data, bool exact)
{
	struct vfn_dev *dev = data;
	bool runs = dev->state == VFN_RUNNING;

	vfn_life_move(dev, exact && runs ? VFN_SUSPENDED : VFN_FAILED);
	if (runs)
		vfn_saved_keep(dev, exact);
}

static void
released(void *data)
{
	struct vfn_dev *dev = data;
	struct vfn_kernel *kernel = dev->kernel;

	if (!kernel->listed)
		return;
	vfn_inflight_release(dev);
	TAILQ_REMOVE(&dev->guests, &kernel->guest, next);
	kernel->listed = false;
	dev->guest = NULL;
	vfn_life_move(dev, VFN_IDLE);
}

static const struct vfn_vduse_owner owner = {
	.lock = lock,
	.unlock = unlock,
	.begin = begin,
	.mapped = mapped,
	.ring = get_ring,
	.refused = refused,
	.running = running,
	.stopped = stopped,
	.end = end,
	.released = released,
};

/*
 * The directory of a device's in-flight file, or "". The kernel's driver stays when we end without
 * notice, and would not get over it: without a word of the operator's the file is in the run-time
 * directory, which the next process with this file prefix has, too.
 */
const char *
vfn_kernel_inflight(const struct vfn_args *args)
{
	const char *dir = rte_eal_get_runtime_dir();

	return args->inflight[0] != '\0' || args->vduse[0] == '\0' || dir == NULL ||
			access(dir, W_OK) != 0 ?
		args->inflight :
		dir;
}

int
vfn_kernel_init(struct vfn_dev *dev, const struct vfn_args *args)
{
	if (args->vduse[0] == '\0')
		return 0;
	dev->kernel = calloc(1, sizeof(*dev->kernel));
	if (dev->kernel == NULL)
		return -ENOMEM;
	strcpy(dev->kernel->name, args->vduse);
	dev->kernel->timeout = args->vduse_timeout;
	dev->kernel->packed = args->vduse_packed;
	return 0;
}

/* False: that is somebody else's business. */
bool
vfn_kernel_config_changed(struct vfn_dev *dev)
{
	if (dev->kernel == NULL)
		return false;
	if (dev->kernel->vduse != NULL)
		vfn_vduse_config_changed(dev->kernel->vduse);
	return true;
}

/* Nobody else knows the device. The kernel's stays: who takes it away is the application. */
void
vfn_kernel_free(struct vfn_dev *dev)
{
	if (dev->kernel != NULL && dev->kernel->vduse != NULL) {
		vfn_vduse_stop(dev->kernel->vduse);
		vfn_vduse_close(dev->kernel->vduse, false);
	}
	free(dev->kernel);
	dev->kernel = NULL;
}

/* ---- the application ---- */

/* With a reference, and not locked. */
static struct vfn_dev *
find(const char *name)
{
	struct rte_vdpa_device *vdpa = rte_vdpa_find_device_by_name(name);
	struct vfn_dev *dev = vdpa != NULL ? vfn_dev_get_by_vdpa(vdpa) : NULL;

	if (dev != NULL && dev->kernel == NULL) {
		vfn_dev_put(dev);
		dev = NULL;
	}
	return dev;
}

int
rte_vdpa_vfn_kernel_create(const char *name)
{
	struct vfn_dev *dev = find(name);
	struct vfn_vduse_params params = {
		.owner = &owner,
		.data = dev,
	};
	struct vfn_vduse *vduse;
	int ret = 0;

	if (dev == NULL)
		return -ENODEV;
	vfn_dev_lock(dev);
	if (dev->kernel->vduse == NULL) {
		params.device_id = dev->class->virtio_id;
		params.config_size = dev->class->config_size;
		params.hidden = dev->class->hidden;
		params.name = dev->kernel->name;
		params.pci = &dev->pci;
		params.msg_timeout = dev->kernel->timeout;
		if (!dev->kernel->packed)
			params.hidden |= UINT64_C(1) << VIRTIO_F_RING_PACKED;
		ret = vfn_vduse_create(&params, &vduse);
		if (ret == 0)
			dev->kernel->vduse = vduse;
	}
	vfn_dev_release(dev);
	return ret;
}

/* Calls of the adaptor that take the device's lock themselves. */
static int
call(const char *name, int (*what)(struct vfn_dev *dev, unsigned int number), unsigned int number)
{
	struct vfn_dev *dev = find(name);
	int ret = 0;

	if (dev == NULL)
		return -ENODEV;
	/* There may have been none to begin with. */
	if (dev->kernel->vduse != NULL)
		ret = what(dev, number);
	vfn_dev_put(dev);
	return ret;
}

static int
do_open(struct vfn_dev *dev, unsigned int wait_ms)
{
	return vfn_vduse_open(dev->kernel->vduse, wait_ms);
}

static int
do_start(struct vfn_dev *dev, unsigned int number)
{
	RTE_SET_USED(number);
	return vfn_vduse_start(dev->kernel->vduse);
}

static int
do_stop(struct vfn_dev *dev, unsigned int number)
{
	RTE_SET_USED(number);
	vfn_vduse_stop(dev->kernel->vduse);
	return 0;
}

static int
do_end(struct vfn_dev *dev, unsigned int keep)
{
	struct vfn_vduse *vduse = dev->kernel->vduse;

	vfn_vduse_stop(vduse);
	vfn_dev_lock(dev);
	dev->kernel->vduse = NULL;
	vfn_dev_unlock(dev);
	vfn_vduse_close(vduse, !keep);
	return 0;
}

int
rte_vdpa_vfn_kernel_open(const char *name, unsigned int wait_ms)
{
	return call(name, do_open, wait_ms);
}

int
rte_vdpa_vfn_kernel_start(const char *name)
{
	return call(name, do_start, 0);
}

int
rte_vdpa_vfn_kernel_stop(const char *name)
{
	return call(name, do_stop, 0);
}

int
rte_vdpa_vfn_kernel_end(const char *name, int keep)
{
	return call(name, do_end, keep);
}

/* ---- telemetry ---- */

static int
tell_vduse(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &rest);
	struct vfn_vduse_info info = {.phase = "not served"};
	int ret;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return -ENODEV;
	if (dev->kernel == NULL) {
		ret = vfn_telemetry_refuse(dev, -ENODEV, "it has no argument vduse");
		vfn_dev_release(dev);
		return ret;
	}
	if (dev->kernel->vduse != NULL)
		vfn_vduse_info(dev->kernel->vduse, &info);
	rte_tel_data_start_dict(d);
	vfn_tell_string(d, "name", dev->kernel->name);
	vfn_tell_string(d, "phase", info.phase);
	vfn_tell_hex(d, "status", info.status);
	vfn_tell_hex(d, "features", info.features);
	vfn_tell_uint(d, "regions", info.regions);
	vfn_tell_uint(d, "bytes", info.bytes);
	vfn_tell_uint(d, "messages", info.messages);
	vfn_tell_uint(d, "refused", info.refused);
	vfn_tell_uint(d, "interrupts", info.interrupts);
	vfn_tell_uint(d, "interrupts_refused", info.irqs_refused);
	vfn_dev_release(dev);
	return 0;
}

void
vfn_kernel_register(void)
{
	vfn_telemetry_command("/vfn/vduse", tell_vduse,
		"What the kernel's driver does with a device. Parameter: device name");
}
