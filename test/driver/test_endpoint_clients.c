/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Clients of an endpoint that leave, and such that write for ever. */

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <rte_log.h>

#include "ep_rig.h"

#define MSIX_ENTRY 16

static struct frame f;

/* ---- clients that leave ---- */

static unsigned int
count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* Mappings of shared files. */
static unsigned int
count_maps(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned int n = 0;
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
		n += strstr(line, "memfd:") != NULL;
	fclose(file);
	return n;
}

/* As a client does it that is killed, in the middle of everything. */
static void
next_client_finds_a_clean_device(void **state)
{
	static const struct guest_conf conf = {
		.pairs = 2, .sleep = true, .features = BIT(VIRTIO_NET_F_STATUS)};
	struct vfu_log_range range = {HEAP_AT, 65536};
	struct rig *r = rig_new(&conf, NULL);
	unsigned int fds, maps, i, vector;
	int fd[5], pin = eventfd(0, EFD_CLOEXEC), unmask = eventfd(0, EFD_CLOEXEC);
	uint8_t window[VFN_PARTS_SIZE], byte = 0x5a;
	struct vfn_endpoint_info info;
	uint64_t page = 4096, at;
	struct guest *g;

	(void)state;
	rig_connect(r);
	rig_disconnect(r);
	fds = count_fds();
	maps = count_maps();
	for (i = 0; i < 5; i++)
		fd[i] = pin;
	for (i = 0; i < 3; i++) {
		rig_connect(r);
		g = rig_guest(r, &conf);
		guest_start(g);
		rx_post(g, 0, 8, 2048, 1);
		mock_events_enable(&g->q[0].drv, 0);
		/* vector 1 has something pending */
		assert_int_equal(client_set(r, VFN_REGION_BAR1, MSIX_ENTRY + 12, 4, 1), 0);
		rig_echo(g, i);
		assert_int_equal(client_get(r, VFN_REGION_BAR1, VFN_OFF_MSIX_PBA, 4) & 2, 2);
		assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
					 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &pin, 1),
			0);
		assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
					 VFIO_IRQ_SET_ACTION_UNMASK, 0, &unmask, 1),
			0);
		assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_ERR_IRQ_INDEX,
					 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &pin, 1),
			0);
		assert_int_equal(vfu_client_irq_fds(r->client, VFN_ENDPOINT_IRQ_DOORBELL,
					 VFIO_IRQ_SET_ACTION_UNMASK, 0, fd, 5),
			0);
		assert_int_equal(client_set(r, VFN_REGION_CONFIG, 4, 2, 0x0406), 0);
		assert_int_equal(client_set(r, VFN_REGION_CONFIG, 0x3c, 1, 0x55), 0);
		assert_int_equal(
			vfu_client_write(r->client, VFN_REGION_BAR0, VFN_OFF_PARTS + 100, &byte, 1),
			0);
		assert_int_equal(vfu_client_log_start(r->client, &page, &range, 1), 0);
		mig_go_to(r,
			i == 0	       ? VFIO_DEVICE_STATE_STOP_COPY :
				i == 1 ? VFIO_DEVICE_STATE_RESUMING :
					 VFIO_DEVICE_STATE_STOP);
		/* the guest goes without a word to the device */
		vfu_client_close(r->client);
		r->client = NULL;
		rig_wait_idle(r);

		rig_connect(r);
		assert_int_equal(client_get(r, VFN_REGION_BAR0, 20, 1), 0);
		assert_int_equal(client_get(r, VFN_REGION_CONFIG, 4, 2), 0);
		assert_int_equal(client_get(r, VFN_REGION_CONFIG, 0x3c, 1), 0);
		assert_int_equal(client_get(r, VFN_REGION_CONFIG, g->msix + 2, 2) & 0xc000, 0);
		for (vector = 0; vector < 6; vector++)
			assert_int_equal(
				client_get(r, VFN_REGION_BAR1, vector * MSIX_ENTRY + 12, 4), 1);
		assert_int_equal(client_get(r, VFN_REGION_BAR1, VFN_OFF_MSIX_PBA, 4), 0);
		assert_int_equal(vfu_client_read(r->client, VFN_REGION_BAR0, VFN_OFF_PARTS, window,
					 sizeof(window)),
			0);
		for (at = 0; at < sizeof(window); at++)
			assert_int_equal(window[at], 0);
		mig_state_is(r, VFIO_DEVICE_STATE_RUNNING);
		r->nb_maps = 0;
		/* guests_close() speaks to a device that it does not have any more */
		guests_close(NULL);
		vfn_endpoint_info(r->ep, &info);
		assert_int_equal(info.maps, 0);
		assert_int_equal(info.map_bytes, 0);
		assert_false(info.logging);
		rig_disconnect(r);
		/* some are closed by a thread of its own */
		for (at = 0; count_fds() != fds && at < PATIENCE_MS; at++)
			nap_us(1000);
		assert_int_equal(count_fds(), fds);
		assert_int_equal(count_maps(), maps);
	}
	close(pin);
	close(unmask);
}

/* ---- storms ---- */

struct storm {
	struct rig *r;
	bool quit;
	uint64_t writes;
};

/* Each of these stops the pollers that the function shares. */
static void *
storm(void *arg)
{
	struct storm *s = arg;
	uint32_t v;

	while (!__atomic_load_n(&s->quit, __ATOMIC_RELAXED)) {
		v = ++s->writes & 1;
		if (vfu_client_write(s->r->client, VFN_REGION_BAR1, MSIX_ENTRY + 12, &v, 4) < 0)
			break;
	}
	return NULL;
}

/* Frames that a neighbour's queue moves in a while. */
static uint64_t
neighbour_moves(struct guest *g, unsigned int ms)
{
	uint64_t end = now_ms() + ms, before = stat_of(g, 1, VFN_STAT_PACKETS);
	struct mock_used used[64];
	int n;

	while (now_ms() < end) {
		n = mock_collect(&g->q[1].drv, used, DIM(used));
		assert_true(n >= 0);
		if (n == 0)
			nap_us(50);
		for (; n > 0; n--)
			assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
		mock_publish(&g->q[1].drv);
	}
	return stat_of(g, 1, VFN_STAT_PACKETS) - before;
}

/*
 * A client that writes for ever is slowed down, so that a neighbour on the same poller keeps its
 * packets. How many writes there were is what counts; the neighbour's share depends on the machine.
 */
static void
storm_of_writes_is_slowed_down(void **state)
{
	static const struct guest_conf hostile = {.name = "hostile"};
	static const struct guest_conf conf = {.name = "quiet", .wiring = VFN_WIRING_SINK};
	struct storm s = {0};
	struct vfn_endpoint_info info;
	uint64_t alone, beside, start, ms;
	struct guest *g, *h;
	pthread_t thread;
	unsigned int i;

	(void)state;
	h = rig_guest_on(&s.r, &hostile);
	rx_post(h, 0, 8, 2048, 1);
	g = guest_open(&conf);
	frame_make(&f, 1, 60);
	for (i = 0; i < 128; i++)
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	mock_publish(&g->q[1].drv);
	alone = neighbour_moves(g, 500);
	start = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, storm, &s), 0);
	/* what it may do at once is over soon */
	do {
		assert_true(now_ms() < start + PATIENCE_MS);
		neighbour_moves(g, 50);
		vfn_endpoint_info(s.r->ep, &info);
	} while (info.slowed < 100);
	/* on a machine that does other things a while may be a poor one */
	for (i = 0, beside = 0; i < 10 && beside <= alone / 4; i++)
		beside = neighbour_moves(g, 500);
	__atomic_store_n(&s.quit, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	ms = now_ms() - start;
	print_message("# %" PRIu64 " writes in %" PRIu64 " ms; neighbour: %" PRIu64
		      " packets alone, %" PRIu64 " beside\n",
		s.writes, ms, alone, beside);
	assert_true(s.writes <=
		VFN_ENDPOINT_CHANGES_BURST + ms * VFN_ENDPOINT_CHANGES_PER_S / 1000 + 100);
	assert_true(beside > alone / 4);
	/* reads and doorbells are nobody else's loss */
	start = now_ms();
	for (i = 0; i < 2000; i++)
		assert_int_equal(client_set(s.r, VFN_REGION_BAR2, VFN_NOTIFY_STEP, 2, 1), 0);
	for (i = 0; i < 2000; i++)
		client_get(s.r, VFN_REGION_BAR0, 20, 1);
	assert_true(now_ms() - start < 4000 * 1000 / VFN_ENDPOINT_CHANGES_PER_S);
}

/* Guests and clients can bring messages about as often as they like. */
static void
log_does_not_fill_up(void **state)
{
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	char line[512];
	unsigned int i, n = 0;
	FILE *log = tmpfile();

	(void)state;
	assert_non_null(log);
	rte_openlog_stream(log);
	for (i = 0; i < 50; i++) {
		unsigned int k;

		rig_connect(r);
		/* DRIVER_OK before FEATURES_OK; and no such region */
		for (k = 0; k < 20; k++) {
			client_set(r, VFN_REGION_BAR0, 20, 1, 4);
			assert_true(client_set(r, 6, 0, 1, 0) < 0);
		}
		rig_disconnect(r);
	}
	rte_openlog_stream(stderr);
	rewind(log);
	while (fgets(line, sizeof(line), log) != NULL)
		n++;
	fclose(log);
	assert_true(n >= 40 && n <= 2 * 40 + 2 * 4 * 10);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define RIGGED(test) cmocka_unit_test_teardown(test, rigs_close)
		RIGGED(next_client_finds_a_clean_device),
		RIGGED(log_does_not_fill_up),
		RIGGED(storm_of_writes_is_slowed_down),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return cmocka_run_group_tests_name("endpoint_clients", tests, NULL, NULL);
}
