/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The kernel's IOTLB: each of its ranges is a part of a file, which is mapped here, guarded, and
 * made a DMA map of the function with its permissions. A ring is a range of its own, buffers of the
 * kernel's drivers are all in one, and a guest behind vhost-vdpa has its memory slots. With the
 * owner's lock held.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_common.h>

#include "vduse_private.h"

static bool
overlaps(const struct region *r, uint64_t start, uint64_t last)
{
	return r->start <= last && start <= r->last;
}

/* The first one that ends at or behind an address. */
static uint32_t
find_from(const struct vfn_vduse *v, uint64_t start)
{
	uint32_t i = 0;

	while (i < v->nb_regions && v->region[i].last < start)
		i++;
	return i;
}

const struct region *
vduse_iotlb_find(const struct vfn_vduse *v, uint64_t iova, uint64_t len)
{
	uint32_t i = find_from(v, iova);
	const struct region *r = &v->region[i];

	return i < v->nb_regions && iova >= r->start && len <= r->last - iova + 1 ? r : NULL;
}

static int
remove_at(struct vfn_vduse *v, uint32_t i)
{
	struct region *r = &v->region[i];
	int ret = vfn_vpci_unmap(v->pci, VFN_DMA_GUEST, r->start, r->last - r->start + 1);

	if (ret < 0)
		return ret;
	VDUSE_LOG(DEBUG, v, "0x%" PRIx64 " to 0x%" PRIx64 " is unmapped", r->start, r->last);
	vfn_map_put(r->map);
	v->nb_regions--;
	memmove(r, r + 1, (v->nb_regions - i) * sizeof(*r));
	return 0;
}

/* Why a range cannot be the function's. */
static const char *
refusal(int err)
{
	return err == ENODATA	 ? "its file is shorter" :
		err == EACCES	 ? "its file is another process's, or may not be read" :
		err == EEXIST	 ? "it overlaps another" :
		err == EOVERFLOW ? "there are too many" :
				   strerror(err);
}

static int
add(struct vfn_vduse *v, struct region *r, int fd)
{
	uint64_t len = r->last - r->start + 1;
	struct vfn_dma_map map = {.space = VFN_DMA_GUEST,
		.iova = r->start,
		.len = len,
		.offset = r->offset,
		.readable = r->perm & VDUSE_ACCESS_RO,
		.writable = r->perm & VDUSE_ACCESS_WO};
	struct region *more;
	uint32_t i;
	int ret;

	if (v->nb_regions == MAX_REGIONS)
		return -EOVERFLOW;
	if (v->region == NULL)
		v->region = malloc(MAX_REGIONS * sizeof(*v->region));
	if (v->region == NULL)
		return -ENOMEM;
	/* len is 0 for all of 2^64, which no file has. */
	r->map =
		map.writable ? vfn_map_fd(fd, r->offset, len) : vfn_map_fd_read(fd, r->offset, len);
	if (r->map == NULL)
		return -errno;
	map.host = r->map->host;
	map.fd = r->map->fd;
	ret = vfn_vpci_map(v->pci, &map);
	if (ret < 0) {
		vfn_map_put(r->map);
		return ret;
	}
	i = find_from(v, r->start);
	more = &v->region[i];
	memmove(more + 1, more, (v->nb_regions - i) * sizeof(*more));
	*more = *r;
	v->nb_regions++;
	VDUSE_LOG(DEBUG, v, "0x%" PRIx64 " to 0x%" PRIx64 " is mapped, permissions %u", r->start,
		r->last, r->perm);
	return 0;
}

/* What is mapped and is not this range, but overlaps it, goes. 1: this range is there. */
static int
make_room(struct vfn_vduse *v, const struct region *r)
{
	uint32_t i = find_from(v, r->start);
	int ret;

	while (i < v->nb_regions && overlaps(&v->region[i], r->start, r->last)) {
		struct region *old = &v->region[i];

		if (old->start == r->start && old->last == r->last && old->offset == r->offset &&
			old->dev == r->dev && old->ino == r->ino && old->perm == r->perm) {
			old->found = true;
			return 1;
		}
		/* Two of one walk: the kernel's are without overlaps. */
		if (old->found)
			return -EEXIST;
		ret = remove_at(v, i);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* The file of the first range in the IOTLB that overlaps; -EINVAL: there is none. */
static int
get_fd(struct vfn_vduse *v, uint64_t start, uint64_t last, struct region *r)
{
	struct vduse_iotlb_entry entry = {.start = start, .last = last};
	struct stat st;
	int fd = vduse_ioctl(v, VDUSE_IOTLB_GET_FD, &entry);

	if (fd < 0)
		return fd;
	*r = (struct region){.start = entry.start,
		.last = entry.last,
		.offset = entry.offset,
		.perm = entry.perm,
		.found = true};
	if (fstat(fd, &st) == 0) {
		r->dev = st.st_dev;
		r->ino = st.st_ino;
	}
	/* It has to bring the walk forward. */
	if (r->start > r->last || r->last < start || r->start > last) {
		close(fd);
		return -EPROTO;
	}
	return fd;
}

/*
 * Make the maps what the IOTLB lists in a range: what is not there any more is unmapped, and
 * nothing of it is touched on return.
 *
 * 0; -EIO: the function does not do that; or why something is left out. The rest is done then.
 */
int
vduse_iotlb_update(struct vfn_vduse *v, uint64_t start, uint64_t last)
{
	uint64_t at = start;
	struct region r;
	uint32_t i, n;
	int fd, ret = 0, why = 0;

	for (i = 0; i < v->nb_regions; i++)
		v->region[i].found = false;
	/* An IOTLB that changes meanwhile does not keep us for ever. */
	for (n = 0; n < 4 * MAX_REGIONS && at >= start && at <= last; n++) {
		fd = get_fd(v, at, last, &r);
		if (fd == -EINVAL)
			break;
		if (fd < 0) {
			why = fd;
			break;
		}
		ret = make_room(v, &r);
		ret = ret == 0 ? add(v, &r, fd) : RTE_MIN(ret, 0);
		close(fd);
		if (v->pci->failed)
			return -EIO;
		if (ret < 0) {
			/* One line, however many there are. */
			if (why == 0)
				VDUSE_COMPLAIN(v,
					"memory at 0x%" PRIx64 " to 0x%" PRIx64
					" (permissions %u) is left out: %s",
					r.start, r.last, r.perm, refusal(-ret));
			why = ret;
			if (ret == -EOVERFLOW)
				break;
		}
		if (r.last == UINT64_MAX)
			break;
		at = r.last + 1;
	}
	for (i = find_from(v, start); i < v->nb_regions && v->region[i].start <= last;) {
		if (v->region[i].found)
			i++;
		else if (remove_at(v, i) < 0)
			return -EIO;
	}
	return why;
}

/* The function has no maps any more. */
void
vduse_iotlb_free(struct vfn_vduse *v)
{
	uint32_t i;

	for (i = 0; i < v->nb_regions; i++)
		vfn_map_put(v->region[i].map);
	free(v->region);
	v->region = NULL;
	v->nb_regions = 0;
}
