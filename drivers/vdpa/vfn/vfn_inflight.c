/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Crash recovery: where each queue's in-flight region is, and whether it tells of the ring that is
 * about to start. The function keeps it up to date. On librte_vhost's message thread, with the
 * device's lock held; the file is opened and closed where the device comes and goes, and locked
 * while a guest has it.
 *
 * A region is the front-end's if it hands one out. Else it is in a file of our own (inflight=DIR),
 * which also says of which ring it tells: the guest's memory by its inode, the ring's addresses,
 * size and format. What the region itself holds the function checks against the ring.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include <vfn_guard.h>
#include <vfn_parts.h>

#include "vfn_drv.h"

/* Bus addresses of the regions, in VFN_DMA_OWN, far from the dirty log. */
#define REGION_IOVA(queue) (UINT64_C(1) << 62 | (uint64_t)(queue) << 24)

/* Room for the region of any ring, and what a control queue has said, in whole pages. */
#define REGION_SIZE 0x112000
_Static_assert(sizeof(struct rte_vhost_inflight_info_packed) +
			32768 * sizeof(struct rte_vhost_inflight_desc_packed) + 64 +
			2 * sizeof(struct vfn_parts_said) <=
		REGION_SIZE,
	"a ring of the largest size");

/* The file: a header, and at FILE_REGIONS one region after the other. Host byte order. */
#define FILE_MAGIC   UINT64_C(0x6c66666e696e6676)
#define FILE_REGIONS 0x4000

/* Whose ring a region tells of. */
struct ring_id {
	uint64_t dev, ino; /* of the memory that the descriptors are in */
	uint64_t desc, driver, device;
	uint32_t size;
	uint32_t packed;
};

struct vfn_inflight_file {
	uint64_t magic;
	uint32_t version;
	uint32_t nb_queues;
	char boot[40]; /* an inode's number means nothing after another boot */
	struct {
		uint32_t valid; /* is set last, and cleared first */
		uint32_t padding;
		struct ring_id id;
	} queue[VFN_MAX_QUEUES];
};
_Static_assert(sizeof(struct vfn_inflight_file) <= FILE_REGIONS, "layout of the file");

static void
boot_id(char boot[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(boot, 0, 40);
	if (fd < 0)
		return;
	if (read(fd, boot, 36) < 0)
		boot[0] = '\0';
	close(fd);
}

/* As this device would have made it; what else the file holds is checked where it is used. */
static int
file_check(struct vfn_dev *dev, int fd, off_t have)
{
	off_t size = FILE_REGIONS + (off_t)REGION_SIZE * vfn_nb_rings(dev);
	struct vfn_inflight_file *file = dev->inflight.file,
				 new = {.magic = FILE_MAGIC,
					 .version = 1,
					 .nb_queues = vfn_nb_rings(dev)};
	int ret;

	boot_id(new.boot);
	/* What there is no room for is a bus error, whoever made the file. */
	if (have == size && posix_fallocate(fd, 0, FILE_REGIONS) == 0 &&
		memcmp(file, &new, offsetof(struct vfn_inflight_file, queue)) == 0)
		return 0;
	if (have != 0)
		DEV_LOG(NOTICE, dev, "the in-flight file is of another device or boot: begun anew");
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, size) < 0)
		return -errno;
	ret = posix_fallocate(fd, 0, FILE_REGIONS);
	if (ret != 0) {
		/* Nothing half-made for the next attempt to trust. */
		return ftruncate(fd, 0) < 0 ? -errno : -ret;
	}
	*file = new;
	return 0;
}

int
vfn_inflight_open(struct vfn_dev *dev, const char *dir)
{
	const char *what = "cannot be opened";
	char path[PATH_MAX];
	struct stat st;
	int fd, err;

	dev->inflight.fd = -1;
	if (*dir == '\0')
		return 0;
	if (strchr(dev->name, '/') != NULL ||
		snprintf(path, sizeof(path), "%s/%s.inflight", dir, dev->name) >=
			(int)sizeof(path)) {
		DEV_LOG(ERR, dev, "inflight=%s: no name for a file there", dir);
		return -EINVAL;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		goto fail;
	what = "is not a file of our own that nobody else may open";
	errno = EPERM;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
		st.st_nlink != 1 || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		goto fail;
	/* An endpoint maps nothing else: what a disk, or a process, takes its time for. */
	what = "is not in memory (tmpfs, hugetlbfs), as an endpoint wants it";
	errno = EINVAL;
	if (dev->remote != NULL && fcntl(fd, F_GET_SEALS) < 0)
		goto fail;
	dev->inflight.fd = fd;
	return 0;

fail:
	err = errno;
	DEV_LOG(ERR, dev, "inflight=%s: %s %s: %s", dir, path, what, strerror(err));
	if (fd >= 0)
		close(fd);
	return -err;
}

static void
file_leave(struct vfn_dev *dev)
{
	if (dev->inflight.file == NULL)
		return;
	vfn_guard_remove(dev->inflight.file, &dev->inflight.lost);
	munmap(dev->inflight.file, FILE_REGIONS);
	dev->inflight.file = NULL;
	flock(dev->inflight.fd, LOCK_UN);
}

/*
 * The file is ours while a guest has the device. So the next process may have a device of this name
 * before this one ends, and take the guest over.
 */
static int
file_take(struct vfn_dev *dev)
{
	int fd = dev->inflight.fd, ret;
	struct stat st;
	void *file;

	if (dev->inflight.file != NULL)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		ret = -errno;
		DEV_LOG(ERR, dev,
			"the in-flight file is in use by another process, which serves a device of "
			"this name");
		return ret;
	}
	file = mmap(NULL, FILE_REGIONS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	/* An endpoint gets the file for its regions, and could cut it off. */
	ret = file == MAP_FAILED ? -errno : vfn_guard_add(file, FILE_REGIONS, &dev->inflight.lost);
	if (ret < 0) {
		if (file != MAP_FAILED)
			munmap(file, FILE_REGIONS);
		flock(fd, LOCK_UN);
		return ret;
	}
	dev->inflight.file = file;
	ret = fstat(fd, &st) < 0 ? -errno : file_check(dev, fd, st.st_size);
	if (ret < 0)
		file_leave(dev);
	return ret;
}

/* The file stays: a successor of the same name is to find it. */
void
vfn_inflight_close(struct vfn_dev *dev)
{
	if (dev->inflight.fd < 0)
		return;
	file_leave(dev);
	close(dev->inflight.fd);
}

/* The function has let go of it. */
static void
region_unmap(struct vfn_inflight_region *region)
{
	vfn_map_put(region->map);
	*region = (struct vfn_inflight_region){0};
}

static int
region_detach(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_inflight_region *region = &dev->inflight.region[queue];
	int ret;

	if (region->map == NULL)
		return 0;
	ret = vfn_vpci_unmap(&dev->pci, VFN_DMA_OWN, REGION_IOVA(queue), region->len);
	if (ret == 0)
		region_unmap(region);
	return ret;
}

static uint64_t
region_size(bool packed, uint32_t entries)
{
	return packed ? sizeof(struct rte_vhost_inflight_info_packed) +
			entries * sizeof(struct rte_vhost_inflight_desc_packed) :
			sizeof(struct rte_vhost_inflight_info_split) +
			entries * sizeof(struct rte_vhost_inflight_desc_split);
}

/* Bytes from one ring's region to the next one's, as librte_vhost has it. */
static uint64_t
region_step(bool packed, uint32_t entries)
{
	return RTE_ALIGN_CEIL(region_size(packed, entries), UINT64_C(64));
}

/* Bytes of all the regions that a front-end speaks of; 0 if there can be none like that. */
static uint64_t
given_size(struct vfn_dev *dev, const struct vfn_guest *guest, uint16_t queues, uint16_t entries,
	bool *packed)
{
	uint64_t protocol = 0, features = 0;

	/* Of what size they are depends on the features. */
	if (!guest->features || vfn_guest_features(guest, &features) < 0 ||
		rte_vhost_get_negotiated_protocol_features(guest->vid, &protocol) < 0 ||
		!(protocol & UINT64_C(1) << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) || queues == 0 ||
		queues > vfn_nb_rings(dev) || entries == 0 || entries > 32768) {
		DEV_LOG(ERR, dev, "in-flight regions for %u rings of %u are refused", queues,
			entries);
		return 0;
	}
	*packed = features & UINT64_C(1) << VIRTIO_F_RING_PACKED;
	return queues * region_step(*packed, entries);
}

/*
 * GET_INFLIGHT_FD: a file for regions, all zeroes, which counts as new. Takes no memory before
 * it is written, and can't be cut off. The caller's; or a negative errno.
 */
int
vfn_inflight_create(struct vfn_dev *dev, const struct vfn_guest *guest, uint16_t queues,
	uint16_t entries, uint64_t *size)
{
	bool packed;
	int fd, err;

	*size = given_size(dev, guest, queues, entries, &packed);
	if (*size == 0)
		return -EINVAL;
	fd = memfd_create("vfn-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, *size) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

/*
 * SET_INFLIGHT_FD. Rings that start from now on have these; those that run keep what they have. How
 * large a region is was said in the message, and nothing in it is asked for that.
 */
int
vfn_inflight_set(struct vfn_dev *dev, struct vfn_guest *guest, int fd, uint64_t offset,
	uint64_t len, uint16_t queues, uint16_t entries)
{
	struct vfn_inflight_given given = {.queues = queues, .entries = entries};
	uint64_t size = given_size(dev, guest, queues, entries, &given.packed);

	if (size == 0)
		return -EINVAL;
	errno = EINVAL;
	if (offset % sysconf(_SC_PAGESIZE) == 0 && len >= size)
		given.map = vfn_map_fd(fd, offset, size);
	if (given.map == NULL) {
		DEV_LOG(ERR, dev, "in-flight regions of %" PRIu64 " bytes are refused: %s", len,
			len < size		 ? "they are shorter than their rings" :
				errno == ENODATA ? "their file is shorter" :
						   strerror(errno));
		return -EINVAL;
	}
	vfn_map_put(guest->inflight.map);
	guest->inflight = given;
	return 0;
}

/* The front-end's. -ENOENT if there is none, -EINVAL if it is for rings of the other format. */
static int
region_of_frontend(
	struct vfn_dev *dev, uint16_t queue, bool packed, struct vfn_inflight_region *region)
{
	const struct vfn_inflight_given *given = &dev->guest->inflight;

	if (given->map == NULL || queue >= given->queues)
		return -ENOENT;
	if (given->packed != packed)
		return -EINVAL;
	*region = (struct vfn_inflight_region){
		.map = vfn_map_get(given->map),
		.host = given->map->host + queue * region_step(packed, given->entries),
		.len = region_size(packed, given->entries),
	};
	return 0;
}

static int
region_of_file(struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, bool packed,
	struct vfn_inflight_region *region)
{
	off_t at = FILE_REGIONS + (off_t)queue * REGION_SIZE;

	region->len = region_size(packed, ring->size);
	if (vfn_ctrl_is(dev, queue))
		region->len = region_step(packed, ring->size) + 2 * sizeof(struct vfn_parts_said);
	/* A file that has no room is a bus error later. */
	errno = posix_fallocate(dev->inflight.fd, at, region->len);
	if (errno != 0)
		return -errno;
	region->map = vfn_map_fd(dev->inflight.fd, at, region->len);
	if (region->map == NULL)
		return -errno;
	region->host = region->map->host;
	return 0;
}

/* The first 8 bytes tell: 0 is a region that nobody has used, see vringh_set_inflight(). */
static uint64_t *
region_word(const struct vfn_inflight_region *region)
{
	return (uint64_t *)region->host;
}

static bool
region_used(const struct vfn_inflight_region *region)
{
	return __atomic_load_n(region_word(region), __ATOMIC_RELAXED) != 0;
}

static void
region_renew(const struct vfn_inflight_region *region)
{
	__atomic_store_n(region_word(region), 0, __ATOMIC_RELEASE);
}

/*
 * Of a packed ring whose function is in another process: in memory of ours, which outlives that.
 * Without it nobody would know where the ring stands.
 */
static int
region_of_ours(struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring,
	struct vfn_inflight_region *region)
{
	struct vfn_guest *guest = dev->guest;
	int fd, ret = 0;

	region->len = region_size(true, ring->size);
	if (guest->region[queue] != NULL && guest->region[queue]->len != region->len) {
		vfn_map_put(guest->region[queue]);
		guest->region[queue] = NULL;
	}
	if (guest->region[queue] == NULL) {
		fd = memfd_create("vfn-inflight", MFD_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (ftruncate(fd, region->len) < 0)
			ret = -errno;
		/* Without room it is refused here, and is no bus error later. */
		if (ret == 0)
			ret = -posix_fallocate(fd, 0, region->len);
		if (ret == 0 && (guest->region[queue] = vfn_map_fd(fd, 0, region->len)) == NULL)
			ret = -errno;
		close(fd);
		if (ret < 0)
			return ret;
	}
	region->map = vfn_map_get(guest->region[queue]);
	region->host = region->map->host;
	if (guest->left[queue] == VFN_RING_KEPT)
		region_renew(region);
	return 0;
}

static int
identify(struct vfn_dev *dev, const struct vfn_vpci_ring *ring, bool packed, struct ring_id *id)
{
	const struct vfn_mem_region *r = vfn_memory_find(dev, ring->desc, 1);

	if (r == NULL || r->ino == 0)
		return -ENOENT;
	*id = (struct ring_id){.dev = r->dev,
		.ino = r->ino,
		.desc = ring->desc,
		.driver = ring->driver,
		.device = ring->device,
		.size = ring->size,
		.packed = packed};
	return 0;
}

/* Our own region of a ring that it does not tell of becomes that ring's, and new. */
static int
file_claim(struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, bool packed,
	const struct vfn_inflight_region *region)
{
	uint32_t *valid = &dev->inflight.file->queue[queue].valid;
	struct ring_id *known = &dev->inflight.file->queue[queue].id, id;
	int ret = identify(dev, ring, packed, &id);

	if (ret < 0)
		return ret;
	if (*valid == 1 && memcmp(known, &id, sizeof(id)) == 0)
		return 0;
	/* We may end between any two of these. */
	__atomic_store_n(valid, 0, __ATOMIC_SEQ_CST);
	region_renew(region);
	*known = id;
	__atomic_store_n(valid, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/*
 * Give the function a region for a ring that is about to start. A front-end's region that cannot be
 * used is an error; without one of our own the queue runs all the same, and nothing is tracked.
 */
int
vfn_inflight_attach(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring, bool packed)
{
	struct vfn_inflight_region *region = &dev->inflight.region[queue];
	const struct vfn_guest *guest = dev->guest;
	struct vfn_dma_map map = {.space = VFN_DMA_OWN,
		.iova = REGION_IOVA(queue),
		.readable = true,
		.writable = true};
	uint16_t used_idx;
	int ret;

	ret = region_detach(dev, queue);
	/* Nobody could tell after a crash where a translated ring is. */
	if (ret < 0 || vfn_iommu_is(guest))
		return ret;
	ret = region_of_frontend(dev, queue, packed, region);
	if (ret == -ENOENT && dev->inflight.fd < 0 && (dev->remote == NULL || !packed))
		return 0;
	if (ret == -ENOENT && dev->inflight.fd < 0) {
		region->own = true;
		ret = region_of_ours(dev, queue, ring, region);
	} else if (ret == -ENOENT) {
		region->own = true;
		ret = file_take(dev);
		if (ret == 0)
			ret = region_of_file(dev, queue, ring, packed, region);
		if (ret == 0)
			ret = file_claim(dev, queue, ring, packed, region);
	} else if (dev->inflight.fd >= 0 && file_take(dev) == 0) {
		dev->inflight.file->queue[queue].valid = 0;
	}
	if (ret == 0) {
		/*
		 * It was stopped in an orderly way and begins elsewhere: then it was set up anew.
		 * If it begins where it was stopped the region says so as well, at any time.
		 */
		if (guest->stopped[queue] && guest->stopped_at[queue] != ring->avail)
			region_renew(region);
		map.host = region->host;
		map.len = region->len;
		map.fd = region->map->fd;
		map.offset = region->map->offset + (region->host - region->map->host);
		if (!vfn_shadow_by_windows(dev)) /* else the relay keeps it */
			ret = vfn_vpci_map(&dev->pci, &map);
	}
	if (ret < 0) {
		bool own = region->own;

		DEV_LOG(ERR, dev, "queue %u: in-flight region %s%s", queue,
			ret == -EINVAL ? "is not for rings of this format" : strerror(-ret),
			own ? ", nothing is tracked" : "");
		region_unmap(region);
		return own ? 0 : ret;
	}
	if (!packed && region_used(region) && vfn_ring_used_idx(dev, ring, &used_idx))
		ring->avail = ring->used = used_idx;
	ring->inflight = map.iova;
	ring->inflight_len = map.len;
	DEV_LOG(DEBUG, dev, "queue %u: in-flight region of %s, %s", queue,
		region->own ? "our own" : "the front-end",
		region_used(region) ? "tells where the ring stands" : "new");
	return 0;
}

/*
 * What was said by the control queue, if the file tells of its ring: where that stands is found
 * out, too. The caller's, NULL if there is nothing.
 */
struct vfn_parts_said *
vfn_inflight_control(struct vfn_dev *dev, struct vfn_vpci_ring *ring, bool packed)
{
	struct vfn_inflight_region *region = &dev->inflight.region[dev->ctrl];
	const size_t len = 2 * sizeof(struct vfn_parts_said);
	struct vfn_parts_said *said = NULL;
	bool mapped = region->map != NULL;
	struct ring_id id;

	if (dev->inflight.fd < 0 || file_take(dev) < 0 ||
		dev->inflight.file->queue[dev->ctrl].valid != 1 ||
		identify(dev, ring, packed, &id) < 0 ||
		memcmp(&dev->inflight.file->queue[dev->ctrl].id, &id, sizeof(id)) != 0 ||
		(!mapped && region_of_file(dev, dev->ctrl, ring, packed, region) < 0))
		return NULL;
	if (vfn_ring_left(dev, dev->ctrl, ring))
		said = malloc(len);
	if (said != NULL)
		memcpy(said, region->host + region_step(packed, ring->size), len);
	if (!mapped)
		region_unmap(region);
	return said;
}

/*
 * The function refused a ring. If the reason may be that our own region is out of date, for a guest
 * that set up its ring anew while nobody served it, it is begun anew.
 */
bool
vfn_inflight_renew(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring, uint16_t base)
{
	const struct vfn_inflight_region *region = &dev->inflight.region[queue];

	if (region->map == NULL || !region->own || !region_used(region))
		return false;
	DEV_LOG(WARNING, dev, "queue %u: the in-flight file does not fit the ring, begins anew",
		queue);
	region_renew(region);
	ring->avail = ring->used = base;
	return true;
}

/* Nothing is in flight, and the ring goes on elsewhere: the region, if there is one, is new. */
void
vfn_inflight_forget(struct vfn_dev *dev, uint16_t queue)
{
	const struct vfn_inflight_region *region = &dev->inflight.region[queue];

	if (region->map != NULL)
		region_renew(region);
}

/* The region of a queue that has one, for a relay that keeps it in the function's place. */
void *
vfn_inflight_host(struct vfn_dev *dev, uint16_t queue)
{
	return dev->inflight.region[queue].host;
}

/* The function is reset and has no maps any more. */
void
vfn_inflight_release(struct vfn_dev *dev)
{
	uint16_t queue;

	for (queue = 0; queue < dev->pci.nb_queues; queue++)
		region_unmap(&dev->inflight.region[queue]);
	file_leave(dev);
}
