/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The parts of a device over its guests: kept when one stops, saved to and loaded from files, and
 * given to the next one. With the device's lock held on librte_vhost's message thread, and on any
 * thread that saves or restores.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_common.h>
#include <rte_string_fns.h>
#include <rte_telemetry.h>
#include <rte_vhost.h>

#include <vfn_parts.h>

#include "rte_vdpa_vfn.h"
#include "vfn_drv.h"
#include "vfn_telemetry.h"

static void
saved_free(struct vfn_saved *kept)
{
	free(kept->data);
	*kept = (struct vfn_saved){0};
}

void
vfn_saved_free(struct vfn_dev *dev)
{
	saved_free(&dev->last);
	saved_free(&dev->pending);
	saved_free(&dev->began);
	saved_free(&dev->answered);
	vfn_ctrl_forget(dev);
}

/* Is it what it says? A function may say anything, and a file hold it. */
static int
check_whole(const struct vfn_saved *kept)
{
	struct vfn_parts_header header;

	if (kept->len < sizeof(header))
		return -EINVAL;
	memcpy(&header, kept->data, sizeof(header));
	return header.magic == VFN_PARTS_MAGIC && header.version == VFN_PARTS_VERSION &&
			header.length == kept->len - sizeof(header) &&
			header.checksum ==
				vfn_parts_checksum(kept->data + sizeof(header), header.length) ?
		0 :
		-EINVAL;
}

/* A queue in parts; false if they are not of one that was enabled. */
bool
vfn_saved_queue(const struct vfn_saved *kept, uint16_t queue, struct vfn_part_vq_cfg *cfg,
	struct vfn_part_vq_position *position)
{
	const uint8_t *at = kept->data + sizeof(struct vfn_parts_header), *value;
	size_t left = kept->len - sizeof(struct vfn_parts_header);
	struct vfn_part part;

	*cfg = (struct vfn_part_vq_cfg){0};
	*position = (struct vfn_part_vq_position){0};
	while ((value = vfn_parts_next(&at, &left, &part)) != NULL) {
		if (part.type == VFN_PART_VQ_CFG && part.selector.queue == queue &&
			part.length == sizeof(*cfg))
			memcpy(cfg, value, sizeof(*cfg));
		if (part.type == VFN_PART_VQ_POSITION && part.selector.queue == queue &&
			part.length == sizeof(*position))
			memcpy(position, value, sizeof(*position));
	}
	return cfg->enabled;
}

/* The ring of a queue in parts becomes this one. */
void
vfn_saved_put_ring(struct vfn_saved *kept, uint16_t queue, const struct vfn_vpci_ring *ring)
{
	struct vfn_parts_header header;
	const uint8_t *at = kept->data + sizeof(header), *value;
	size_t left = kept->len - sizeof(header);
	struct vfn_part_vq_position position = {
		.avail = ring->avail, .used = ring->used, .dirty = ring->dirty};
	struct vfn_part_vq_cfg cfg;
	struct vfn_part part;

	while ((value = vfn_parts_next(&at, &left, &part)) != NULL) {
		uint8_t *field = kept->data + (value - kept->data);

		if (part.selector.queue != queue)
			continue;
		if (part.type == VFN_PART_VQ_CFG && part.length == sizeof(cfg)) {
			memcpy(&cfg, value, sizeof(cfg));
			cfg.enabled = 1;
			cfg.size = ring->size;
			cfg.desc = ring->desc;
			cfg.driver = ring->driver;
			cfg.device = ring->device;
			memcpy(field, &cfg, sizeof(cfg));
		} else if (part.type == VFN_PART_VQ_POSITION && part.length == sizeof(position)) {
			memcpy(field, &position, sizeof(position));
		}
	}
	memcpy(&header, kept->data, sizeof(header));
	header.checksum = vfn_parts_checksum(kept->data + sizeof(header), header.length);
	memcpy(kept->data, &header, sizeof(header));
}

/* As the parts have it with which the guest began. */
static bool
began_with(const struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct vfn_part_vq_position position;
	struct vfn_part_vq_cfg cfg;

	if (dev->began.data == NULL || !vfn_saved_queue(&dev->began, queue, &cfg, &position))
		return false;
	*ring = (struct vfn_vpci_ring){.size = cfg.size,
		.desc = cfg.desc,
		.driver = cfg.driver,
		.device = cfg.device,
		.avail = position.avail,
		.used = position.used,
		.dirty = position.dirty};
	return true;
}

/* The function knows the shadow rings; the parts are to have the guest's. */
static void
put_guest_rings(struct vfn_dev *dev, struct vfn_saved *kept)
{
	const struct vfn_vpci_ring *shadowed;
	struct vfn_vpci_ring ring;
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues; q++) {
		shadowed = vfn_shadow_guest_ring(dev, q);
		if (shadowed != NULL)
			vfn_saved_put_ring(kept, q, shadowed);
		else if (dev->restored[q] && began_with(dev, q, &ring))
			vfn_saved_put_ring(kept, q, &ring);
	}
}

/* Those of the function now; no relay but the caller's is at work. 0 or a negative errno. */
int
vfn_saved_get(struct vfn_dev *dev, struct vfn_saved *kept)
{
	struct vfn_saved new = {.data = malloc(dev->pci.parts.length)};
	int ret;

	if (new.data == NULL)
		return -ENOMEM;
	ret = vfn_vpci_parts_get(&dev->pci, new.data);
	if (ret >= 0) {
		new.len = ret;
		ret = check_whole(&new);
	}
	if (ret < 0) {
		saved_free(&new);
		return ret;
	}
	put_guest_rings(dev, &new);
	saved_free(kept);
	*kept = new;
	return 0;
}

/* The function is about to be reset; exact: the guest's queues stand still. */
void
vfn_saved_keep(struct vfn_dev *dev, bool exact)
{
	int ret = exact ? vfn_saved_get(dev, &dev->last) : -ETIMEDOUT;
	uint16_t q;

	if (ret < 0) {
		saved_free(&dev->last);
		DEV_LOG(ERR, dev, "the guest's parts are lost: %s", strerror(-ret));
		return;
	}
	saved_free(&dev->answered);
	vfn_ctrl_keep(dev, &dev->last);
	/* A guest that has not come to all of its queues yet begins anew. */
	for (q = 0; q < dev->pci.nb_queues && !dev->restored[q]; q++)
		;
	if (q < dev->pci.nb_queues) {
		dev->pending = dev->last;
		dev->last = (struct vfn_saved){0};
	}
}

/* A queue that parts have set up: in the function, which by windows does not know the ring. */
static bool
restored_ring(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct vfn_vpci_queue info;

	if (vfn_shadow_by_windows(dev))
		return began_with(dev, queue, ring);
	vfn_vpci_queue_info(&dev->pci, queue, &info);
	*ring = info.ring;
	return info.enabled;
}

/*
 * Give the function the parts that wait for a guest. Features are negotiated and memory is
 * mapped; without such parts, or if they do not fit, the guest starts as any other.
 */
void
vfn_saved_apply(struct vfn_dev *dev, uint64_t features)
{
	const bool restored = dev->pending.data != NULL;
	struct vfn_saved parts;
	struct vfn_vpci_ring ring;
	uint64_t saved = 0;
	uint16_t q;
	int ret = vfn_ctrl_parts(dev, &dev->pending, &parts);

	memset(dev->restored, 0, sizeof(dev->restored));
	saved_free(&dev->began);
	if (ret == 0 && parts.data == NULL)
		return;
	if (ret == 0)
		vfn_parts_find(parts.data, parts.len, VFN_PART_DRV_FEATURES, &saved, sizeof(saved));
	if (ret < 0) {
		DEV_LOG(ERR, dev, "the restored parts are dropped: %s", strerror(-ret));
	} else if (saved != features) {
		DEV_LOG(ERR, dev,
			"the restored parts are dropped: they are of a guest with features "
			"0x%" PRIx64 ", this one has 0x%" PRIx64,
			saved, features);
	} else if ((ret = vfn_vpci_parts_set(&dev->pci, parts.data, parts.len, false)) < 0) {
		DEV_LOG(ERR, dev, "the restored parts are dropped: %s", strerror(-ret));
	} else {
		if (vfn_shadow_by_windows(dev)) {
			dev->began = dev->pending;
			dev->pending = (struct vfn_saved){0};
		}
		for (q = 0; q < dev->pci.nb_queues; q++)
			dev->restored[q] = restored_ring(dev, q, &ring);
		DEV_LOG(INFO, dev, "goes on with %s",
			restored ? "the restored parts" : "what came by its control queue");
	}
	if (ret < 0 || saved != features)
		saved_free(&dev->answered);
	saved_free(&parts);
	saved_free(&dev->pending);
}

/*
 * Have a ring go on where the restored parts say, if it is the ring of those.
 *
 * A split ring tells itself where it stands, and librte_vhost has looked: QEMU uses up what a guest
 * sends while nobody is connected. Of a packed ring nobody knows but the parts: QEMU says where it
 * once began; DPDK's virtio-user says the same and sets a new ring up in the same place.
 */
void
vfn_saved_take_position(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct vfn_vpci_ring saved;
	bool same, moved, packed;
	uint64_t features;

	if (!dev->restored[queue])
		return;
	dev->restored[queue] = false;
	if (!restored_ring(dev, queue, &saved))
		return;
	packed = vfn_guest_features(dev->guest, &features) == 0 &&
		(features & UINT64_C(1) << VIRTIO_F_RING_PACKED);
	same = saved.desc == ring->desc && saved.driver == ring->driver &&
		saved.device == ring->device && saved.size == ring->size &&
		saved.dirty == ring->dirty;
	moved = saved.avail != ring->avail || saved.used != ring->used;
	if (same && moved && !packed) {
		DEV_LOG(INFO, dev, "queue %u stands at 0x%x, the restored parts say 0x%x", queue,
			ring->used, saved.used);
		return;
	}
	if (same && moved && ring->used == VFN_PACKED_START)
		same = !vfn_ring_fresh(dev, ring);
	if (!same) {
		DEV_LOG(WARNING, dev,
			"queue %u is not the one of the restored parts, which stood at 0x%x; it "
			"starts at 0x%x as its front-end says",
			queue, saved.used, ring->used);
		return;
	}
	ring->avail = saved.avail;
	ring->used = saved.used;
}

/* ---- files ---- */

static int
write_all(int fd, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0)
			return -errno;
		data += n;
		len -= n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/*
 * Replaces the file at once or not at all. What is there and is no file of this kind stays: a
 * device, a FIFO, a link that somebody else may have put there.
 */
static int
file_write(const char *path, const struct vfn_saved *kept)
{
	char *temporary;
	struct stat st;
	int fd, ret;

	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST;
	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
	if (fd < 0) {
		ret = -errno;
		free(temporary);
		return ret;
	}
	ret = write_all(fd, kept->data, kept->len);
	close(fd);
	if (ret == 0 && rename(temporary, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(temporary);
	free(temporary);
	return ret;
}

/* At most `max` bytes, of a regular file. */
static int
file_read(const char *path, size_t max, struct vfn_saved *kept)
{
	struct stat st;
	ssize_t n = -1;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = -EINVAL;
	else if ((uint64_t)st.st_size > max)
		ret = -EFBIG;
	else if ((kept->data = malloc(st.st_size + 1)) == NULL)
		ret = -ENOMEM;
	else
		ret = (n = read(fd, kept->data, st.st_size)) < 0 ? -errno : 0;
	close(fd);
	if (ret < 0)
		saved_free(kept);
	else
		kept->len = n;
	return ret;
}

int
rte_vdpa_vfn_snapshot(const char *name, const char *path)
{
	struct vfn_dev *dev = vfn_dev_lock_by_name(name);
	const struct vfn_saved *from;
	struct vfn_saved kept = {0};
	int ret = 0;

	if (dev == NULL)
		return -ENODEV;
	from = dev->pending.data != NULL ? &dev->pending : &dev->last;
	if (dev->guest == NULL && from->data != NULL) {
		kept.data = malloc(from->len);
		if (kept.data == NULL) {
			ret = -ENOMEM;
		} else {
			memcpy(kept.data, from->data, from->len);
			kept.len = from->len;
		}
	} else if (vfn_shadow_any_live(dev) && !vfn_shadow_by_windows(dev)) {
		DEV_LOG(ERR, dev, "parts cannot be taken while shadow rings are in use");
		ret = -EBUSY;
	} else {
		vfn_shadow_pause(dev);
		ret = vfn_saved_get(dev, &kept);
		vfn_shadow_resume(dev);
		vfn_life_check(dev);
	}
	vfn_dev_release(dev);
	if (ret == 0)
		ret = file_write(path, &kept);
	if (ret < 0)
		DRV_LOG(ERR, "%s: cannot save the parts to %s: %s", name, path, strerror(-ret));
	else
		DRV_LOG(INFO, "%s: parts saved to %s, %u bytes", name, path, kept.len);
	free(kept.data);
	return ret < 0 ? ret : (int)kept.len;
}

/* On success the device has the parts. */
static int
restore(struct vfn_dev *dev, struct vfn_saved *kept)
{
	uint8_t status = 0;
	int ret;

	if (dev->guest != NULL)
		return -EBUSY;
	/* An endpoint that is not there yet cannot be asked whether it takes it. */
	ret = vfn_remote_gone(dev) ? check_whole(kept) :
				     vfn_vpci_parts_set(&dev->pci, kept->data, kept->len, true);
	if (ret < 0)
		return ret;
	saved_free(&dev->pending);
	vfn_parts_find(kept->data, kept->len, VFN_PART_STATUS, &status, sizeof(status));
	if (!(status & VIRTIO_CONFIG_S_DRIVER_OK)) {
		DEV_LOG(INFO, dev, "the restored parts are of a device without a guest");
		saved_free(kept);
		return 0;
	}
	dev->pending = *kept;
	vfn_ctrl_take(dev, kept);
	DEV_LOG(INFO, dev, "parts restored, %u bytes; they wait for a guest", kept->len);
	return 0;
}

/* The parts as the last guest left them. */
static int
restore_last(const char *name)
{
	struct vfn_dev *dev = vfn_dev_lock_by_name(name);
	int ret = 0;

	if (dev == NULL)
		return -ENODEV;
	vfn_remote_reclaim(dev);
	if (dev->pending.data == NULL && dev->last.data != NULL) {
		ret = restore(dev, &dev->last);
		if (ret == 0)
			dev->last = (struct vfn_saved){0};
	}
	vfn_dev_release(dev);
	return ret;
}

int
rte_vdpa_vfn_release(const char *name)
{
	struct vfn_dev *dev = vfn_dev_lock_by_name(name);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	ret = vfn_remote_release(dev);
	if (ret == 0 && dev->class->leave != NULL && dev->guest != NULL)
		ret = -EBUSY;
	else if (ret == 0 && dev->class->leave != NULL)
		dev->class->leave(dev);
	vfn_dev_release(dev);
	return ret;
}

int
rte_vdpa_vfn_restore(const char *name, const char *path)
{
	struct vfn_saved kept = {0};
	struct vfn_dev *dev;
	int ret = 0;

	if (path == NULL)
		return restore_last(name);
	ret = file_read(path, VFN_PARTS_SIZE, &kept);
	if (ret == 0) {
		dev = vfn_dev_lock_by_name(name);
		ret = dev != NULL ? restore(dev, &kept) : -ENODEV;
		if (dev != NULL)
			vfn_dev_release(dev);
		if (ret < 0)
			saved_free(&kept);
	}
	if (ret < 0)
		DRV_LOG(ERR, "%s: cannot restore the parts from %s: %s", name, path,
			ret == -EBUSY ? "a guest uses the device" : strerror(-ret));
	return ret;
}

/* ---- telemetry: "NAME,FILE" ---- */

static int
tell(const char *params, struct rte_tel_data *d, int (*what)(const char *, const char *))
{
	char name[VFN_NAME_SIZE];
	const char *path;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &path);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	rte_strscpy(name, dev->name, sizeof(name));
	vfn_dev_release(dev);
	/* Relative ones would be files in whatever directory the server was started in. */
	if (*path != '/')
		return vfn_telemetry_refuse(
			NULL, -EINVAL, "the absolute path of a file is missing");
	ret = what(name, path);
	if (ret < 0)
		return vfn_telemetry_refuse(NULL, ret, "%s, %s: %s", name, path,
			ret == -EBUSY ? "a guest uses the device" : strerror(-ret));
	rte_tel_data_start_dict(d);
	vfn_tell_string(d, "name", name);
	vfn_tell_string(d, "file", path);
	return 0;
}

static int
tell_snapshot(const char *cmd, const char *params, struct rte_tel_data *d)
{
	RTE_SET_USED(cmd);
	return tell(params, d, rte_vdpa_vfn_snapshot);
}

static int
tell_restore(const char *cmd, const char *params, struct rte_tel_data *d)
{
	RTE_SET_USED(cmd);
	return tell(params, d, rte_vdpa_vfn_restore);
}

void
vfn_saved_register(void)
{
	vfn_telemetry_command("/vfn/snapshot", tell_snapshot,
		"Save the parts of a device. Parameters: device name, file");
	vfn_telemetry_command("/vfn/restore", tell_restore,
		"Load the parts for the next guest of a device. Parameters: device name, file");
}
