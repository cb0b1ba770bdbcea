/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Requests of files, by io_uring: a ring for each queue, so that nobody shares one. A request is
 * carried out in steps, one at a time: what a step left over the next one does. Poller, unless it
 * says otherwise.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <liburing.h>

#include <rte_cycles.h>

#include "blk.h"
#include "file.h"

/* A step of what has to go through a buffer of ours. */
#define BOUNCE_SIZE (256u * 1024)

/* Ended requests that a poll looks at. */
#define ENDED 64

/*
 * Threads of the kernel's for steps that wait, of all the rings that one poller serves: by default
 * four for each CPU, and a file that hangs has them all.
 */
#define WORKERS 4096

/* vfn_blk_req.how */
enum step {
	STEP_DATA,
	STEP_BOUNCE,
	STEP_SYNC,
	STEP_ZERO_RANGE,
	STEP_PUNCH,
	STEP_ZEROES,
};

struct uring {
	struct io_uring ring;
	int event_fd;
	uint32_t prepared; /* that the kernel was not told of */
	bool armed;
};

/* ---- control ---- */

/*
 * From here on the ring does what requests need, on the disk's file, and nothing else: what is
 * asked of a ring goes past a filter of system calls.
 */
static int
restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ,
		IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE};
	struct io_uring_restriction res[RTE_DIM(ops) + 2] = {0};
	const int fd = ring->ring_fd;
	unsigned int i;

	for (i = 0; i < RTE_DIM(ops); i++) {
		res[i].opcode = IORING_RESTRICTION_SQE_OP;
		res[i].sqe_op = ops[i];
	}
	res[i].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	res[i++].sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC;
	res[i].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	res[i++].sqe_flags = IOSQE_FIXED_FILE;
	/* liburing before 2.4 declares the functions for it, and does not have them. */
	return syscall(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, res, i) < 0 ||
			syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) <
				0 ?
		-errno :
		0;
}

static int
uring_open(struct vfn_blk_queue *bq)
{
	const struct vfn_blk_disk *disk = bq->blk->end;
	struct uring *u = calloc(1, sizeof(*u));
	unsigned int workers[] = {WORKERS, 0};
	int ret;

	if (u == NULL)
		return -ENOMEM;
	ret = io_uring_queue_init(2 * VFN_BLK_SLOTS, &u->ring, IORING_SETUP_R_DISABLED);
	if (ret < 0) {
		FN_LOG(ERR, &bq->blk->fn, "queue %u: no io_uring: %s", bq->q->index,
			strerror(-ret));
		free(u);
		return ret;
	}
	u->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ret = u->event_fd < 0 ? -errno : io_uring_register_files(&u->ring, &disk->fd, 1);
	if (ret >= 0)
		ret = io_uring_register_iowq_max_workers(&u->ring, workers);
	if (ret >= 0)
		ret = io_uring_register_eventfd(&u->ring, u->event_fd);
	if (ret >= 0)
		ret = io_uring_cq_eventfd_toggle(&u->ring, false);
	if (ret >= 0)
		ret = restrict_ring(&u->ring);
	if (ret < 0) {
		FN_LOG(ERR, &bq->blk->fn, "queue %u: io_uring does not do: %s", bq->q->index,
			strerror(-ret));
		io_uring_queue_exit(&u->ring);
		if (u->event_fd >= 0)
			close(u->event_fd);
		free(u);
		return ret;
	}
	bq->end = u;
	return 0;
}

static void
uring_close(struct vfn_blk_queue *bq)
{
	struct uring *u = bq->end;

	io_uring_queue_exit(&u->ring);
	close(u->event_fd);
	free(u);
}

/* ---- steps ---- */

static struct io_uring_sqe *
get_sqe(struct vfn_blk_queue *bq)
{
	struct uring *u = bq->end;

	/* There are twice as many as requests, and each has one. */
	u->prepared++;
	return io_uring_get_sqe(&u->ring);
}

/* May the kernel go around the page cache with it? */
static bool
is_aligned(const struct vfn_blk_disk *disk, const struct vfn_blk_req *r)
{
	uint32_t i, align = __atomic_load_n(&disk->align, __ATOMIC_RELAXED);
	uintptr_t at = 0;
	size_t len = 0;

	for (i = 0; i < r->nb_iov; i++) {
		at |= (uintptr_t)r->iov[i].iov_base;
		len |= r->iov[i].iov_len;
	}
	return align == 0 || ((at & (disk->mem_align - 1)) == 0 && (len & (align - 1)) == 0);
}

/* Is it more than the poller itself may copy, if it comes to that? */
static bool
is_long(const struct vfn_blk_disk *disk, const struct vfn_blk_req *r)
{
	return r->len > VFN_BLK_TURN_BYTES &&
		(disk->is_memory || __atomic_load_n(&disk->align, __ATOMIC_RELAXED) == 0);
}

/* The next piece of what is written is in the buffer. False: it is not mapped any more. */
static bool
fill(struct vfn_blk_req *r)
{
	uint32_t n = RTE_MIN(r->len - r->done, BOUNCE_SIZE);

	/* Not if a step was cut short. */
	if (r->filled > r->done)
		return true;
	r->bounce_at = 0;
	r->filled = r->done + n;
	return vringh_pull(&r->data, r->bounce, n) == n;
}

static void
next_range(const struct vfn_blk_disk *disk, struct vfn_blk_req *r, struct io_uring_sqe *sqe)
{
	const struct vfn_blk_range *d = &r->range[r->done];
	bool punch = r->type == VIRTIO_BLK_T_DISCARD || d->unmap;
	uint64_t at, left;
	unsigned int i;

	if (r->type == VIRTIO_BLK_T_DISCARD ||
		(punch && !__atomic_load_n(&disk->no_punch, __ATOMIC_RELAXED))) {
		r->how = STEP_PUNCH;
		io_uring_prep_fallocate(
			sqe, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, d->offset, d->len);
		return;
	}
	if (!__atomic_load_n(&disk->no_zero_range, __ATOMIC_RELAXED)) {
		r->how = STEP_ZERO_RANGE;
		io_uring_prep_fallocate(
			sqe, 0, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, d->offset, d->len);
		return;
	}
	r->how = STEP_ZEROES;
	at = d->offset + r->zeroed;
	left = d->len - r->zeroed;
	for (i = 0; i < RTE_DIM(r->iov_room) && left > 0; i++) {
		r->iov_room[i].iov_base = disk->zeroes;
		r->iov_room[i].iov_len = RTE_MIN(left, VFN_BLK_ZEROES);
		left -= r->iov_room[i].iov_len;
	}
	io_uring_prep_writev2(sqe, 0, r->iov_room, i, at, r->sync ? RWF_DSYNC : 0);
}

/* Begin what is to be done next. False: it can't be, and the status is set. */
static bool
step(struct vfn_blk_queue *bq, struct vfn_blk_req *r, unsigned int flags)
{
	const struct vfn_blk_disk *disk = bq->blk->end;
	uint32_t n = RTE_MIN(r->nb_iov - r->at_iov, (uint32_t)IOV_MAX);
	const uint64_t at = r->offset + r->done;
	int rw = r->sync ? RWF_DSYNC : 0;
	struct io_uring_sqe *sqe;

	if (r->how == STEP_BOUNCE && r->type == VIRTIO_BLK_T_OUT && !fill(r)) {
		r->status = vfn_blk_failed(bq, -EFAULT);
		return false;
	}
	sqe = get_sqe(bq);
	if (r->type == VIRTIO_BLK_T_FLUSH || r->how == STEP_SYNC) {
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
	} else if (r->nb_ranges > 0) {
		next_range(disk, r, sqe);
	} else if (r->how == STEP_BOUNCE && r->type == VIRTIO_BLK_T_IN) {
		io_uring_prep_read(sqe, 0, r->bounce, RTE_MIN(r->len - r->done, BOUNCE_SIZE), at);
	} else if (r->how == STEP_BOUNCE) {
		io_uring_prep_write(sqe, 0, r->bounce + r->bounce_at, r->filled - r->done, at);
		sqe->rw_flags = rw;
	} else if (r->type == VIRTIO_BLK_T_IN) {
		io_uring_prep_readv(sqe, 0, &r->iov[r->at_iov], n, at);
	} else {
		io_uring_prep_writev2(sqe, 0, &r->iov[r->at_iov], n, at, rw);
	}
	sqe->flags |=
		IOSQE_FIXED_FILE | flags | (disk->waits || is_long(disk, r) ? IOSQE_ASYNC : 0);
	io_uring_sqe_set_data(sqe, r);
	return true;
}

static bool
uring_keeps(const struct vfn_blk_queue *bq, const struct vfn_blk_req *r)
{
	RTE_SET_USED(bq);
	RTE_SET_USED(r);
	return true;
}

static enum vfn_blk_out
uring_submit(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	const struct vfn_blk_disk *disk = bq->blk->end;
	bool data = r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_OUT;
	void *p;

	if (data && (r->nb_iov == 0 || !is_aligned(disk, r))) {
		if (posix_memalign(&p, RTE_MAX(disk->mem_align, 4096u),
			    RTE_MIN(r->len, BOUNCE_SIZE)) != 0) {
			r->status = vfn_blk_failed(bq, -ENOMEM);
			return VFN_BLK_DONE;
		}
		r->bounce = p;
		r->how = STEP_BOUNCE;
		bq->q->stats[VFN_STAT_BOUNCED]++;
	}
	if (step(bq, r, 0))
		return VFN_BLK_OUT;
	free(r->bounce);
	return VFN_BLK_DONE;
}

static void
uring_kick(struct vfn_blk_queue *bq)
{
	struct uring *u = bq->end;
	int ret;

	if (u->prepared == 0)
		return;
	/* What it does not take now it takes next time. */
	ret = io_uring_submit(&u->ring);
	if (ret > 0)
		u->prepared -= RTE_MIN((uint32_t)ret, u->prepared);
}

/* So many bytes were moved in place. */
static void
skip(struct vfn_blk_req *r, uint32_t n)
{
	while (n > 0 && r->at_iov < r->nb_iov) {
		struct iovec *iov = &r->iov[r->at_iov];
		uint32_t part = RTE_MIN(n, iov->iov_len);

		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		n -= part;
		r->at_iov += iov->iov_len == 0;
	}
}

/* A step of a range has ended. True: so has the range. */
static bool
range_ended(struct vfn_blk_disk *disk, struct vfn_blk_req *r, int res, int *error)
{
	if (res >= 0) {
		if (r->how == STEP_ZEROES) {
			r->zeroed += res;
			if (res == 0)
				*error = -EIO;
			if (r->zeroed < r->range[r->done].len)
				return false;
		}
		r->zeroed = 0;
		r->done++;
		return true;
	}
	/* There is another way, but for a discard. */
	if (res == -EOPNOTSUPP && r->how == STEP_ZERO_RANGE)
		__atomic_store_n(&disk->no_zero_range, true, __ATOMIC_RELAXED);
	else if (res == -EOPNOTSUPP && r->how == STEP_PUNCH && r->type == VIRTIO_BLK_T_WRITE_ZEROES)
		__atomic_store_n(&disk->no_punch, true, __ATOMIC_RELAXED);
	else
		*error = res;
	return false;
}

/* The alignment that was found does not do: from now on by the page cache. */
static void
forget_alignment(struct vfn_blk_disk *disk)
{
	int flags = fcntl(disk->fd, F_GETFL);

	if (flags >= 0 && fcntl(disk->fd, F_SETFL, flags & ~O_DIRECT) == 0)
		__atomic_store_n(&disk->align, 0, __ATOMIC_RELAXED);
}

/* A step of reading or writing has. True: all of it has. */
static bool
data_ended(struct vfn_blk_disk *disk, struct vfn_blk_req *r, int res, int *error)
{
	if (res == -EINVAL && !r->cached) {
		r->cached = true;
		forget_alignment(disk);
		return false;
	}
	if (res <= 0) {
		/* The file is shorter than it was. */
		*error = res < 0 ? res : -EIO;
		return false;
	}
	if (r->how == STEP_BOUNCE && r->type == VIRTIO_BLK_T_IN) {
		if (vringh_push(&r->data, r->bounce, res) < (size_t)res)
			*error = -EFAULT;
	}
	if (r->how == STEP_DATA)
		skip(r, res);
	r->bounce_at += res;
	r->done += res;
	return r->done >= r->len;
}

/* A step has ended. True: so has the request. */
static bool
ended(struct vfn_blk_queue *bq, struct vfn_blk_req *r, int res)
{
	struct vfn_blk_disk *disk = bq->blk->end;
	unsigned int flags = 0;
	int error = 0;

	/* The thread that began it may be gone, and with it what had not begun. */
	if (res == -EINTR || res == -EAGAIN || res == -ECANCELED) {
		flags = IOSQE_ASYNC;
	} else if (r->type == VIRTIO_BLK_T_FLUSH || r->how == STEP_SYNC) {
		r->status = res < 0 ? vfn_blk_failed(bq, res) : VIRTIO_BLK_S_OK;
		return true;
	} else if (r->nb_ranges > 0) {
		if (range_ended(disk, r, res, &error) && r->done == r->nb_ranges) {
			if (!r->sync)
				return true;
			r->how = STEP_SYNC;
		}
	} else if (data_ended(disk, r, res, &error)) {
		return true;
	}
	if (error != 0) {
		r->status = vfn_blk_failed(bq, error);
		return true;
	}
	return !step(bq, r, flags);
}

static void
uring_poll(struct vfn_blk_queue *bq)
{
	struct io_uring_cqe *cqe[ENDED];
	struct uring *u = bq->end;
	unsigned int i, n;

	if (u->armed) {
		io_uring_cq_eventfd_toggle(&u->ring, false);
		u->armed = false;
	}
	n = io_uring_peek_batch_cqe(&u->ring, cqe, ENDED);
	for (i = 0; i < n; i++) {
		struct vfn_blk_req *r = io_uring_cqe_get_data(cqe[i]);

		if (!ended(bq, r, cqe[i]->res))
			continue;
		free(r->bounce);
		vfn_blk_done(bq, r);
	}
	io_uring_cq_advance(&u->ring, n);
	uring_kick(bq);
}

static bool
uring_arm(struct vfn_blk_queue *bq)
{
	struct uring *u = bq->end;

	u->armed = true;
	io_uring_cq_eventfd_toggle(&u->ring, true);
	/* Pairs with the kernel's look at the flag after it has made something visible. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return u->prepared > 0 || io_uring_cq_ready(&u->ring) > 0;
}

static int
uring_wake_fd(const struct vfn_blk_queue *bq)
{
	const struct uring *u = bq->end;

	return u->event_fd;
}

const struct vfn_blk_backend vfn_blk_file = {
	.name = "file",
	.can_discard = true,
	.open = vfn_blk_file_open,
	.close = vfn_blk_file_close,
	.claim = vfn_blk_file_claim,
	.release = vfn_blk_file_release,
	.queue_open = uring_open,
	.queue_close = uring_close,
	.resize = vfn_blk_file_resize,
	.keeps = uring_keeps,
	.submit = uring_submit,
	.kick = uring_kick,
	.poll = uring_poll,
	.arm = uring_arm,
	.wake_fd = uring_wake_fd,
};
