/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a guest asks for (virtio 1.3, 5.2.6), judged: each word of it is read once into a local.
 * Poller.
 */

#include <stdlib.h>

#include "blk.h"

/* Of one that is no request: no status can be told. */
#define NO_STATUS 0xff
/* Of one whose type is not known, or was not read. */
#define NO_TYPE UINT32_MAX

static bool
refuse(struct vfn_blk_queue *bq, struct vfn_blk_req *r, unsigned int stat, uint8_t status)
{
	bq->q->stats[stat]++;
	r->status = status;
	return false;
}

/* Whole blocks before the end? */
static bool
check_range(struct vfn_blk_queue *bq, struct vfn_blk_req *r, uint64_t sector, uint64_t len)
{
	const uint64_t sectors = bq->blk->capacity / VFN_BLK_SECTOR;
	const uint32_t block = bq->blk->block_size;

	/* A power of two. */
	if ((len & (block - 1)) != 0 || (sector & (block / VFN_BLK_SECTOR - 1)) != 0)
		return refuse(bq, r, VFN_STAT_ERRORS_UNALIGNED, VIRTIO_BLK_S_IOERR);
	if (sector > sectors || len / VFN_BLK_SECTOR > sectors - sector)
		return refuse(bq, r, VFN_STAT_ERRORS_RANGE, VIRTIO_BLK_S_IOERR);
	return true;
}

static bool
check_data(struct vfn_blk_queue *bq, struct vfn_blk_req *r, uint64_t sector, bool write)
{
	const struct vringh_chain *chain = &r->chain;
	uint32_t header = sizeof(struct virtio_blk_outhdr);

	if (write ? chain->write_len > 1 : chain->read_len > header)
		return refuse(bq, r, VFN_STAT_ERRORS_BLK_DIRECTION, VIRTIO_BLK_S_IOERR);
	r->len = write ? chain->read_len - header : chain->write_len - 1;
	if (!check_range(bq, r, sector, r->len))
		return false;
	r->offset = sector * VFN_BLK_SECTOR;
	if (!write)
		r->data = vringh_iter_write(&bq->q->vr, chain);
	r->status = VIRTIO_BLK_S_OK;
	return r->len > 0;
}

/* Ranges to discard, or to write zeroes to. */
static bool
check_ranges(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	uint32_t len = r->chain.read_len - sizeof(struct virtio_blk_outhdr), i, n;
	struct virtio_blk_discard_write_zeroes d;

	n = len / sizeof(d);
	if (r->chain.write_len > 1)
		return refuse(bq, r, VFN_STAT_ERRORS_BLK_DIRECTION, VIRTIO_BLK_S_IOERR);
	if (n == 0 || n > VFN_BLK_MAX_RANGES || len % sizeof(d) != 0)
		return refuse(bq, r, VFN_STAT_ERRORS_SEGMENTS, VIRTIO_BLK_S_IOERR);
	r->range = malloc(n * sizeof(*r->range));
	if (r->range == NULL) {
		r->status = vfn_blk_failed(bq, -ENOMEM);
		return false;
	}
	for (i = 0; i < n; i++) {
		uint64_t bytes;

		if (vringh_pull(&r->data, &d, sizeof(d)) < sizeof(d))
			return refuse(bq, r, VFN_STAT_ERRORS_SEGMENTS, VIRTIO_BLK_S_IOERR);
		/* 5.2.6.2: flags that are not known, and unmap where all is */
		if ((d.flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) ||
			(d.flags != 0 && r->type == VIRTIO_BLK_T_DISCARD))
			return refuse(bq, r, VFN_STAT_ERRORS_TYPE, VIRTIO_BLK_S_UNSUPP);
		bytes = (uint64_t)d.num_sectors * VFN_BLK_SECTOR;
		if (bytes > VFN_BLK_MAX_RANGE)
			return refuse(bq, r, VFN_STAT_ERRORS_SEGMENTS, VIRTIO_BLK_S_IOERR);
		if (!check_range(bq, r, d.sector, bytes))
			return false;
		r->len += bytes;
		if (bytes > 0)
			r->range[r->nb_ranges++] = (struct vfn_blk_range){
				.offset = d.sector * VFN_BLK_SECTOR,
				.len = bytes,
				.unmap = d.flags != 0,
			};
	}
	r->status = VIRTIO_BLK_S_OK;
	return r->nb_ranges > 0;
}

/* The serial number, as much of it as there is room for (5.2.6). */
static void
get_id(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	struct vringh_iter to = vringh_iter_write(&bq->q->vr, &r->chain);

	vringh_push(&to, bq->blk->params.serial,
		RTE_MIN(r->chain.write_len - 1, (uint32_t)VFN_BLK_ID_SIZE));
	r->status = VIRTIO_BLK_S_OK;
}

static bool
is_offered(const struct vfn_blk_queue *bq, uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_DISCARD:
		return vfn_has(&bq->blk->fn, VIRTIO_BLK_F_DISCARD);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return vfn_has(&bq->blk->fn, VIRTIO_BLK_F_WRITE_ZEROES);
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_GET_ID:
		return true;
	}
	return false;
}

bool
vfn_blk_check(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	struct vfn_blk *blk = bq->blk;
	struct virtio_blk_outhdr hdr;

	r->type = NO_TYPE;
	r->status = NO_STATUS;
	if (unlikely(r->chain.error != VRINGH_OK))
		return false;
	if (unlikely(r->chain.write_len == 0))
		return refuse(bq, r, VFN_STAT_ERRORS_STATUS, NO_STATUS);
	r->data = vringh_iter_read(&bq->q->vr, &r->chain);
	if (unlikely(vringh_pull(&r->data, &hdr, sizeof(hdr)) < sizeof(hdr)))
		return refuse(bq, r, VFN_STAT_ERRORS_BLK_HEADER, VIRTIO_BLK_S_IOERR);
	if (unlikely(!is_offered(bq, hdr.type)))
		return refuse(bq, r, VFN_STAT_ERRORS_TYPE, VIRTIO_BLK_S_UNSUPP);
	r->type = hdr.type;
	if (hdr.type == VIRTIO_BLK_T_IN)
		return check_data(bq, r, hdr.sector, false);
	if (hdr.type == VIRTIO_BLK_T_GET_ID) {
		get_id(bq, r);
		return false;
	}
	if (hdr.type == VIRTIO_BLK_T_FLUSH) {
		r->status = VIRTIO_BLK_S_OK;
		return true;
	}
	if (blk->params.read_only)
		return refuse(bq, r, VFN_STAT_ERRORS_READ_ONLY, VIRTIO_BLK_S_IOERR);
	r->sync = vfn_blk_is_sync(blk);
	return hdr.type == VIRTIO_BLK_T_OUT ? check_data(bq, r, hdr.sector, true) :
					      check_ranges(bq, r);
}

/* The counters of a type: requests, bytes, and whose latency it is. */
static void
count(struct vfn_blk_queue *bq, const struct vfn_blk_req *r)
{
	static const struct {
		uint8_t type, stat, bytes, kind;
	} of[] = {
		{VIRTIO_BLK_T_IN, VFN_STAT_READS, VFN_STAT_READ_BYTES, VFN_BLK_READ},
		{VIRTIO_BLK_T_OUT, VFN_STAT_WRITES, VFN_STAT_WRITE_BYTES, VFN_BLK_WRITE},
		{VIRTIO_BLK_T_FLUSH, VFN_STAT_FLUSHES, 0, VFN_BLK_FLUSH},
		{VIRTIO_BLK_T_DISCARD, VFN_STAT_DISCARDS, VFN_STAT_DISCARD_BYTES, VFN_BLK_DISCARD},
		{VIRTIO_BLK_T_WRITE_ZEROES, VFN_STAT_ZEROES, VFN_STAT_ZERO_BYTES, VFN_BLK_DISCARD},
		{VIRTIO_BLK_T_GET_ID, VFN_STAT_IDS, 0, VFN_BLK_KINDS},
	};
	unsigned int i;

	for (i = 0; i < RTE_DIM(of); i++) {
		if (r->type != of[i].type)
			continue;
		bq->q->stats[of[i].stat]++;
		if (of[i].bytes != 0 && r->status == VIRTIO_BLK_S_OK)
			bq->q->stats[of[i].bytes] += r->len;
		if (of[i].kind != VFN_BLK_KINDS)
			vfn_blk_latency_add(&bq->latency[of[i].kind], bq->now - r->born, &bq->hz);
		return;
	}
	bq->q->stats[VFN_STAT_OTHERS]++;
}

void
vfn_blk_answer(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	struct vringh_chain *chain = &r->chain;
	struct vringh_iter last;

	chain->written = 0;
	if (unlikely(r->status == NO_STATUS))
		return;
	last = vringh_iter_write(&bq->q->vr, chain);
	last.seg += chain->nb_write - 1;
	last.nb_segs = 1;
	last.off = last.seg->len - 1;
	vringh_push(&last, &r->status, sizeof(r->status));
	/* The status is the last byte, so that all before it counts as written. */
	chain->written = chain->write_len;
	count(bq, r);
}
