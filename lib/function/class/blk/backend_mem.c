/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Disks that are nothing, or memory. Poller, unless it says otherwise. */

#include <stdlib.h>
#include <sys/mman.h>

#include <rte_cycles.h>

#include "blk.h"

#define HUGE (2ul << 20)

/* Control. */
static int
null_open(struct vfn_blk *blk)
{
	blk->capacity = blk->params.size;
	return 0;
}

static void
null_close(struct vfn_blk *blk)
{
	RTE_SET_USED(blk);
}

static int
null_resize(struct vfn_blk *blk, uint64_t size)
{
	if (size != 0)
		blk->capacity = size;
	return 0;
}

static enum vfn_blk_out
null_submit(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	RTE_SET_USED(bq);
	RTE_SET_USED(r);
	return VFN_BLK_DONE;
}

const struct vfn_blk_backend vfn_blk_null = {
	.name = "null",
	.can_discard = true,
	.keeps_order = true,
	.open = null_open,
	.close = null_close,
	.resize = null_resize,
	.submit = null_submit,
};

/* ---- memory ---- */

struct disk {
	uint8_t *bytes;
	uint64_t mapped;
};

/* What does not fit into one turn, in the order of arrival. */
struct fifo {
	struct vfn_blk_req *first, *last;
};

/* Control. NULL with errno set. Pages are there when they are written to. */
static uint8_t *
disk_map(uint64_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p != MAP_FAILED)
		return p;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, len, MADV_HUGEPAGE);
	return p;
}

static int
mem_open(struct vfn_blk *blk)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	if (disk == NULL)
		return -ENOMEM;
	disk->mapped = RTE_ALIGN_CEIL(blk->params.size, HUGE);
	disk->bytes = disk_map(disk->mapped);
	if (disk->bytes == NULL) {
		FN_LOG(ERR, &blk->fn, "mem=%" PRIu64 ": %s", blk->params.size, strerror(errno));
		free(disk);
		return -ENOMEM;
	}
	blk->end = disk;
	blk->capacity = blk->params.size;
	return 0;
}

static void
mem_close(struct vfn_blk *blk)
{
	struct disk *disk = blk->end;

	munmap(disk->bytes, disk->mapped);
	free(disk);
}

/* What is cut off is gone. */
static int
mem_resize(struct vfn_blk *blk, uint64_t size)
{
	struct disk *disk = blk->end;
	uint64_t mapped = RTE_ALIGN_CEIL(size, HUGE);
	uint8_t *bytes;

	if (size == 0)
		return 0;
	if (mapped > disk->mapped) {
		bytes = disk_map(mapped);
		if (bytes == NULL)
			return -ENOMEM;
		memcpy(bytes, disk->bytes, RTE_MIN(blk->capacity, size));
		munmap(disk->bytes, disk->mapped);
		*disk = (struct disk){.bytes = bytes, .mapped = mapped};
	} else if (size < blk->capacity) {
		memset(disk->bytes + size, 0, blk->capacity - size);
	}
	blk->capacity = size;
	return 0;
}

static int
mem_queue_open(struct vfn_blk_queue *bq)
{
	bq->end = calloc(1, sizeof(struct fifo));
	return bq->end != NULL ? 0 : -ENOMEM;
}

static void
mem_queue_close(struct vfn_blk_queue *bq)
{
	free(bq->end);
}

static bool
is_done(const struct vfn_blk_req *r)
{
	return r->status != VIRTIO_BLK_S_OK || r->type == VIRTIO_BLK_T_FLUSH ||
		r->done == (r->nb_ranges > 0 ? r->nb_ranges : r->len);
}

/* Go on, for at most so many bytes. Returns how many they were. */
static uint64_t
advance(struct vfn_blk_queue *bq, struct vfn_blk_req *r, uint64_t most)
{
	const struct disk *disk = bq->blk->end;
	uint64_t spent = 0, n;

	if (is_done(r))
		return 0;
	if (r->nb_ranges > 0) {
		while (r->done < r->nb_ranges && spent < most) {
			const struct vfn_blk_range *d = &r->range[r->done];

			n = RTE_MIN(d->len - r->zeroed, most - spent);
			memset(disk->bytes + d->offset + r->zeroed, 0, n);
			spent += n;
			r->zeroed += n;
			if (r->zeroed == d->len) {
				r->zeroed = 0;
				r->done++;
			}
		}
		return spent;
	}
	n = RTE_MIN(r->len - r->done, most);
	/* What of it was unmapped meanwhile, as some kinds of memory may be, is missing. */
	if ((r->type == VIRTIO_BLK_T_IN ?
			    vringh_push(&r->data, disk->bytes + r->offset + r->done, n) :
			    vringh_pull(&r->data, disk->bytes + r->offset + r->done, n)) < n) {
		r->status = vfn_blk_failed(bq, -EFAULT);
		return n;
	}
	r->done += n;
	return n;
}

static bool
mem_keeps(const struct vfn_blk_queue *bq, const struct vfn_blk_req *r)
{
	const struct fifo *fifo = bq->end;

	return r->len > VFN_BLK_TURN_BYTES || fifo->first != NULL;
}

static enum vfn_blk_out
mem_submit(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	struct fifo *fifo = bq->end;

	if (!mem_keeps(bq, r)) {
		advance(bq, r, UINT64_MAX);
		return VFN_BLK_DONE;
	}
	if (fifo->first == NULL)
		fifo->first = r;
	else
		fifo->last->next = r;
	fifo->last = r;
	return VFN_BLK_OUT;
}

static void
mem_poll(struct vfn_blk_queue *bq)
{
	uint64_t left = VFN_BLK_TURN_BYTES;
	struct fifo *fifo = bq->end;

	while (fifo->first != NULL && left > 0) {
		struct vfn_blk_req *r = fifo->first;

		left -= advance(bq, r, left);
		if (!is_done(r))
			break;
		fifo->first = r->next;
		bq->now = rte_rdtsc();
		vfn_blk_done(bq, r);
	}
}

const struct vfn_blk_backend vfn_blk_mem = {
	.name = "mem",
	.can_discard = true,
	.keeps_order = true,
	.open = mem_open,
	.close = mem_close,
	.queue_open = mem_queue_open,
	.queue_close = mem_queue_close,
	.resize = mem_resize,
	.keeps = mem_keeps,
	.submit = mem_submit,
	.poll = mem_poll,
};
