/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Frames out of and into the driver of the function, and lists of tests. The test's thread. */

#include "fn_harness.h"

#define MAX_PIECES 64

static struct mock_driver *
driver(struct guest *g, unsigned int queue)
{
	return &g->q[queue].drv;
}

uint32_t
guest_hdr_len(const struct guest *g)
{
	return g->features & (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF)) ? 12 : 10;
}

/* ---- out ---- */

/* Header and frame in one piece, as the function sees them. */
static void
write_chain(struct guest *g, unsigned int queue, uint16_t id, const struct frame *f, uint32_t len)
{
	const struct mock_driver *d = driver(g, queue);
	uint32_t head = len < guest_hdr_len(g) ? len : guest_hdr_len(g);

	assert_true(mock_mem_write(&g->mem, mock_buf_addr(d, id, 0), &f->hdr, head));
	assert_true(mock_mem_write(&g->mem, mock_buf_addr(d, id, head), f->data, len - head));
}

int
tx_post(struct guest *g, unsigned int queue, const struct frame *f, const uint32_t *piece,
	unsigned int nb_pieces)
{
	uint32_t left = guest_hdr_len(g) + f->len, flags = 0;
	struct mock_buf buf[MAX_PIECES] = {0};
	unsigned int n = 0;
	int id;

	for (; n < nb_pieces && left > 0; n++) {
		buf[n].len = piece[n] < left ? piece[n] : left;
		left -= buf[n].len;
	}
	if (left > 0)
		buf[n++].len = left;
	if (g->features & BIT(VIRTIO_RING_F_INDIRECT_DESC))
		flags = MOCK_INDIRECT | MOCK_SCATTER;
	id = mock_post(driver(g, queue), buf, n, flags, 0);
	if (id >= 0)
		write_chain(g, queue, id, f, guest_hdr_len(g) + f->len);
	return id;
}

int
tx_post_bytes(struct guest *g, unsigned int queue, const struct frame *f, uint32_t len)
{
	struct mock_buf buf = {.len = len};
	int id = mock_post(driver(g, queue), &buf, 1, 0, 0);

	if (id >= 0)
		write_chain(g, queue, id, f, len);
	return id;
}

void
tx_send(struct guest *g, unsigned int queue, const struct frame *f)
{
	assert_true(tx_post(g, queue, f, NULL, 0) >= 0);
	mock_publish(driver(g, queue));
	queue_kick(g, queue);
}

/* ---- in ---- */

bool
used_try(struct guest *g, unsigned int queue, struct mock_used *used, unsigned int ms)
{
	struct mock_driver *d = driver(g, queue);
	uint64_t end = now_ms() + ms;
	unsigned int tries;
	int n;

	for (tries = 0;; tries++) {
		n = mock_collect(d, used, 1);
		if (n < 0)
			fail_msg("queue %u: %s", queue, d->fault);
		if (n == 1 || now_ms() > end)
			return n == 1;
		if (tries > 50)
			nap_us(50);
	}
}

void
tx_wait(struct guest *g, unsigned int queue, unsigned int n)
{
	struct mock_used used;

	while (n-- > 0) {
		if (!used_try(g, queue, &used, PATIENCE_MS))
			fail_msg("queue %u: %u chains do not come back", queue, n + 1);
		assert_int_equal(used.len, 0);
	}
}

void
rx_post(struct guest *g, unsigned int queue, unsigned int n, uint32_t len, unsigned int pieces)
{
	struct mock_driver *d = driver(g, queue);
	struct mock_buf buf[MAX_PIECES] = {0};
	uint32_t flags = 0;
	unsigned int i;

	if (g->features & BIT(VIRTIO_RING_F_INDIRECT_DESC))
		flags = MOCK_INDIRECT;
	for (i = 0; i < pieces; i++) {
		buf[i].len = i + 1 < pieces ? len / pieces : len - len / pieces * (pieces - 1);
		buf[i].write = true;
	}
	for (i = 0; i < n; i++)
		assert_true(mock_post(d, buf, pieces, flags, 0) >= 0);
	mock_publish(d);
	queue_kick(g, queue);
}

bool
rx_try(struct guest *g, unsigned int queue, struct frame *f, unsigned int ms)
{
	struct mock_driver *d = driver(g, queue);
	struct mock_used used;
	unsigned int left, n;
	uint64_t addr;

	if (!used_try(g, queue, &used, ms))
		return false;
	/* one byte less, and what was received could not have been a frame */
	assert_true(used.len >= guest_hdr_len(g));
	if (g->found != NULL)
		g->found(g, mock_buf_addr(d, used.id, 0), used.len);
	f->hdr.num_buffers = 1;
	assert_true(
		mock_mem_read(&g->mem, mock_buf_addr(d, used.id, 0), &f->hdr, guest_hdr_len(g)));
	f->len = 0;
	left = f->hdr.num_buffers;
	assert_true(left >= 1);
	if (!(g->features & BIT(VIRTIO_NET_F_MRG_RXBUF)))
		assert_int_equal(left, 1);
	for (addr = guest_hdr_len(g);; addr = 0) {
		n = used.len - addr;
		assert_true(f->len + n <= MAX_FRAME);
		assert_true(mock_mem_read(
			&g->mem, mock_buf_addr(d, used.id, addr), f->data + f->len, n));
		f->len += n;
		if (--left == 0)
			return true;
		/* all buffers of a frame are used together */
		assert_true(used_try(g, queue, &used, 0));
		assert_true(used.len > 0);
		if (g->found != NULL)
			g->found(g, mock_buf_addr(d, used.id, 0), used.len);
	}
}

void
rx_wait(struct guest *g, unsigned int queue, struct frame *f)
{
	if (!rx_try(g, queue, f, PATIENCE_MS))
		fail_msg("%s, queue %u: no frame comes", g->conf.name != NULL ? g->conf.name : "fn",
			queue);
}

/* ---- contents ---- */

void
frame_make(struct frame *f, uint32_t number, uint32_t len)
{
	uint64_t seed = number, v = 0;
	uint32_t i;

	memset(&f->hdr, 0, sizeof(f->hdr));
	f->len = len;
	for (i = 0; i < len; i++) {
		if (i % 8 == 0)
			v = mock_random(&seed);
		f->data[i] = v >> i % 8 * 8;
	}
	if (len >= sizeof(number))
		memcpy(f->data, &number, sizeof(number));
}

void
frames_equal(const struct frame *got, const struct frame *sent)
{
	assert_int_equal(got->len, sent->len);
	assert_memory_equal(got->data, sent->data, sent->len);
}

void
frame_passes(struct guest *from, unsigned int txq, struct guest *to, unsigned int rxq,
	const struct frame *f)
{
	static struct frame got;

	tx_send(from, txq, f);
	rx_wait(to, rxq, &got);
	frames_equal(&got, f);
	tx_wait(from, txq, 1);
}

/* ---- lists of tests ---- */

uint64_t
shape_features(const struct shape *s)
{
	return (s->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) |
		(s->event_idx ? BIT(VIRTIO_RING_F_EVENT_IDX) : 0) |
		(s->indirect ? BIT(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
		(s->mergeable ? BIT(VIRTIO_NET_F_MRG_RXBUF) : 0);
}

int (*shaped_teardown)(void **state) = guests_close;

struct run {
	const struct shaped_test *test;
	struct shape shape;
};

static void
run_one(void **state)
{
	const struct run *run = *state;

	run->test->fn(&run->shape);
}

int
run_list(const char *group, const struct CMUnitTest *plain, unsigned int nb_plain,
	const struct shaped_test *shaped, unsigned int nb_shaped)
{
	unsigned int most = nb_plain + 16 * nb_shaped, n = 0, t, bits;
	struct CMUnitTest *list = calloc(most, sizeof(*list));
	struct run *run = calloc(most, sizeof(*run));
	int ret;

	if (list == NULL || run == NULL)
		abort();
	for (; n < nb_plain; n++) {
		list[n] = plain[n];
		if (asprintf((char **)&list[n].name, "%s: %s", group, plain[n].name) < 0)
			abort();
	}
	for (t = 0; t < nb_shaped; t++) {
		for (bits = 0; bits < 16; bits++, n++) {
			struct shape s = {bits & 1, bits & 2, bits & 4, bits & 8};

			run[n] = (struct run){.test = &shaped[t], .shape = s};
			list[n] = (struct CMUnitTest){.test_func = run_one,
				.teardown_func = shaped_teardown,
				.initial_state = &run[n]};
			if (asprintf((char **)&list[n].name, "%s %s%s%s%s: %s", group,
				    s.packed ? "packed" : "split", s.event_idx ? " event" : "",
				    s.indirect ? " indirect" : "", s.mergeable ? " mergeable" : "",
				    shaped[t].name) < 0)
				abort();
		}
	}
	/* What cmocka_run_group_tests() calls; the macro wants an array of known length. */
	ret = _cmocka_run_group_tests(group, list, n, NULL, NULL);
	for (t = 0; t < n; t++)
		free((char *)list[t].name);
	free(list);
	free(run);
	return ret;
}
