/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs in a test guest: what a container's root may do with a network device that gives frames
 * back, by vhost-vdpa: "vdparoot /dev/vhost-vdpa-0 WHAT". One thread. Status 0 if what can be
 * expected has happened; the device is reset with the end of the process.
 */

#define _GNU_SOURCE

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define SIZE	   64
#define RINGS_AT   0x100000000 /* IOVAs */
#define RING	   0x10000
#define BUFFER	   2048
#define BUFFERS	   (2 * SIZE * BUFFER)
#define HEADER	   12
#define FRAME	   100
#define PATIENCE   20000 /* ms, for what comes */
#define ENOUGH	   200	 /* ms, for what does not */
#define SOME	   20	 /* frames */
#define RX	   0
#define TX	   1
#define AREA(q, n) (RINGS_AT + (q)*RING + (n)*0x4000)

struct memory {
	uint64_t iova, len;
	uint8_t *at;
	int fd;
};

static struct memory rings = {.iova = RINGS_AT, .len = 2 * RING},
		     buffers = {.iova = 0x200000000, .len = BUFFERS};
static int dev, kick[2];
static uint16_t count[2];

static void
must(int ret, const char *what)
{
	if (ret < 0) {
		perror(what);
		exit(2);
	}
}

/* len 0: it goes. */
static int
map(const struct memory *m, uint64_t iova, uint64_t len)
{
	struct vhost_msg_v2 msg = {.type = VHOST_IOTLB_MSG_V2,
		.iotlb = {.iova = iova,
			.size = len != 0 ? len : m->len,
			.uaddr = (uintptr_t)m->at,
			.perm = VHOST_ACCESS_RW,
			.type = len != 0 ? VHOST_IOTLB_UPDATE : VHOST_IOTLB_INVALIDATE}};

	return write(dev, &msg, sizeof(msg)) == sizeof(msg) ? 0 : -1;
}

static void
memory(struct memory *m)
{
	m->fd = memfd_create("memory", 0);
	must(ftruncate(m->fd, m->len), "memfd");
	m->at = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	must(m->at == MAP_FAILED ? -1 : 0, "mmap");
	must(map(m, m->iova, m->len), "IOTLB");
}

static void
status(uint8_t bits)
{
	must(ioctl(dev, VHOST_VDPA_SET_STATUS, &bits), "status");
}

static void
queue(unsigned int q, unsigned int size, uint64_t desc, uint64_t avail, uint64_t used)
{
	struct vhost_vring_state num = {q, size}, base = {q, 0}, on = {q, 1};
	struct vhost_vring_addr addr = {.index = q,
		.desc_user_addr = desc,
		.avail_user_addr = avail,
		.used_user_addr = used};
	struct vhost_vring_file file = {q, eventfd(0, 0)};

	kick[q] = file.fd;
	must(ioctl(dev, VHOST_SET_VRING_NUM, &num), "size");
	must(ioctl(dev, VHOST_SET_VRING_BASE, &base), "base");
	must(ioctl(dev, VHOST_SET_VRING_ADDR, &addr), "addresses");
	must(ioctl(dev, VHOST_SET_VRING_KICK, &file), "kick");
	must(ioctl(dev, VHOST_VDPA_SET_VRING_ENABLE, &on), "enable");
}

static void
begin(void)
{
	uint64_t features = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_ACCESS_PLATFORM;
	uint64_t backend = 1ULL << VHOST_BACKEND_F_IOTLB_MSG_V2;

	must(ioctl(dev, VHOST_SET_OWNER, NULL), "owner");
	must(ioctl(dev, VHOST_SET_BACKEND_FEATURES, &backend), "backend features");
	status(0);
	status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	must(ioctl(dev, VHOST_SET_FEATURES, &features), "features");
	status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	memory(&rings);
	memory(&buffers);
}

static void
driver_ok(void)
{
	status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
		VIRTIO_CONFIG_S_DRIVER_OK);
}

static void *
area(unsigned int q, unsigned int n)
{
	return rings.at + (AREA(q, n) - RINGS_AT);
}

static void
offer(unsigned int q)
{
	struct vring_desc *desc = area(q, 0);
	struct vring_avail *avail = area(q, 1);
	unsigned int at = count[q] % SIZE;

	desc[at] = (struct vring_desc){.addr = buffers.iova + (q * SIZE + at) * BUFFER,
		.len = q == RX ? BUFFER : HEADER + FRAME,
		.flags = q == RX ? VRING_DESC_F_WRITE : 0};
	avail->ring[at] = at;
	__atomic_store_n(&avail->idx, ++count[q], __ATOMIC_RELEASE);
	eventfd_write(kick[q], 1);
}

static uint16_t
used_idx(unsigned int q)
{
	struct vring_used *ring = area(q, 2);

	return __atomic_load_n(&ring->idx, __ATOMIC_ACQUIRE);
}

/* Everything that was offered. */
static bool
used(unsigned int q, int ms)
{
	for (; ms > 0 && used_idx(q) != count[q]; ms--)
		usleep(1000);
	return used_idx(q) == count[q];
}

static void
fill(void)
{
	uint8_t *at = buffers.at + (SIZE + count[TX] % SIZE) * BUFFER;

	memset(at, 0, HEADER);
	memset(at + HEADER, 2, FRAME);
}

/* One there and back; false: it did not come. */
static bool
frame(int ms)
{
	fill();
	offer(RX);
	offer(TX);
	return used(TX, ms) && used(RX, ms);
}

static bool
frames(void)
{
	unsigned int n = 0;

	while (n < SOME && frame(PATIENCE))
		n++;
	return n == SOME;
}

static bool
run(void)
{
	queue(RX, SIZE, AREA(RX, 0), AREA(RX, 1), AREA(RX, 2));
	queue(TX, SIZE, AREA(TX, 0), AREA(TX, 1), AREA(TX, 2));
	driver_ok();
	return frames();
}

/* Buffers go while the device works on them, and come back. */
static bool
vanish(void)
{
	unsigned int i;

	if (!run())
		return false;
	for (i = 0; i < 30; i++) {
		fill();
		offer(RX);
		offer(TX);
		must(map(&buffers, buffers.iova, 0), "unmap");
		must(map(&buffers, buffers.iova, buffers.len), "map");
		/* with or without a frame */
		if (!used(TX, PATIENCE))
			return false;
	}
	for (; i > 0 && used_idx(RX) != count[RX]; i--) {
		fill();
		offer(TX);
		if (!used(TX, PATIENCE))
			return false;
	}
	return frames();
}

static bool
shrink(void)
{
	if (!run())
		return false;
	must(map(&buffers, buffers.iova, 0), "unmap");
	must(map(&buffers, buffers.iova, BUFFERS / 2), "map");
	/* transmit buffers are in the half that is gone */
	offer(TX);
	return used(TX, PATIENCE) && !frame(ENOUGH);
}

/* Not both: the kernel's own list has no overlaps. */
static bool
overlap(void)
{
	return run() && map(&rings, buffers.iova + 0x1000, 0x1000) < 0 && frames();
}

static bool
ring_vanishes(void)
{
	if (!run())
		return false;
	must(map(&rings, rings.iova, 0), "unmap");
	return !frame(ENOUGH);
}

/* What becomes of frames then is nobody's business. */
static bool
cut_off(void)
{
	if (!run())
		return false;
	must(ftruncate(buffers.fd, 0), "memfd");
	offer(RX);
	offer(TX);
	used(TX, ENOUGH);
	return true;
}

static bool
dies(void)
{
	if (!run())
		return false;
	offer(TX);
	offer(RX);
	kill(getpid(), SIGKILL);
	return false;
}

/* Of queue TX; the other one is as it should be. The kernel itself looks at sizes only. */
static bool
off(unsigned int size, uint64_t desc, uint64_t avail, uint64_t used_ring)
{
	queue(RX, SIZE, AREA(RX, 0), AREA(RX, 1), AREA(RX, 2));
	queue(TX, size, desc, avail, used_ring);
	driver_ok();
	return !frame(ENOUGH);
}

static bool
outside(void)
{
	return off(SIZE, AREA(TX, 0), UINT64_MAX - 1, AREA(TX, 2));
}

static bool
behind(void)
{
	return off(1024, AREA(TX, 0), AREA(TX, 1), RINGS_AT + 2 * RING - 4096);
}

static const struct {
	const char *name;
	bool (*run)(void);
} cases[] = {
	{"run", run},
	{"vanish", vanish},
	{"shrink", shrink},
	{"overlap", overlap},
	{"ring-vanishes", ring_vanishes},
	{"cut-off", cut_off},
	{"dies", dies},
	{"outside", outside},
	{"behind", behind},
};

int
main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; argc == 3 && i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strcmp(argv[2], cases[i].name) != 0)
			continue;
		dev = open(argv[1], O_RDWR);
		must(dev, argv[1]);
		begin();
		return cases[i].run() ? 0 : 1;
	}
	fprintf(stderr, "vdparoot DEVICE WHAT\n");
	return 2;
}
