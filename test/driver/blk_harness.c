/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver of the block class, and the back-end of tests. */

#include "class/blk/blk.h"

#include "blk_harness.h"

static struct {
	struct guest *g;
	struct vfn_link *link;
	struct faulty *faulty;
} disks[8];

/* Of a chain that is out. */
static struct {
	uint32_t read_len, in_len, odd;
	bool no_status;
} posted[VFN_BLK_MAX_QUEUES][1024];

int
disk_function(const struct disk_conf *conf, struct vfn_function **fn, struct vfn_link **link)
{
	struct vfn_blk_params blk = {
		.backend = conf->backend != NULL ? conf->backend : &vfn_blk_mem,
		.arg = conf->arg,
		.size = conf->size,
		.block_size = conf->block_size,
		.queues = conf->queues != 0 ? conf->queues : 1,
		.read_only = conf->read_only,
		.writethrough = conf->writethrough,
		.share = conf->share,
		.later = conf->later,
		.rate = conf->rate,
	};
	struct vfn_function_params params = {
		.class = &vfn_blk_class,
		.class_params = &blk,
		.pollers = {.sleep = conf->sleep},
		.faults = conf->faults,
	};

	snprintf(blk.path, sizeof(blk.path), "%s", conf->path != NULL ? conf->path : "");
	snprintf(blk.serial, sizeof(blk.serial), "%s", conf->serial != NULL ? conf->serial : "");
	snprintf(params.name, sizeof(params.name), "%s", conf->name != NULL ? conf->name : "disk");
	return vfn_function_open(&params, fn, link);
}

struct guest *
disk_new(const struct disk_conf *conf)
{
	struct vfn_function *fn;
	struct vfn_link *link;
	struct guest *g;
	unsigned int i;

	assert_int_equal(disk_function(conf, &fn, &link), 0);
	g = guest_new(&(struct guest_conf){.link = link,
		.buf_len = ROOM,
		.size = conf->size_of_rings != 0 ? conf->size_of_rings : 32,
		.pairs = conf->queues > 2 ? conf->queues / 2 : 1});
	g->fn = fn;
	for (i = 0; disks[i].g != NULL; i++)
		assert_true(i + 1 < DIM(disks));
	disks[i].g = g;
	disks[i].link = link;
	disks[i].faulty = conf->backend == &faulty_backend ? conf->arg : NULL;
	return g;
}

void
disk_start(struct guest *g, const struct disk_conf *conf)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET) | conf->features;
	unsigned int i;

	if (conf->shape != NULL)
		features |= shape_features(conf->shape) & ~BIT(VIRTIO_NET_F_MRG_RXBUF);
	assert_int_equal(guest_negotiate(g, features), 0);
	for (i = 0; i < g->nb_queues; i++)
		queue_setup(g, i);
	guest_driver_ok(g);
}

struct guest *
disk_open(const struct disk_conf *conf)
{
	struct guest *g = disk_new(conf);

	disk_start(g, conf);
	return g;
}

int
disks_close(void **state)
{
	unsigned int i;

	for (i = 0; i < DIM(disks); i++)
		if (disks[i].faulty != NULL) {
			faulty_set(disks[i].faulty, false, 0);
			faulty_release(disks[i].faulty, 1000000, false);
		}
	guests_close(state);
	for (i = 0; i < DIM(disks); i++) {
		if (disks[i].g == NULL)
			continue;
		disks[i].link->ops->close(disks[i].link);
		if (disks[i].faulty != NULL) {
			free(disks[i].faulty->bytes);
			free(disks[i].faulty);
		}
	}
	memset(disks, 0, sizeof(disks));
	return 0;
}

/* ---- requests ---- */

/* Cut len bytes into pieces; the last one takes the rest. */
static unsigned int
cut(struct mock_buf *buf, unsigned int most, uint32_t len, bool write, const uint32_t *piece,
	unsigned int nb)
{
	unsigned int n = 0;

	for (; n < nb && n + 1 < most && len > piece[n]; n++) {
		buf[n] = (struct mock_buf){.len = piece[n], .write = write};
		len -= piece[n];
	}
	if (len > 0)
		buf[n++] = (struct mock_buf){.len = len, .write = write};
	return n;
}

int
ask_post(struct guest *g, unsigned int queue, const struct ask *a)
{
	static const uint32_t bytes[] = {1, 1, 1, 1, 1, 1, 1, 1};
	static const uint32_t head10[] = {1, 3, 1, 1, 2, 1, 1, 1, 4, 1};
	struct virtio_blk_outhdr hdr = {.type = a->type, .sector = a->sector};
	uint32_t head = sizeof(hdr) - a->cut, read_len = head + a->out_len;
	uint32_t write_len = a->no_status ? 0 : a->in_len + 1, plain_in[] = {a->in_len};
	uint32_t odd[] = {511, 1, 513, 1023};
	struct mock_driver *d = &g->q[queue].drv;
	struct mock_buf buf[40] = {0};
	unsigned int n = 0;
	uint64_t at;
	int id;

	switch (a->layout) {
	case LAYOUT_PLAIN:
		n = cut(buf, 2, read_len, false, &head, 1);
		n += cut(buf + n, 2, write_len, true, plain_in, a->in_len > 0);
		break;
	case LAYOUT_ONE:
		n = cut(buf, 1, read_len, false, NULL, 0);
		n += cut(buf + n, 1, write_len, true, NULL, 0);
		break;
	case LAYOUT_SPLIT:
		n = cut(buf, 11, head, false, head10, 10);
		n += cut(buf + n, 5, a->out_len, false, odd, 4);
		if (!a->no_status) {
			n += cut(buf + n, 5, a->in_len, true, odd, 4);
			buf[n++] = (struct mock_buf){.len = 1, .write = true};
		}
		break;
	default:
		n = cut(buf, 9, read_len, false, bytes, 8);
		n += cut(buf + n, 9, write_len, true, bytes, 8);
	}
	id = mock_post(
		d, buf, n, g->features & BIT(VIRTIO_RING_F_INDIRECT_DESC) ? MOCK_INDIRECT : 0, 0);
	if (id < 0)
		return id;
	at = mock_buf_addr(d, id, 0);
	assert_true(read_len + write_len <= ROOM);
	assert_true(mock_mem_write(&g->mem, at, &hdr, head));
	if (a->out_len > 0)
		assert_true(mock_mem_write(&g->mem, at + head, a->out, a->out_len));
	if (write_len > 0)
		memset(mock_mem_at(&g->mem, at + read_len, write_len), 0xee, write_len);
	posted[queue][id].read_len = read_len;
	posted[queue][id].in_len = a->in_len;
	posted[queue][id].no_status = a->no_status;
	mock_publish(d);
	return id;
}

bool
answer_try(struct guest *g, unsigned int queue, struct answer *answer, unsigned int ms)
{
	struct mock_driver *d = &g->q[queue].drv;
	struct mock_used used;
	uint8_t *in;

	if (!used_try(g, queue, &used, ms))
		return false;
	in = mock_mem_at(&g->mem, mock_buf_addr(d, used.id, posted[queue][used.id].read_len),
		posted[queue][used.id].in_len + 1);
	*answer = (struct answer){
		.status = posted[queue][used.id].no_status || used.len == 0 ?
			-1 :
			in[posted[queue][used.id].in_len],
		.used_len = used.len,
		.id = used.id,
		.in = in,
	};
	return true;
}

struct answer
ask_wait(struct guest *g, unsigned int queue, const struct ask *a)
{
	struct answer answer;

	assert_true(ask_post(g, queue, a) >= 0);
	queue_kick(g, queue);
	if (!answer_try(g, queue, &answer, PATIENCE_MS))
		fail_msg("queue %u: request of type %u does not end", queue, a->type);
	return answer;
}

int
disk_write(struct guest *g, uint64_t sector, const void *data, uint32_t len)
{
	return ask_wait(g, 0,
		&(struct ask){
			.type = VIRTIO_BLK_T_OUT, .sector = sector, .out = data, .out_len = len})
		.status;
}

int
disk_read(struct guest *g, uint64_t sector, void *data, uint32_t len)
{
	struct answer answer = ask_wait(
		g, 0, &(struct ask){.type = VIRTIO_BLK_T_IN, .sector = sector, .in_len = len});

	if (answer.status == VIRTIO_BLK_S_OK)
		memcpy(data, answer.in, len);
	return answer.status;
}

int
disk_flush(struct guest *g)
{
	return ask_wait(g, 0, &(struct ask){.type = VIRTIO_BLK_T_FLUSH}).status;
}

int
disk_range(struct guest *g, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = sector, .num_sectors = sectors, .flags = flags};

	return ask_wait(g, 0, &(struct ask){.type = type, .out = &range, .out_len = sizeof(range)})
		.status;
}

struct virtio_blk_config
disk_config(struct guest *g)
{
	struct virtio_blk_config config;

	assert_int_equal(g->link->ops->read(
				 g->link, g->device.bar, g->device.offset, &config, sizeof(config)),
		0);
	return config;
}

void
pattern(void *data, uint64_t sector, uint32_t len, uint32_t number)
{
	uint64_t *p = data, seed;
	uint32_t i;

	for (i = 0; i < len / 8; i++) {
		seed = (sector * SECTOR + 8 * i) * UINT64_C(0x9e3779b97f4a7c15) + number;
		p[i] = seed ^ seed >> 29;
	}
}

/* ---- the back-end ---- */

struct faulty *
faulty_new(uint64_t size)
{
	struct faulty *f = calloc(1, sizeof(*f));

	f->bytes = calloc(1, size);
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

void
faulty_set(struct faulty *f, bool hold, int error)
{
	pthread_mutex_lock(&f->lock);
	f->hold = hold;
	f->error = error;
	pthread_mutex_unlock(&f->lock);
}

void
faulty_release(struct faulty *f, unsigned int n, bool lifo)
{
	pthread_mutex_lock(&f->lock);
	f->may_end += n;
	f->lifo = lifo;
	pthread_mutex_unlock(&f->lock);
}

void
faulty_wait(struct faulty *f, unsigned int n)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	unsigned int held;

	do {
		pthread_mutex_lock(&f->lock);
		held = f->nb_held;
		pthread_mutex_unlock(&f->lock);
		nap_us(100);
	} while (held < n && now_ms() < end);
	assert_int_equal(held, n);
}

static int
faulty_open(struct vfn_blk *blk)
{
	blk->end = blk->params.arg;
	blk->capacity = blk->params.size;
	return 0;
}

static void
faulty_close(struct vfn_blk *blk)
{
	(void)blk;
}

static int
faulty_resize(struct vfn_blk *blk, uint64_t size)
{
	blk->capacity = size;
	return 0;
}

static void
finish(struct vfn_blk_queue *bq, struct faulty *f, struct vfn_blk_req *r)
{
	if (f->error != 0)
		r->status = vfn_blk_failed(bq, f->error);
	else if (r->type == VIRTIO_BLK_T_IN)
		vringh_push(&r->data, f->bytes + r->offset, r->len);
	else if (r->type == VIRTIO_BLK_T_OUT)
		vringh_pull(&r->data, f->bytes + r->offset, r->len);
	if (f->error == 0)
		r->status = VIRTIO_BLK_S_OK;
}

static bool
faulty_keeps(const struct vfn_blk_queue *bq, const struct vfn_blk_req *r)
{
	const struct faulty *f = bq->blk->end;

	(void)r;
	return f->hold;
}

static enum vfn_blk_out
faulty_submit(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	struct faulty *f = bq->blk->end;
	enum vfn_blk_out out = VFN_BLK_DONE;

	pthread_mutex_lock(&f->lock);
	if (f->hold && r->iov != NULL) {
		f->held[f->nb_held++] = r;
		out = VFN_BLK_OUT;
	} else {
		finish(bq, f, r);
	}
	pthread_mutex_unlock(&f->lock);
	return out;
}

static void
faulty_poll(struct vfn_blk_queue *bq)
{
	struct faulty *f = bq->blk->end;

	pthread_mutex_lock(&f->lock);
	while (f->may_end > 0 && f->nb_held > 0) {
		unsigned int i = f->lifo ? f->nb_held - 1 : 0;
		struct vfn_blk_req *r = f->held[i];

		memmove(&f->held[i], &f->held[i + 1], (f->nb_held - i - 1) * sizeof(r));
		f->nb_held--;
		f->may_end--;
		f->nb_ended++;
		finish(bq, f, r);
		vfn_blk_done(bq, r);
	}
	pthread_mutex_unlock(&f->lock);
}

const struct vfn_blk_backend faulty_backend = {
	.name = "faulty",
	.can_discard = true,
	.open = faulty_open,
	.close = faulty_close,
	.resize = faulty_resize,
	.keeps = faulty_keeps,
	.submit = faulty_submit,
	.poll = faulty_poll,
};
