/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lib/vfio_user's client and servers that are not to be trusted: between the client and a server
 * that is right there is a thread that changes what the server says.
 */

#include "vfu_proxy.h"

#include "lingering.h"

#define SLOW_MS 300 /* a deadline that is waited for */

/* The call through a plan for its reply. */
static int
through(struct plan p, int call, unsigned int timeout_ms)
{
	struct vfu_client *c;
	unsigned int before;
	uint64_t start;
	int ret, again;

	plan = (struct plan){.number = ALL};
	vt_wait(dev.attached == dev.detached);
	before = vt_count_fds();
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, timeout_ms, NULL, &c), 0);
	prepare(c, call);
	p.number = 2;
	plan = p;
	start = vfu_now_ms();
	ret = do_call(c, call);
	if (timeout_ms < PATIENCE_MS)
		assert_in_range(vfu_now_ms() - start, timeout_ms - 1, timeout_ms + PATIENCE_MS / 2);
	/* It is the end of the connection, or it is not. */
	again = do_call(c, RESET);
	assert_int_equal(again, ret == 0 || (ret != -EPIPE && ret != -ETIMEDOUT) ? 0 : -EPIPE);
	vfu_client_close(c);
	vt_wait(dev.attached == dev.detached);
	vt_wait(vt_count_fds() == before);
	return ret;
}

#define PLAN(...)	    ((struct plan){.cut = ALL, __VA_ARGS__})
#define SET(at, len, value) .set = {{at, len, value}}

static void
replies_as_they_are(void **state)
{
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call++)
		assert_int_equal(through(PLAN(0), call, PATIENCE_MS), 0);
	proxy_close();
}

static void
replies_that_are_cut(void **state)
{
	size_t at, size;
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call++) {
		assert_int_equal(through(PLAN(0), call, PATIENCE_MS), 0);
		size = proxy.size;
		for (at = 0; at < size; at++)
			assert_int_equal(
				through((struct plan){.cut = at}, call, PATIENCE_MS), -EPIPE);
	}
	proxy_close();
}

static void
headers_that_are_wrong(void **state)
{
	const uint32_t sizes[] = {0, 1, 15, VFU_MAX_MESSAGE + 1, UINT32_MAX};
	const struct {
		uint32_t said;
		int got;
	} errors[] = {{EPERM, -EPERM}, {EPIPE + 1, -EPIPE - 1}, {4095, -4095}, {0, -EIO},
		{4096, -EIO}, {UINT32_MAX, -EIO}};
	unsigned int i;
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call++) {
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			assert_int_equal(
				through(PLAN(SET(4, 4, sizes[i])), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(SET(0, 2, 0)), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(SET(0, 2, 0xfff)), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(SET(2, 2, 0)), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(SET(2, 2, VFU_VERSION)), call, PATIENCE_MS), -EPIPE);
		for (i = 2; i < 16; i += 5)
			assert_int_equal(through(PLAN(SET(8, 4, i)), call, PATIENCE_MS), -EPIPE);
		for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
			assert_int_equal(through(PLAN(.set = {{8, 4, VFU_TYPE_REPLY | VFU_ERROR},
							      {12, 4, errors[i].said}}),
						 call, PATIENCE_MS),
				errors[i].got);
	}
	proxy_close();
}

static void
payloads_that_are_wrong(void **state)
{
	size_t size;
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call++) {
		assert_int_equal(through(PLAN(0), call, PATIENCE_MS), 0);
		size = proxy.size;
		/* What may be left out or be more is said in the payload, too: not by size alone.
		 */
		if (size > sizeof(struct vfu_header) && call != REGION_SPARSE)
			assert_int_equal(through(PLAN(.longer = -1), call, PATIENCE_MS), -EPIPE);
		if (size > sizeof(struct vfu_header))
			assert_int_equal(through(PLAN(.longer = sizeof(struct vfu_header) - size),
						 call, PATIENCE_MS),
				-EPIPE);
		if (call != REGION && call != REGION_SPARSE)
			assert_int_equal(through(PLAN(.longer = 1), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(.longer = 1024), call, PATIENCE_MS), -EPIPE);
	}
	proxy_close();
}

static void
descriptors_that_are_wrong(void **state)
{
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call++) {
		assert_int_equal(through(PLAN(.more_fds = 1), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(.more_fds = 16), call, PATIENCE_MS), -EPIPE);
		assert_int_equal(through(PLAN(.more_fds = 40), call, PATIENCE_MS), -EPIPE);
	}
	/* An error's are closed. */
	assert_int_equal(through(PLAN(.more_fds = 3, SET(8, 4, VFU_TYPE_REPLY | VFU_ERROR)), INFO,
				 PATIENCE_MS),
		-EIO);
	assert_int_equal(through(PLAN(.drop_fds = true), IOEVENTFDS, PATIENCE_MS), -EPIPE);
	/* It is not mapped, then. */
	assert_int_equal(through(PLAN(.drop_fds = true), REGION, PATIENCE_MS), 0);
	proxy_close();
}

static void
contents_that_are_wrong(void **state)
{
	const struct {
		int call;
		uint32_t at, len; /* behind the header */
		uint64_t value;
	} c[] = {
		{REGION, 4, 4, 3},	     /* a descriptor, and no MMAP */
		{REGION, 16, 8, UINT64_MAX}, /* sizes and offsets that are none of a file */
		{REGION, 24, 8, UINT64_MAX},
		{REGION, 24, 8, INT64_MAX},
		{REGION, 4, 4, 15}, /* capabilities, but none are there */
		{REGION_SPARSE, 12, 4, 0},
		{REGION_SPARSE, 12, 4, 31},
		{REGION_SPARSE, 12, 4, UINT32_MAX},
		{REGION_SPARSE, 32, 2, VFIO_REGION_INFO_CAP_TYPE},
		{REGION_SPARSE, 40, 4, 3}, /* areas: more than there are */
		{REGION_SPARSE, 40, 4, UINT32_MAX},
		{REGION_SPARSE, 40, 4, 0x10000001},
		{REGION_SPARSE, 48, 8, VD_SPARSE_SIZE - 0xfff}, /* not within the region */
		{REGION_SPARSE, 48, 8, UINT64_MAX},
		{REGION_SPARSE, 48, 8, UINT64_MAX - 0xfff},
		{REGION_SPARSE, 56, 8, VD_SPARSE_SIZE},
		{REGION_SPARSE, 56, 8, UINT64_MAX},
		{REGION_SPARSE, 64, 8, VD_SPARSE_SIZE + 1},
		{REGION_SPARSE, 16, 8, 0x3fff},
		{IOEVENTFDS, 12, 4, 0},
		{IOEVENTFDS, 12, 4, VD_NB_IOEVENTFDS - 1},
		{IOEVENTFDS, 12, 4, VD_NB_IOEVENTFDS + 1},
		{IOEVENTFDS, 12, 4, UINT32_MAX},
		{IOEVENTFDS, 16 + 16, 4, 1},
		{IOEVENTFDS, 16 + 40 + 16, 4, UINT32_MAX},
		{IOEVENTFDS, 16 + 40 + 20, 4, 1},
		{READ, 12, 4, 7},
		{READ, 12, 4, 9},
		{READ, 12, 4, UINT32_MAX},
		{WRITE, 12, 4, 7},
		{WRITE, 12, 4, 0},
		{STATE_READ, 4, 4, 7},
		{STATE_READ, 4, 4, 9},
		{STATE_READ, 4, 4, UINT32_MAX},
		{GET_STATE, 8, 4, 6},
		{GET_STATE, 8, 4, UINT32_MAX},
		{LOG_START, 8, 8, 0},
		{LOG_START, 8, 8, 3},
		{LOG_START, 8, 8, UINT64_MAX},
	};
	unsigned int i;
	int ret;

	(void)state;
	proxy_open();
	for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		ret = through(
			PLAN(SET(16 + c[i].at, c[i].len, c[i].value)), c[i].call, PATIENCE_MS);
		if (ret != -EPIPE)
			fail_msg("row %u: %d", i, ret);
	}
	proxy_close();
}

static void
slow_servers(void **state)
{
	int call;

	(void)state;
	proxy_open();
	for (call = 0; call < NB_CALLS; call += 5)
		assert_int_equal(through(PLAN(.swallow = true), call, SLOW_MS), -ETIMEDOUT);
	assert_int_equal(through(PLAN(.flood = true), INFO, SLOW_MS), -ETIMEDOUT);
	proxy_close();
}

/* ---- the server's commands ---- */

static unsigned int served;

static int
memory_read(void *priv, uint64_t address, void *buf, size_t len)
{
	assert_ptr_equal(priv, &served);
	served++;
	memset(buf, address, len);
	return len == 13 ? -ENXIO : 0;
}

static int
memory_write(void *priv, uint64_t address, const void *buf, size_t len)
{
	assert_ptr_equal(priv, &served);
	served++;
	return len == 13 || ((const uint8_t *)buf)[len - 1] != (uint8_t)address ? -ENXIO : 0;
}

static struct {
	const struct vfu_client_ops *ops;
	struct vfu_client *c;
} asking;

/* A command of the server's, in place of the answer to this call, which comes after it. */
static void *
ask_client(void *arg)
{
	struct vfu_device_info info;

	(void)arg;
	assert_int_equal(
		vfu_client_connect(proxy.path, asking.ops, &served, PATIENCE_MS, NULL, &asking.c),
		0);
	assert_int_equal(vfu_client_info(asking.c, &info), 0);
	vfu_client_close(asking.c);
	return NULL;
}

static void
commands_of_the_server(void **state)
{
	const struct vfu_client_ops ops = {memory_read, memory_write}, none = {NULL, NULL};
	static const struct {
		uint16_t command;
		uint32_t flags, len; /* of the payload */
		uint64_t count;
		int ret; /* or the reply's length; 1: there is none */
	} c[] = {
		{VFU_DMA_READ, 0, 16, 8, 24},
		{VFU_DMA_READ, 0, 16, VFU_MAX_XFER, 16 + VFU_MAX_XFER},
		{VFU_DMA_READ, 0, 16, 0, 16},
		{VFU_DMA_READ, 0, 16, VFU_MAX_XFER + 1, -EINVAL},
		{VFU_DMA_READ, 0, 16, UINT64_MAX, -EINVAL},
		{VFU_DMA_READ, 0, 17, 8, -EINVAL},
		{VFU_DMA_READ, 0, 15, 8, -EINVAL},
		{VFU_DMA_READ, 0, 0, 8, -EINVAL},
		{VFU_DMA_READ, 0, 16, 13, -ENXIO},
		{VFU_DMA_READ, VFU_NO_REPLY, 16, 8, 1},
		{VFU_DMA_WRITE, 0, 24, 8, 16},
		{VFU_DMA_WRITE, 0, 24, 7, -EINVAL},
		{VFU_DMA_WRITE, 0, 24, 9, -EINVAL},
		{VFU_DMA_WRITE, 0, 24, UINT64_MAX, -EINVAL},
		{VFU_DMA_WRITE, 0, 24, (UINT64_C(1) << 32) + 8, -EINVAL},
		{VFU_DMA_WRITE, 0, 16 + VFU_MAX_XFER, VFU_MAX_XFER, 16},
		{VFU_DMA_WRITE, 0, 17 + VFU_MAX_XFER, VFU_MAX_XFER + 1, -EINVAL},
		{VFU_DMA_WRITE, 0, 29, 13, -ENXIO},
		{VFU_VERSION, 0, 16, 8, -ENOTSUP},
		{VFU_REGION_READ, 0, 16, 8, -ENOTSUP},
		{0, 0, 16, 8, -ENOTSUP},
		{0xffff, VFU_NO_REPLY, 16, 8, 1},
	};
	static uint8_t payload[VFU_MAX_PAYLOAD];
	struct vfu_device_info info = {16, 0, 9, 5};
	struct vfu_header h;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	unsigned int i, k, reached;
	pthread_t thread;
	int listener, fd;

	(void)state;
	/* The server is this test; of the proxy there is only its place. */
	vt_open(0);
	snprintf(proxy.path, sizeof(proxy.path), "%s.test", vt_path);
	strcpy(addr.sun_path, proxy.path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 8), 0);
	for (k = 0; k < 3; k++) {
		asking.ops = k == 0 ? &ops : k == 1 ? &none : NULL;
		assert_int_equal(pthread_create(&thread, NULL, ask_client, NULL), 0);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		assert_true(vt_next(fd));
		h = vt_got.header;
		h.flags = VFU_TYPE_REPLY;
		h.size = 20;
		vt_send(fd, &h, sizeof(h), NULL, 0);
		vt_send(fd, "\0\0\1", 4, NULL, 0);
		assert_true(vt_next(fd));
		h = vt_got.header;
		assert_int_equal(h.command, VFU_DEVICE_GET_INFO);
		served = reached = 0;
		for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
			const struct vfu_dma_access a = {0x1000 + i, c[i].count};
			int want = c[i].ret;

			/* also those without a reply, which may still be on their way */
			reached +=
				(c[i].command == VFU_DMA_READ || c[i].command == VFU_DMA_WRITE) &&
				want != -EINVAL;
			if (k > 0 && want != 1 && want != -EINVAL)
				want = -ENOTSUP;
			memset(payload, 0x1000 + i, sizeof(payload));
			memcpy(payload, &a, sizeof(a));
			vt_post(fd, c[i].command, c[i].flags, payload, c[i].len, NULL, 0);
			if (want == 1)
				continue;
			assert_true(vt_next(fd));
			if (want < 0) {
				assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY | VFU_ERROR);
				assert_int_equal(vt_got.header.error, -want);
				assert_int_equal(vt_got.len, 0);
				continue;
			}
			assert_int_equal(vt_got.header.command, c[i].command);
			assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
			assert_int_equal(vt_got.len, want);
			assert_memory_equal(vt_got.payload, &a, sizeof(a));
			if (want > 16)
				assert_int_equal(vt_got.payload[want - 1], (uint8_t)(0x1000 + i));
			assert_int_equal(served, reached);
		}
		h.flags = VFU_TYPE_REPLY;
		h.size = 32;
		vt_send(fd, &h, sizeof(h), NULL, 0);
		vt_send(fd, &info, sizeof(info), NULL, 0);
		pthread_join(thread, NULL);
		close(fd);
	}
	close(listener);
	unlink(proxy.path);
	vt_close();
}

static void
versions(void **state)
{
	struct vfu_client *c = NULL;
	unsigned int before, i, size;
	struct plan bad[] = {
		PLAN(SET(16, 2, 1)),		 /* another major */
		PLAN(SET(18, 2, VFU_MINOR + 1)), /* a minor above what was asked for */
		PLAN(SET(20, 4, 0x20202020)),	 /* no JSON */
		PLAN(.longer = -1),		 /* without its NUL */
		PLAN(.longer = -1000),		 /* see below: no payload */
		PLAN(.longer = 4096),		 /* more than anybody says */
		PLAN(SET(0, 2, 77)),
		PLAN(SET(2, 2, VFU_DEVICE_RESET)),
		PLAN(SET(4, 4, 3)),
		PLAN(.more_fds = 1),
	};

	(void)state;
	proxy_open();
	before = vt_count_fds();
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), 0);
	plan = PLAN(.number = 0);
	vfu_client_close(c);
	c = NULL;
	vt_wait(dev.attached == dev.detached);
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), 0);
	size = proxy.size;
	vfu_client_close(c);
	c = NULL;
	bad[4].longer = 16 - (int32_t)size;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		vt_wait(dev.attached == dev.detached);
		plan = bad[i];
		assert_int_equal(
			vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), -EPROTO);
		assert_null(c);
	}
	for (i = 0; i < size; i++) {
		vt_wait(dev.attached == dev.detached);
		plan = (struct plan){.cut = i};
		assert_int_equal(
			vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), -EPROTO);
	}
	/* The errors of a server. */
	for (i = 1; i < 200; i++) {
		vt_wait(dev.attached == dev.detached);
		plan = PLAN(.set = {{8, 4, VFU_TYPE_REPLY | VFU_ERROR}, {12, 4, i}});
		assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c),
			i == EPIPE ? -EPROTO : -(int)i);
	}
	vt_wait(dev.attached == dev.detached);
	plan = PLAN(.swallow = true);
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, SLOW_MS, NULL, &c), -ETIMEDOUT);
	vt_wait(vt_count_fds() == before);
	assert_int_equal(
		vfu_client_connect("/nowhere/at/all", NULL, NULL, 1000, NULL, &c), -ENOENT);
	{
		char path[200];

		memset(path, 'x', sizeof(path));
		path[sizeof(path) - 1] = '\0';
		assert_int_equal(
			vfu_client_connect(path, NULL, NULL, 1000, NULL, &c), -ENAMETOOLONG);
	}
	assert_null(c);
	plan = (struct plan){.number = ALL};
	proxy_close();
}

/* Whoever waits for the close waits for the server. */
static void
descriptors_whose_close_waits(void **state)
{
	const struct {
		int call;
		bool alone; /* in place of one that may come */
		unsigned int more;
	} c[] = {{INFO, false, 0}, {REGION, true, 0}, {REGION, false, 0}, {IOEVENTFDS, true, 0},
		{INFO, false, 40}};
	struct vfu_patience patience = {.closer = vfn_closer_new()};
	struct vfu_client *client;
	unsigned int i;
	uint64_t start;
	int peer, slow;

	(void)state;
	assert_non_null(patience.closer);
	proxy_open();
	for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		plan = (struct plan){.number = ALL};
		assert_int_equal(
			vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, &patience, &client),
			0);
		slow = lingering_socket(&peer);
		plan = PLAN(.number = 1, .drop_fds = c[i].alone, .more_fds = c[i].more,
			.slow_fd = slow);
		start = vfu_now_ms();
		assert_int_equal(do_call(client, c[i].call), -EPIPE);
		vfu_client_close(client);
		assert_in_range(vfu_now_ms() - start, 0, LINGER_S * 500);
		assert_true(vfn_closer_waiting(patience.closer) > 0);
		close(peer); /* reset: the close ends */
		vt_wait(vfn_closer_waiting(patience.closer) == 0);
		vt_wait(dev.attached == dev.detached);
	}
	vfn_closer_free(patience.closer);
	plan = (struct plan){.number = ALL};
	proxy_close();
}

/* Calls until one fails; each reply takes at least late_ms. */
static unsigned int
late_replies(struct vfu_patience *patience, unsigned int late_ms, unsigned int most, int *ret)
{
	struct vfu_client *c;
	unsigned int n = 0;

	plan = (struct plan){.number = ALL};
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, SLOW_MS, patience, &c), 0);
	plan = PLAN(.number = 1, .late_ms = late_ms);
	while (n < most && (*ret = do_call(c, RESET)) == 0)
		n++;
	vfu_client_close(c);
	vt_wait(dev.attached == dev.detached);
	return n;
}

/* Each in time, and together too late: no caller is held for long. */
static void
replies_that_are_all_late(void **state)
{
	const unsigned int late = 2 * VFU_QUICK_MS;
	/* some is forgotten meanwhile */
	const unsigned int most = VFU_PATIENCE * SLOW_MS / late * VFU_FORGET / (VFU_FORGET - 1) + 2;
	struct vfu_patience patience = {0};
	int ret;

	(void)state;
	proxy_open();
	assert_in_range(late_replies(NULL, late, 10 * most, &ret), 1, most);
	assert_int_equal(ret, -ETIMEDOUT);
	/* it is no new beginning to connect again, */
	assert_in_range(late_replies(&patience, late, 10 * most, &ret), 1, most);
	assert_in_range(late_replies(&patience, late, 10 * most, &ret), 0, most / 4);
	assert_int_equal(ret, -ETIMEDOUT);
	/* and forgotten after a while */
	patience.at_ms -= VFU_FORGET * VFU_PATIENCE * SLOW_MS;
	assert_int_equal(late_replies(&patience, late, 1, &ret), 1);
	assert_int_equal(ret, 0);
	plan = (struct plan){.number = ALL};
	proxy_close();
}

static void
arguments(void **state)
{
	struct vfu_client *c;
	static const char before[] =
		"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":";
	uint8_t data[200] = {0};
	uint64_t bits[2], small;

	(void)state;
	proxy_open();
	/* A server that takes less than we do gets it in pieces. */
	plan = PLAN(.set = {{20 + sizeof(before) - 1, 7, 0}});
	memcpy(&small, "64      ", sizeof(small));
	plan.set[0].value = small;
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), 0);
	assert_int_equal(vfu_client_write(c, VD_REGS, 0x100, data, sizeof(data)), 0);
	assert_int_equal(dev.writes, 4);
	assert_int_equal(vfu_client_read(c, VD_REGS, 0x100, data, sizeof(data)), 0);
	assert_int_equal(dev.reads, 4);
	vfu_client_close(c);
	vt_wait(dev.attached == dev.detached);
	plan = (struct plan){.number = ALL};
	assert_int_equal(vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), 0);
	assert_int_equal(vfu_client_log_report(c, 0, 0, 4096, bits), -EINVAL);
	assert_int_equal(vfu_client_log_report(c, 0, 4096, 0, bits), -EINVAL);
	assert_int_equal(vfu_client_log_report(c, 0, UINT64_MAX, 1, bits), -EINVAL);
	assert_int_equal(
		vfu_client_log_report(c, 0, VFU_MAX_XFER * UINT64_C(8) + 1, 1, bits), -EINVAL);
	assert_int_equal(do_call(c, RESET), 0);
	vfu_client_close(c);
	vfu_client_close(NULL);
	vt_wait(dev.attached == dev.detached);
	/* One that takes hardly anything is no server. */
	plan = PLAN(.set = {{20 + sizeof(before) - 1, 7, 0}});
	memcpy(&plan.set[0].value, "63      ", sizeof(small));
	assert_int_equal(
		vfu_client_connect(proxy.path, NULL, NULL, PATIENCE_MS, NULL, &c), -EPROTO);
	plan = (struct plan){.number = ALL};
	proxy_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replies_as_they_are),
		cmocka_unit_test(replies_that_are_cut),
		cmocka_unit_test(headers_that_are_wrong),
		cmocka_unit_test(payloads_that_are_wrong),
		cmocka_unit_test(descriptors_that_are_wrong),
		cmocka_unit_test(contents_that_are_wrong),
		cmocka_unit_test(slow_servers),
		cmocka_unit_test(commands_of_the_server),
		cmocka_unit_test(versions),
		cmocka_unit_test(descriptors_whose_close_waits),
		cmocka_unit_test(replies_that_are_all_late),
		cmocka_unit_test(arguments),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
