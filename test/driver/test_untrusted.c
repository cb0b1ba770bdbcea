/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a function says, and does with what it is given, harms nobody but its guest: it may be
 * another process's. Its registers lie, its eventfds block, and it cuts off memory that it shares.
 */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <rte_interrupts.h>

#include <vfn_guard.h>
#include <vfn_parts.h>

#include "play_traffic.h"
#include "vfn_shadow.h"

#define LOG_ALL BIT(VHOST_F_LOG_ALL)

static struct sigaction guards; /* cmocka takes SIGBUS for itself before every test */

/* The link as it was, and what was said and given over it. */
static struct vfn_link_ops real;
static struct {
	uint64_t at; /* of a register in BAR 0, that reads as value; 0: none */
	uint64_t value;
	void (*parts)(uint8_t *data, size_t len);
	int map_fd;	 /* of the last map */
	int config_fd;	 /* of vector 0 */
	int doorbell_fd; /* of queue 1 */
	int region_fd;	 /* handed out in place of the real one, -1: that */
	uint64_t region_size;
} lie;

static int
lie_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	int ret = real.read(link, region, offset, buf, len);

	if (region == VFN_REGION_BAR0 && lie.at != 0 && offset == lie.at)
		memcpy(buf, &lie.value, len < sizeof(lie.value) ? len : sizeof(lie.value));
	if (region == VFN_REGION_BAR0 && offset == VFN_OFF_PARTS && lie.parts != NULL)
		lie.parts(buf, len);
	return ret;
}

static int
lie_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	lie.map_fd = map->fd;
	return real.dma_map(link, map);
}

static int
lie_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	if (vector == 0)
		lie.config_fd = fd;
	return real.set_irq(link, vector, fd);
}

static int
lie_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	if (queue == 1)
		lie.doorbell_fd = fd;
	return real.set_doorbell(link, queue, fd);
}

static int
lie_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	int ret = real.get_region_fd(link, region, fd, size);

	if (ret == 0 && lie.region_fd >= 0) {
		*fd = lie.region_fd;
		*size = lie.region_size;
	}
	return ret;
}

static struct play *
liar(const struct play_conf *conf)
{
	struct play *p = play_open(0, conf);

	sigaction(SIGBUS, &guards, NULL);
	memset(&lie, 0, sizeof(lie));
	lie.map_fd = lie.config_fd = lie.doorbell_fd = lie.region_fd = -1;
	real = *p->dev->pci.link->ops;
	p->ops = real;
	p->ops.read = lie_read;
	p->ops.dma_map = lie_dma_map;
	p->ops.set_irq = lie_set_irq;
	p->ops.set_doorbell = lie_set_doorbell;
	p->ops.get_region_fd = lie_get_region_fd;
	p->dev->pci.link->ops = &p->ops;
	return p;
}

/* ---- parts ---- */

static bool
parts_kept(struct play *p)
{
	pthread_mutex_lock(&p->dev->lock);
	vfn_saved_free(p->dev);
	vfn_saved_keep(p->dev, true);
	pthread_mutex_unlock(&p->dev->lock);
	return p->dev->last.data != NULL || p->dev->pending.data != NULL;
}

static void
parts_of_a_length_that_they_have_not(void **state)
{
	struct play *p = liar(&(struct play_conf){0});
	uint32_t size = p->dev->pci.parts.length, whole;
	const uint32_t wrong[] = {0, 1, sizeof(struct vfn_parts_header) - 1, size + 1, INT32_MAX,
		(uint32_t)INT32_MIN, UINT32_MAX};
	unsigned int i;

	(void)state;
	assert_true(parts_kept(p));
	whole = RTE_MAX(p->dev->last.len, p->dev->pending.len);
	lie.at = VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, parts_len);
	for (i = 0; i < DIM(wrong); i++) {
		lie.value = wrong[i];
		assert_false(parts_kept(p));
	}
	/* others than the header says */
	lie.value = whole - 1;
	assert_false(parts_kept(p));
	lie.value = whole;
	assert_true(parts_kept(p));
}

static void
window_for_parts_is_no_larger_than_it_can_be(void **state)
{
	struct play *p = liar(&(struct play_conf){0});
	struct vfn_vpci pci = {.name = "again", .link = p->dev->pci.link};

	(void)state;
	lie.at = VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, parts_size);
	lie.value = UINT32_MAX;
	assert_int_equal(vfn_vpci_init(&pci), 0);
	assert_int_equal(pci.parts.length, VFN_PARTS_SIZE);
}

/* Of every queue's part: the queue is another, or the part is shorter. */
static void
change_parts(uint8_t *data, size_t len, bool cut)
{
	struct vfn_parts_header header;
	const uint8_t *at = data + sizeof(header), *value;
	size_t left;
	struct vfn_part part;

	(void)len;
	memcpy(&header, data, sizeof(header));
	left = header.length;
	while ((value = vfn_parts_next(&at, &left, &part)) != NULL) {
		uint8_t *head = data + (value - data) - sizeof(part);

		if (part.type != VFN_PART_VQ_CFG && part.type != VFN_PART_VQ_POSITION)
			continue;
		if (cut) {
			/* the last that there is */
			part.length = 1;
			memcpy(head, &part, sizeof(part));
			header.length = value + 1 - (data + sizeof(header));
			break;
		}
		part.selector.queue = UINT16_MAX;
		memcpy(head, &part, sizeof(part));
	}
	header.checksum = vfn_parts_checksum(data + sizeof(header), header.length);
	memcpy(data, &header, sizeof(header));
	if (cut)
		lie.value = sizeof(header) + header.length;
}

static void
of_no_queue(uint8_t *data, size_t len)
{
	change_parts(data, len, false);
}

static void
of_no_length(uint8_t *data, size_t len)
{
	change_parts(data, len, true);
}

static void
parts_of_queues_that_there_are_not(void **state)
{
	struct play *p = liar(&(struct play_conf){.lm = VFN_LM_SHADOW, .size = 64});

	(void)state;
	play_log(p, play_log_len(p));
	p->features |= LOG_ALL;
	play_start(p);
	pthread_mutex_lock(&p->dev->lock);
	assert_int_equal(vfn_queues_stop(p->dev), 0);
	pthread_mutex_unlock(&p->dev->lock);
	lie.parts = of_no_queue;
	assert_true(parts_kept(p));
	lie.parts = of_no_length;
	parts_kept(p);
	lie.parts = NULL;
	play_stop(p);
}

/* ---- memory ---- */

static void
memory_of_a_relay_cannot_be_cut_off(void **state)
{
	struct play *p = liar(&(struct play_conf){.lm = VFN_LM_SHADOW, .size = 64});
	uint32_t i;

	(void)state;
	play_start(p);
	play_log(p, play_log_len(p));
	play_log_all(p, true);
	assert_true(lie.map_fd >= 0);
	assert_int_equal(ftruncate(lie.map_fd, 0), -1);
	rx_post(p->g, 0, 16, 2048, 1);
	for (i = 0; i < 10; i++)
		passes(p, i);
	play_stop(p);
}

static void
inflight_file_is_cut_off(void **state)
{
	struct play *p = liar(&(struct play_conf){.size = 64});
	char dir[] = "/dev/shm/vfn-untrusted-XXXXXX", path[64];
	struct vfn_guest *guest;
	uint64_t size;
	int fd;

	(void)state;
	p->protocol = BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(vfn_inflight_open(p->dev, dir), 0);
	play_start(p);
	rx_post(p->g, 0, 16, 2048, 1);
	passes(p, 1);
	/* the rings get other regions, and the file is to say so */
	guest = vfn_life_guest(p->dev, 0);
	guest->features = true;
	fd = vfn_inflight_create(p->dev, guest, 2, 64, &size);
	assert_true(fd >= 0);
	assert_int_equal(vfn_inflight_set(p->dev, guest, fd, 0, size, 2, 64), 0);
	close(fd);
	assert_int_equal(ftruncate(lie.map_fd, 0), 0);
	pthread_mutex_lock(&p->dev->lock);
	assert_int_equal(vfn_life_vring(p->dev, 0, 1, false), 0);
	assert_int_equal(vfn_life_vring(p->dev, 0, 1, true), 0);
	pthread_mutex_unlock(&p->dev->lock);
	passes(p, 2);
	play_stop(p);
	vfn_inflight_close(p->dev);
	p->dev->inflight.fd = -1;
	snprintf(path, sizeof(path), "%s/dev0.inflight", dir);
	unlink(path);
	rmdir(dir);
}

/* A front-end would map it, and its guest ring where nothing is any more. */
static void
doorbells_are_pages_that_stay(void **state)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	const uint32_t page = sysconf(_SC_PAGESIZE);
	const struct {
		uint64_t have, say;
		int seals;
		uint32_t offset, length;
		uint64_t queue_offset;
		bool good;
	} files[] = {
		{VFN_BAR2_SIZE, VFN_BAR2_SIZE, seals, 0, VFN_BAR2_SIZE, 0, true},
		{VFN_BAR2_SIZE, VFN_BAR2_SIZE, 0, 0, VFN_BAR2_SIZE, 0, false},
		{page, VFN_BAR2_SIZE, seals, 0, VFN_BAR2_SIZE, 0, false},
		{VFN_BAR2_SIZE, VFN_BAR2_SIZE, seals, UINT32_MAX - page + 1, 2 * page,
			UINT32_MAX - page + 1, false},
		{VFN_BAR2_SIZE, VFN_BAR2_SIZE, seals, 0, VFN_BAR2_SIZE, VFN_BAR2_SIZE, false},
		{VFN_BAR2_SIZE, VFN_BAR2_SIZE, seals, 0, VFN_BAR2_SIZE, UINT64_MAX - page + 1,
			false},
	};
	struct play *p = liar(&(struct play_conf){.doorbell = true, .size = 64});
	const struct vfn_vpci_place notify = p->dev->pci.notify;
	const uint64_t offset = p->dev->doorbells.offset[1];
	unsigned int i;

	(void)state;
	p->protocol = BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
		BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
		BIT(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER);
	for (i = 0; i < DIM(files); i++) {
		lie.region_fd = memfd_create("doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(ftruncate(lie.region_fd, files[i].have), 0);
		assert_int_equal(fcntl(lie.region_fd, F_ADD_SEALS, files[i].seals), 0);
		lie.region_size = files[i].say;
		p->dev->pci.notify.offset = files[i].offset;
		p->dev->pci.notify.length = files[i].length;
		if (files[i].queue_offset != 0)
			p->dev->doorbells.offset[1] = files[i].queue_offset;
		play_start(p);
		assert_int_equal(p->dev->doorbells.fd >= 0, files[i].good);
		play_stop(p);
		p->dev->pci.notify = notify;
		p->dev->doorbells.offset[1] = offset;
		close(lie.region_fd);
	}
}

/* ---- eventfds ---- */

static void
make_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	assert_int_equal(fcntl(fd, F_SETFL, flags & ~O_NONBLOCK), 0);
}

/* The guest's relay, and with it whoever stops that, would wait for ever. */
static void
kicks_of_a_relay_block(void **state)
{
	struct play *p = liar(&(struct play_conf){
		.lm = VFN_LM_SHADOW, .thread = true, .sleep = true, .size = 64});
	uint32_t i;

	(void)state;
	play_start(p);
	play_log(p, play_log_len(p));
	play_log_all(p, true);
	rx_post(p->g, 0, 16, 2048, 1);
	passes(p, 0);
	play_blocks = lie.doorbell_fd;
	play_blocked = 0;
	tx_send(p->g, 1, &(struct frame){.len = 60});
	for (i = 0; i < PATIENCE_MS && __atomic_load_n(&play_blocked, __ATOMIC_RELAXED) == 0; i++)
		nap_us(1000);
	/* once, and never again */
	assert_int_equal(play_blocked, 1);
	tx_send(p->g, 1, &(struct frame){.len = 60});
	play_stop(p);
	assert_int_equal(play_blocked, 1);
	play_blocks = -1;
}

static int answer_fd;

static void
answered(void *arg)
{
	eventfd_t n;

	eventfd_read(*(int *)arg, &n);
	eventfd_write(answer_fd, 1);
}

/* Somebody takes the signal away before EAL's interrupt thread does. */
static void
interrupt_thread_does_not_wait(void **state)
{
	struct play *p = liar(&(struct play_conf){0});
	struct rte_intr_handle *handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), i;
	eventfd_t n;

	(void)state;
	answer_fd = eventfd(0, EFD_CLOEXEC);
	rte_intr_fd_set(handle, other);
	rte_intr_type_set(handle, RTE_INTR_HANDLE_EXT);
	assert_int_equal(rte_intr_callback_register(handle, answered, &other), 0);
	assert_int_equal(vfn_config_open(p->dev), 0);
	assert_true(lie.config_fd >= 0);
	make_blocking(lie.config_fd);
	for (i = 0; i < 2000; i++) {
		struct pollfd pfd = {.fd = answer_fd, .events = POLLIN};

		eventfd_write(lie.config_fd, 1);
		preadv2(lie.config_fd, &(struct iovec){&n, sizeof(n)}, 1, -1, RWF_NOWAIT);
		eventfd_write(other, 1);
		assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
		eventfd_read(answer_fd, &n);
	}
	vfn_config_close(p->dev);
	rte_intr_callback_unregister_sync(handle, answered, &other);
	rte_intr_instance_free(handle);
	close(answer_fd);
	close(other);
}

/* The message thread would. */
static void
start_does_not_wait_for_its_eventfd(void **state)
{
	struct play *p = liar(&(struct play_conf){.size = 64});

	(void)state;
	assert_int_equal(vfn_config_open(p->dev), 0);
	p->dev->config_reader = 0;
	p->dev->config_seen = vfn_vpci_config_generation(&p->dev->pci) + 1;
	play_blocks = lie.config_fd;
	play_blocked = 0;
	play_start(p);
	assert_int_equal(play_blocked, 1);
	play_stop(p);
	play_blocks = -1;
	vfn_config_close(p->dev);
}

#define DISTRUST(test) cmocka_unit_test_teardown(test, plays_close)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		DISTRUST(parts_of_a_length_that_they_have_not),
		DISTRUST(window_for_parts_is_no_larger_than_it_can_be),
		DISTRUST(parts_of_queues_that_there_are_not),
		DISTRUST(memory_of_a_relay_cannot_be_cut_off),
		DISTRUST(inflight_file_is_cut_off),
		DISTRUST(doorbells_are_pages_that_stay),
		DISTRUST(kicks_of_a_relay_block),
		DISTRUST(interrupt_thread_does_not_wait),
		DISTRUST(start_does_not_wait_for_its_eventfd),
	};
	bool lost;

	if (fn_eal_init(NULL) < 0 || vfn_guard_add(&lie, sizeof(lie), &lost) < 0)
		return 1;
	vfn_guard_remove(&lie, &lost);
	sigaction(SIGBUS, NULL, &guards);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
